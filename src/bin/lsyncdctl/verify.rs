//! `lsyncdctl verify`: compares source and target. `lsyncdctl reports`: prints kept reports.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lsyncd::control::protocol::Verb;
use lsyncd::reports::{KeptReport, ReportPage};
use lsyncd::status::drift_report::{DriftReport, DriftVerdict};
use lsyncd::status::number_format::{counted, span};
use lsyncd::status::snapshot::Snapshot;
use lsyncd::sys;

use crate::args::Args;
use crate::client::{Client, ClientError};
use crate::{complain, deadline, print_text};

/// The exit codes of `reports`.
const BROKEN: u8 = 1;
const UNAVAILABLE: u8 = 2;

/// Compares source and target. Drift and an incomplete comparison are results, not failures.
pub fn run(args: &Args, verb: &Verb) -> Result<u8, ClientError> {
    let mut link = Client::open(args.socket.as_deref(), deadline(args))?;
    let progress = io::stderr().is_terminal().then(|| Progress::start(args));
    let reply = link.ask(verb.clone());
    drop(progress);
    let reply = reply?;
    if args.json {
        let lines = reply.reports.iter().filter_map(|report| {
            let line = serde_json::to_string(report).ok()?;
            Some(format!("{line}\n"))
        });
        print_text(&lines.collect::<String>());
    } else {
        let texts = reply.reports.iter().map(DriftReport::text);
        print_text(&texts.collect::<String>());
    }
    let verdicts = reply.reports.iter().map(|report| report.verdict);
    Ok(DriftVerdict::of_all(verdicts).exit_code())
}

/// A line of the terminal that shows what the comparison does. It is removed on drop.
struct Progress {
    over: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

/// The time between two views of the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

impl Progress {
    fn start(args: &Args) -> Progress {
        let (over, is_over) = mpsc::channel();
        let (socket, sync) = (args.socket.clone(), args.sync.clone());
        let show = move || {
            while is_over.recv_timeout(PROGRESS_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let timeout = Instant::now() + PROGRESS_INTERVAL;
                let status = Client::open(socket.as_deref(), Some(timeout)).and_then(|mut link| {
                    link.ask(Verb::Status {
                        sync: sync.clone(),
                        entries: 0,
                    })
                });
                let line = status.ok().and_then(|reply| progress_line(&reply.status?));
                if let Some(line) = line {
                    eprint!("\r{line}\x1b[K");
                }
            }
            eprint!("\r\x1b[K");
        };
        Progress {
            over,
            thread: Some(thread::spawn(show)),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let _ = self.over.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns the line about the comparison that runs.
fn progress_line(status: &Snapshot) -> Option<String> {
    let (sync, progress) = status
        .syncs
        .iter()
        .find_map(|sync| Some((sync, sync.verifying.as_ref()?)))?;
    let elapsed = match progress.begin {
        begin if begin > 0.0 => format!(", {}", span(status.time - begin)),
        _ => String::new(),
    };
    let found = match progress.found {
        0 => String::new(),
        found => format!(", {}", counted(found as usize, "difference")),
    };
    Some(format!("{}: {}{elapsed}{found}", sync.name, progress.stage))
}

/// Prints kept reports, and what is wrong with their chain.
pub fn reports(args: &Args, count: Option<usize>) -> Result<u8, ClientError> {
    let mut link = Client::open(args.socket.as_deref(), deadline(args))?;
    let reply = link.ask(Verb::Reports { limit: count })?;
    let page = reply.kept.unwrap_or_default();
    if args.json {
        let text = serde_json::to_string(&page).unwrap_or_default();
        print_text(&format!("{text}\n"));
    }
    if let Some(why) = &page.unavailable {
        complain(why);
        return Ok(UNAVAILABLE);
    }
    if !args.json {
        print_text(&lines(&page));
        page.problems.iter().for_each(|problem| complain(problem));
    }
    Ok(if page.problems.is_empty() { 0 } else { BROKEN })
}

/// Returns a line for each report, and one for the chain.
fn lines(page: &ReportPage) -> String {
    let mut lines: Vec<String> = page.reports.iter().map(line).collect();
    let kept = match page.first {
        0 => 0,
        first => page.last + 1 - first,
    };
    let state = match page.problems.len() {
        0 => "none is missing or altered".to_owned(),
        count => counted(count, "problem"),
    };
    lines.push(format!(
        "{} kept, {state}",
        counted(kept as usize, "report")
    ));
    if kept > 0 {
        lines.push(format!("SHA-256 of report {}: {}", page.last, page.hash));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn line(kept: &KeptReport) -> String {
    let report = &kept.report;
    let time = sys::local_time(report.begin as i64, c"%Y-%m-%d %H:%M:%S");
    let mut parts = Vec::new();
    if report.drift > 0 {
        parts.push(counted(report.drift as usize, "difference"));
    }
    if report.repaired > 0 {
        parts.push(format!("{} repaired", report.repaired));
    }
    if let Some(entries) = report.entries {
        parts.push(format!("{entries} compared"));
    }
    parts.push(format!("in {}", span(report.end - report.begin)));
    parts.extend(report.reason.clone());
    let verdict = report.verdict.name().to_uppercase();
    let path = &report.path;
    format!(
        "{:>5}  {time}  {verdict:<10}  {}{path}: {}",
        kept.number,
        report.sync,
        parts.join(", ")
    )
}
