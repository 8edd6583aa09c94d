//! `lsyncdctl log`: prints the transfer log.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use lsyncd::control::protocol::Verb;
use lsyncd::history::{LogEntry, LogPage};
use lsyncd::status::number_format::{bytes, counted, span};
use lsyncd::sys;

use crate::args::{Args, LogArgs};
use crate::client::{Client, ClientError};

/// The interval in which `-follow` requests new entries.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// The maximum time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Prints the entries, and with `-follow` new ones.
pub fn run(args: &Args, wanted: &LogArgs) -> Result<u8, ClientError> {
    let deadline = || Some(Instant::now() + ANSWER_TIMEOUT);
    let mut link = Client::open(args.socket.as_deref(), deadline())?;
    let mut after = BTreeMap::new();
    let (mut lost, mut failed) = (0, false);
    loop {
        link.deadline = deadline();
        let reply = link.ask(Verb::Log {
            sync: args.sync.clone(),
            path: wanted.path.clone(),
            since: wanted.since.unwrap_or_default(),
            after: after.clone(),
            limit: None,
            newest: false,
        })?;
        let page = reply.log.unwrap_or_default();
        for problem in &page.problems {
            crate::complain(problem);
            if args.json {
                crate::print_text(&crate::json_answer(false, problem));
            }
        }
        failed |= !page.problems.is_empty();
        if page.lost > lost {
            let count = counted(page.lost as usize, "batch");
            crate::complain(&format!("{count} could not be written to the log"));
            lost = page.lost;
        }
        if print(&page, args.json).is_err() {
            return Ok(0);
        }
        let LogPage { next, more, .. } = *page;
        after.extend(next);
        match (more, wanted.follow) {
            (true, _) => {}
            (false, true) => thread::sleep(FOLLOW_INTERVAL),
            (false, false) => return Ok(if failed { 2 } else { 0 }),
        }
    }
}

fn print(page: &LogPage, json: bool) -> io::Result<()> {
    let mut text = String::new();
    for entry in &page.entries {
        let line = if json {
            serde_json::to_string(entry).unwrap_or_default()
        } else {
            line(entry)
        };
        text.push_str(&line);
        text.push('\n');
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Returns the line of an entry.
fn line(entry: &LogEntry) -> String {
    let time = sys::local_time(entry.time as i64, c"%Y-%m-%d %H:%M:%S");
    let path = match entry.path.as_str() {
        "" => "everything",
        path => path,
    };
    let mut line = format!("{time} {} {} {path}", entry.sync, entry.operation);
    if let Some(to) = &entry.to {
        line.push_str(&format!(" -> {to}"));
    }
    if let Some(reason) = &entry.reason {
        let code = entry.code;
        line.push_str(&match reason.as_str() {
            "" => format!(": exit code {code}"),
            reason => format!(": {reason}"),
        });
    }
    let mut batch = vec![match entry.seconds {
        short if short < 10.0 => format!("{short:.1} s"),
        long => span(long),
    }];
    if entry.entries > 1 {
        batch.insert(0, format!("one of {}", entry.entries));
    }
    if let Some(sent) = entry.bytes {
        batch.push(bytes(sent));
    }
    if !entry.target.is_empty() {
        batch.push(format!("to {}", entry.target));
    }
    line.push_str(&format!(" ({})", batch.join(", ")));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let entry = LogEntry {
            sync: "web".into(),
            operation: "moved".into(),
            path: "/a".into(),
            to: Some("/b".into()),
            target: "host:/t".into(),
            entries: 1,
            seconds: 0.25,
            ..LogEntry::default()
        };
        let text = line(&entry);
        assert!(
            text.contains(" web moved /a -> /b (0.2 s, to host:/t)"),
            "{text}"
        );
        let entry = LogEntry {
            operation: "failed".into(),
            path: String::new(),
            to: None,
            reason: Some(String::new()),
            code: 12,
            entries: 3,
            bytes: Some(2048),
            ..entry
        };
        let text = line(&entry);
        assert!(
            text.contains(" failed everything: exit code 12 (one of 3, "),
            "{text}"
        );
    }
}
