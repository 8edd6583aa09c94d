//! Handles one file: if it is known, and otherwise the copy that is checked.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::SystemTime;

use rustix::fs::{self, FileType, Stat};

use super::request::{Candidate, Collected};
use super::staged_tree::StagedTree;
use super::verdict_cache::{FileIdentity, ScanVerdict};
use crate::local::attributes::{self, is_copy};
use crate::local::beneath::{self, Beneath, OpenDir, kind, lookup};
use crate::local::copy::{Copied, TargetName};

impl StagedTree {
    /// Updates the file in the tree if it is known to have passed, and otherwise copies it aside.
    pub(super) fn file(
        &mut self,
        path: &[u8],
        stat: &Stat,
        written: bool,
        found: &mut Collected,
    ) -> io::Result<()> {
        // A new directory was compared as a whole, and now an event reports a file in it.
        if self.copied.contains(path) {
            return Ok(());
        }
        let identity = identity(stat);
        let staged = self.tree.lookup(path)?;
        let alike = staged.is_some_and(|staged| is_copy(stat, &staged));
        let current = match self.verdicts.of(&identity) {
            // A function may have decided by the name.
            Some(ScanVerdict::Rejected(at, reason))
                if at == path || self.layout.rules.is_some() =>
            {
                found.rejected.push((path.to_vec(), reason.clone()));
                return Ok(());
            }
            // Passed in this state, of which its attributes are a part.
            Some(ScanVerdict::Passed(at)) if at == path && alike => {
                found.clear.push(path.to_vec());
                return Ok(());
            }
            _ => alike && !written && !self.layout.checksum,
        };
        if current {
            if self.verdicts.of(&identity).is_none() {
                let verdict = ScanVerdict::Passed(path.to_vec());
                self.verdicts.remember(identity.in_no_state(), verdict);
            }
            found.clear.push(path.to_vec());
            return self.same_attributes(path, stat);
        }
        let Some(candidate) = self.copy(path)? else {
            return Ok(());
        };
        let twin = self.verdicts.copy_of(identity.device, identity.inode);
        // Functions see names, and so are called again.
        let twin = twin
            .map(<[u8]>::to_vec)
            .filter(|_| self.layout.rules.is_some());
        let own = staged.map(|_| path.to_vec());
        for known in [own, twin].into_iter().flatten() {
            if self.same_bytes(&candidate, &known)? {
                self.install(&candidate)?;
                let verdict = ScanVerdict::Passed(path.to_vec());
                self.verdicts.remember(candidate.known_as(), verdict);
                found.clear.push(path.to_vec());
                return Ok(());
            }
        }
        self.copied.insert(path.to_vec());
        found.candidates.push(candidate);
        Ok(())
    }

    /// Copies a file aside. Returns `None` if it is not a regular file any more, which another
    /// event reports.
    fn copy(&mut self, path: &[u8]) -> io::Result<Option<Candidate>> {
        let began = now();
        let (directory, name) = self.source.parent(path)?;
        let Some(stat) = lookup(&directory, name)? else {
            return Ok(None);
        };
        if kind(&stat) != FileType::RegularFile {
            return Ok(None);
        }
        let (aside, copy) = self.incoming.place_for(name)?;
        if self.copy_to(&aside, &directory, name, &stat)? == Copied::Vanished {
            return Ok(None);
        }
        let id = identity(&stat);
        let after = lookup(&directory, name)?;
        let Some(made) = lookup(&aside, name)? else {
            return Ok(None);
        };
        let settled = id.is_settled(began) && after.is_some_and(|stat| identity(&stat) == id);
        Ok(Some(Candidate {
            path: path.to_vec(),
            copy,
            identity: id,
            made: identity(&made),
            settled,
        }))
    }

    /// Copies the object of this name in a directory into another.
    pub(super) fn copy_to(
        &mut self,
        aside: &OpenDir,
        directory: &OpenDir,
        name: &OsStr,
        stat: &Stat,
    ) -> io::Result<Copied> {
        let spot = |directory| TargetName { directory, name };
        let (from, to) = (spot(directory), spot(aside));
        self.copier.copy(&from, stat, &to, &self.stop)
    }

    /// Returns true if a copy has the contents of a file in the tree, which has passed.
    fn same_bytes(&self, candidate: &Candidate, known: &[u8]) -> io::Result<bool> {
        let (directory, name) = self.incoming.parent(&candidate.copy)?;
        let copy = read_only(&directory, name)?;
        let staged = match self
            .tree
            .parent(known)
            .and_then(|(d, name)| read_only(&d, name))
        {
            Ok(staged) => staged,
            Err(_) => return Ok(false),
        };
        let (a, b) = (fs::fstat(&copy)?, fs::fstat(&staged)?);
        if kind(&b) != FileType::RegularFile || a.st_size != b.st_size {
            return Ok(false);
        }
        same(copy, staged)
    }

    /// Updates mode, owner and attributes of the staged copy.
    fn same_attributes(&self, path: &[u8], stat: &Stat) -> io::Result<()> {
        let open = |place: &Beneath| {
            let (directory, name) = place.parent(path)?;
            read_only(&directory, name)
        };
        match (open(&self.source), open(&self.tree)) {
            (Ok(source), Ok(staged)) => {
                attributes::give(source.as_fd(), stat, staged.as_fd()).map(drop)
            }
            // A file that cannot be read cannot be copied either, and stays as it was.
            (Err(error), _) if beneath::is_missing(&error) => Ok(()),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }
}

/// Returns the identity of the file in the verdict cache.
pub(super) fn identity(stat: &Stat) -> FileIdentity {
    FileIdentity {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: stat.st_size.unsigned_abs(),
        changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
    }
}

fn now() -> (i64, i64) {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default();
    (since.as_secs() as i64, i64::from(since.subsec_nanos()))
}

fn read_only(directory: &OpenDir, name: &OsStr) -> io::Result<File> {
    Ok(beneath::open_file(directory, name)?.into())
}

fn same(one: File, other: File) -> io::Result<bool> {
    let mut one = io::BufReader::with_capacity(1 << 16, one);
    let mut other = io::BufReader::with_capacity(1 << 16, other);
    let mut buffers = ([0; 4096], [0; 4096]);
    loop {
        let read = one.read(&mut buffers.0)?;
        if read == 0 {
            return Ok(other.read(&mut buffers.1)? == 0);
        }
        match other.read_exact(&mut buffers.1[..read]) {
            Ok(()) if buffers.0[..read] == buffers.1[..read] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
