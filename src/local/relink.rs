//! Hard links during a job: the names of one file at the source become names of one copy.

use std::io;

use rustix::fs::Stat;

use super::attributes;
use super::beneath::is_directory;
use super::copy::{self, TargetName};
use super::links::identity;
use super::mirror::Mirror;
use super::{CopyItem, CopyTask};
use crate::batch::Change;
use crate::paths;

impl Mirror<'_> {
    /// Makes this path a name of the copy if another name of this file was copied just now.
    pub(super) fn link_to_fresh(&mut self, path: &[u8], stat: &Stat) -> io::Result<bool> {
        for other in self.memory.links.others(stat, path) {
            if self.fresh.contains(&other) && self.is_name_of(&other, stat)? {
                // Without links each name is copied.
                if self.link(&other, stat, path).is_ok() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Updates the other names of a file that was copied: they belong to the old copy.
    pub(super) fn relink_others(&mut self, path: &[u8], stat: &Stat) {
        for other in self.memory.links.others(stat, path) {
            match self.is_name_of(&other, stat) {
                Ok(true) => {
                    let there = self.target.lookup(&other);
                    if matches!(there, Ok(Some(found)) if !is_directory(&found))
                        && self.link(path, stat, &other).is_ok()
                    {
                        self.changed_in(paths::split(&other).0);
                        self.fresh.insert(other);
                    }
                }
                Ok(false) => self.memory.links.forget(identity(stat), &other),
                Err(_) => {}
            }
        }
    }

    /// Reports that a file that was changed has names that are not known.
    pub(super) fn find_names(&mut self, stat: &Stat) {
        if matches!(self.orders.task, CopyTask::Events(_)) {
            self.report.names_missing |= self.memory.links.lack_names(stat);
        }
    }

    /// Makes an unchanged copy a name of the copy of another name of its file.
    pub(super) fn keep_linked(&mut self, path: &[u8], stat: &Stat, there: &Stat) {
        if !self.memory.links.note(stat, path) {
            return;
        }
        for other in self.memory.links.others(stat, path) {
            if !matches!(self.is_name_of(&other, stat), Ok(true)) {
                continue;
            }
            match self.target.lookup(&other) {
                Ok(Some(found)) if identity(&found) == identity(there) => return,
                // Without links each name has a copy.
                Ok(Some(found)) if !is_directory(&found) => {
                    if self.link(&other, stat, path).is_ok() {
                        self.changed_in(paths::split(path).0);
                    }
                    return;
                }
                _ => {}
            }
        }
    }

    /// Compares the other names of files that have lost the name of an item. What was changed
    /// through that name before has no event for the others.
    pub(super) fn compare_names_of_lost(&mut self, items: &[CopyItem]) {
        if self.memory.links.is_empty() {
            return;
        }
        let paths = items.iter().map(|item| paths::bare(&item.path)).collect();
        let gone = items.iter().filter(|item| item.path.ends_with(b"/"));
        let gone = gone.filter(|item| matches!(item.change, Change::Delete | Change::Move));
        let directories = gone.map(|item| item.path.as_slice()).collect();
        for (file, names) in self.memory.links.files_with(&paths, &directories) {
            let count = names.len();
            let mut others = Vec::new();
            for name in names {
                match self.source.lookup(&name) {
                    Ok(Some(stat)) if identity(&stat) == file => others.push((name, stat)),
                    Err(_) => {}
                    _ => {
                        self.memory.links.forget(file, &name);
                        let moved = after_moves(items, &name);
                        if let Ok(Some(stat)) = self.source.lookup(&moved)
                            && identity(&stat) == file
                        {
                            self.memory.links.note(&stat, &moved);
                            others.push((moved, stat));
                        }
                    }
                }
            }
            if others.len() == count {
                continue;
            }
            for (name, stat) in others {
                // What is missing on the target has an event of its own.
                if matches!(self.target.lookup(&name), Ok(Some(_))) {
                    self.compare_name_of_lost(&name, &stat);
                }
            }
        }
    }

    /// Compares the contents of a name that the target has.
    fn compare_name_of_lost(&mut self, path: &[u8], stat: &Stat) {
        self.memory.journal.touch(path);
        if let Err(error) = self.compare_file(path, stat, true, attributes::is_proven_copy) {
            self.fail(path, false, "bring", &error);
        }
    }

    fn is_name_of(&self, path: &[u8], stat: &Stat) -> io::Result<bool> {
        let found = self.source.lookup(path)?;
        Ok(found.is_some_and(|found| identity(&found) == identity(stat)))
    }

    fn link(&self, of: &[u8], stat: &Stat, path: &[u8]) -> io::Result<()> {
        let (of_directory, of_name) = self.target.parent(of)?;
        let (directory, name) = self.target.parent(path)?;
        copy::link_to(
            &TargetName {
                directory: &of_directory,
                name: of_name,
            },
            stat,
            &TargetName {
                directory: &directory,
                name,
            },
        )
    }
}

/// Returns the path to which the Moves among these items lead.
fn after_moves(items: &[CopyItem], path: &[u8]) -> Vec<u8> {
    let mut path = path.to_vec();
    for item in items {
        let Some(to) = &item.to else { continue };
        let (from, to) = (paths::bare(&item.path), paths::bare(to));
        match path.strip_prefix(from) {
            Some([]) => path = to.to_vec(),
            Some(below) if below.starts_with(b"/") => path = [to, below].concat(),
            _ => {}
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_follows_the_moves() {
        let item = |path: &str, to: Option<&str>| CopyItem {
            change: Change::Move,
            path: path.into(),
            to: to.map(Into::into),
        };
        let items = [
            item("/a/", Some("/b/")),
            item("/x", None),
            item("/b/f", Some("/g")),
        ];
        for (path, moved) in [
            ("/a", "/b"),
            ("/a/d", "/b/d"),
            ("/a/f", "/g"),
            ("/ab/f", "/ab/f"),
            ("/g", "/g"),
            ("/x", "/x"),
        ] {
            let found = after_moves(&items, path.as_bytes());
            assert_eq!(String::from_utf8_lossy(&found), moved, "{path}");
        }
    }
}
