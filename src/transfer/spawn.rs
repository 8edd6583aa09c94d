//! The command of a spawn request, and its log lines.

use crate::log;
use crate::process::{Command, Output, Stdin};
use crate::script::{Script, SpawnRequest};

/// Returns the command of a request, with its output settings. Takes the arguments out of the
/// request.
pub fn command(request: &mut SpawnRequest, script: &Script) -> Command {
    let output = match (&script.settings.log_file, script.settings.nodaemon) {
        _ if request.captured => Output::Lines,
        (_, true) => Output::Inherit,
        (Some(file), false) => Output::Append(file.clone()),
        (None, false) => Output::Inherit,
    };
    let priority = request.handle.sync.borrow().config.priority;
    Command {
        program: std::mem::take(&mut request.program),
        args: std::mem::take(&mut request.args),
        stdin: match request.stdin.take() {
            Some(bytes) => Stdin::Bytes(bytes),
            None => Stdin::Inherit,
        },
        output,
        environment: std::mem::take(&mut request.environment),
        priority: priority.or(script.settings.priority),
    }
}

/// Returns the source and the target among the arguments of rsync.
pub fn roots(args: &[Vec<u8>]) -> Vec<Vec<u8>> {
    args[args.len().saturating_sub(2)..].to_vec()
}

/// Returns a command as logged in the category Exec, with each name of a file list on a separate
/// line.
pub fn shown(request: &SpawnRequest) -> String {
    let mut words = vec![log::escape(&request.program).into_owned()];
    if let Some(stdin) = &request.stdin {
        // With `--from0` the names end with zero bytes, else with newlines.
        let from0 = request.args.iter().any(|word| word == b"--from0");
        let end = if from0 { 0 } else { b'\n' };
        let lines: Vec<_> = stdin.split(|&byte| byte == end).map(log::escape).collect();
        words.push("[<]".into());
        words.push(format!("[{}]", lines.join("\n")));
    }
    let arguments = request.args.iter();
    words.extend(arguments.map(|word| format!("[{}]", log::escape(word))));
    words.join(" ")
}
