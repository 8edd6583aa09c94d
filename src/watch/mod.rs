//! TEMPORARY stand-in
#![allow(missing_docs, unused)]
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use inotify::{Inotify, WatchMask, EventMask};
use std::os::unix::ffi::OsStrExt;
use std::ffi::OsStr;
#[derive(Clone)]
pub struct Scope { pub root: Vec<u8>, pub wants: Arc<dyn Fn(&[u8]) -> bool + Send + Sync> }
pub struct Watcher { ino: Inotify, paths: HashMap<i32, Vec<u8>>, buf: Arc<Mutex<Vec<u8>>>, scopes: Vec<Scope>, mode: Mode }
impl Watcher {
  pub fn new(mode: Mode, waker: Arc<mio::Waker>) -> io::Result<Watcher> {
    let ino = Inotify::init()?; 
    use std::os::fd::AsFd;
    let fd = ino.as_fd().try_clone_to_owned()?;
    let buf = Arc::new(Mutex::new(Vec::new())); let b2 = buf.clone();
    std::thread::spawn(move || { loop {
      let mut p = [nix::poll::PollFd::new(fd.as_fd(), nix::poll::PollFlags::POLLIN)];
      let _ = nix::poll::poll(&mut p, nix::poll::PollTimeout::NONE);
      let mut v = vec![0u8; 65536];
      if let Ok(n) = nix::unistd::read(&fd, &mut v) { b2.lock().unwrap().extend_from_slice(&v[..n]); let _ = waker.wake(); }
    }});
    Ok(Watcher { ino, paths: HashMap::new(), buf, scopes: vec![], mode })
  }
  fn want(&self, p: &[u8]) -> bool { self.scopes.iter().any(|s| p.starts_with(&s.root) && (p.len()==s.root.len() || (s.wants)(&p[s.root.len()-1..]))) }
  fn add(&mut self, p: Vec<u8>, found: &mut Vec<Vec<u8>>) {
    if !self.want(&p) { return; }
    let m = WatchMask::ATTRIB|WatchMask::CLOSE_WRITE|WatchMask::CREATE|WatchMask::DELETE|WatchMask::MOVE|WatchMask::DONT_FOLLOW|WatchMask::ONLYDIR;
    if let Ok(w) = self.ino.watches().add(OsStr::from_bytes(&p), m) { self.paths.insert(w.get_watch_descriptor_id(), p.clone());
      if let Ok(rd) = std::fs::read_dir(OsStr::from_bytes(&p)) { for e in rd.flatten() { let mut c = p.clone(); c.extend_from_slice(e.file_name().as_bytes());
        if e.file_type().map(|t| t.is_dir()).unwrap_or(false) { c.push(b'/'); found.push(c.clone()); self.add(c, found); } else { found.push(c); } } } }
  }
  pub fn set_scopes(&mut self, scopes: Vec<Scope>) { self.scopes = scopes.clone(); for s in scopes { self.add(s.root, &mut vec![]); } }
  pub fn turn(&mut self, _now: Instant, o: &mut dyn Observer) {
    let d = std::mem::take(&mut *self.buf.lock().unwrap());
    let mut i = 0; let mut from: Option<(u32, Vec<u8>, bool)> = None;
    while i + 16 <= d.len() {
      let wd = i32::from_ne_bytes(d[i..i+4].try_into().unwrap()); let mask = u32::from_ne_bytes(d[i+4..i+8].try_into().unwrap()); let cookie = u32::from_ne_bytes(d[i+8..i+12].try_into().unwrap());
      let len = u32::from_ne_bytes(d[i+12..i+16].try_into().unwrap()) as usize; let name = &d[i+16..i+16+len]; let name = name.split(|b| *b==0).next().unwrap().to_vec(); i += 16+len;
      if mask & 0x4000 != 0 { o.overflow(); continue; }
      let Some(dir) = self.paths.get(&wd).cloned() else { continue }; if name.is_empty() { continue }
      let isdir = mask & 0x40000000 != 0; let mut p = dir; p.extend(&name); if isdir { p.push(b'/'); }
      if let Some((c, f, fd)) = from.take() { if mask & 0x80 != 0 && c == cookie { 
          if fd { for q in self.paths.values_mut() { if q.starts_with(&f) { let mut n = p.clone(); n.extend(&q[f.len()..]); *q = n; } } }
          if o.event(Event::Move{from:&f,to:&p}) == Follow::Contents { let mut v = vec![]; self.add(p, &mut v); for x in v { o.event(Event::Create{path:&x}); } } continue; } o.event(Event::Delete{path:&f}); }
      match mask & 0xfff { 0x100 | 0x80 => { let mut v = vec![]; if isdir { self.add(p.clone(), &mut v); } o.event(Event::Create{path:&p}); for x in v { o.event(Event::Create{path:&x}); } }
        0x200 => { o.event(Event::Delete{path:&p}); } 8 => { o.event(Event::Modify{path:&p}); } 4 => { o.event(Event::Attrib{path:&p}); } 0x40 => from = Some((cookie, p, isdir)), _ => {} }
    }
    if let Some((_, f, _)) = from { o.event(Event::Delete{path:&f}); }
  }
  pub fn next_deadline(&self) -> Option<Instant> { None }
  pub fn crawling(&self) -> bool { false }
  pub fn watched(&self) -> usize { self.paths.len() }
  pub fn for_each_watch(&self, f: &mut dyn FnMut(i32, &[u8])) { for (k,v) in &self.paths { f(*k, v) } }
  pub fn rebuild(&mut self) {}
}
/// Which kernel events count as a change of a file's contents: lsyncd's `inotifyMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A file that was open for writing is closed.
    #[default]
    CloseWrite,
    /// Every write and truncation.
    Modify,
    /// Both; usually two events for a write.
    CloseWriteOrModify,
}

/// One change. Paths are absolute, those of directories end with `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Something is there now: made, moved in, or found in a directory that is new.
    ///
    /// May be told more than once, and for something that is gone again already.
    Create {
        /// What appeared.
        path: &'a [u8],
    },
    /// The contents of a file changed.
    Modify {
        /// The file.
        path: &'a [u8],
    },
    /// Owner, mode, times or extended attributes changed.
    Attrib {
        /// What has other attributes now.
        path: &'a [u8],
    },
    /// Something is there no more, and of a directory nothing below it.
    Delete {
        /// What is gone.
        path: &'a [u8],
    },
    /// A rename. What was at `to` before is gone.
    Move {
        /// The old path.
        from: &'a [u8],
        /// The new path.
        to: &'a [u8],
    },
}

/// What an observer wants after [`Event::Move`] of a directory; ignored for all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Nothing more.
    Nothing,
    /// Everything below the new path, told as [`Event::Create`].
    Contents,
}

/// Why a root is watched no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It was removed, or was never there.
    Deleted,
    /// It has another name now; what is there under the old one is something else.
    Moved,
    /// Its file system was unmounted.
    Unmounted,
}

/// How far the reading of roots has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Directories read so far.
    pub directories: usize,
    /// When it began.
    pub started: Instant,
}

/// Who is told. Scopes are named by their index in what [`Watcher::set_scopes`] was given.
pub trait Observer {
    /// Something changed in some scope; who is concerned is the observer's to find out.
    fn event(&mut self, event: Event<'_>) -> Follow;

    /// Events were lost. [`Watcher::rebuild`] puts the watches right; what changed
    /// meanwhile only a full comparison can tell.
    fn overflow(&mut self);

    /// The root of a scope is gone and nothing below it is watched.
    fn root_lost(&mut self, scope: usize, loss: Loss);

    /// A lost root is watched again. What changed meanwhile is not told.
    fn root_back(&mut self, scope: usize);

    /// The kernel's limit `fs.inotify.max_user_watches` is reached: this directory and
    /// probably more are not watched. Told once per crawl.
    fn out_of_watches(&mut self, path: &[u8]);

    /// Something could not be watched or read, for the log: `what` was being done.
    fn trouble(&mut self, path: &[u8], error: &io::Error, what: &'static str);
}
