//! The staged tree: what of the source has passed, and only that.
//!
//! A private directory (mode 0700) holds
//!
//! | name | what it is |
//! |---|---|
//! | `tree/` | what rsync reads |
//! | `incoming/` | copies that are being checked, each in a directory of its own under its own name |
//! | `rules` | by which checks the tree was made; a tree made by others is not taken over |
//! | `lock` | held while a daemon works here |
//!
//! The source is read without following a symlink. Copies are reflinks where the file system has
//! them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::verdicts::{Identity, Verdict, Verdicts};
use crate::batch::Change;
use crate::filter::Filter;
use crate::local::attributes::{self, is_copy};
use crate::local::copy::{Copied, Copier, Spot, attributes_may_forbid, stopped};
use crate::local::place::{self, Directory, Place, is_directory, kind, look};
use crate::local::{Item, Task};
use crate::report;

/// Where things are, and what is to be taken for equal.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Absolute.
    pub source: Vec<u8>,
    /// The private directory, absolute, without slash at its end.
    pub staging: Vec<u8>,
    /// Tells the checks from others; `None` if no other text can tell that they are the same.
    pub rules: Option<Vec<u8>>,
    /// Contents are compared where size and time agree.
    pub checksum: bool,
}

impl Layout {
    /// What rsync reads, with a slash at its end.
    pub fn tree(&self) -> Vec<u8> {
        [self.staging.as_slice(), b"/tree/"].concat()
    }
}

/// A copy that is to be checked.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Relative to the source, with a leading slash.
    pub path: Vec<u8>,
    /// The copy, absolute. Its last name is that of the file.
    pub copy: Vec<u8>,
    /// The file it was made of.
    pub identity: Identity,
    /// That file was not changed meanwhile, and any change from now on can be told.
    pub settled: bool,
}

impl Candidate {
    /// The file as verdicts are remembered of it: one that may change without getting another
    /// time is not known again, only found when it was renamed.
    fn known_as(&self) -> Identity {
        match self.settled {
            true => self.identity,
            false => self.identity.in_no_state(),
        }
    }
}

/// What a look at the source came to.
#[derive(Debug, Default)]
pub struct Collected {
    /// What must be checked.
    pub candidates: Vec<Candidate>,
    /// What was rejected before and has not changed since.
    pub rejected: Vec<(Vec<u8>, String)>,
    /// What needs no check.
    pub clear: Vec<Vec<u8>>,
    /// What is not there any more, nor anything below it.
    pub gone: Vec<Vec<u8>>,
    /// What could not be read or staged, and why.
    pub failures: Vec<(Vec<u8>, String)>,
    /// All of the source was looked at.
    pub everything: bool,
}

/// What becomes of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It passed: it takes its place in the tree.
    Install,
    /// It was rejected; the tree keeps what it has.
    Hold(String),
    /// It was rejected; the tree loses what it has.
    Remove(String),
    /// It was rejected and goes to this directory; source and tree lose it.
    Quarantine(String, Vec<u8>),
    /// Nothing is known of it.
    Wait,
}

/// What came of that.
#[derive(Debug, Default)]
pub struct Settled {
    /// What could not be done, and why.
    pub failures: Vec<(Vec<u8>, String)>,
    /// Where rejected files have gone, by their paths.
    pub quarantined: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The staged tree of one sync.
pub struct Stage {
    layout: Layout,
    source: Place,
    tree: Place,
    incoming: Place,
    verdicts: Verdicts,
    copier: Copier,
    /// Directories of the tree that get the attributes of the source's at the end.
    touched: BTreeSet<Vec<u8>>,
    /// What the tree loses at the end, when renamed files have been compared with it.
    doomed: Vec<Vec<u8>>,
    count: u64,
    stop: Arc<AtomicBool>,
    _lock: OwnedFd,
}

impl Stage {
    /// Opens the private directory, or makes it.
    ///
    /// # Errors
    /// In words: it cannot be made, is somebody else's, or another daemon works there; or the
    /// source cannot be entered.
    pub fn open(layout: Layout, stop: Arc<AtomicBool>) -> Result<Stage, String> {
        let shown = report::escape(&layout.staging).into_owned();
        let failed = |error: io::Error| format!("cannot use {shown}: {error}");
        let root = OsStr::from_bytes(&layout.staging);
        if let Some(open) = open_to_others(root.as_ref()).map_err(failed)? {
            let open = report::escape(open.as_os_str().as_bytes()).into_owned();
            return Err(format!(
                "{shown} could be replaced, as {open} can be changed by other users: \
                 give check.staging another place"
            ));
        }
        match std::fs::DirBuilder::new().mode(0o700).create(root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let stat = fs::lstat(root).map_err(|error| failed(error.into()))?;
        let private = is_directory(&stat)
            && stat.st_uid == rustix::process::geteuid().as_raw()
            && stat.st_mode & 0o077 == 0;
        if !private {
            return Err(format!(
                "{shown} is not a directory of this user alone (mode 0700)"
            ));
        }
        let at = |name: &str| [layout.staging.as_slice(), b"/", name.as_bytes()].concat();
        let lock = lock(&at("lock")).map_err(failed)?;
        let tree = Place::enter_or_make(&at("tree")).map_err(failed)?;
        let incoming = Place::enter_or_make(&at("incoming")).map_err(failed)?;
        let source = Place::enter(&layout.source)
            .map_err(|error| format!("cannot enter {}: {error}", report::escape(&layout.source)))?;
        let rules = at("rules");
        let rules = OsStr::from_bytes(&rules);
        let same = layout.rules.is_some() && std::fs::read(rules).ok() == layout.rules;
        if !same {
            let _ = std::fs::remove_file(rules);
            empty(&tree).map_err(failed)?;
            if let Some(text) = &layout.rules {
                std::fs::write(rules, text).map_err(failed)?;
            }
        }
        Ok(Stage {
            layout,
            source,
            tree,
            incoming,
            verdicts: Verdicts::default(),
            copier: Copier::default(),
            touched: BTreeSet::new(),
            doomed: Vec::new(),
            count: 0,
            stop,
            _lock: lock,
        })
    }

    /// Looks at the source: what needs no check goes to the tree, what does is copied.
    ///
    /// # Errors
    /// The source or the private directory cannot be used, or the daemon is ending.
    pub fn collect(&mut self, task: &Task, filter: &RwLock<Filter>) -> io::Result<Collected> {
        // The source may be another directory than last time, under the same name.
        self.source = Place::enter(&self.layout.source)?;
        self.tree.forget();
        empty(&self.incoming)?;
        let mut found = Collected::default();
        match task {
            Task::Everything => {
                found.everything = true;
                self.subtree(b"/", filter, &mut found)?;
            }
            Task::Events(items) => {
                for (path, (written, whole)) in mentions(items) {
                    stopped(&self.stop)?;
                    let done = self.bring(&path, written, whole, filter, &mut found);
                    self.note(done, &path, &mut found)?;
                }
            }
        }
        for path in std::mem::take(&mut self.doomed) {
            let done = self.remove(&path);
            self.note(done, &path, &mut found)?;
        }
        self.finish_directories();
        Ok(found)
    }

    /// Does with each candidate what was decided.
    pub fn settle(&mut self, decided: Vec<(Candidate, Disposition)>) -> Settled {
        let mut settled = Settled::default();
        for (candidate, disposition) in decided {
            let done = self.dispose(&candidate, disposition, &mut settled);
            if let Err(error) = done {
                settled.failures.push((candidate.path, error.to_string()));
            }
        }
        self.finish_directories();
        // What is left there is emptied before the next look.
        let _ = empty(&self.incoming);
        settled
    }

    fn dispose(
        &mut self,
        candidate: &Candidate,
        disposition: Disposition,
        settled: &mut Settled,
    ) -> io::Result<()> {
        let path = &candidate.path;
        let verdict = match disposition {
            Disposition::Wait => return Ok(()),
            Disposition::Install => {
                self.install(candidate)?;
                Verdict::Passed(path.clone())
            }
            Disposition::Hold(reason) => Verdict::Rejected(reason),
            Disposition::Remove(reason) => {
                self.remove(path)?;
                Verdict::Rejected(reason)
            }
            Disposition::Quarantine(_, directory) => {
                let place = self.quarantine(candidate, &directory)?;
                settled.quarantined.push((path.clone(), place));
                return self.remove(path);
            }
        };
        self.verdicts.remember(candidate.known_as(), verdict);
        Ok(())
    }

    /// Errors that concern one path do not end the work on others.
    fn note(&self, done: io::Result<()>, path: &[u8], found: &mut Collected) -> io::Result<()> {
        if let Err(error) = done {
            stopped(&self.stop)?;
            found.failures.push((path.to_vec(), error.to_string()));
        }
        Ok(())
    }

    /// Brings the tree to what the source has at one path; with `whole`, below it as well.
    fn bring(
        &mut self,
        path: &[u8],
        written: bool,
        whole: bool,
        filter: &RwLock<Filter>,
        found: &mut Collected,
    ) -> io::Result<()> {
        let Some(stat) = self.source.look(path)? else {
            self.doomed.push(path.to_vec());
            found.gone.push(path.to_vec());
            return Ok(());
        };
        if !self.has_parents(path)? {
            return Ok(());
        }
        if !is_directory(&stat) {
            return self.single(path, &stat, written, found);
        }
        let new = self.directory(path)?;
        found.clear.push(path.to_vec());
        match new || whole {
            true => self.subtree(path, filter, found),
            false => Ok(()),
        }
    }

    /// Compares all that is in a directory, which is in the tree already.
    fn subtree(
        &mut self,
        path: &[u8],
        filter: &RwLock<Filter>,
        found: &mut Collected,
    ) -> io::Result<()> {
        let mut open = vec![[path.strip_suffix(b"/").unwrap_or(path), b"/"].concat()];
        while let Some(directory) = open.pop() {
            stopped(&self.stop)?;
            self.touched.insert(directory.clone());
            let entries = match self
                .source
                .directory(&directory)
                .and_then(|d| place::list(&d))
            {
                Ok(entries) => entries,
                Err(error) if place::is_missing(&error) && directory != b"/" => continue,
                Err(error) => {
                    self.note(Err(error), &directory, found)?;
                    continue;
                }
            };
            let mut names = BTreeSet::new();
            for entry in entries {
                let below = [directory.as_slice(), &entry.name].concat();
                let Some(stat) = self.source.look(&below)? else {
                    continue;
                };
                let is_directory = is_directory(&stat);
                let tested = match is_directory {
                    true => [below.as_slice(), b"/"].concat(),
                    false => below.clone(),
                };
                if excluded(filter, &tested) {
                    continue;
                }
                names.insert(entry.name);
                let done = match is_directory {
                    true => self.directory(&below).map(|_| open.push(tested)),
                    false => self.single(&below, &stat, false, found),
                };
                self.note(done, &below, found)?;
            }
            let staged = self
                .tree
                .directory(&directory)
                .and_then(|d| place::list(&d))?;
            let extra = staged
                .into_iter()
                .filter(|entry| !names.contains(&entry.name));
            self.doomed
                .extend(extra.map(|entry| [directory.as_slice(), &entry.name].concat()));
        }
        Ok(())
    }

    /// Makes the directories above a path; false if one of them is none any more, of which
    /// another event tells.
    fn has_parents(&mut self, path: &[u8]) -> io::Result<bool> {
        let bare = path.strip_suffix(b"/").unwrap_or(path);
        for end in (1..bare.len()).filter(|&at| bare[at] == b'/') {
            match self.source.look(&bare[..end])? {
                Some(stat) if is_directory(&stat) => self.directory(&bare[..end])?,
                _ => return Ok(false),
            };
        }
        Ok(true)
    }

    /// Has the tree have a directory here; true if it is new.
    fn directory(&mut self, path: &[u8]) -> io::Result<bool> {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        self.touched.insert([path, b"/"].concat());
        if path.is_empty() {
            return Ok(false);
        }
        match self.tree.look(path)? {
            Some(stat) if is_directory(&stat) => return Ok(false),
            Some(_) => self.remove(path)?,
            None => {}
        }
        let (directory, name) = self.above(path)?;
        attributes_may_forbid(&directory, || {
            fs::mkdirat(directory.as_fd(), name, Mode::RWXU)
        })?;
        Ok(true)
    }

    /// The directory of the tree in which `path` is made, changed or removed.
    fn above<'p>(&mut self, path: &'p [u8]) -> io::Result<(Directory, &'p OsStr)> {
        self.touched.insert(place::split(path).0.to_vec());
        self.tree.parent(path)
    }

    /// Anything but a directory.
    fn single(
        &mut self,
        path: &[u8],
        stat: &Stat,
        written: bool,
        found: &mut Collected,
    ) -> io::Result<()> {
        if kind(stat) == FileType::RegularFile {
            return self.file(path, stat, written, found);
        }
        if self
            .tree
            .look(path)?
            .is_some_and(|stat| is_directory(&stat))
        {
            self.remove(path)?;
        }
        let (directory, name) = self.source.parent(path)?;
        let from = Spot {
            directory: &directory,
            name,
        };
        let (directory, name) = self.above(path)?;
        let to = Spot {
            directory: &directory,
            name,
        };
        match self.copier.copy(&from, stat, &to, &self.stop) {
            // Devices are for the superuser to make; rsync would not send them either.
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {}
            done => _ = done?,
        }
        found.clear.push(path.to_vec());
        Ok(())
    }

    fn file(
        &mut self,
        path: &[u8],
        stat: &Stat,
        written: bool,
        found: &mut Collected,
    ) -> io::Result<()> {
        let identity = identity(stat);
        let staged = self.tree.look(path)?;
        let alike = staged.is_some_and(|staged| is_copy(stat, &staged));
        let current = match self.verdicts.of(&identity) {
            Some(Verdict::Rejected(reason)) => {
                found.rejected.push((path.to_vec(), reason.clone()));
                return Ok(());
            }
            Some(Verdict::Passed(at)) if at == path => alike,
            _ => alike && !written && !self.layout.checksum,
        };
        if current {
            if self.verdicts.of(&identity).is_none() {
                let verdict = Verdict::Passed(path.to_vec());
                self.verdicts.remember(identity.in_no_state(), verdict);
            }
            found.clear.push(path.to_vec());
            return self.same_attributes(path, stat);
        }
        let Some(candidate) = self.copy(path)? else {
            return Ok(());
        };
        let twin = self.verdicts.copy_of(identity.device, identity.inode);
        // Functions see names, and so are asked again.
        let twin = twin
            .map(<[u8]>::to_vec)
            .filter(|_| self.layout.rules.is_some());
        for known in [Some(path.to_vec()), twin].into_iter().flatten() {
            if self.same_bytes(&candidate, &known)? {
                self.install(&candidate)?;
                let verdict = Verdict::Passed(path.to_vec());
                self.verdicts.remember(candidate.known_as(), verdict);
                found.clear.push(path.to_vec());
                return Ok(());
            }
        }
        found.candidates.push(candidate);
        Ok(())
    }

    /// Copies a file aside; nothing if it is none any more, of which another event tells.
    fn copy(&mut self, path: &[u8]) -> io::Result<Option<Candidate>> {
        let began = now();
        let (directory, name) = self.source.parent(path)?;
        let Some(stat) = look(&directory, name)? else {
            return Ok(None);
        };
        let from = Spot {
            directory: &directory,
            name,
        };
        self.count += 1;
        let own = self.count.to_string();
        let (incoming, _) = self.incoming.parent(b"/x")?;
        fs::mkdirat(incoming.as_fd(), own.as_str(), Mode::RWXU)?;
        let to = incoming.enter(own.as_bytes())?;
        let to = Spot {
            directory: &to,
            name,
        };
        if kind(&stat) != FileType::RegularFile
            || self.copier.copy(&from, &stat, &to, &self.stop)? == Copied::Vanished
        {
            return Ok(None);
        }
        let id = identity(&stat);
        let after = look(&directory, name)?;
        let settled = id.is_settled(began) && after.is_some_and(|stat| identity(&stat) == id);
        let parts = [self.layout.staging.as_slice(), b"incoming", own.as_bytes()];
        let mut copy = parts.join(&b'/');
        copy.push(b'/');
        copy.extend(name.as_bytes());
        Ok(Some(Candidate {
            path: path.to_vec(),
            copy,
            identity: id,
            settled,
        }))
    }

    /// The copy takes its place in the tree.
    fn install(&mut self, candidate: &Candidate) -> io::Result<()> {
        let path = &candidate.path;
        if self
            .tree
            .look(path)?
            .is_some_and(|stat| is_directory(&stat))
        {
            self.remove(path)?;
        }
        let (from, old) = self.aside(candidate)?;
        let (directory, name) = self.above(path)?;
        attributes_may_forbid(&directory, || {
            fs::renameat(from.as_fd(), old, directory.as_fd(), name)
        })
    }

    /// The directory of a copy, and its name there.
    fn aside<'c>(&self, candidate: &'c Candidate) -> io::Result<(Directory, &'c OsStr)> {
        let above = self.layout.staging.len() + "/incoming".len();
        self.incoming.parent(&candidate.copy[above..])
    }

    /// Whether a copy has the contents of something in the tree, which has passed.
    fn same_bytes(&self, candidate: &Candidate, known: &[u8]) -> io::Result<bool> {
        let (directory, name) = self.aside(candidate)?;
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

    /// Gives the staged copy what a change of rights or attributes changed.
    fn same_attributes(&self, path: &[u8], stat: &Stat) -> io::Result<()> {
        let open = |place: &Place| {
            let (directory, name) = place.parent(path)?;
            read_only(&directory, name)
        };
        match (open(&self.source), open(&self.tree)) {
            (Ok(source), Ok(staged)) => attributes::give(source.as_fd(), stat, staged.as_fd()),
            // One that cannot be read cannot be copied either, and is as it was.
            (Err(error), _) if place::is_missing(&error) => Ok(()),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    fn finish_directories(&mut self) {
        self.tree.forget();
        for path in std::mem::take(&mut self.touched) {
            let (Ok(source), Ok(staged)) =
                (self.source.directory(&path), self.tree.directory(&path))
            else {
                continue;
            };
            // A directory that goes meanwhile is told by another event.
            if let Ok(stat) = fs::fstat(source.as_fd()) {
                let _ = attributes::give(source.as_fd(), &stat, staged.as_fd());
            }
        }
    }

    fn remove(&mut self, path: &[u8]) -> io::Result<()> {
        self.tree.forget();
        match self.above(path) {
            Ok((directory, name)) => remove(&directory, name),
            Err(error) if place::is_missing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes a rejected file out of the source. What goes to the directory is what was checked.
    fn quarantine(&self, candidate: &Candidate, directory: &[u8]) -> io::Result<Vec<u8>> {
        let name = place::split(&candidate.path).1;
        let mut place = [directory, b"/", name].concat();
        for number in 1.. {
            match File::create_new(OsStr::from_bytes(&place)) {
                Ok(file) => {
                    // Nobody shall run it from there.
                    fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
                    let mut copy = File::open(OsStr::from_bytes(&candidate.copy))?;
                    io::copy(&mut copy, &mut &file)?;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let suffix = format!(".{number}");
                    place = [directory, b"/", name, suffix.as_bytes()].concat();
                }
                Err(error) => return Err(error),
            }
        }
        let (above, name) = self.source.parent(&candidate.path)?;
        let now = look(&above, name)?;
        // Another file of that name has not been looked at.
        if now.is_some_and(|stat| identity(&stat) == candidate.identity) {
            fs::unlinkat(above.as_fd(), name, AtFlags::empty())?;
        }
        Ok(place)
    }
}

/// The paths of events in order, each once: whether its contents may have changed, and whether a
/// directory of that name may be another one now.
fn mentions(items: &[Item]) -> std::collections::BTreeMap<Vec<u8>, (bool, bool)> {
    let mut mentions = std::collections::BTreeMap::new();
    for item in items {
        let written = item.change != Change::Attrib;
        let whole = !matches!(item.change, Change::Attrib | Change::Modify);
        for path in [Some(&item.path), item.to.as_ref()].into_iter().flatten() {
            let bare = path.strip_suffix(b"/").unwrap_or(path).to_vec();
            let known: &mut (bool, bool) = mentions.entry(bare).or_default();
            *known = (known.0 || written, known.1 || whole);
        }
    }
    mentions
}

fn excluded(filter: &RwLock<Filter>, path: &[u8]) -> bool {
    let filter = filter.read().unwrap_or_else(PoisonError::into_inner);
    filter.excluded(path)
}

fn identity(stat: &Stat) -> Identity {
    Identity {
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

/// A directory above `place` in which others could put something else in its place: one that is
/// neither the superuser's nor this user's, or that others may write to. In a sticky one nobody
/// renames what is another user's (inode(7)).
fn open_to_others(place: &Path) -> io::Result<Option<PathBuf>> {
    let above = place.parent().unwrap_or(place).canonicalize()?;
    let own = [0, rustix::process::geteuid().as_raw()];
    for directory in above.ancestors() {
        let stat = fs::lstat(directory)?;
        let sticky = stat.st_mode & 0o1000 != 0;
        if !own.contains(&stat.st_uid) || (stat.st_mode & 0o022 != 0 && !sticky) {
            return Ok(Some(directory.to_owned()));
        }
    }
    Ok(None)
}

fn lock(path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::open(OsStr::from_bytes(path), flags, Mode::RUSR | Mode::WUSR)?;
    match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::AGAIN) => Err(io::Error::other("another sync or daemon works there")),
        result => Ok(result.map(|()| file)?),
    }
}

fn read_only(directory: &Directory, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(fs::openat(directory.as_fd(), name, flags, Mode::empty())?.into())
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

fn empty(place: &Place) -> io::Result<()> {
    place.forget();
    let root = place.directory(b"/")?;
    attributes::open_up(&root);
    for entry in place::list(&root)? {
        remove(&root, OsStr::from_bytes(&entry.name))?;
    }
    Ok(())
}

/// Removes what has this name, with all below it.
fn remove(directory: &Directory, name: &OsStr) -> io::Result<()> {
    let unlink = |flags| {
        let unlinked =
            attributes_may_forbid(directory, || fs::unlinkat(directory.as_fd(), name, flags));
        match unlinked {
            Err(error) if place::is_missing(&error) => Ok(()),
            done => done,
        }
    };
    match look(directory, name)? {
        None => Ok(()),
        Some(stat) if is_directory(&stat) => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 | 0o700);
            // If it may not be, what is tried next says so.
            let _ = fs::chmodat(directory.as_fd(), name, mode, AtFlags::empty());
            let below = directory.enter(name.as_bytes())?;
            for entry in place::list(&below)? {
                remove(&below, OsStr::from_bytes(&entry.name))?;
            }
            unlink(AtFlags::REMOVEDIR)
        }
        Some(_) => unlink(AtFlags::empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A source, and a stage for it.
    struct Site {
        directory: tempfile::TempDir,
        stage: Stage,
        filter: RwLock<Filter>,
    }

    fn layout(root: &Path) -> Layout {
        let path = |name: &str| root.join(name).into_os_string().into_encoded_bytes();
        Layout {
            source: path("src/"),
            staging: path("staging"),
            rules: Some(b"rules".to_vec()),
            checksum: false,
        }
    }

    fn open(root: &Path) -> Result<Stage, String> {
        Stage::open(layout(root), Arc::default())
    }

    impl Site {
        fn new() -> Site {
            let directory = tempfile::tempdir().unwrap();
            std::fs::create_dir(directory.path().join("src")).unwrap();
            Site {
                stage: open(directory.path()).unwrap(),
                directory,
                filter: RwLock::default(),
            }
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.directory.path().join("src").join(name), text).unwrap();
        }

        fn staged(&self, name: &str) -> Option<String> {
            let tree = self.directory.path().join("staging/tree");
            std::fs::read_to_string(tree.join(name)).ok()
        }

        fn look(&mut self, task: Task) -> Collected {
            let found = self.stage.collect(&task, &self.filter).unwrap();
            assert!(found.failures.is_empty(), "{:?}", found.failures);
            found
        }

        fn changed(&mut self, name: &str) -> Collected {
            self.look(Task::Events(vec![Item {
                change: Change::Modify,
                path: format!("/{name}").into_bytes(),
                to: None,
            }]))
        }

        fn settle(&mut self, found: Collected, disposition: &Disposition) {
            let candidates = found.candidates.into_iter();
            let decided = candidates.map(|file| (file, disposition.clone())).collect();
            let settled = self.stage.settle(decided);
            assert!(settled.failures.is_empty(), "{:?}", settled.failures);
        }
    }

    #[test]
    fn only_what_passed_is_in_the_tree_and_in_the_form_that_passed() {
        let mut site = Site::new();
        site.write("f", "one");
        let found = site.look(Task::Everything);
        assert_eq!(found.candidates.len(), 1);
        assert_eq!(site.staged("f"), None);
        site.write("f", "other");
        site.settle(found, &Disposition::Install);
        assert_eq!(site.staged("f").unwrap(), "one");

        let found = site.changed("f");
        site.settle(found, &Disposition::Wait);
        assert_eq!(site.staged("f").unwrap(), "one");
        let found = site.changed("f");
        assert_eq!(found.candidates.len(), 1);
        site.settle(found, &Disposition::Remove("bad".to_owned()));
        assert_eq!(site.staged("f"), None);
    }

    #[test]
    fn equal_contents_and_what_is_gone_need_no_check() {
        let mut site = Site::new();
        site.write("f", "one");
        let found = site.look(Task::Everything);
        site.settle(found, &Disposition::Install);
        site.write("f", "one");
        assert!(site.changed("f").candidates.is_empty());
        let source = site.directory.path().join("src");
        std::fs::rename(source.join("f"), source.join("g")).unwrap();
        let found = site.look(Task::Everything);
        assert!(found.candidates.is_empty(), "{found:?}");
        assert_eq!(
            (site.staged("f"), site.staged("g").unwrap().as_str()),
            (None, "one")
        );
    }

    #[test]
    fn the_tree_is_taken_over_by_the_same_rules_only() {
        let mut site = Site::new();
        site.write("f", "one");
        let found = site.look(Task::Everything);
        site.settle(found, &Disposition::Install);
        let root = site.directory.path().to_owned();
        assert!(open(&root).is_err_and(|why| why.contains("another sync or daemon")));
        let Site {
            directory, stage, ..
        } = site;
        drop(stage);
        drop(open(&root).unwrap());
        assert!(directory.path().join("staging/tree/f").exists());
        let mut other = layout(&root);
        other.rules = Some(b"others".to_vec());
        drop(Stage::open(other, Arc::default()).unwrap());
        assert!(!directory.path().join("staging/tree/f").exists());
    }

    #[test]
    fn a_place_that_others_can_change_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir(root.join("src")).unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(root, 0o777);
        assert!(open(root).is_err_and(|why| why.contains("could be replaced")));
        mode(root, 0o700);
        std::fs::create_dir(root.join("staging")).unwrap();
        mode(&root.join("staging"), 0o755);
        assert!(open(root).is_err_and(|why| why.contains("of this user alone")));
        mode(&root.join("staging"), 0o700);
        assert!(open(root).is_ok());
    }
}
