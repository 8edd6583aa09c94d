//! The command line of `lsyncdctl`. Options are written like lsyncd's, with one dash; two are
//! accepted.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::moment;
use lsyncd::control::protocol::Verb;
use lsyncd::log::escape;
use lsyncd::status::drift_report::sample_parts;

/// The text of `-help`.
pub const HELP: &str = "\
USAGE: lsyncdctl [-socket PATH] COMMAND [SYNC] [OPTIONS]

COMMANDS, for one sync or, without its name, for all:
  status              Print the state. Exit codes: 0 current, 1 behind,
                      2 failure, 3 no daemon answers, 4 wrong usage
    -wait             Wait until the target has everything that was written
                      before this call, then exit with 0
    -timeout SECONDS  Wait at most this time, then exit with 1
    -trouble          Print only the syncs in trouble
    -max-age TIME     Behind only if the oldest change is older, such as 15m
  top                 Show a live view; it lists its keys
  explain PATH        Print the state of a path: the rule that includes or
                      excludes it, pending, sent, failed or held changes, and
                      the last transfer
  log [PATH]          Print the transfer log, or the history of a path
    -since TIME       Entries since this time: 15m, 2h, 3d, 14:30, 2026-01-31,
                      \"2026-01-31 14:30\", @SECONDS
    -follow           Continue with new entries
  pause               Start no transfers; changes are still queued
  resume              Start due transfers again
  release             Continue a sync that a guard has halted
  flush               End the delay of the waiting changes
  resync [PATH]       Run a full comparison, or compare a path
  verify [PATH]       Compare source and target by a dry run of rsync. Exit
                      codes: 0 equal, 1 drift, 2 incomplete
    -content          Compare contents, not only sizes, times and attributes
    -sample N%        Compare the contents of N % of the files; each call
                      selects other files
    -repair           Repair the differences
    -timeout SECONDS  Give up after this time, with exit code 2
  reports [N]         Print the last N reports of verify (20), and check that
                      none is missing or altered. Exit codes: 0 complete,
                      1 missing or altered, 2 no reports
  retry               Retry failed work immediately
  reload              Read the configuration again; unchanged syncs are not
                      affected
  log-level [WORD...] Select log messages: all, scarce or categories;
                      no word: the default

OPTIONS:
  -socket PATH        Control socket of the daemon; default: $LSYNCD_SOCKET,
                      then the default sockets
  -sync NAME          Name of the sync, for names that look like an option or a
                      path. For status also a pattern with * and ?
  -json               Print JSON: one object; for log and verify one per line.
                      Errors are objects with ok (false) and text
  -help, -version
";

/// Returns the help text, or the part of it about one command.
pub fn help(verb: Option<&str>) -> String {
    let is_of = |line: &str| {
        let line = line.strip_prefix("  ").unwrap_or_default();
        verb.is_some_and(|verb| line.split(' ').next() == Some(verb))
    };
    let mut lines = HELP.lines().skip_while(|line| !is_of(line));
    let Some(first) = lines.next() else {
        return HELP.into();
    };
    let rest = lines.take_while(|line| line.starts_with("   "));
    let own: Vec<&str> = [first].into_iter().chain(rest).collect();
    format!(
        "{}\n\nlsyncdctl -help prints all commands and options.\n",
        own.join("\n")
    )
}

/// The requested command.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientCommand {
    /// `-help`, of this command if one is given.
    Help(Option<String>),
    Version,
    Top,
    Status(StatusArgs),
    Log(LogArgs),
    /// `verify`, with this request.
    Verify(Verb),
    /// `explain`, of an absolute path in printable form.
    Explain(String),
    /// `reports`, of which this many are printed.
    Reports(Option<usize>),
    Do(Verb),
}

/// The options of `status`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusArgs {
    pub wait: bool,
    /// Only syncs in trouble.
    pub trouble: bool,
    /// The age in seconds up to which a pending change does not count.
    pub max_age: Option<f64>,
}

/// The options of `log`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogArgs {
    pub path: Option<String>,
    /// In seconds since the epoch.
    pub since: Option<f64>,
    pub follow: bool,
}

/// The command line.
#[derive(Clone, Debug, PartialEq)]
pub struct Args {
    pub command: ClientCommand,
    pub socket: Option<PathBuf>,
    pub sync: Option<String>,
    pub timeout: Option<Duration>,
    /// The answer and errors are printed as JSON.
    pub json: bool,
}

/// The parsed arguments, before their combination is checked.
#[derive(Default)]
struct Raw {
    plain: Vec<OsString>,
    socket: Option<PathBuf>,
    sync: Option<String>,
    timeout: Option<Duration>,
    json: bool,
    wait: bool,
    trouble: bool,
    max_age: Option<f64>,
    since: Option<f64>,
    follow: bool,
    content: bool,
    repair: bool,
    sample: Option<f64>,
    other: Option<ClientCommand>,
}

/// Parses the arguments behind the program's name.
pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Args, String> {
    let raw = sort(words)?;
    if let Some(mut command) = raw.other {
        if let (ClientCommand::Help(of), Some(verb)) = (&mut command, raw.plain.first()) {
            *of = Some(verb.to_string_lossy().into_owned());
        }
        return Ok(Args {
            command,
            socket: None,
            sync: None,
            timeout: None,
            json: raw.json,
        });
    }
    let mut plain = raw.plain.into_iter();
    let Some(verb) = plain.next() else {
        return Err("missing command. See lsyncdctl -help".into());
    };
    let verb = verb.to_string_lossy().into_owned();
    let rest: Vec<OsString> = plain.collect();
    let (rest, path) = match verb.as_str() {
        "resync" | "log" | "verify" => split_path(rest),
        "explain" => {
            let mut rest = rest;
            let path = rest.pop().map(|path| explained(&path));
            (rest, path)
        }
        _ => (rest, None),
    };
    let mut sync = raw.sync;
    let named = match verb.as_str() {
        "reload" | "log-level" | "reports" => None,
        _ => rest.first().map(|name| name.to_string_lossy().into_owned()),
    };
    if named.is_some() && sync.is_some() {
        return Err("only one sync may be named".into());
    }
    sync = sync.or(named);
    if verb != "log-level" && rest.len() > usize::from(verb != "reload") {
        return Err(format!("too many arguments for {verb}"));
    }
    let is_verify = verb == "verify";
    if verb != "status" && raw.wait {
        return Err("-wait is an option of status only".into());
    }
    if verb != "status" && (raw.trouble || raw.max_age.is_some()) {
        return Err("-trouble and -max-age are options of status only".into());
    }
    if verb != "log" && (raw.since.is_some() || raw.follow) {
        return Err("-since and -follow are options of log only".into());
    }
    if raw.json && verb == "top" {
        return Err("top has no option -json; status has".into());
    }
    if !is_verify && (raw.content || raw.repair || raw.sample.is_some()) {
        return Err("-content, -sample and -repair are options of verify only".into());
    }
    if raw.timeout.is_some() && !raw.wait && !is_verify {
        return Err("-timeout is an option of status -wait and verify only".into());
    }
    let command = match verb.as_str() {
        "status" => ClientCommand::Status(StatusArgs {
            wait: raw.wait,
            trouble: raw.trouble,
            max_age: raw.max_age,
        }),
        "explain" => ClientCommand::Explain(path.ok_or("explain needs a path")?),
        "log" => ClientCommand::Log(LogArgs {
            path,
            since: raw.since.or(raw.follow.then(moment::now)),
            follow: raw.follow,
        }),
        "verify" => ClientCommand::Verify(Verb::Verify {
            sync: sync.clone(),
            path,
            content: raw.content,
            repair: raw.repair,
            sample: raw.sample,
        }),
        "reports" => ClientCommand::Reports(rest.first().map(|word| count(word)).transpose()?),
        "top" => ClientCommand::Top,
        "help" => ClientCommand::Help(sync.take()),
        "log-level" => ClientCommand::Do(Verb::LogLevel {
            words: rest
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
        }),
        "reload" => ClientCommand::Do(Verb::Reload),
        name => ClientCommand::Do(about(name, sync.clone(), path)?),
    };
    Ok(Args {
        command,
        socket: raw.socket,
        sync,
        timeout: raw.timeout,
        json: raw.json,
    })
}

/// Returns true if the words request JSON, even if they are invalid.
pub fn wants_json(words: impl Iterator<Item = OsString>) -> bool {
    let mut options = words.take_while(|word| word != "--");
    options.any(|word| word == "-json" || word == "--json")
}

fn about(verb: &str, sync: Option<String>, path: Option<String>) -> Result<Verb, String> {
    Ok(match verb {
        "pause" => Verb::Pause { sync },
        "resume" => Verb::Resume { sync },
        "release" => Verb::Release { sync },
        "flush" => Verb::Flush { sync },
        "resync" => Verb::Resync { sync, path },
        "retry" => Verb::Retry { sync },
        other => return Err(format!("unknown command \"{other}\". See lsyncdctl -help")),
    })
}

fn sort(words: impl Iterator<Item = OsString>) -> Result<Raw, String> {
    let mut raw = Raw::default();
    let mut words = words.peekable();
    let mut options = true;
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        let name = match text.strip_prefix('-') {
            Some("-") if options => {
                options = false;
                continue;
            }
            Some(name) if options && !name.is_empty() => name.strip_prefix('-').unwrap_or(name),
            _ => {
                raw.plain.push(word);
                continue;
            }
        };
        let mut value = || words.next().ok_or_else(|| format!("{text} needs a value"));
        match name {
            "json" => raw.json = true,
            "wait" => raw.wait = true,
            "trouble" => raw.trouble = true,
            "max-age" => {
                let text = value()?.to_string_lossy().into_owned();
                let age = moment::span(&text).or_else(|| text.parse().ok());
                raw.max_age = Some(age.ok_or("-max-age needs a time such as 15m, 2h or 90s")?);
            }
            "follow" => raw.follow = true,
            "since" => raw.since = Some(since(&value()?)?),
            "content" => raw.content = true,
            "repair" => raw.repair = true,
            "sample" => raw.sample = Some(percentage(&value()?)?),
            "socket" => raw.socket = Some(value()?.into()),
            "sync" => raw.sync = Some(value()?.to_string_lossy().into_owned()),
            "timeout" => raw.timeout = Some(span(&value()?)?),
            "help" | "h" => raw.other = Some(ClientCommand::Help(None)),
            "version" => raw.other = Some(ClientCommand::Version),
            _ => return Err(format!("unknown option {text}. See lsyncdctl -help")),
        }
    }
    Ok(raw)
}

/// Splits the arguments of `[SYNC] [PATH]`: a path contains a slash, or is the second
/// argument. A relative path is relative to the working directory, unless a sync is named.
fn split_path(mut words: Vec<OsString>) -> (Vec<OsString>, Option<String>) {
    let alone = words.len() == 1 && words.iter().all(|word| word.as_bytes().contains(&b'/'));
    if !alone && words.len() < 2 {
        return (words, None);
    }
    let path = words.pop().unwrap_or_default();
    let path = if alone {
        standing_here(&path)
    } else {
        path.into()
    };
    (
        words,
        Some(escape(path.as_os_str().as_bytes()).into_owned()),
    )
}

/// Returns the path of `explain` in printable form: absolute, with a slash if it is a directory.
fn explained(path: &OsStr) -> String {
    let whole = standing_here(path);
    let is_directory = match whole.symlink_metadata() {
        Ok(found) => found.is_dir(),
        Err(_) => path.as_bytes().ends_with(b"/"),
    };
    let mut bytes = whole.as_os_str().as_bytes().to_vec();
    if is_directory && !bytes.ends_with(b"/") {
        bytes.push(b'/');
    }
    escape(&bytes).into_owned()
}

/// Returns the absolute path of an argument. The daemon compares names, so symlinks in the
/// directories of the path are resolved, like those of its source. The last name may not exist; a
/// symlink there is not resolved.
fn standing_here(path: &OsStr) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return path;
    };
    let real = Path::canonicalize(parent);
    real.map_or_else(|_| path.clone(), |parent| parent.join(name))
}

fn since(value: &OsStr) -> Result<f64, String> {
    moment::parse(&value.to_string_lossy(), moment::now())
        .ok_or_else(|| format!("-since needs {}", moment::FORMS))
}

fn percentage(value: &OsStr) -> Result<f64, String> {
    let text = value.to_string_lossy();
    let percent = text.strip_suffix('%').and_then(|text| text.parse().ok());
    percent
        .filter(|&percent| sample_parts(percent).is_some())
        .ok_or_else(|| "-sample needs a percentage above 0 and up to 100, such as 10%".into())
}

fn count(value: &OsStr) -> Result<usize, String> {
    let count = value.to_string_lossy().parse();
    count.map_err(|_| "reports needs the number of reports to print".into())
}

fn span(value: &OsStr) -> Result<Duration, String> {
    let seconds = value.to_string_lossy().parse::<f64>().ok();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "-timeout needs a number of seconds".into())
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
