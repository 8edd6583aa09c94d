//! Reads a directory that has come from outside, with everything below it.
//!
//! Names are read through the descriptor of the directory, so renames of it or of a parent have no
//! effect. Renames below it in the meantime are events. A large directory is read on a thread.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use mio::Waker;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat};

use crate::watch::Tell;
use crate::watch::scopes::Scopes;

/// The maximum number of entries and directories that are read on the loop's thread.
const MAX_INLINE_ENTRIES: usize = 256;
const MAX_INLINE_DIRECTORIES: usize = 64;
/// The number of paths that a thread hands over at once, and the number of such batches that wait.
const BATCH_PATHS: usize = 1000;
const MAX_BATCHES: usize = 16;

/// A directory whose contents are reported.
pub struct ContentsRead {
    top: OwnedFd,
    /// The absolute path, ending with `/`.
    pub path: Vec<u8>,
    /// The observers to which they are reported.
    pub tell: Tell,
    scopes: Scopes,
    /// Directories to be read, relative to the first.
    unread: Vec<Vec<u8>>,
    directories: usize,
    entries: usize,
}

impl ContentsRead {
    /// Returns a task for an open directory at this path, which ends with `/`.
    pub fn new(top: OwnedFd, path: Vec<u8>, tell: Tell, scopes: Scopes) -> ContentsRead {
        ContentsRead {
            top,
            path,
            tell,
            scopes,
            unread: vec![Vec::new()],
            directories: 0,
            entries: 0,
        }
    }

    /// Returns true if there is too much for the loop's thread.
    pub fn is_large(&self) -> bool {
        self.entries > MAX_INLINE_ENTRIES || self.directories > MAX_INLINE_DIRECTORIES
    }

    /// Reads one directory and passes the absolute paths of its entries to `tell`; those of
    /// directories end with `/`. Returns false if there is none left. With `inline`, one that is
    /// too large is read again by the next call.
    ///
    /// # Errors
    ///
    /// The directory cannot be read. A directory that does not exist is not an error.
    pub fn step(&mut self, inline: bool, tell: &mut dyn FnMut(Vec<u8>)) -> io::Result<bool> {
        let Some(below) = self.unread.pop() else {
            return Ok(false);
        };
        self.directories += 1;
        match self.read(&below, inline, tell) {
            Ok(true) => Ok(true),
            Ok(false) => {
                self.unread.push(below);
                Ok(true)
            }
            Err(error) if is_gone(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Returns false if there are too many entries to be read inline.
    fn read(
        &mut self,
        below: &[u8],
        inline: bool,
        tell: &mut dyn FnMut(Vec<u8>),
    ) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let directory = open_path(&self.top, below, flags)?;
        let mut listing = Dir::new(directory)?;
        let (mut below_it, mut found) = (Vec::new(), Vec::new());
        while let Some(entry) = listing.read() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if inline && self.is_large() {
                return Ok(false);
            }
            let kind = match entry.file_type() {
                FileType::Unknown => match statat(listing.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(status) => FileType::from_raw_mode(status.st_mode),
                    Err(_) => continue,
                },
                kind => kind,
            };
            let mut path = [&self.path, below, name.to_bytes()].concat();
            if kind == FileType::Directory {
                path.push(b'/');
                if self.scopes.wanted(&path) {
                    below_it.push([below, name.to_bytes(), b"/"].concat());
                }
            }
            if inline {
                found.push(path);
            } else {
                tell(path);
            }
        }
        found.into_iter().for_each(tell);
        // The first one is read next.
        below_it.reverse();
        self.unread.append(&mut below_it);
        Ok(true)
    }

    /// Reads the rest on a thread, which wakes the loop.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn go_on(mut self, waker: Arc<Waker>) -> io::Result<RunningRead> {
        let (tell, path) = (self.tell, self.path.clone());
        let (sender, found) = sync_channel(MAX_BATCHES);
        let read = move || {
            let mut batch = Vec::new();
            let send = |batch: &mut Vec<Vec<u8>>, error| {
                let is_wanted = sender.send((std::mem::take(batch), error)).is_ok();
                let _ = waker.wake();
                is_wanted
            };
            let mut is_wanted = true;
            loop {
                let result = self.step(false, &mut |path| {
                    batch.push(path);
                    if batch.len() == BATCH_PATHS {
                        is_wanted &= send(&mut batch, None);
                    }
                });
                let is_last = matches!(result, Ok(false));
                if is_last || result.is_err() {
                    is_wanted &= send(&mut batch, result.err());
                }
                if is_last || !is_wanted {
                    break;
                }
            }
            drop(sender);
            let _ = waker.wake();
        };
        thread::Builder::new().name("contents".into()).spawn(read)?;
        Ok(RunningRead { tell, path, found })
    }
}

/// Paths, and the error after them.
type Batch = (Vec<Vec<u8>>, Option<io::Error>);

/// A directory that is read on a thread, which ends when this is dropped.
pub struct RunningRead {
    /// The observers to which the contents are reported.
    pub tell: Tell,
    /// The path of the directory.
    pub path: Vec<u8>,
    found: Receiver<Batch>,
}

impl RunningRead {
    /// Returns what was found, if there is something yet; an error when all was read.
    ///
    /// # Errors
    ///
    /// There will be no more.
    pub fn take(&self) -> Result<Option<Batch>, ()> {
        match self.found.try_recv() {
            Ok(batch) => Ok(Some(batch)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(()),
        }
    }
}

/// Returns true if the error says that there is no such directory (any more). openat2(2) returns
/// `EXDEV` if the directory has been moved away while it was being opened.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ESTALE | libc::EXDEV)
    )
}

/// Opens a directory below an open one. Symbolic links are not followed.
pub fn open_below(top: &impl AsFd, below: &[u8]) -> rustix::io::Result<OwnedFd> {
    open_path(
        top,
        below,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
    )
}

fn open_path(top: &impl AsFd, below: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if below.is_empty() { b"." } else { below };
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    openat2(top, OsStr::from_bytes(path), flags, Mode::empty(), resolve)
}

/// Opens a directory in an open one.
pub fn open(parent: &impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, OsStr::from_bytes(name), flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, Permissions, create_dir_all};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    #[test]
    fn a_swapped_component_does_not_lead_out() {
        let top = tempfile::tempdir().unwrap();
        create_dir_all(top.path().join("in/a/b")).unwrap();
        create_dir_all(top.path().join("out/b")).unwrap();
        symlink("../out", top.path().join("in/link")).unwrap();
        symlink("a", top.path().join("in/inner")).unwrap();
        let root = File::open(top.path().join("in")).unwrap();
        for path in ["", "a", "a/b/", "a/../a"] {
            assert!(open_below(&root, path.as_bytes()).is_ok(), "{path}");
        }
        for path in ["link", "link/b/", "inner/b", "../out", "/"] {
            assert!(open_below(&root, path.as_bytes()).is_err(), "{path}");
        }
    }
    /// A pipe would block the loop, and a link leads out of the source.
    #[test]
    fn only_a_directory_is_opened() {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        create_dir_all(path("dir/sub")).unwrap();
        File::create(path("file")).unwrap();
        symlink("dir", path("link")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let root = File::open(top.path()).unwrap();
        for name in ["file", "link", "pipe", "none"] {
            assert!(open(&root, name.as_bytes()).is_err(), "{name}");
            assert!(open_below(&root, name.as_bytes()).is_err(), "{name}");
        }
        assert!(open(&root, b"dir").is_ok());
        let directory = open_below(&root, b"dir/sub/").unwrap();
        let flags = rustix::io::fcntl_getfd(&directory).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    /// Returns the paths that are found below `/top/`, in order, and true if a thread read them.
    fn read_all(top: File, wants: fn(&[u8]) -> bool) -> (Vec<String>, bool) {
        let scope = crate::watch::Scope {
            root: b"/top/".to_vec(),
            wants: Arc::new(wants),
        };
        let scopes = Scopes::new(vec![scope]);
        let mut read = ContentsRead::new(top.into(), b"/top/".to_vec(), Tell::All, scopes);
        let mut found = Vec::new();
        let mut tell = |path| found.push(String::from_utf8(path).unwrap());
        while !read.is_large() {
            if !read.step(true, &mut tell).unwrap() {
                return (found, false);
            }
        }
        let mut poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let mut events = mio::Events::with_capacity(1);
        let running = read.go_on(Arc::clone(&waker)).unwrap();
        loop {
            match running.take() {
                Ok(Some((paths, error))) => {
                    assert!(error.is_none());
                    paths.into_iter().for_each(&mut tell);
                }
                Ok(None) => poll.poll(&mut events, None).unwrap(),
                Err(()) => return (found, true),
            }
        }
    }

    #[test]
    fn a_small_tree_is_found_inline_and_a_large_one_on_a_thread() {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        create_dir_all(path("a/no/b")).unwrap();
        File::create(path("a/f")).unwrap();
        let open = || File::open(top.path()).unwrap();
        let wants = |path: &[u8]| !path.ends_with(b"/no/");
        let (mut found, on_thread) = read_all(open(), wants);
        found.sort();
        assert_eq!(found, ["/top/a/", "/top/a/f", "/top/a/no/"]);
        assert!(!on_thread);
        for number in 0..3 * BATCH_PATHS {
            File::create(path(&format!("a/{number}"))).unwrap();
        }
        for number in 0..100 {
            create_dir_all(path(&format!("d/{number}/x"))).unwrap();
        }
        let (mut found, on_thread) = read_all(open(), wants);
        assert!(on_thread);
        let all = found.len();
        found.sort();
        found.dedup();
        assert_eq!((all, found.len()), (3204, 3204));
    }

    fn read_of(top: &Path, wants: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> ContentsRead {
        let scope = crate::watch::Scope {
            root: b"/top/".to_vec(),
            wants: Arc::new(wants),
        };
        let scopes = Scopes::new(vec![scope]);
        let top = File::open(top).unwrap();
        ContentsRead::new(top.into(), b"/top/".to_vec(), Tell::All, scopes)
    }

    /// Reads on a thread. Returns the number of paths in each batch, all paths, and the numbers of
    /// all errors.
    fn read_on_thread(read: ContentsRead) -> (Vec<usize>, Vec<Vec<u8>>, Vec<Option<i32>>) {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let running = read.go_on(waker).unwrap();
        let (mut lengths, mut paths, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for (found, error) in running.found {
            lengths.push(found.len());
            paths.extend(found);
            errors.extend(error.map(|error| error.raw_os_error()));
        }
        paths.sort();
        (lengths, paths, errors)
    }

    #[test]
    fn a_thread_hands_over_full_batches_and_the_rest() {
        for (files, expected) in [(BATCH_PATHS - 1, 0), (BATCH_PATHS, 1)] {
            let top = tempfile::tempdir().unwrap();
            create_dir_all(top.path().join("d")).unwrap();
            for number in 0..files {
                File::create(top.path().join(format!("d/{number}"))).unwrap();
            }
            let (lengths, paths, errors) = read_on_thread(read_of(top.path(), |_| true));
            assert_eq!(lengths, [BATCH_PATHS, expected]);
            assert_eq!(paths.len(), files + 1);
            assert_eq!(errors, []);
        }
    }

    /// The rest is read all the same.
    #[test]
    fn a_directory_that_cannot_be_read_is_an_error() {
        crate::test_user::without_rights_of_root(|top| {
            for name in ["a/closed", "a/open", "b"] {
                create_dir_all(top.join(name)).unwrap();
                File::create(top.join(name).join("f")).unwrap();
            }
            let closed = top.join("a/closed");
            std::fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
            let names = ["a/", "a/closed/", "a/open/", "a/open/f", "b/", "b/f"];
            let expected = names.map(|name| [b"/top/", name.as_bytes()].concat());
            let mut read = read_of(top, |_| true);
            let (mut found, mut errors) = (Vec::new(), Vec::new());
            loop {
                match read.step(true, &mut |path| found.push(path)) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => errors.push(error.raw_os_error()),
                }
            }
            found.sort();
            assert_eq!(
                (&found[..], &errors[..]),
                (&expected[..], &[Some(libc::EACCES)][..])
            );
            let (_, found, errors) = read_on_thread(read_of(top, |_| true));
            assert_eq!(
                (&found[..], &errors[..]),
                (&expected[..], &[Some(libc::EACCES)][..])
            );
            std::fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        });
    }

    /// The scope answers after the reader has been dropped, and lists the directories for which it
    /// is asked until the thread ends.
    #[test]
    fn a_thread_ends_if_nobody_waits_for_it() {
        let top = tempfile::tempdir().unwrap();
        create_dir_all(top.path().join("a/x/y")).unwrap();
        for number in 0..BATCH_PATHS {
            File::create(top.path().join(format!("a/{number}"))).unwrap();
        }
        let (open, gate) = channel::<()>();
        let (sender, asked) = channel();
        let gate = Mutex::new((gate, sender));
        let read = read_of(top.path(), move |path| {
            let gate = gate.lock().unwrap();
            gate.1.send(path.to_vec()).unwrap();
            let _ = gate.0.recv();
            true
        });
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        drop(read.go_on(waker).unwrap());
        drop(open);
        let asked: Vec<_> = asked.into_iter().collect();
        assert_eq!(asked, [b"/a/".to_vec(), b"/a/x/".to_vec()]);
    }

    #[test]
    fn more_than_some_entries_or_directories_are_too_much_for_the_loop() {
        let top = tempfile::tempdir().unwrap();
        let mut read = read_of(top.path(), |_| true);
        let (entries, directories) = (MAX_INLINE_ENTRIES, MAX_INLINE_DIRECTORIES);
        for (entries, directories, is_large) in [
            (entries, directories, false),
            (entries + 1, 1, true),
            (1, directories + 1, true),
            (1, directories + 2, true),
        ] {
            (read.entries, read.directories) = (entries, directories);
            assert_eq!(read.is_large(), is_large, "{entries} {directories}");
        }
        for number in 0..=entries {
            File::create(top.path().join(number.to_string())).unwrap();
        }
        let (found, on_thread) = read_all(File::open(top.path()).unwrap(), |_| true);
        assert_eq!((found.len(), on_thread), (entries + 1, true));
    }

    #[test]
    fn other_errors_do_not_say_that_a_directory_is_gone() {
        let is_gone = |number| is_gone(&io::Error::from_raw_os_error(number));
        for number in [
            libc::ENOENT,
            libc::ENOTDIR,
            libc::ELOOP,
            libc::ESTALE,
            libc::EXDEV,
        ] {
            assert!(is_gone(number), "{number}");
        }
        for number in [libc::EACCES, libc::EMFILE, libc::ENOMEM, libc::EIO] {
            assert!(!is_gone(number), "{number}");
        }
    }
}
