//! Whether a sync may change its target: not while its source is not what it was.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::{Identity, Sync};
use crate::queue::Time;
use crate::report;

impl Sync {
    /// What speaks against sending anything now, in words for the log; a few system calls.
    pub fn objection(&self) -> Option<String> {
        let guard = &self.config.guard;
        let source = &self.config.source;
        if let Some(home) = &self.home {
            match home.is_at(source) {
                Ok(true) => {}
                Ok(false) if guard.on => return Some("the source is another directory".into()),
                Ok(false) => {}
                Err(_) => return Some("the source is not there".into()),
            }
        }
        let marker = guard.marker.as_ref()?;
        let path = [source.as_slice(), marker].concat();
        match fs::symlink_metadata(OsStr::from_bytes(&path)) {
            Ok(_) => None,
            Err(_) => Some(format!("the source has no {}", report::escape(marker))),
        }
    }

    /// The same for a source that may be another than before: is it where it belongs? If so it
    /// is the one from now on.
    pub fn inspect(&mut self) -> Option<String> {
        let Ok(found) = Identity::of(&self.config.source) else {
            return Some("the source is not there".into());
        };
        let guard = &self.config.guard;
        if guard.mount && found.mount == b"/" {
            return Some("nothing is mounted where the source is".into());
        }
        // Both are above the source, so the shorter one is above the longer.
        if guard.on && self.mount.len() > found.mount.len() {
            let mount = report::escape(&self.mount);
            return Some(format!("what was mounted at {mount} is not"));
        }
        self.mount.clone_from(&found.mount);
        self.home = Some(found);
        self.objection()
    }

    /// The source was on this mount once: less is not accepted.
    pub fn remember_mount(&mut self, mount: &[u8]) {
        let above = mount == b"/" || self.config.source.starts_with(mount);
        if above && mount.len() > self.mount.len() {
            self.mount = mount.to_vec();
        }
    }

    /// Device and inode of the source, if another directory in its place is not accepted.
    pub fn home(&self) -> Option<(u64, u64)> {
        let home = self.home.as_ref().filter(|_| self.config.guard.on);
        home.map(Identity::numbers)
    }

    /// The mount that the source is known to lie on.
    pub fn mount(&self) -> &[u8] {
        &self.mount
    }

    /// Nothing is sent from now on. True if that, or the reason, is news.
    pub fn halt(&mut self, why: String) -> bool {
        let news = self.halted.as_ref() != Some(&why);
        self.halted = Some(why);
        news
    }

    /// Why nothing is sent, if so.
    pub fn halted(&self) -> Option<&str> {
        self.halted.as_deref()
    }

    /// Goes on after a halt, with a comparison of everything; `None`: that is still to begin.
    pub fn go_on(&mut self, now: Option<Time>) {
        if let (Some(_), Some(now)) = (self.halted.take(), now) {
            self.resync_once(now);
        }
    }

    /// What is to be sent deletes no more than may be.
    pub fn within_limit(&mut self) {
        if self.excess.take().is_some() {
            let name = &self.config.name;
            report::normal(format_args!("{name}: no longer too much to delete"));
        }
    }

    /// A person says that it is all right: source and target are taken as they are, without what
    /// is not mounted, and the next transfer may delete whatever it wants.
    pub fn release_guard(&mut self, now: Time) {
        if let Ok(found) = Identity::of(&self.config.source) {
            self.mount.clone_from(&found.mount);
            self.home = Some(found);
        }
        self.forget_target_mount();
        self.unlimited = true;
        if self.away().next().is_some() {
            self.forget_mounts();
            self.resync_once(now);
        }
        self.go_on(Some(now));
    }
}
