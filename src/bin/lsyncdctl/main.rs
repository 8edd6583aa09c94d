//! `lsyncdctl`: asks a running lsyncd what it is doing and tells it what to do, through its
//! control socket.
//!
//! | file | what it does |
//! |---|---|
//! | `args` | the command line |
//! | `client` | the connection to the daemon |
//! | `show` | a status as lines for people |
//! | `top` | the live view: asking, keys |
//! | `view` | the live view: drawing |

mod args;
mod client;
mod show;
mod top;
mod view;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use args::{Args, Command};
use client::{Client, ClientError};
use lsyncd::control::protocol::Verb;
use lsyncd::status::health::Severity;
use lsyncd::status::snapshot::Snapshot;

/// The exit codes above those of [`Severity`].
const NO_DAEMON: u8 = 3;
const USAGE: u8 = 4;

fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(text) => {
            complain(&text);
            return USAGE.into();
        }
    };
    match run(&args) {
        Ok(code) => code.into(),
        Err(ClientError::NoDaemon(text)) => {
            complain(&text);
            NO_DAEMON.into()
        }
        Err(ClientError::Refused(text)) => {
            complain(&text);
            (Severity::Trouble as u8).into()
        }
        Err(ClientError::TimedOut) => {
            complain("the time is up");
            (Severity::Behind as u8).into()
        }
    }
}

fn run(args: &Args) -> Result<u8, ClientError> {
    let verb = match &args.command {
        Command::Help => {
            print_text(args::HELP);
            return Ok(0);
        }
        Command::Version => {
            print_text(&format!("Version: {}\n", lsyncd::cli::VERSION));
            return Ok(0);
        }
        Command::Top => return top::run(args).map(|()| 0),
        Command::Status { wait, json } => return status(args, *wait, *json),
        Command::Do(verb) => verb.clone(),
    };
    let mut link = Client::open(args.socket.as_deref(), deadline(args))?;
    let reply = link.ask(verb)?;
    print_text(&format!("{}\n", reply.text));
    Ok(0)
}

fn status(args: &Args, wait: bool, json: bool) -> Result<u8, ClientError> {
    let mut link = Client::open(args.socket.as_deref(), deadline(args))?;
    let sync = args.sync.clone();
    if wait {
        // What was written before this call has to be seen, so it is asked first of all.
        link.ask(Verb::Wait { sync: sync.clone() })?;
    }
    let reply = link.ask(Verb::Status { sync, entries: 10 })?;
    let Some(status) = reply.status else {
        return Err(ClientError::Refused("the daemon sent no status".into()));
    };
    if json {
        print_text(&format!("{}\n", pretty(&status)))
    } else {
        print_text(&show::text(&status))
    }
    Ok(if wait {
        // What was waited for has come, whatever has changed since.
        0
    } else {
        status.severity as u8
    })
}

fn pretty(status: &Snapshot) -> String {
    serde_json::to_string_pretty(status).unwrap_or_default()
}

/// When patience ends. Whoever waits for a mirror waits for ever unless told otherwise; all else is
/// answered at once by a daemon that is well.
fn deadline(args: &Args) -> Option<Instant> {
    let waits = matches!(args.command, Command::Status { wait: true, .. });
    let patience = args.timeout.or((!waits).then_some(Duration::from_secs(30)));
    patience.map(|patience| Instant::now() + patience)
}

/// A reader that has seen enough is no failure.
fn print_text(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "lsyncdctl: {text}");
}
