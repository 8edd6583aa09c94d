//! Looks up the paths of a batch: events are hints, the disk is the truth.
//!
//! A list for `--files-from` must name what exists and, for deletion, the topmost of what is gone.
//! rsync itself only sees "no such file" and fails otherwise: a name below something that is no
//! directory any more is an error (exit code 23), one below a symlink that has replaced a directory
//! is followed and written through on the target.
//!
//! Each path is therefore walked from the source down to the first component that is missing or not
//! a directory. Paths are visited in order, so the directories of the previous path are reused for
//! the next one, and none is looked up twice.

use std::cmp::Ordering;

use crate::filter::Rules;
use crate::paths;

/// The kind of object at a path, as far as a batch needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory, not a symlink to one.
    Directory,
    /// A regular file.
    File,
    /// A symlink, device, socket or pipe.
    Other,
    /// It may exist, but cannot be examined.
    Unknown,
}

/// The result of lstat(2) for a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The kind of the object.
    pub node: FileKind,
    /// The time its contents changed, in seconds since the epoch.
    pub mtime: i64,
    /// The time its inode changed, in seconds since the epoch, which users cannot set.
    pub ctime: i64,
    /// True for a directory whose entries users other than the daemon's and root may exchange.
    pub exposed: bool,
}

/// A file system in which paths are looked up.
pub trait Disk {
    /// Returns the object at `path` (which begins with `/` and is relative to the source); `None`
    /// only if it is certain that there is none (`ENOENT`, `ENOTDIR`).
    fn lstat(&self, path: &[u8]) -> Option<Stat>;
}

/// A path that an event names.
#[derive(Clone, Copy, Debug)]
pub struct PathRef<'a> {
    /// The path begins with `/`, and ends with one if the event was about a directory.
    pub path: &'a [u8],
    /// True if the event says that the path was removed.
    pub gone: bool,
    /// True if the event says that the contents changed.
    pub written: bool,
    /// True if rsync follows symlinks, so that a name that is not a directory may be one at the
    /// target.
    pub may_be_directory: bool,
}

/// One name of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollapsedItem<'a> {
    /// The path begins with `/`; it ends with one only if it is the root.
    pub path: &'a [u8],
    /// The object there now, `None` for missing names.
    pub stat: Option<Stat>,
    /// True if it is not a directory now, but was one in an event: the target may have a directory.
    pub was_directory: bool,
    /// True if its contents changed, as far as events say.
    pub written: bool,
    /// True for a directory that was also removed since the last transfer, so the target may have
    /// contents which no event mentions.
    pub renewed: bool,
    /// True if the filter excludes this kind of object, so that the target may have one of another
    /// kind; for a missing name, the filter protects what the target may have.
    pub other_kind: bool,
}

impl CollapsedItem<'_> {
    /// Applies the rules to the type of the object on disk, which events may not have reported.
    fn judge(&mut self, rules: &Rules, followed: &dyn Fn(&[u8]) -> bool) {
        let directory = match self.stat.map(|stat| stat.node) {
            Some(FileKind::Unknown) => return,
            Some(FileKind::Other) => followed(self.path),
            Some(node) => node == FileKind::Directory,
            None => !self.was_directory,
        };
        self.other_kind = self.path != b"/" && rules.exclude(self.path, directory);
    }

    /// Returns true if it is a directory now.
    pub fn is_directory(&self) -> bool {
        self.stat
            .is_some_and(|stat| stat.node == FileKind::Directory)
    }
}

/// The present state of a batch's paths, in [`path_order`], each once.
#[derive(Debug, Default)]
pub struct Collapsed<'a> {
    /// Paths that exist, including the parent directories of missing names, because their
    /// modification time has changed.
    pub present: Vec<CollapsedItem<'a>>,
    /// Paths that do not exist, although their parent directory does.
    pub missing: Vec<CollapsedItem<'a>>,
    /// True if a path leads through a directory that is [`Stat::exposed`], so that it may lead
    /// elsewhere by the time rsync follows it.
    pub exposed: bool,
}

impl Collapsed<'_> {
    /// Asks the rules about the kinds of all that was found. `followed` returns true for a symlink
    /// that is sent as the directory it leads to.
    pub fn judge(&mut self, rules: &Rules, followed: impl Fn(&[u8]) -> bool) {
        if rules.is_empty() {
            return;
        }
        for item in self.present.iter_mut().chain(&mut self.missing) {
            item.judge(rules, &followed);
        }
    }
}

/// Looks up all `mentions`.
///
/// Returns `None` if the source itself is not a directory: nothing can be decided then, and nothing
/// must be deleted.
pub fn collapse<'a>(disk: &impl Disk, mut mentions: Vec<PathRef<'a>>) -> Option<Collapsed<'a>> {
    let root = disk.lstat(b"/")?;
    if !matches!(root.node, FileKind::Directory | FileKind::Unknown) {
        return None;
    }
    mentions.sort_unstable_by(|a, b| path_order(paths::bare(a.path), paths::bare(b.path)));

    let mut walk = CollapseWalk {
        disk,
        stack: vec![Frame {
            end: 0,
            state: WalkState::directory(root),
        }],
        last: b"",
        found: Collapsed::default(),
    };
    for mention in &mentions {
        walk.visit(mention);
    }
    let mut found = walk.found;
    found
        .present
        .sort_unstable_by(|a, b| path_order(paths::bare(a.path), paths::bare(b.path)));
    Some(found)
}

/// Compares paths so that everything below a directory follows it directly: `/` sorts before every
/// other byte.
pub fn path_order(a: &[u8], b: &[u8]) -> Ordering {
    let same = common(a, b);
    let key = |path: &[u8]| match path.get(same) {
        None => (0, 0),
        Some(b'/') => (1, 0),
        Some(&byte) => (2, byte),
    };
    key(a).cmp(&key(b))
}

/// Returns the number of leading bytes that agree.
fn common(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 8;
    let blocks = a
        .chunks_exact(STEP)
        .zip(b.chunks_exact(STEP))
        .take_while(|(a, b)| a == b)
        .count();
    let rest = a[blocks * STEP..].iter().zip(&b[blocks * STEP..]);
    blocks * STEP + rest.take_while(|(a, b)| a == b).count()
}

/// The list position of the name that ended a walk.
#[derive(Clone, Copy)]
enum WalkPlace {
    Present(usize),
    Missing(usize),
}

#[derive(Clone, Copy)]
enum WalkState {
    /// Can be entered; its index in the list of present names, if it is listed.
    Directory {
        listed: Option<usize>,
        exposed: bool,
    },
    /// Every path ends here.
    End(WalkPlace),
}

impl WalkState {
    fn directory(stat: Stat) -> WalkState {
        WalkState::Directory {
            listed: None,
            exposed: stat.exposed,
        }
    }
}

/// A component of the path walked last: the object that its first `end` bytes name.
struct Frame {
    end: usize,
    state: WalkState,
}

struct CollapseWalk<'a, 'd, D> {
    disk: &'d D,
    stack: Vec<Frame>,
    last: &'a [u8],
    found: Collapsed<'a>,
}

impl<'a, D: Disk> CollapseWalk<'a, '_, D> {
    fn visit(&mut self, mention: &PathRef<'a>) {
        let path = paths::bare(mention.path);
        let directory = path.len() < mention.path.len() || mention.may_be_directory;
        let shared = common(path, self.last);
        self.stack.retain(|frame| {
            frame.end <= shared && matches!(path.get(frame.end), None | Some(b'/'))
        });
        self.last = path;

        while let Some(&Frame { end, state }) = self.stack.last() {
            match state {
                WalkState::End(place) => {
                    let item = self.item(place);
                    item.was_directory |= directory || end < path.len();
                    item.written |= mention.written || end < path.len();
                    return;
                }
                WalkState::Directory { exposed, .. } if end < path.len() => {
                    self.found.exposed |= exposed;
                    self.step(path, end);
                }
                WalkState::Directory { .. } => {
                    let index = self.list_directory(path);
                    let item = &mut self.found.present[index];
                    item.renewed |= mention.gone && directory && !path.is_empty();
                    item.written |= mention.written;
                    return;
                }
            }
        }
    }

    /// Looks up the component behind `path[..end]`.
    fn step(&mut self, path: &'a [u8], end: usize) {
        let name = &path[end + 1..];
        let end = end + 1 + name.iter().position(|&b| b == b'/').unwrap_or(name.len());
        let here = &path[..end];
        let stat = self.disk.lstat(here);
        let item = CollapsedItem {
            path: here,
            stat,
            was_directory: false,
            written: false,
            renewed: false,
            other_kind: false,
        };
        let state = match stat {
            Some(stat) if stat.node == FileKind::Directory => WalkState::directory(stat),
            // An object that cannot be examined does not hide anything from rsync: it reports the
            // error itself.
            Some(stat) if stat.node == FileKind::Unknown => {
                let listed = (end == path.len()).then_some(self.found.present.len());
                self.found.present.extend(listed.map(|_| item));
                WalkState::Directory {
                    listed,
                    exposed: stat.exposed,
                }
            }
            Some(_) => {
                self.found.present.push(item);
                WalkState::End(WalkPlace::Present(self.found.present.len() - 1))
            }
            None => {
                self.list_directory(path);
                self.found.missing.push(item);
                WalkState::End(WalkPlace::Missing(self.found.missing.len() - 1))
            }
        };
        self.stack.push(Frame { end, state });
    }

    /// Lists the directory on top of the stack, to which or through which `path` leads.
    fn list_directory(&mut self, path: &'a [u8]) -> usize {
        let next = self.found.present.len();
        let Some(Frame {
            end,
            state: WalkState::Directory { listed, .. },
        }) = self.stack.last_mut()
        else {
            return next;
        };
        if let Some(index) = *listed {
            return index;
        }
        *listed = Some(next);
        self.found.present.push(CollapsedItem {
            path: if *end == 0 { b"/" } else { &path[..*end] },
            stat: Some(Stat {
                node: FileKind::Directory,
                mtime: 0,
                ctime: 0,
                exposed: false,
            }),
            was_directory: false,
            written: false,
            renewed: false,
            other_kind: false,
        });
        next
    }

    fn item(&mut self, place: WalkPlace) -> &mut CollapsedItem<'a> {
        match place {
            WalkPlace::Present(index) => &mut self.found.present[index],
            WalkPlace::Missing(index) => &mut self.found.missing[index],
        }
    }
}
