//! Reload of the configuration: all syncs on `SIGHUP`, or only the changed ones.

use std::cell::RefCell;
use std::env;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mlua::Value;

use super::context::Context;
use super::event_loop::EventLoop;
use super::os::signals::Signal;
use super::{failure, select};
use crate::component::Ending;
use crate::config::text_of;
use crate::log;
use crate::script::{Environment, Script, SyncHandle};
use crate::sync::{self, Sync};

/// Returns the configuration after a reset: the new one, or the old one if the new one is invalid.
/// Pending events move to the new syncs. Settings of the process (log, pid file, foreground) do not
/// change.
pub fn everything(environment: &Environment, context: &Context, old: Rc<Script>) -> Rc<Script> {
    let Some(new) = read(environment, context, &old, Vec::new()) else {
        old.resume();
        return old;
    };
    let (mut heirs, mut others) = (Vec::new(), Vec::new());
    for handle in new.syncs() {
        match old.syncs().iter().find(|other| same_work(other, &handle)) {
            Some(before) => {
                handle.sync.borrow_mut().adopt(&before.sync.borrow());
                heirs.push(handle);
            }
            None => others.push(handle),
        }
    }
    for other in others {
        let mut other = other.sync.borrow_mut();
        let mut heirs = heirs.iter().map(|heir| heir.sync.borrow());
        heirs.find(|heir| sync::share_inherited(heir, &mut other));
    }
    Rc::new(new)
}

/// Returns true if both configurations request the same inotify events.
pub fn same_watching(one: &Script, other: &Script) -> bool {
    (one.mode(), one.settings.max_staleness) == (other.mode(), other.settings.max_staleness)
}

impl EventLoop<'_> {
    /// Reloads the configuration and replaces the syncs that have changed. An unchanged sync keeps
    /// its queue, its watches and its children. New and changed syncs start up when the children of
    /// the replaced ones have ended, and take over their pending events. Returns false if the new
    /// configuration is invalid; this is logged and the old one stays.
    ///
    /// A change of `inotifyMode` or `maxStaleness`, and a configuration with tunnels, reset all
    /// syncs.
    pub fn reload_changed(&mut self) -> bool {
        if self.shutdown.is_some() {
            return true;
        }
        let Some(new) = read(
            self.environment,
            self.context,
            &self.script,
            self.syncs.clone(),
        ) else {
            return false;
        };
        let tunnels = |script: &Script| !script.context.tunnels.borrow().is_empty();
        if !same_watching(&new, &self.script) || tunnels(&new) || tunnels(&self.script) {
            self.begin_shutdown(Ending::Reset);
            return true;
        }
        self.script.shut_down();
        self.scan_passes.close(&self.transfers, self.now);
        let old = std::mem::replace(&mut self.syncs, new.syncs());
        // The old script lives as long as its children.
        let last = std::mem::replace(&mut self.script, Rc::new(new));
        last.context
            .observed
            .leave(&self.script.context.observed)
            .close();
        self.script.insist();
        self.transfers.on_reload(&self.script, &self.syncs);
        let (mut untouched, mut changed) = (0, 0);
        for handle in self.syncs.clone() {
            if is_among(&old, &handle.sync) {
                untouched += 1;
                continue;
            }
            handle.sync.borrow_mut().await_watches();
            let replaced = |other: &&Rc<SyncHandle>| {
                same_work(other, &handle) && !is_among(&self.syncs, &other.sync)
            };
            if let Some(before) = old.iter().find(replaced) {
                changed += 1;
                self.take_over(before, &handle);
            }
        }
        let new = self.syncs.len() - untouched - changed;
        let removed = old.len() - untouched - changed;
        log::normal(format_args!(
            "Read the configuration again, syncs: {untouched} untouched, {changed} changed, \
             {new} new, {removed} removed"
        ));
        self.local_jobs.retire(&self.syncs);
        self.restart_watching();
        true
    }

    /// As [`EventLoop::reload_changed`], with reports to the service manager, for reload requests.
    pub(super) fn reload_on_request(&mut self) -> bool {
        log::normal("on request: reading the configuration again");
        self.context.notify.heard(Signal::HangUp);
        self.reload_changed()
    }

    /// Replaces a sync by another, which takes over its pending events and waits for its children.
    fn take_over(&mut self, before: &SyncHandle, handle: &SyncHandle) {
        let mut sync = handle.sync.borrow_mut();
        sync.adopt(&before.sync.borrow());
        for job in self.transfers.jobs_mut().chain(self.local_jobs.jobs_mut()) {
            if job.is_for(&before.sync) {
                job.heir = Some(Rc::clone(&handle.sync));
                sync.add_predecessor_job();
            }
        }
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
/// logged.
fn read(
    environment: &Environment,
    context: &Context,
    old: &Script,
    before: Vec<Rc<SyncHandle>>,
) -> Option<Script> {
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
            Some(script)
        }
        Err(problem) => {
            for line in &problem.lines {
                log::error(line);
            }
            old.context.observed.resume();
            log::error("The configuration was not changed, the one before goes on.");
            None
        }
    }
}
