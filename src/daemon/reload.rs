//! Reload of the configuration: the new syncs take over the state of the previous ones.

use std::cell::RefCell;
use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mlua::Value;

use super::context::Context;
use super::{failure, select};
use crate::config::text_of;
use crate::log;
use crate::script::{Environment, Script, SyncHandle};
use crate::sync::{self, Sync};
use crate::transfer::Job;

/// The syncs that a reload replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadScope {
    /// All syncs are restarted. No transfer may be running.
    All,
    /// Syncs with an unchanged configuration keep their queues, watches and children.
    Changed,
}

/// The number of syncs by what has become of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReloadedSyncs {
    /// The syncs that are not affected.
    pub untouched: usize,
    /// Syncs that take over the pending events of a previous one.
    pub changed: usize,
    /// Syncs without predecessor.
    pub new: usize,
    /// Syncs without successor.
    pub removed: usize,
}

impl fmt::Display for ReloadedSyncs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReloadedSyncs {
            untouched,
            changed,
            new,
            removed,
        } = self;
        write!(
            f,
            "{untouched} untouched, {changed} changed, {new} new, {removed} removed"
        )
    }
}

/// Ends a configuration that has been shut down, or continues it if there is no new one.
pub fn retire(last: &Rc<Script>, new: &Rc<Script>) {
    if Rc::ptr_eq(last, new) {
        last.resume();
    } else {
        let observed = &last.context.observed;
        observed.leave(&new.context.observed).close();
    }
    // In a reloaded configuration, a failed startup transfer does not end the daemon.
    new.insist();
}

/// Returns true if both configurations request the same inotify events.
pub fn same_watching(one: &Script, other: &Script) -> bool {
    let watching = |script: &Script| {
        let settings = &script.settings;
        (settings.watch, script.mode(), settings.max_staleness)
    };
    watching(one) == watching(other)
}

/// Returns true if the change of configuration restarts all syncs: the configurations request
/// different inotify events, or have tunnels.
pub fn replaces_all(old: &Script, new: &Script) -> bool {
    let tunnels = |script: &Script| !script.context.tunnels.borrow().is_empty();
    !same_watching(old, new) || tunnels(old) || tunnels(new)
}

/// Hands pending events and running children of the previous syncs to their successors, which
/// start up when their directories are watched and the children have ended.
pub fn hand_over<'a>(
    scope: ReloadScope,
    old: &[Rc<SyncHandle>],
    new: &[Rc<SyncHandle>],
    jobs: impl Iterator<Item = &'a mut Job>,
) -> ReloadedSyncs {
    let mut jobs: Vec<_> = jobs.collect();
    let (mut heirs, mut others, mut untouched) = (Vec::new(), Vec::new(), 0);
    for handle in new {
        let is_kept = is_among(old, &handle.sync);
        if !is_kept || scope == ReloadScope::All {
            handle.sync.borrow_mut().await_watches();
        }
        if is_kept {
            untouched += 1;
            continue;
        }
        let replaced =
            |other: &&Rc<SyncHandle>| same_work(other, handle) && !is_among(new, &other.sync);
        match old.iter().find(replaced) {
            Some(before) => {
                take_over(before, handle, &mut jobs);
                heirs.push(handle);
            }
            None => others.push(handle),
        }
    }
    if scope == ReloadScope::All {
        for other in &others {
            let mut other = other.sync.borrow_mut();
            let mut heirs = heirs.iter().map(|heir| heir.sync.borrow());
            heirs.find(|heir| sync::share_inherited(heir, &mut other));
        }
    }
    let changed = heirs.len();
    ReloadedSyncs {
        untouched,
        changed,
        new: others.len(),
        removed: old.len() - untouched - changed,
    }
}

/// Replaces a sync by another, which takes over its pending events and waits for its children.
fn take_over(before: &SyncHandle, handle: &SyncHandle, jobs: &mut [&mut Job]) {
    let mut sync = handle.sync.borrow_mut();
    sync.adopt(&before.sync.borrow());
    for job in jobs.iter_mut().filter(|job| job.is_for(&before.sync)) {
        job.heir = Some(Rc::clone(&handle.sync));
        sync.add_predecessor_job(job.events());
    }
}

fn is_among(syncs: &[Rc<SyncHandle>], sync: &Rc<RefCell<Sync>>) -> bool {
    syncs.iter().any(|other| Rc::ptr_eq(&other.sync, sync))
}

/// Returns true if both keep the same target current from the same source. A link that leads
/// elsewhere by now is the same source, in whose place another directory is.
fn same_work(one: &SyncHandle, other: &SyncHandle) -> bool {
    let same_source = {
        let (one, other) = (one.sync.borrow(), other.sync.borrow());
        one.config.named_source == other.config.named_source
            || one.config.source == other.config.source
    };
    let same = |key| {
        let text = |handle: &SyncHandle| text_of(&handle.config.get(key).unwrap_or(Value::Nil));
        text(one) == text(other)
    };
    same_source && ["target", "host", "targetdir"].into_iter().all(same)
}

/// Reads the configuration relative to the directory in which the daemon was started. Errors are
/// logged. Settings of the process (log file, pid file, foreground) do not change.
pub fn read(
    environment: &Environment,
    context: &Context,
    old: &Script,
    scope: ReloadScope,
) -> Result<Script, String> {
    let before = match scope {
        ReloadScope::All => Vec::new(),
        ReloadScope::Changed => old.syncs(),
    };
    let here = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let enter = |directory: &Path| {
        if let Err(error) = env::set_current_dir(directory) {
            let shown = directory.display();
            log::error(format_args!("cannot change to {shown}: {error}"));
        }
    };
    enter(&environment.directory);
    old.context.observed.suspend();
    let loaded = Script::load(environment, &context.children, context.clock, before);
    enter(&here);
    let checked = loaded.and_then(|script| {
        if script.syncs().is_empty() {
            Err(failure("Nothing to watch!"))
        } else {
            script.run().map(|()| script)
        }
    });
    match checked {
        Ok(script) => {
            select(&script.settings, &environment.options);
            Ok(script)
        }
        Err(problem) => {
            for line in &problem.lines {
                log::error(line);
            }
            old.context.observed.resume();
            log::error("The previous configuration stays in force.");
            Err(problem.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use mlua::Lua;

    use super::*;
    use crate::queue::Etype;
    use crate::sync::tests::sync_of;

    /// Returns a sync of this source and target, with this pending path if it is not empty.
    fn handle(lua: &Lua, source: &str, target: &str, pending: &str) -> Rc<SyncHandle> {
        let mut sync = sync_of(source.as_bytes());
        if !pending.is_empty() {
            sync.queue.push(Etype::Modify, pending.as_bytes(), None, 0);
        }
        let handle = SyncHandle::of_sync(lua, sync);
        handle.config.set("target", target).unwrap();
        handle
    }

    /// Returns the pending paths of a sync.
    fn pending(handle: &SyncHandle) -> Vec<String> {
        let (events, _) = handle.sync.borrow().pending_events();
        let paths = events.into_iter().map(|(_, path, _)| path);
        paths.map(|path| String::from_utf8(path).unwrap()).collect()
    }

    #[test]
    fn what_is_pending_goes_to_the_sync_of_the_same_source_and_target() {
        for scope in [ReloadScope::All, ReloadScope::Changed] {
            let lua = Lua::new();
            let old = [
                handle(&lua, "/other/", "/one/", "/of-another-source"),
                handle(&lua, "/src/", "/two/", "/of-another-target"),
                handle(&lua, "/src/", "/one/", "/f"),
            ];
            let new = [
                handle(&lua, "/src/", "/three/", ""),
                handle(&lua, "/src/", "/one/", ""),
            ];
            let counts = hand_over(scope, &old, &new, std::iter::empty());
            assert_eq!(pending(&new[0]), [""; 0]);
            assert_eq!(pending(&new[1]), ["/f"]);
            assert!(new.iter().all(|it| it.sync.borrow().awaits_watches()));
            let expected = ReloadedSyncs {
                untouched: 0,
                changed: 1,
                new: 1,
                removed: 2,
            };
            assert_eq!(counts, expected);
        }
    }

    /// A link that leads elsewhere by now is the same source, and so is the directory itself.
    #[test]
    fn a_source_is_known_by_its_name_and_by_its_path() {
        let lua = Lua::new();
        for (before, after) in [("/link/", "/link/"), ("/link/", "/src/")] {
            let old = [handle(&lua, "/src/", "/one/", "/f")];
            let source = if before == after { "/moved/" } else { "/src/" };
            let new = [handle(&lua, source, "/one/", "")];
            old[0].sync.borrow_mut().config.named_source = before.into();
            new[0].sync.borrow_mut().config.named_source = after.into();
            hand_over(ReloadScope::Changed, &old, &new, std::iter::empty());
            assert_eq!(pending(&new[0]), ["/f"]);
        }
    }

    #[test]
    fn a_sync_that_is_kept_keeps_what_is_pending() {
        for scope in [ReloadScope::All, ReloadScope::Changed] {
            let lua = Lua::new();
            let kept = handle(&lua, "/src/", "/one/", "/f");
            let other = handle(&lua, "/src/", "/one/", "");
            let new = [Rc::clone(&kept), Rc::clone(&other)];
            let old = [Rc::clone(&kept)];
            let counts = hand_over(scope, &old, &new, std::iter::empty());
            assert_eq!((counts.untouched, counts.new), (1, 1));
            assert_eq!(pending(&kept), ["/f"]);
            assert_eq!(pending(&other), [""; 0]);
            let awaits = kept.sync.borrow().awaits_watches();
            assert_eq!(awaits, scope == ReloadScope::All);
        }
    }
}
