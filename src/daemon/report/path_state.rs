//! What the daemon knows of one path, for `lsyncdctl explain`.

use std::rc::Rc;

use super::DaemonState;
use super::snapshot::of_sync;
use crate::batch;
use crate::daemon::inspect::explain;
use crate::log::escape;
use crate::paths;
use crate::queue::{Delay, Etype, Status, Time};
use crate::script::SyncHandle;
use crate::status::number_format::{counted, span};
use crate::sync::{Clock, Sync};

/// The maximum number of queue entries that are searched. Those being sent are the first, and a
/// waiting one of the path itself is found by its name.
const MAX_SEARCHED: usize = 20_000;

/// Returns the explanation of an absolute path, which ends with a slash if it is a directory: for
/// each sync the rule that includes or excludes it, its pending, running, failed and held changes,
/// and the state of the sync. Syncs of other sources are omitted if a sync has this source.
pub fn explained(state: &DaemonState<'_>, name: Option<&str>, path: &[u8]) -> String {
    let mut text = format!("{}\n", escape(path));
    let meant = state.syncs.iter().filter(|handle| handle.is_meant(name));
    for handle in explain::concerned(meant.cloned().collect(), path) {
        let name = handle.sync.borrow().config.name.clone();
        let verdict = explain::verdict(state.script, &handle, path);
        text.push_str(&format!("{name}: {verdict}\n"));
        for (key, value) in facts(state, &handle, path) {
            text.push_str(&format!("    {key:<9}{value}\n"));
        }
    }
    text
}

/// Returns the facts about a path in the source of a sync; none for any other.
fn facts(
    state: &DaemonState<'_>,
    handle: &Rc<SyncHandle>,
    absolute: &[u8],
) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    {
        let sync = handle.sync.borrow();
        let Some(path) = sync.relative(absolute) else {
            return facts;
        };
        if sync.excluded(path) {
            return facts;
        }
        queued(&mut facts, &sync, path, state.now);
        failed(&mut facts, &sync, path, state.now);
        if let Some(reason) = sync.gate.blocked().why(path) {
            let what = if reason.rejected {
                "rejected"
            } else {
                "not checked"
            };
            facts.push(("held", format!("by its check, {what}: {}", reason.reason)));
        }
    }
    if state.watch_limit.lacks(handle.sync.borrow().id) {
        let text = "some directories are not watched; they are compared periodically";
        facts.push(("watches", text.into()));
    }
    let snapshot = of_sync(state, handle, 0);
    facts.push(("sync", snapshot.detail));
    let is_told = facts.iter().any(|(key, _)| *key == "remedy");
    let remedy = snapshot.remedy.filter(|_| !is_told);
    facts.extend(remedy.map(|remedy| ("remedy", remedy)));
    facts
}

/// Adds the queue entries of a path.
fn queued(facts: &mut Vec<(&'static str, String)>, sync: &Sync, path: &[u8], now: Time) {
    let named = sync.queue.open_at(path).and_then(|id| sync.queue.get(id));
    let first = sync.queue.iter().take(MAX_SEARCHED);
    let mut seen = Vec::new();
    let mut below = 0;
    for delay in named.into_iter().chain(first) {
        if seen.contains(&delay.id()) {
            continue;
        }
        match relation(&delay, path) {
            PathRelation::None => {}
            PathRelation::Below => below += 1,
            PathRelation::Covers => {
                seen.push(delay.id());
                facts.push(entry(&delay, path, now));
            }
        }
    }
    if below > 0 {
        facts.push(("pending", format!("{} below it", counted(below, "change"))));
    }
    let backlog = sync.backlog(MAX_SEARCHED);
    if backlog.iter().any(|(_, changed)| covers(changed, path)) {
        facts.push(("pending", "behind other changes of this target".into()));
    }
}

enum PathRelation {
    None,
    /// The entry is of the path, or of a directory above it, or of everything.
    Covers,
    /// The entry is of something below the path.
    Below,
}

fn relation(delay: &Delay<'_>, path: &[u8]) -> PathRelation {
    if delay.etype().is_special() {
        return PathRelation::Covers;
    }
    let (from, to) = delay.paths();
    let mut of_entry = [Some(&from), to.as_ref()].into_iter().flatten();
    if of_entry.clone().any(|of_entry| covers(of_entry, path)) {
        PathRelation::Covers
    } else if path.ends_with(b"/") && of_entry.any(|of_entry| of_entry.starts_with(path)) {
        PathRelation::Below
    } else {
        PathRelation::None
    }
}

/// Returns true if a change is of this path, or of a directory above it.
fn covers(changed: &[u8], path: &[u8]) -> bool {
    paths::bare(changed) == paths::bare(path)
        || (changed.ends_with(b"/") && path.starts_with(changed))
}

fn entry(delay: &Delay<'_>, path: &[u8], now: Time) -> (&'static str, String) {
    let (from, to) = delay.paths();
    let mut what = delay.etype().name().to_owned();
    if delay.etype().is_special() {
        what = format!("{what}, a full comparison");
    } else if paths::bare(&from) != paths::bare(path) || to.is_some() {
        what = format!("{what} of {}", escape(&from));
        if let Some(to) = to {
            what.push_str(&format!(" to {}", escape(&to)));
        }
    }
    if delay.etype() == Etype::Delete && from.ends_with(b"/") {
        what.push_str(" (a comparison, if the directory exists)");
    }
    let overdue = || span(Clock::until(delay.first_due(), now).as_secs_f64());
    match delay.status() {
        Status::Active => ("sending", what),
        Status::Block => ("pending", format!("{what}, behind another change")),
        Status::Wait if delay.due() > now => {
            let left = span(Clock::until(now, delay.due()).as_secs_f64());
            ("pending", format!("{what}, due in {left}"))
        }
        Status::Wait => ("pending", format!("{what}, due for {}", overdue())),
    }
}

/// Adds the failure of a path.
fn failed(facts: &mut Vec<(&'static str, String)>, sync: &Sync, path: &[u8], now: Time) {
    let failed_paths = sync.failed_paths();
    let mut above = paths::directories(path).filter(|directory| *directory != b"/");
    let is_failed =
        |path: &[u8]| failed_paths.etype_of(path).is_some() || failed_paths.is_tried(path);
    if !is_failed(path) && !above.any(is_failed) {
        return;
    }
    let mut text = String::from("not transferred");
    if let Some(failure) = &sync.counters.last_failure {
        text.push_str(&format!("; the last error: {}", escape(&failure.text)));
    }
    if let Some(due) = failed_paths.due() {
        let left = span(Clock::until(now, due).as_secs_f64());
        text.push_str(&format!("; retried in {left}"));
    }
    facts.push(("failed", text));
    let failure = sync.counters.last_failure.as_ref();
    if let Some(remedy) = failure.and_then(|failure| batch::remedy(&failure.text)) {
        facts.push(("remedy", remedy.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::RetryEntries;
    use crate::sync::tests::sync_of;

    const SECOND: Time = 1_000_000;

    /// Returns what is told of the queue entries of a path, at a time after 10 seconds.
    fn told(sync: &Sync, path: &str) -> Vec<String> {
        let mut facts = Vec::new();
        queued(&mut facts, sync, path.as_bytes(), 10 * SECOND);
        facts
            .into_iter()
            .map(|(key, text)| format!("{key}: {text}"))
            .collect()
    }

    #[test]
    fn an_entry_concerns_its_path_and_what_is_below_a_directory() {
        for (changed, path, expected) in [
            ("/d/", "/d/f", true),
            ("/d/", "/d", true),
            ("/d", "/d/", true),
            ("/d", "/d/f", false),
            ("/e/", "/d/f", false),
            ("/d/f", "/d/", false),
        ] {
            let is_concerned = covers(changed.as_bytes(), path.as_bytes());
            assert_eq!(is_concerned, expected, "{changed} {path}");
        }
    }

    #[test]
    fn pending_changes_of_a_path_are_told() {
        let mut sync = sync_of(b"/src/");
        let changes = [
            (Etype::Modify, "/d/f", 12),
            (Etype::Modify, "/d/g", 10),
            (Etype::Delete, "/gone", 7),
            (Etype::Delete, "/dir/", 7),
            (Etype::Create, "/new/", 7),
        ];
        for (etype, path, due) in changes {
            sync.queue.push(etype, path.as_bytes(), None, due * SECOND);
        }
        for (path, expected) in [
            ("/d/f", "pending: Modify, due in 2 s"),
            ("/d/g", "pending: Modify, due for "),
            ("/d/", "pending: 2 changes below it"),
            ("/gone", "pending: Delete, due for "),
            (
                "/dir/",
                "pending: Delete (a comparison, if the directory exists), due for ",
            ),
            ("/new/", "pending: Create, due for "),
        ] {
            let told = told(&sync, path);
            let is_told = told.len() == 1 && told[0].starts_with(expected);
            assert!(is_told, "{path} {told:?}");
        }
        assert_eq!(told(&sync, "/d"), [""; 0]);
    }

    #[test]
    fn a_failed_path_is_told_and_so_is_one_below_a_failed_directory() {
        let mut sync = sync_of(b"/src/");
        let mut failing = RetryEntries::new();
        for path in [&b"/d/"[..], b"/f"] {
            sync.queue.push(Etype::Create, path, None, 0);
            failing.insert(path.to_vec(), Etype::Create);
        }
        let ids: Vec<_> = sync.queue.iter().map(|delay| delay.id()).collect();
        sync.begin(&ids);
        sync.defer_failed(&ids, &failing, false, 0).unwrap();
        for (path, expected) in [("/f", 1), ("/d/", 1), ("/d/inner/g", 1), ("/g", 0)] {
            let mut facts = Vec::new();
            failed(&mut facts, &sync, path.as_bytes(), 0);
            assert_eq!(facts.len(), expected, "{path} {facts:?}");
        }
    }
}
