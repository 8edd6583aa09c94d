//! Formats a status as lines of text. The first line has the form of a Nagios plug-in.

use std::cmp::Reverse;

use lsyncd::status::number_format::bytes;
use lsyncd::status::number_format::counted;
use lsyncd::status::number_format::span;
use lsyncd::status::snapshot::Snapshot;
use lsyncd::status::snapshot::SyncSnapshot;
use lsyncd::status::state::Severity;

/// The number of names in the first line.
const MAX_NAMES: usize = 5;

/// The syncs that have lines of their own.
#[derive(Clone, Copy, PartialEq)]
pub enum Shown {
    /// All.
    All,
    /// Those that are not current; the others are one line together.
    Unusual,
    /// Those in trouble.
    Trouble,
}

/// Returns the text of a status: what is in trouble first, then what is behind.
pub fn text(status: &Snapshot, shown: Shown) -> String {
    let mut lines = vec![headline(status)];
    if let Some(error) = &status.reload_error {
        let error = error.replace('\n', "\n    ");
        lines.push(format!(
            "the new configuration has errors, the previous one stays in force:\n    {error}"
        ));
    }
    let mut syncs: Vec<&SyncSnapshot> = status.syncs.iter().collect();
    syncs.sort_by_key(|sync| Reverse(sync.severity));
    let is_current = |sync: &SyncSnapshot| sync.severity == Severity::Current;
    let current = status.syncs.iter().filter(|sync| is_current(sync)).count();
    match shown {
        Shown::Unusual if current > 1 => syncs.retain(|sync| !is_current(sync)),
        Shown::Trouble => syncs.retain(|sync| sync.severity == Severity::Trouble),
        Shown::All | Shown::Unusual => {}
    }
    let widest = syncs.iter().map(|sync| sync.name.chars().count());
    let widest = widest.max().unwrap_or(0);
    for sync in syncs {
        lines.push(format!("{:<widest$}  {}", sync.name, sync.detail));
        more(&mut lines, status, sync);
    }
    if shown == Shown::Unusual && current > 1 {
        let names = status.syncs.iter().filter(|sync| is_current(sync));
        let names: Vec<&str> = names.map(|sync| sync.name.as_str()).collect();
        lines.push(format!("current: {}", names.join(", ")));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn headline(status: &Snapshot) -> String {
    let word = match status.severity {
        Severity::Current => "CURRENT",
        Severity::Behind => "BEHIND",
        Severity::Trouble => "TROUBLE",
    };
    let pending: usize = status.syncs.iter().map(|sync| sync.pending).sum();
    let troubled = status.syncs.iter();
    let troubled = troubled.filter(|sync| sync.severity == Severity::Trouble);
    let names: Vec<&str> = troubled.map(|sync| sync.name.as_str()).collect();
    let troubled = match names.as_slice() {
        [] => String::new(),
        [first @ .., _] if names.len() > MAX_NAMES + 1 => {
            let first = first[..MAX_NAMES].join(", ");
            let rest = names.len() - MAX_NAMES;
            format!("{} in trouble ({first} and {rest} more), ", names.len())
        }
        names => format!("{} in trouble ({}), ", names.len(), names.join(", ")),
    };
    let watched = match status.watches {
        1 => "1 directory".to_owned(),
        count => format!("{count} directories"),
    };
    let lag = if status.lag > 0.0 {
        format!("{} behind, ", span(status.lag))
    } else {
        String::new()
    };
    // The text after the bar is performance data, as the guidelines for Nagios plug-ins define it.
    format!(
        "lsyncd {word}: {}, {troubled}{lag}{pending} pending, {watched} watched, {} of memory, up {} \
         | lag={:.1}s pending={pending}",
        counted(status.syncs.len(), "sync"),
        bytes(status.memory),
        span(status.time - status.started),
        status.lag,
    )
}

fn more(lines: &mut Vec<String>, status: &Snapshot, sync: &SyncSnapshot) {
    let mut add = |text: String| lines.push(format!("    {text}"));
    if sync.target.is_empty() {
        add(sync.source.clone())
    } else {
        add(format!("{} -> {}", sync.source, sync.target))
    }
    if sync.watch.contains("fanotify") {
        add(format!("watched with {}", sync.watch));
    }
    for child in &sync.sending {
        if let Some(progress) = &child.progress {
            add(format!(
                "process {}: {} %, {}",
                child.pid,
                progress.percent,
                progress.words()
            ));
        }
        if !child.paths.is_empty() {
            let dots = if child.entries > child.paths.len() {
                " …"
            } else {
                ""
            };
            add(format!("sending {}{dots}", child.paths.join(" ")));
        }
    }
    match sync.last_success {
        Some(time) => add(format!("last success {} ago", span(status.time - time))),
        None => add("no success yet".into()),
    }
    if let Some(error) = &sync.last_error {
        add(error.shown(status.time, sync.is_error_past()));
    }
    if let Some(remedy) = &sync.remedy {
        add(format!("remedy: {remedy}"));
    }
    for mount in &sync.away {
        add(format!(
            "not mounted: {mount}; its files on the target are kept"
        ));
    }
    for path in &sync.failed_paths {
        add(format!("failed: {path}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(severities: &[Severity]) -> Snapshot {
        let syncs = severities.iter().enumerate();
        let syncs = syncs.map(|(number, &severity)| SyncSnapshot {
            name: format!("s{number}"),
            severity,
            detail: severity.name().into(),
            ..SyncSnapshot::default()
        });
        let syncs = syncs.collect();
        Snapshot {
            syncs,
            ..Snapshot::default()
        }
        .judged()
    }

    #[test]
    fn trouble_comes_first_and_what_is_current_is_one_line() {
        use Severity::{Behind, Current, Trouble};
        let status = status(&[Current, Behind, Current, Trouble]);
        let names = |shown| -> Vec<String> {
            let text = text(&status, shown);
            let lines = text.lines().skip(1);
            let lines = lines.filter(|line| !line.starts_with(' '));
            lines.map(|line| line.replace("  ", " ")).collect()
        };
        assert_eq!(
            names(Shown::Unusual),
            ["s3 trouble", "s1 behind", "current: s0, s2"]
        );
        assert_eq!(
            names(Shown::All),
            ["s3 trouble", "s1 behind", "s0 current", "s2 current"]
        );
        assert_eq!(names(Shown::Trouble), ["s3 trouble"]);
    }

    #[test]
    fn the_first_line_names_who_is_in_trouble() {
        let first = |count| headline(&status(&vec![Severity::Trouble; count]));
        assert!(first(2).starts_with("lsyncd TROUBLE: 2 syncs, 2 in trouble (s0, s1), 0 pending"));
        assert!(first(6).contains("6 in trouble (s0, s1, s2, s3, s4, s5), "));
        assert!(first(9).contains("9 in trouble (s0, s1, s2, s3, s4 and 4 more), "));
    }
}
