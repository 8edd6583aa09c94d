//! Moves during a job: a rename on the target, and a comparison where a rename is not enough.

use std::io;
use std::os::fd::AsFd;

use rustix::fs;

use super::attributes;
use super::attributes::attributes_may_forbid;
use super::beneath::{self, is_directory, lookup};
use super::mirror::{Mirror, is_root, unlink};
use crate::paths;

impl Mirror<'_> {
    /// Carries out a Move as a rename, or syncs both paths if that is not possible.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) {
        if is_root(from) || is_root(to) {
            return;
        }
        self.fresh.clear();
        self.compared.clear();
        let renamed = self.try_rename(from, to).unwrap_or(false);
        if !renamed {
            self.report.split.push(from.to_vec());
            self.adds_only = false;
            self.sync_path(from, true);
            self.adds_only = self.orders.keeps_others;
            return self.sync_path(to, true);
        }
        for path in [from, to] {
            self.changed_in(paths::split(path).0);
        }
        let journal = &self.memory.journal;
        let again = matches!(self.source.lookup(from), Ok(Some(_)));
        if journal.concerns(from) || journal.concerns(to) || again {
            if again {
                self.sync_path(from, true);
            }
            self.verify(to);
        }
    }

    /// Compares a renamed path, which may contain files that were copied too early.
    fn verify(&mut self, path: &[u8]) {
        if matches!(self.source.lookup(path), Ok(None)) {
            // It has been moved again, and that Move compares it.
            return self.memory.journal.touch_tree(path);
        }
        match self.source.lookup(path) {
            Ok(Some(stat)) if !is_directory(&stat) && !path.ends_with(b"/") => {
                self.memory.journal.touch(path);
                let judge = attributes::is_proven_copy;
                if let Err(error) = self.compare_file(path, &stat, true, judge) {
                    self.fail(path, false, "bring", &error);
                }
            }
            _ => self.sync_path(path, true),
        }
    }

    fn try_rename(&self, from: &[u8], to: &[u8]) -> io::Result<bool> {
        let directory = from.ends_with(b"/");
        let (from_parent, from_name) = self.target.parent(from)?;
        let (to_parent, to_name) = self.target.parent(to)?;
        let moved = lookup(&from_parent, from_name)?;
        let there = lookup(&to_parent, to_name)?;
        let fits = moved.is_some_and(|found| is_directory(&found) == directory)
            && there.is_none_or(|found| {
                !directory && beneath::kind(&found) == rustix::fs::FileType::RegularFile
            });
        if !fits {
            return Ok(false);
        }
        let rename = || fs::renameat(from_parent.as_fd(), from_name, to_parent.as_fd(), to_name);
        attributes_may_forbid(&from_parent, || {
            rename().inspect_err(|_| attributes::open_up(&to_parent))
        })?;
        self.target.forget();
        // rename(2) keeps both names if they are hard links of one file.
        if there.is_some() && lookup(&from_parent, from_name)?.is_some() {
            unlink(&from_parent, from_name)?;
        }
        Ok(true)
    }
}
