//! Formats a status as lines of text. The first line has the form of a Nagios plug-in.

use lsyncd::status::health::Severity;
use lsyncd::status::number_format::bytes;
use lsyncd::status::number_format::counted;
use lsyncd::status::number_format::span;
use lsyncd::status::snapshot::Snapshot;
use lsyncd::status::snapshot::SyncSnapshot;

/// Returns the text of a status.
pub fn text(status: &Snapshot) -> String {
    let mut lines = vec![headline(status)];
    let widest = status.syncs.iter().map(|sync| sync.name.chars().count());
    let widest = widest.max().unwrap_or(0);
    for sync in &status.syncs {
        lines.push(format!("{:<widest$}  {}", sync.name, sync.detail));
        more(&mut lines, status, sync);
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
    let troubled = match troubled.count() {
        0 => String::new(),
        count => format!("{count} in trouble, "),
    };
    let watched = match status.watches {
        1 => "1 directory".to_owned(),
        count => format!("{count} directories"),
    };
    format!(
        "lsyncd {word}: {}, {troubled}{pending} pending, {watched} watched, {} of memory, up {}",
        counted(status.syncs.len(), "sync"),
        bytes(status.memory),
        span(status.time - status.started),
    )
}

fn more(lines: &mut Vec<String>, status: &Snapshot, sync: &SyncSnapshot) {
    let mut add = |text: String| lines.push(format!("    {text}"));
    if sync.target.is_empty() {
        add(sync.source.clone())
    } else {
        add(format!("{} -> {}", sync.source, sync.target))
    }
    for child in &sync.sending {
        if let Some(progress) = &child.progress {
            add(format!(
                "process {}: {}, {} %, {}, {}",
                child.pid,
                bytes(progress.bytes),
                progress.percent,
                progress.rate,
                progress.time
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
        let ago = span(status.time - error.time);
        let code = error.code;
        add(format!(
            "last error {ago} ago, exit code {code}: {}",
            error.text
        ));
    }
    for mount in &sync.away {
        add(format!(
            "not mounted: {mount}; the target keeps what it has of it"
        ));
    }
    for path in &sync.failed_paths {
        add(format!("left undone: {path}"));
    }
}
