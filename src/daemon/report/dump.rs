//! The state dump on `SIGUSR2`, written to the log.

use super::{DaemonState, snapshot};
use crate::component::Action;
use crate::status::number_format::span;

/// The maximum number of entries shown of each queue.
const MAX_ENTRIES: usize = 1000;

/// Returns the contents of the status file, and more details, as lines of the log.
pub fn dump(state: &DaemonState<'_>) -> Vec<Action> {
    let whole = snapshot(state, None, MAX_ENTRIES);
    let mut lines = vec![
        "--- USR2 signal, state dump ---".to_owned(),
        format!(
            "state: {} directories watched, {} bytes of memory, {} overflows, {} children",
            whole.watches,
            whole.memory,
            whole.overflows,
            state.transfers.running()
        ),
    ];
    for sync in &whole.syncs {
        let name = &sync.name;
        let mut say = |text: String| lines.push(format!("state: {name}: {text}"));
        say(format!(
            "{} -> {}: {}",
            sync.source, sync.target, sync.detail
        ));
        for child in &sync.sending {
            let paths = child.paths.join(" ");
            let since = span(child.seconds);
            say(format!("process {} for {since}: {paths}", child.pid));
        }
        if let Some(error) = &sync.last_error {
            say(format!(
                "last error: exit code {}: {}",
                error.code, error.text
            ));
        }
        for path in &sync.failed_paths {
            say(format!("failed: {path}"));
        }
        for entry in &sync.queue {
            let to = entry.to.as_ref();
            let to = to.map(|to| format!(" -> {to}")).unwrap_or_default();
            say(format!(
                "{:<7}{} {}{to}",
                entry.status, entry.event, entry.path
            ));
        }
        if sync.pending > sync.queue.len() {
            say(format!("… {} in all", sync.pending));
        }
    }
    lines.push("--- end of the state dump ---".to_owned());
    lines.into_iter().map(Action::normal).collect()
}
