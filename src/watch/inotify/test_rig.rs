//! Makes events for [`Rig`] with the descriptors of real watches.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use super::InotifyBackend;
use super::records::RawEvent;
use super::tree::DirNode;
use crate::watch::reader::Reader;
use crate::watch::{Backend, InotifyMode, test_rig};

/// The kind of a directory's events.
pub const DIR: u32 = libc::IN_ISDIR;

/// A backend on a temporary directory.
pub type Rig = test_rig::Rig<InotifyBackend>;

impl test_rig::TestedBackend for InotifyBackend {
    fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }
}

impl Rig {
    /// Returns a rig that watches `r/`, with these files and directories, which end with `/`. The
    /// scope does not want directories of the name `no`.
    pub fn new(paths: &[&str]) -> Rig {
        let mut rig = Rig::with(paths);
        let scope = rig.scope("r/");
        rig.backend.set_scopes(vec![scope]);
        assert_eq!(rig.quiet(), [""; 0]);
        rig
    }

    /// Returns a rig that watches nothing, with `r/` and these files and directories.
    pub fn with(paths: &[&str]) -> Rig {
        let start = |waker| InotifyBackend::new(InotifyMode::CloseWrite, None, waker);
        let mut rig = Rig::start(start).unwrap();
        rig.add(&["r/"]);
        rig.add(paths);
        rig
    }

    /// Returns the node of a directory, whose path ends with `/`.
    pub fn node(&self, path: &str) -> DirNode {
        let path = self.absolute(path);
        self.backend.tree.find(&path).unwrap()
    }

    /// Returns the descriptor of a watched directory.
    pub fn wd(&self, path: &str) -> i32 {
        self.backend.tree.wd(self.node(path))
    }

    /// Handles an event of a name in the directory with this descriptor.
    pub fn event(&mut self, wd: i32, mask: u32, name: &str) {
        self.half(wd, mask, name, 0);
    }

    /// Handles an event with a cookie.
    pub fn half(&mut self, wd: i32, mask: u32, name: &str, cookie: u32) {
        self.backend.now = Instant::now();
        let name = name.as_bytes();
        let event = RawEvent {
            wd,
            mask,
            cookie,
            name,
        };
        self.backend.dispatch(event, &mut self.reports);
    }

    /// Handles both halves of a rename.
    pub fn rename(&mut self, mask: u32, from: (i32, &str), to: (i32, &str), cookie: u32) {
        self.half(from.0, libc::IN_MOVED_FROM | mask, from.1, cookie);
        self.half(to.0, libc::IN_MOVED_TO | mask, to.1, cookie);
    }

    /// Runs turns until everything has been reported. Returns the reports. Asserts that nothing was
    /// lost, and that the watches of the kernel and those of the tree are the wanted directories.
    pub fn quiet(&mut self) -> Vec<String> {
        let told = self.reported();
        assert_eq!(self.reports.overflows, 0, "{told:?}");
        self.check(&told);
        told
    }

    fn check(&self, told: &[String]) {
        let (mut watched, mut numbers) = (Vec::new(), Vec::new());
        self.backend.for_each_watch(&mut |wd, path| {
            numbers.push(wd);
            watched.push(path.to_vec());
        });
        let mut wanted = Vec::new();
        if self.path("r").is_dir() {
            find(&self.path("r"), &mut wanted);
        }
        watched.sort();
        wanted.sort();
        let text = |paths: &[Vec<u8>]| String::from_utf8_lossy(&paths.join(&b' ')).into_owned();
        assert_eq!(text(&watched), text(&wanted), "{told:?}");
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(self.kernel_watches(), numbers, "{told:?}");
    }

    /// Returns the descriptors of all watches of the kernel.
    pub fn kernel_watches(&self) -> Vec<i32> {
        let number = self.backend.inotify.as_fd().as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
        let wd = |line: &str| {
            let number = line.strip_prefix("inotify wd:")?.split(' ').next()?;
            i32::from_str_radix(number, 16).ok()
        };
        let mut watches: Vec<i32> = info.lines().filter_map(wd).collect();
        watches.sort_unstable();
        watches
    }
}

/// Finds the wanted directories.
fn find(directory: &Path, found: &mut Vec<Vec<u8>>) {
    found.push([directory.as_os_str().as_bytes(), b"/"].concat());
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() && entry.file_name() != "no" {
            find(&entry.path(), found);
        }
    }
}
