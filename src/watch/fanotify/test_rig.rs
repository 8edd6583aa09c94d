//! Makes events for [`Rig`] of records with the handles of real directories.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::time::Duration;

use super::FanotifyBackend;
use super::places::handle_of;
use super::records::count;
use super::records::tests::{info, record};
use crate::sys;
use crate::test_skip::skip;
use crate::watch::reader::{Chunk, Reader};
use crate::watch::{InotifyMode, test_rig};

/// The kind of a directory's events.
pub const DIR: u64 = libc::FAN_ONDIR;

/// The handle of a directory or file, as in events.
pub type Handle = Vec<u8>;

/// A backend on a temporary directory.
pub type Rig = test_rig::Rig<FanotifyBackend>;

impl test_rig::TestedBackend for FanotifyBackend {
    fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }
}

impl Rig {
    /// Returns a rig with these files and directories, which end with `/`. The scope does not want
    /// directories of the name `no`. Returns `None` if fanotify cannot be used, which counts as a
    /// skipped test.
    ///
    /// The file system has no mark any more, so no event of another test arrives.
    pub fn new(paths: &[&str]) -> Option<Rig> {
        let mut rig = Rig::with_roots(paths, &["r/"])?;
        let noise: Vec<String> = (0..8).map(|number| format!("noise{number}")).collect();
        rig.change(|rig| noise.iter().for_each(|name| rig.make(name)));
        let flags = libc::FAN_MARK_FLUSH | libc::FAN_MARK_FILESYSTEM;
        let top = File::open(&rig.base).unwrap();
        sys::fanotify_mark(rig.backend.places.descriptor(), flags, 0, top.as_fd()).unwrap();
        rig.change(|_| {});
        rig.reported();
        rig.reports.overflows = 0;
        Some(rig)
    }

    /// Returns a rig that watches these directories, like [`Rig::new`]. The file system has a mark.
    pub fn with_roots(paths: &[&str], roots: &[&str]) -> Option<Rig> {
        let staleness = Some(Duration::from_secs(3600));
        let start = |waker| FanotifyBackend::new(InotifyMode::CloseWrite, staleness, waker);
        let mut rig = match Rig::start(start) {
            Ok(rig) => rig,
            Err(why) => {
                skip(&format!("fanotify cannot be used: {why}"));
                return None;
            }
        };
        for path in roots.iter().chain(paths) {
            rig.make(path);
        }
        let scopes = roots.iter().map(|root| rig.scope(root)).collect();
        rig.backend.set_scopes(scopes);
        if let Some((_, why)) = rig.backend.take_refused().first() {
            skip(&format!("fanotify cannot be used here: {why}"));
            return None;
        }
        rig.reported();
        Some(rig)
    }

    /// Removes a file or an empty directory, and drops the events of that.
    pub fn remove(&mut self, path: &str) {
        self.change(|rig| match path.ends_with('/') {
            true => fs::remove_dir_all(rig.path(path)).unwrap(),
            false => fs::remove_file(rig.path(path)).unwrap(),
        });
    }

    /// Returns the handle of what is at a path.
    pub fn handle(&self, path: &str) -> Handle {
        let file = File::open(self.path(path)).unwrap();
        handle_of(file.as_fd()).unwrap().0
    }

    /// Returns the record of an event of a name in a directory. The target is what the name means.
    pub fn event(&self, mask: u64, directory: &[u8], name: &str, target: Option<&[u8]>) -> Vec<u8> {
        let system = self.backend.places.all()[0].system;
        let mut infos = vec![info(2, system, directory, Some(name.as_bytes()))];
        infos.extend(target.map(|target| info(1, system, target, None)));
        record(mask, &infos)
    }

    /// Returns the record of a rename of a target between names in directories.
    pub fn rename(
        &self,
        mask: u64,
        from: (&[u8], &str),
        to: (&[u8], &str),
        target: &[u8],
    ) -> Vec<u8> {
        let system = self.backend.places.all()[0].system;
        let infos = [
            info(10, system, from.0, Some(from.1.as_bytes())),
            info(12, system, to.0, Some(to.1.as_bytes())),
            info(1, system, target, None),
        ];
        record(libc::FAN_RENAME | mask, &infos)
    }

    /// Queues records as one read that begins at this position.
    pub fn queue_at(&mut self, start: u64, records: &[Vec<u8>]) {
        self.backend.upcoming.on_read(&records.concat());
        self.queue_unseen(start, records);
    }

    /// Queues records that were not in the kernel's queue before, as far as earlier records know.
    ///
    /// A record of another file system follows: if nothing follows a rename and other tests change
    /// files at the same time, the record that tells what it replaces may be on its way.
    pub fn queue_unseen(&mut self, start: u64, records: &[Vec<u8>]) {
        let other = info(2, *b"ELSEWHER", b"\x01\0\0\0none", Some(b"x"));
        let other = record(libc::FAN_CREATE, &[other]);
        let bytes = [records.concat(), other].concat();
        let end = start + count(&bytes) as u64;
        self.backend.pending.push_back(Chunk { bytes, start, end });
    }

    /// Handles these records, as one read, and all that follows from them. Returns the reports.
    pub fn handle_all(&mut self, records: &[Vec<u8>]) -> Vec<String> {
        let start = self.backend.reader.taken();
        self.queue_at(start, records);
        self.reported()
    }

    /// Handles one record, like [`Rig::handle_all`].
    pub fn handle_one(&mut self, record: &Vec<u8>) -> Vec<String> {
        self.handle_all(std::slice::from_ref(record))
    }
}
