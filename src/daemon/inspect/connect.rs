//! `-check -connect`: tests if each target can be reached and written to. Nothing is changed there.
//!
//! The session on the target's host runs two fixed commands of a POSIX shell. A login that permits
//! rsync only is tested by a dry run of rsync alone, as a daemon is.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use serde::Serialize;

use super::preview::not_started;
use super::startup_call::{StartupCall, startup_call};
use crate::batch;
use crate::config::ssh::{quoted, remote_word};
use crate::log::{self, escape};
use crate::process::{Command, Ended, ExitStatus, Output, Stdin, run_without_terminal};
use crate::script::{Script, ScriptRequest, SpawnRequest, SyncHandle};

/// The commands of the session: `$1` is the directory, `$2` the rsync. A name that does not exist
/// is removed, because that reports a read-only file system and changes nothing.
const SESSION: &str = "echo lsyncd-session; \
    v=$($2 --version 2>&1 | sed -n 1p); echo \"rsync $v\"; \
    d=$1; s=there; [ -d \"$d\" ] || { s=new; d=$(dirname \"$d\"); }; \
    if [ ! -d \"$d\" ]; then s=absent; else \
    case $(LC_ALL=C rmdir \"$d/.lsyncd-absent.$$\" 2>&1) in *[Rr]ead-only*) s=read-only;; \
    *) [ -w \"$d\" ] && [ -x \"$d\" ] || s=denied;; esac; fi; echo \"directory $s\"";

/// The time in which a connection has to be made, in seconds.
const CONNECT_TIMEOUT: &str = "20";

/// The time in which a program that has connected has to end. One side may accept the connection and
/// say nothing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);

/// The result of the test of a target.
#[derive(Debug, Serialize)]
pub struct ConnectResult {
    ok: bool,
    /// The successful tests.
    found: Vec<String>,
    /// Why the target cannot be used.
    reason: Option<String>,
    /// The remedy for the failure.
    remedy: Option<&'static str>,
}

/// A target of rsync.
pub enum RsyncTarget<'a> {
    /// A directory.
    Local(&'a [u8]),
    /// Host with user, and directory.
    Shell(&'a [u8], &'a [u8]),
    /// The part before the module, the module, and true for the form with `::`.
    Daemon(&'a [u8], &'a [u8]),
}

impl<'a> RsyncTarget<'a> {
    /// Returns the parts of a target.
    pub fn parse(target: &'a [u8]) -> RsyncTarget<'a> {
        let cut = |text: &'a [u8], at: usize, module: &'a [u8]| {
            let end = module.iter().position(|&byte| byte == b'/');
            RsyncTarget::Daemon(&text[..at], &module[..end.unwrap_or(module.len())])
        };
        if let Some(rest) = target.strip_prefix(b"rsync://") {
            let slash = rest.iter().position(|&byte| byte == b'/');
            let at = target.len() - rest.len() + slash.map_or(rest.len(), |slash| slash + 1);
            return cut(target, at, &target[at..]);
        }
        if !batch::is_remote(target) {
            return RsyncTarget::Local(target);
        }
        // Colons in the brackets of an IPv6 address do not end the host.
        let address = target.iter().position(|&byte| byte == b']').unwrap_or(0);
        let colon = target[address..].iter().position(|&byte| byte == b':');
        let colon = address + colon.unwrap_or_default();
        match &target[colon + 1..] {
            [b':', module @ ..] => cut(target, colon + 2, module),
            directory => RsyncTarget::Shell(&target[..colon], directory),
        }
    }
}

/// Tests the target of a sync. Returns `None` if the configuration does not determine a target.
pub fn connection(script: &Script, handle: &Rc<SyncHandle>) -> Option<ConnectResult> {
    let mut connection = ConnectResult {
        ok: true,
        found: Vec::new(),
        reason: None,
        remedy: None,
    };
    match startup_call(script, handle) {
        StartupCall::Untold(reason) => {
            connection.found.push(format!("not tested: {reason}"));
        }
        StartupCall::Failed(reason) => connection.fail(reason),
        StartupCall::Request(request) => match *request {
            ScriptRequest::Spawn(request) => connection.test(script, handle, &request),
            ScriptRequest::Copy(request) => connection.local(&request.target, &[]),
            ScriptRequest::Scan(_) => return None,
        },
    }
    Some(connection)
}

impl ConnectResult {
    /// Returns false if the target cannot be used.
    pub fn is_ok(&self) -> bool {
        self.ok
    }

    /// Returns the facts as keys and values of lines.
    pub fn lines(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let found = self.found.iter().map(|fact| ("connect", fact.as_str()));
        let reason = self.reason.iter().map(|reason| ("ERROR", reason.as_str()));
        found
            .chain(reason)
            .chain(self.remedy.iter().map(|remedy| ("remedy", *remedy)))
    }

    fn fail(&mut self, reason: String) {
        self.ok = false;
        self.remedy = batch::remedy(reason.as_bytes());
        self.reason = Some(reason);
    }

    /// Fails with the reason that a program gave.
    fn failed(&mut self, ended: &Ended) {
        if ended.timed_out {
            let seconds = ANSWER_TIMEOUT.as_secs();
            return self.fail(format!("no answer in {seconds} s"));
        }
        let reason = batch::reason(ended.errors.split(|&byte| byte == b'\n'));
        self.fail(match reason {
            [] => format!("exit code {}", ended.status.code()),
            reason => escape(reason).into_owned(),
        });
    }

    fn test(&mut self, script: &Script, handle: &SyncHandle, request: &SpawnRequest) {
        let Some(target) = request.args.last() else {
            return;
        };
        match RsyncTarget::parse(target) {
            RsyncTarget::Local(directory) => self.local(directory, &request.args),
            RsyncTarget::Shell(host, directory) => {
                self.session(&script.ssh_words(handle), host, directory, request);
                if self.ok {
                    self.empty_transfer(request);
                }
            }
            RsyncTarget::Daemon(host, module) => {
                self.modules(host, module, request);
                if self.ok {
                    self.empty_transfer(request);
                }
                if self.ok {
                    let module = escape(module);
                    self.found.push(format!(
                        "module {module} accepts transfers; write access is not tested"
                    ));
                }
            }
        }
    }

    /// Tests a directory of this host.
    fn local(&mut self, directory: &[u8], words: &[Vec<u8>]) {
        let path = Path::new(OsStr::from_bytes(directory));
        let shown = escape(directory);
        let may_write = |path: &Path| -> io::Result<()> {
            let path = if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                path
            };
            let rights = Access::WRITE_OK | Access::EXEC_OK;
            Ok(accessat(CWD, path, rights, AtFlags::EACCESS)?)
        };
        let denied = |path: &Path, error: &io::Error| {
            let path = escape(path.as_os_str().as_bytes()).into_owned();
            format!("{path} cannot be written: {}", log::reason(error))
        };
        if path.exists() {
            match may_write(path) {
                Ok(()) => self.found.push(format!("{shown} can be written")),
                Err(error) => self.fail(denied(path, &error)),
            }
            return;
        }
        let parent = path.parent().unwrap_or(path);
        match may_write(parent) {
            Ok(()) => self.found.push(format!("{shown} will be created")),
            Err(error) if error.kind() == io::ErrorKind::NotFound && makes_path(words) => {
                self.found.push(format!("{shown} will be created"));
            }
            Err(error) => self.fail(denied(parent, &error)),
        }
    }

    /// Logs in by the remote shell, and looks for rsync and the directory.
    fn session(
        &mut self,
        shell: &[Vec<u8>],
        host: &[u8],
        directory: &[u8],
        request: &SpawnRequest,
    ) {
        let Some((program, words)) = shell.split_first() else {
            return self.fail("the remote shell is no command".into());
        };
        let mut command = remote_command(program, words, host);
        command.environment = request.environment.clone();
        let directory = if directory.is_empty() {
            b"./"
        } else {
            directory
        };
        let rsync = remote_rsync(&request.args);
        for word in [
            b"sh".to_vec(),
            b"-c".to_vec(),
            quoted(SESSION.as_bytes()),
            b"sh".to_vec(),
            remote_word(directory, b""),
            quoted(rsync),
        ] {
            command.args.push(word);
        }
        let mut output = Vec::new();
        let ended = match run_without_terminal(&command, Some(ANSWER_TIMEOUT), |line| {
            output.push(line.to_vec())
        }) {
            Ok(ended) => ended,
            Err(error) => return self.fail(not_started(program, &error)),
        };
        let shown = escape(host).into_owned();
        let begin = output.iter().position(|line| line == b"lsyncd-session");
        match begin {
            Some(begin) => {
                self.found.push(format!("logged in at {shown}"));
                self.read_session(&output[begin..], rsync, directory, request);
            }
            // ssh's own failures.
            None if ended.timed_out || ended.status == ExitStatus::Exit(255) => {
                self.failed(&ended);
            }
            None => self.found.push(format!(
                "{shown} permits no commands; rsync is tested, write access is not"
            )),
        }
    }

    /// Evaluates what the session printed.
    fn read_session(
        &mut self,
        lines: &[Vec<u8>],
        rsync: &[u8],
        directory: &[u8],
        request: &SpawnRequest,
    ) {
        let value = |key: &[u8]| {
            let mut values = lines.iter().filter_map(|line| line.strip_prefix(key));
            values.next().unwrap_or_default()
        };
        let version = escape(value(b"rsync ")).into_owned();
        if !version.contains("version") {
            let rsync = escape(rsync);
            let reason = match version.as_str() {
                "" => format!("{rsync}: not found"),
                other => other.to_owned(),
            };
            return self.fail(reason);
        }
        self.found.push(version);
        let shown = escape(directory);
        if rsync.contains(&b' ') {
            // A command in front of rsync may change the user.
            let text = format!("write access to {shown} is not tested");
            return self.found.push(text);
        }
        match value(b"directory ") {
            b"there" => self.found.push(format!("{shown} can be written")),
            b"new" => self.found.push(format!("{shown} will be created")),
            b"absent" if makes_path(&request.args) => {
                self.found.push(format!("{shown} will be created"));
            }
            b"absent" => self.fail(format!("mkdir {shown}: No such file or directory")),
            b"read-only" => self.fail(format!("{shown}: Read-only file system")),
            _ => self.fail(format!("{shown}: Permission denied (13)")),
        }
    }

    /// Lists the modules of a daemon, and looks for the one of the target.
    fn modules(&mut self, host: &[u8], module: &[u8], request: &SpawnRequest) {
        let mut command = Command::new(request.program.clone());
        command.environment = request.environment.clone();
        command.stdin = Stdin::Null;
        command.args = connecting_words(&request.args);
        command.args.push(host.to_vec());
        let mut names = Vec::new();
        let ended = run_without_terminal(&command, Some(ANSWER_TIMEOUT), |line| {
            if let Some(end) = line.iter().position(|&byte| byte == b'\t') {
                names.push(line[..end].trim_ascii_end().to_vec());
            }
        });
        let shown = escape(host);
        match ended {
            Ok(ended) if ended.status.is_success() => {}
            Ok(ended) => return self.failed(&ended),
            Err(error) => return self.fail(not_started(&request.program, &error)),
        }
        // A module may be left out of the list, so the transfer decides.
        if names.iter().any(|name| name == module) {
            let module = escape(module);
            self.found.push(format!("{shown} has the module {module}"));
        } else {
            let names: Vec<_> = names.iter().map(|name| escape(name)).collect();
            self.found.push(match names.as_slice() {
                [] => format!("{shown} answers, but lists no modules"),
                names => format!("{shown} answers and lists {}", names.join(", ")),
            });
        }
    }

    /// Makes a dry run of a transfer of no file.
    fn empty_transfer(&mut self, request: &SpawnRequest) {
        let [words @ .., _recursive, source, target] = request.args.as_slice() else {
            return;
        };
        let mut command = Command::new(request.program.clone());
        command.environment = request.environment.clone();
        command.stdin = Stdin::Null;
        command.args = super::preview::without_side_effects(words);
        // The rules of the sync are read from standard input, or protect what is not deleted.
        command.args.retain(|word| {
            let text = String::from_utf8_lossy(word);
            let skipped = ["--del", "--exclude-from=-", "--include-from=-", "--filter="];
            !skipped.iter().any(|start| text.starts_with(start)) && text != "--ignore-errors"
        });
        for word in ["--dry-run", "--dirs", "--exclude=*"] {
            command.args.push(word.into());
        }
        command.args.extend([source.clone(), target.clone()]);
        match run_without_terminal(&command, Some(ANSWER_TIMEOUT), |_| ()) {
            Ok(ended) if ended.status.is_success() => {
                self.found.push("rsync works on both sides".into());
            }
            Ok(ended) => self.failed(&ended),
            Err(error) => self.fail(not_started(&request.program, &error)),
        }
    }
}

/// Returns the call of a remote shell that runs a command on a host. The words of the command are
/// to be added.
fn remote_command(program: &[u8], words: &[Vec<u8>], host: &[u8]) -> Command {
    let mut command = Command::new(program);
    command.stdin = Stdin::Null;
    command.args = words.to_vec();
    let name = Path::new(OsStr::from_bytes(program)).file_name();
    if name == Some(OsStr::new("ssh")) {
        let timeout = format!("ConnectTimeout={CONNECT_TIMEOUT}");
        for option in ["BatchMode=yes", &timeout, "ServerAliveInterval=10"] {
            command.args.extend([b"-o".to_vec(), option.into()]);
        }
    }
    let at = host.iter().rposition(|&byte| byte == b'@');
    if let Some(at) = at {
        command.args.extend([b"-l".to_vec(), host[..at].to_vec()]);
    }
    let name = &host[at.map_or(0, |at| at + 1)..];
    let name = name.strip_prefix(b"[").unwrap_or(name);
    let name = name.strip_suffix(b"]").unwrap_or(name);
    command.args.push(name.to_vec());
    command
}

/// Returns the command that prints the version of the rsync at a target, which `call` reaches with
/// this remote shell; `None` if it is not reached by one.
pub fn version_command(shell: &[Vec<u8>], target: &[u8], call: &Command) -> Option<Command> {
    let RsyncTarget::Shell(host, _) = RsyncTarget::parse(target) else {
        return None;
    };
    let (program, words) = shell.split_first()?;
    let mut command = remote_command(program, words, host);
    command.environment = call.environment.clone();
    command.priority = call.priority;
    command.output = Output::Lines;
    // The remote shell splits it, as in rsync's own call.
    let rsync = remote_rsync(&call.args).to_vec();
    command.args.extend([rsync, b"--version".to_vec()]);
    Some(command)
}

/// Returns the words that concern the connection to a daemon.
fn connecting_words(words: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let concerns = |word: &&Vec<u8>| {
        ["--port=", "--address=", "--rsh=", "--sockopts="]
            .iter()
            .any(|start| word.starts_with(start.as_bytes()))
            || [&b"-4"[..], b"-6", b"--ipv4", b"--ipv6"].contains(&word.as_slice())
    };
    let mut kept: Vec<Vec<u8>> = words.iter().filter(concerns).cloned().collect();
    kept.push(format!("--contimeout={CONNECT_TIMEOUT}").into_bytes());
    if kept.iter().any(|word| word.starts_with(b"--rsh=")) {
        // rsync refuses it without a socket of its own.
        kept.pop();
    }
    kept
}

/// Returns the name of rsync on the target.
fn remote_rsync(words: &[Vec<u8>]) -> &[u8] {
    let told = words
        .iter()
        .rev()
        .find_map(|word| word.strip_prefix(b"--rsync-path="));
    told.unwrap_or(b"rsync")
}

/// Returns true if rsync creates all directories of the target.
fn makes_path(words: &[Vec<u8>]) -> bool {
    words.iter().any(|word| word == b"--mkpath")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_target_are_told_apart() {
        let parsed = |target: &str| match RsyncTarget::parse(target.as_bytes()) {
            RsyncTarget::Local(path) => format!("local {}", escape(path)),
            RsyncTarget::Shell(host, path) => format!("{} {}", escape(host), escape(path)),
            RsyncTarget::Daemon(host, module) => {
                format!("{} module {}", escape(host), escape(module))
            }
        };
        for (target, expected) in [
            ("/t/", "local /t/"),
            ("./a:b/", "local ./a:b/"),
            ("u@h:/t/", "u@h /t/"),
            ("h:t/", "h t/"),
            ("[::1]:/t/", "[::1] /t/"),
            ("h::m/d/", "h:: module m"),
            ("u@[::1]::m", "u@[::1]:: module m"),
            ("rsync://u@h:873/m/d/", "rsync://u@h:873/ module m"),
            ("rsync://h/m", "rsync://h/ module m"),
        ] {
            assert_eq!(parsed(target), expected, "{target}");
        }
    }
}
