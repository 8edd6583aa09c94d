//! `explain`: the state of a path, and its last transfer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lsyncd::control::protocol::Verb;
use lsyncd::history::LogEntry;
use lsyncd::status::number_format::span;
use lsyncd::sys;

use crate::args::Args;
use crate::client::{Client, ClientError};
use crate::moment;

/// The maximum time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Prints the explanation of a path, which is in printable form.
pub fn run(args: &Args, path: &str) -> Result<u8, ClientError> {
    let deadline = || Some(Instant::now() + ANSWER_TIMEOUT);
    let mut link = Client::open(args.socket.as_deref(), deadline())?;
    let reply = link.ask(Verb::Explain {
        sync: args.sync.clone(),
        path: path.to_owned(),
    })?;
    let mut last: BTreeMap<String, LogEntry> = BTreeMap::new();
    let mut after = BTreeMap::new();
    loop {
        link.deadline = deadline();
        let verb = Verb::Log {
            sync: args.sync.clone(),
            path: Some(path.to_owned()),
            since: 0.0,
            after: after.clone(),
            newest: false,
            limit: None,
        };
        // A path outside of all sources has no history.
        let page = match link.ask(verb) {
            Ok(reply) => reply.log.unwrap_or_default(),
            Err(ClientError::Refused(_)) => break,
            Err(error) => return Err(error),
        };
        for entry in page.entries {
            last.insert(entry.sync.clone(), entry);
        }
        after.extend(page.next);
        if !page.more {
            break;
        }
    }
    if args.json {
        let last: Vec<&LogEntry> = last.values().collect();
        let answer = serde_json::json!({ "ok": true, "text": reply.text, "last": last });
        crate::print_text(&format!("{answer}\n"));
        return Ok(0);
    }
    crate::print_text(&reply.text);
    for entry in last.values() {
        let ago = span(moment::now() - entry.time);
        let time = sys::local_time(entry.time as i64, c"%Y-%m-%d %H:%M:%S");
        let reason = entry.reason.as_deref();
        let reason = reason.map(|reason| format!(": {reason}"));
        crate::print_text(&format!(
            "{}: last {} {time}, {ago} ago{}\n",
            entry.sync,
            entry.operation,
            reason.unwrap_or_default()
        ));
    }
    Ok(0)
}
