//! `lsyncdctl`: asks a running lsyncd what it is doing and tells it what to do, through its
//! control socket.
//!
//! | file | what it does |
//! |---|---|
//! | `words` | the command line |
//! | `link` | the connection to the daemon |
//! | `show` | a status as lines for people |
//! | `top` | the live view: asking, keys |
//! | `view` | the live view: drawing |

mod link;
mod show;
mod top;
mod view;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use link::{Client, ClientError};
use lsyncd::control::protocol::Verb;
use lsyncd::status::health::Severity;
use lsyncd::status::snapshot::Snapshot;
use words::{Order, Words};

/// The exit codes above those of [`Severity`].
const NO_DAEMON: u8 = 3;
const USAGE: u8 = 4;

fn main() -> ExitCode {
    let words = match words::parse(std::env::args_os().skip(1)) {
        Ok(words) => words,
        Err(text) => {
            complain(&text);
            return USAGE.into();
        }
    };
    match run(&words) {
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

fn run(words: &Words) -> Result<u8, ClientError> {
    let verb = match &words.order {
        Order::Help => {
            say(words::HELP);
            return Ok(0);
        }
        Order::Version => {
            say(&format!("Version: {}\n", lsyncd::cli::VERSION));
            return Ok(0);
        }
        Order::Top => return top::run(words).map(|()| 0),
        Order::Status { wait, json } => return status(words, *wait, *json),
        Order::Do(verb) => verb.clone(),
    };
    let mut link = Client::open(words.socket.as_deref(), deadline(words))?;
    let reply = link.ask(verb)?;
    say(&format!("{}\n", reply.text));
    Ok(0)
}

fn status(words: &Words, wait: bool, json: bool) -> Result<u8, ClientError> {
    let mut link = Client::open(words.socket.as_deref(), deadline(words))?;
    let sync = words.sync.clone();
    if wait {
        // What was written before this call has to be seen, so it is asked first of all.
        link.ask(Verb::Wait { sync: sync.clone() })?;
    }
    let reply = link.ask(Verb::Status { sync, entries: 10 })?;
    let Some(status) = reply.status else {
        return Err(ClientError::Refused("the daemon sent no status".into()));
    };
    if json {
        say(&format!("{}\n", pretty(&status)))
    } else {
        say(&show::text(&status))
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
fn deadline(words: &Words) -> Option<Instant> {
    let waits = matches!(words.order, Order::Status { wait: true, .. });
    let patience = words
        .timeout
        .or((!waits).then_some(Duration::from_secs(30)));
    patience.map(|patience| Instant::now() + patience)
}

/// A reader that has seen enough is no failure.
fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "lsyncdctl: {text}");
}
