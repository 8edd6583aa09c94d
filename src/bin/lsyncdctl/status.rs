//! `status`: requests the state, selects the syncs that are shown, and determines the exit code.

use std::time::{Duration, Instant};

use lsyncd::control::protocol::Verb;
use lsyncd::status::snapshot::{Snapshot, SyncSnapshot};
use lsyncd::status::state::{Severity, State};

use crate::args::{Args, StatusArgs};
use crate::client::{Client, ClientError};
use crate::show::{self, Shown};

/// Prints the state. Returns the exit code. A wait that times out prints the unfinished work.
pub fn run(args: &Args, wanted: &StatusArgs) -> Result<u8, ClientError> {
    match ask(args, wanted) {
        Err(ClientError::TimedOut) if wanted.wait => given_up(args),
        result => result,
    }
}

/// The time for the question what a wait has waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Prints what a wait has waited for. Returns the exit code.
fn given_up(args: &Args) -> Result<u8, ClientError> {
    let deadline = Some(Instant::now() + ANSWER_TIMEOUT);
    let mut link = Client::open(args.socket.as_deref(), deadline)?;
    let pattern = args.sync.as_deref().filter(|name| is_pattern(name));
    let name = args.sync.clone().filter(|_| pattern.is_none());
    let status = selected(&mut link, name, pattern)?;
    if args.json {
        crate::print_text(&format!("{}\n", pretty(&status)));
    }
    let behind = status.syncs.iter();
    let behind = behind.filter(|sync| sync.severity != Severity::Current);
    let behind: Vec<String> = behind
        .map(|sync| format!("\n{}  {}", sync.name, sync.detail))
        .collect();
    crate::complain(&match behind.as_slice() {
        [] => "the time is up".to_owned(),
        behind => format!("the time has expired; waiting for:{}", behind.concat()),
    });
    Ok(Severity::Behind as u8)
}

fn ask(args: &Args, wanted: &StatusArgs) -> Result<u8, ClientError> {
    let mut link = Client::open(args.socket.as_deref(), crate::deadline(args))?;
    let pattern = args.sync.as_deref().filter(|name| is_pattern(name));
    let name = args.sync.clone().filter(|_| pattern.is_none());
    if wanted.wait && pattern.is_none() {
        // Changes before this call have to be covered, so this is the first request.
        link.ask(Verb::Wait { sync: name.clone() })?;
    }
    let mut status = selected(&mut link, name.clone(), pattern)?;
    if wanted.wait && pattern.is_some() {
        for sync in &status.syncs {
            let sync = Some(sync.name.clone());
            link.ask(Verb::Wait { sync })?;
        }
        status = selected(&mut link, name, pattern)?;
    }
    if let Some(age) = wanted.max_age {
        status = tolerant(status, age);
    }
    let severity = status.severity;
    if args.json {
        if wanted.trouble {
            let is_troubled = |sync: &SyncSnapshot| sync.severity == Severity::Trouble;
            status.syncs.retain(is_troubled);
        }
        crate::print_text(&format!("{}\n", pretty(&status)));
    } else {
        let shown = match (wanted.trouble, &args.sync) {
            (true, _) => Shown::Trouble,
            (false, Some(_)) => Shown::All,
            (false, None) => Shown::Unusual,
        };
        crate::print_text(&show::text(&status, shown));
    }
    Ok(if wanted.wait {
        // The wait is complete, even if there are new changes.
        0
    } else {
        severity as u8
    })
}

/// Returns the state of the sync of a name, of those that a pattern matches, or of all.
fn selected(
    link: &mut Client,
    name: Option<String>,
    pattern: Option<&str>,
) -> Result<Snapshot, ClientError> {
    let verb = Verb::Status {
        sync: name,
        entries: 10,
    };
    let Some(mut status) = link.ask(verb)?.status else {
        return Err(ClientError::Refused("the daemon sent no status".into()));
    };
    if let Some(pattern) = pattern {
        status.syncs.retain(|sync| matches(pattern, &sync.name));
        if status.syncs.is_empty() {
            let text = format!("no sync matches \"{pattern}\"");
            return Err(ClientError::Refused(text));
        }
        status = status.judged();
    }
    Ok(status)
}

/// Returns the state in which syncs are behind only if their oldest change is older than `age`
/// seconds. A startup transfer in progress does not count: it takes as long as it takes.
fn tolerant(mut status: Snapshot, age: f64) -> Snapshot {
    for sync in &mut status.syncs {
        let is_young = sync.oldest.unwrap_or_default() <= age || sync.state == State::Starting;
        if sync.severity == Severity::Behind && is_young && sync.away.is_empty() {
            sync.severity = Severity::Current;
        }
    }
    status.judged()
}

fn pretty(status: &Snapshot) -> String {
    serde_json::to_string_pretty(status).unwrap_or_default()
}

/// Returns true if a name of the command line is a pattern.
fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// Returns true if a pattern matches a name: `*` stands for any text, `?` for one character.
fn matches(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = rest.as_str();
            let mut ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.any(|at| matches(rest, &name[at..]))
        }
        Some(wanted) => {
            let mut others = name.chars();
            let next = others.next();
            next.is_some_and(|next| wanted == '?' || wanted == next)
                && matches(rest.as_str(), others.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("web*", "web-1", true),
            ("*1", "web-1", true),
            ("w*-?", "web-1", true),
            ("*", "", true),
            ("web", "web-1", false),
            ("?", "", false),
            ("*é?", "éx", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_young_is_not_behind() {
        let sync = |state, severity, oldest| SyncSnapshot {
            state,
            severity,
            oldest,
            ..SyncSnapshot::default()
        };
        let judged = |sync: SyncSnapshot| {
            let status = Snapshot {
                syncs: vec![sync],
                ..Snapshot::default()
            };
            tolerant(status, 900.0).severity
        };
        let (behind, trouble) = (Severity::Behind, Severity::Trouble);
        let young = sync(State::Pending, behind, Some(900.0));
        assert_eq!(judged(young.clone()), Severity::Current);
        assert_eq!(judged(sync(State::Pending, behind, Some(901.0))), behind);
        let first = sync(State::Starting, behind, Some(9000.0));
        assert_eq!(judged(first), Severity::Current);
        assert_eq!(judged(sync(State::Retrying, trouble, Some(1.0))), trouble);
        let away = SyncSnapshot {
            away: vec!["/m".into()],
            ..young
        };
        assert_eq!(judged(away), behind);
    }
}
