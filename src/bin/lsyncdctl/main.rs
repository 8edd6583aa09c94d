//! `lsyncdctl`: queries and controls a running lsyncd through its control socket.
//!
//! | file | what it does |
//! |---|---|
//! | `args` | the command line |
//! | `args_tests` | its tests |
//! | `client` | the connection to the daemon |
//! | `moment` | points in time on the command line |
//! | `transfers` | prints the transfer log |
//! | `explain` | what is known of a path |
//! | `show` | formats a status as lines of text |
//! | `status` | asks for a status, and judges it |
//! | `top` | the live view: requests and keys (feature `top`) |
//! | `verify` | comparisons and their kept reports |
//! | `view` | the live view: drawing |
//!
//! The program may use `control`, `history`, `reports`, `status`, `log` and `sys` of the library,
//! and nothing of the daemon.

mod args;
mod client;
mod explain;
mod moment;
mod show;
mod status;
#[cfg(feature = "top")]
mod top;
mod transfers;
mod verify;
#[cfg(feature = "top")]
mod view;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use args::{Args, ClientCommand};
use client::{Client, ClientError};
use lsyncd::status::drift_report::DriftVerdict;
use lsyncd::status::state::Severity;

/// The exit codes above those of [`Severity`].
const NO_DAEMON: u8 = 3;
const USAGE: u8 = 4;

fn main() -> ExitCode {
    let words = || std::env::args_os().skip(1);
    let (code, text) = match args::parse(words()) {
        Err(text) => (USAGE, text),
        Ok(args) => match run(&args) {
            Ok(code) => return code.into(),
            Err(ClientError::NoDaemon(text)) => (NO_DAEMON, text),
            Err(ClientError::Refused(text)) => (Severity::Trouble as u8, text),
            Err(ClientError::TimedOut) => {
                let code = match args.command {
                    ClientCommand::Verify(_) => DriftVerdict::Incomplete.exit_code(),
                    _ => Severity::Behind as u8,
                };
                (code, "the time is up".to_owned())
            }
        },
    };
    complain(&text);
    if args::wants_json(words()) {
        print_text(&json_answer(false, &text));
    }
    code.into()
}

fn run(args: &Args) -> Result<u8, ClientError> {
    let verb = match &args.command {
        ClientCommand::Help(verb) => {
            print_answer(args, &args::help(verb.as_deref()));
            return Ok(0);
        }
        ClientCommand::Version => {
            print_answer(args, &format!("Version: {}\n", lsyncd::VERSION));
            return Ok(0);
        }
        #[cfg(feature = "top")]
        ClientCommand::Top => return top::run(args).map(|()| 0),
        #[cfg(not(feature = "top"))]
        ClientCommand::Top => {
            let text = "top is not part of this build; it needs the feature `top`";
            return Err(ClientError::Refused(text.into()));
        }
        ClientCommand::Status(wanted) => return status::run(args, wanted),
        ClientCommand::Explain(path) => return explain::run(args, path),
        ClientCommand::Log(wanted) => return transfers::run(args, wanted),
        ClientCommand::Verify(verb) => return verify::run(args, verb),
        ClientCommand::Reports(count) => return verify::reports(args, *count),
        ClientCommand::Do(verb) => verb.clone(),
    };
    let mut link = Client::open(args.socket.as_deref(), deadline(args))?;
    let reply = link.ask(verb)?;
    print_answer(args, &format!("{}\n", reply.text));
    Ok(0)
}

/// Returns the time at which waiting ends. A wait for a mirror has no limit by default; a healthy
/// daemon answers all other requests at once.
fn deadline(args: &Args) -> Option<Instant> {
    let waits = match &args.command {
        ClientCommand::Status(wanted) => wanted.wait,
        ClientCommand::Verify(_) => true,
        _ => false,
    };
    let patience = args.timeout.or((!waits).then_some(Duration::from_secs(30)));
    patience.map(|patience| Instant::now() + patience)
}

/// Prints the answer to a command that has no JSON form of its own.
fn print_answer(args: &Args, text: &str) {
    if args.json {
        print_text(&json_answer(true, text.trim_end()));
    } else {
        print_text(text);
    }
}

/// Returns a line of JSON with a text.
fn json_answer(ok: bool, text: &str) -> String {
    format!("{}\n", serde_json::json!({ "ok": ok, "text": text }))
}

/// Writes a text to standard output. A closed pipe is not a failure.
fn print_text(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "lsyncdctl: {text}");
}
