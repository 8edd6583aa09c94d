//! What default.direct does about one event: which tool brings the target's path to where the
//! source's is.
//!
//! The event says where to look; both disks say what is to be done. Plain cases are a `cp`, `rm`,
//! `mkdir` or `mv`; whatever is not plain (a directory where a file was, parents that are missing
//! or symlinks, a directory that was made anew) is left to an rsync of that path, which knows how.
//! No tool is ever sent through a symlink below the target.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, utimensat};
use nix::sys::time::TimeSpec;

use super::{Change, Entry};

/// What an event comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The target is right already, or may not be changed.
    Nothing,
    /// The source has vanished and no Delete has said so: the event that does is on its way, and
    /// it may be the Move of a directory around.
    Wait,
    /// Mode, owner and times are to be taken over: [`take_attributes`].
    Attributes,
    /// A program and its words.
    Run(Vec<Vec<u8>>),
    /// rsync has to do this path.
    Transfer,
    /// The Move can't be one at the target.
    Split,
    /// The path to be deleted is the root of the file system.
    Refuse,
}

/// The two trees of a sync.
#[derive(Clone, Copy, Debug)]
pub struct Trees<'a> {
    /// Absolute, with a slash at its end.
    pub source: &'a [u8],
    /// A local directory.
    pub target: &'a [u8],
    /// Whether what is gone at the source is to be deleted at the target.
    pub delete: bool,
    /// Whether the target may hold files that the sync is not concerned with.
    pub filtered: bool,
}

impl Trees<'_> {
    /// What to do about this event now. `waited`: the answer was [`Step::Wait`] before, and no
    /// other event has come.
    ///
    /// # Errors
    /// A path that may exist cannot be looked at.
    pub fn step(&self, entry: &Entry<'_>, waited: bool) -> io::Result<Step> {
        if let Some(to) = entry.to {
            return self.move_step(entry.path, to);
        }
        let path = entry.path;
        let directory = path.ends_with(b"/");
        let source = look(&self.at_source(without_slash(path)))?;
        match source {
            Some(source) if source.is_dir() == directory => match directory {
                true => self.directory(entry),
                false => self.file(entry, &source),
            },
            _ if entry.change != Change::Delete && !waited => Ok(Step::Wait),
            source => self.gone(path, source.is_some()),
        }
    }

    /// The path in the source, as user code knows it.
    pub fn at_source(&self, path: &[u8]) -> Vec<u8> {
        [self.source, path].concat()
    }

    /// The path in the target.
    pub fn at_target(&self, path: &[u8]) -> Vec<u8> {
        [self.target, path].concat()
    }

    fn directory(&self, entry: &Entry<'_>) -> io::Result<Step> {
        if entry.change == Change::Delete || !self.has_parents(entry.path)? {
            return Ok(Step::Transfer);
        }
        Ok(match look(&self.at_target(without_slash(entry.path)))? {
            Some(target) if target.is_dir() || entry.path == b"/" => Step::Attributes,
            Some(_) => Step::Transfer,
            None => run(&[b"mkdir", b"--", &self.at_target(entry.path)]),
        })
    }

    fn file(&self, entry: &Entry<'_>, source: &Metadata) -> io::Result<Step> {
        if !self.has_parents(entry.path)? {
            return Ok(Step::Transfer);
        }
        let target = look(&self.at_target(entry.path))?;
        if let Some(target) = &target {
            if target.is_dir() {
                return Ok(Step::Transfer);
            }
            if entry.change == Change::Attrib && is_copy(source, target) {
                return Ok(Step::Attributes);
            }
        }
        let how: &[u8] = match source.file_type() {
            kind if kind.is_file() => b"-p",
            kind if kind.is_symlink() => b"-Pp",
            _ => b"-Rp",
        };
        let mut words = vec![b"cp".to_vec(), how.to_vec()];
        // cp writes through a symlink and into a pipe, and cannot open what is read-only.
        if target.is_some_and(|target| !is_writable(&target)) {
            words.push(b"--remove-destination".to_vec());
        }
        words.extend([
            b"--".to_vec(),
            self.at_source(entry.path),
            self.at_target(parent(entry.path)),
        ]);
        Ok(Step::Run(words))
    }

    /// Deletes at the target; `other` if the source has something of another kind there.
    fn gone(&self, path: &[u8], other: bool) -> io::Result<Step> {
        let bare = without_slash(path);
        if !self.delete || bare.is_empty() || !self.has_parents(path)? {
            return Ok(Step::Nothing);
        }
        let Some(target) = look(&self.at_target(bare))? else {
            return Ok(Step::Nothing);
        };
        let directory = path.ends_with(b"/");
        if target.is_dir() != directory && other {
            return Ok(Step::Nothing);
        }
        if target.is_dir() && self.filtered {
            return Ok(Step::Transfer);
        }
        let path = if target.is_dir() { path } else { bare };
        let path = self.at_target(path);
        if is_root(&path) {
            return Ok(Step::Refuse);
        }
        Ok(run(&[b"rm", b"-rf", b"--", &path]))
    }

    /// mv(1) moves into a directory that is there, and asks before it replaces what is read-only.
    fn move_step(&self, from: &[u8], to: &[u8]) -> io::Result<Step> {
        let (source, target) = (self.at_target(from), self.at_target(to));
        if is_root(&source) || is_root(&target) {
            return Ok(Step::Refuse);
        }
        let directory = from.ends_with(b"/");
        let fits = self.has_parents(from)?
            && self.has_parents(to)?
            && look(&self.at_target(without_slash(from)))?
                .is_some_and(|found| found.is_dir() == directory)
            && look(&self.at_target(without_slash(to)))?
                .is_none_or(|found| !directory && is_writable(&found));
        if !fits {
            return Ok(Step::Split);
        }
        let script: &[u8] = match self.delete {
            true => b"mv -- \"$1\" \"$2\" || rm -rf -- \"$1\"",
            false => b"mv -- \"$1\" \"$2\"",
        };
        Ok(run(&[b"sh", b"-c", script, b"sh", &source, &target]))
    }

    /// Whether all directories above the path are directories at the target.
    fn has_parents(&self, path: &[u8]) -> io::Result<bool> {
        if !fs::metadata(OsStr::from_bytes(self.target)).is_ok_and(|data| data.is_dir()) {
            return Ok(false);
        }
        let above = parent(path);
        let ends = above.iter().enumerate().skip(1);
        for (end, _) in ends.filter(|(_, byte)| **byte == b'/') {
            let found = look(&self.at_target(&above[..end]))?;
            if !found.is_some_and(|found| found.is_dir()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Gives `target` mode, owner and times of `source`, neither of which is followed if it is a
/// symlink. With `open`, a directory stays one that its owner can fill.
///
/// True if the mode is not the source's yet for that reason.
///
/// # Errors
/// Either is gone, or the target belongs to someone else. The owner is set as far as permitted.
pub fn take_attributes(source: &[u8], target: &[u8], open: bool) -> io::Result<bool> {
    let [source, target] = [source, target].map(|path| Path::new(OsStr::from_bytes(path)));
    let data = fs::symlink_metadata(source)?;
    let mut mode = data.mode() & 0o7777;
    if lchown(target, Some(data.uid()), Some(data.gid())).is_err() {
        // Set-id bits are not for another owner.
        mode &= !0o6000;
        let _ = lchown(target, None, Some(data.gid()));
    }
    let filled = mode | 0o700;
    let held = open && data.is_dir() && filled != mode && !nix::unistd::geteuid().is_root();
    if !data.is_symlink() {
        let mode = Mode::from_bits_truncate(if held { filled } else { mode });
        fchmodat(AT_FDCWD, target, mode, FchmodatFlags::NoFollowSymlink)?;
    }
    let accessed = TimeSpec::new(data.atime(), data.atime_nsec());
    let modified = TimeSpec::new(data.mtime(), data.mtime_nsec());
    let follow = UtimensatFlags::NoFollowSymlink;
    utimensat(AT_FDCWD, target, &accessed, &modified, follow)?;
    Ok(held)
}

/// What is there, symlinks not followed; nothing only if that is certain. With a slash behind it
/// a symlink would be followed.
fn look(path: &[u8]) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(OsStr::from_bytes(path)) {
        Ok(data) => Ok(Some(data)),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Whether a file's contents are known to be at the target.
fn is_copy(source: &Metadata, target: &Metadata) -> bool {
    let key = |data: &Metadata| (data.len(), data.mtime(), data.mtime_nsec());
    source.is_file() && target.is_file() && key(source) == key(target)
}

fn is_writable(target: &Metadata) -> bool {
    target.is_file() && target.permissions().mode() & 0o200 != 0
}

fn is_root(path: &[u8]) -> bool {
    path.iter().all(|&byte| byte == b'/')
}

fn without_slash(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}

/// The directory a path is in, with its slash.
fn parent(path: &[u8]) -> &[u8] {
    let bare = without_slash(path);
    let end = bare.iter().rposition(|&byte| byte == b'/');
    &path[..end.map_or(path.len(), |end| end + 1)]
}

fn run(words: &[&[u8]]) -> Step {
    Step::Run(words.iter().map(|word| word.to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Pair {
        directory: tempfile::TempDir,
    }

    impl Pair {
        /// Two trees made of words such as `s:d/` (a directory at the source), `t:f` (a file at
        /// the target), `t:l@` (a symlink) and `t:p|` (a pipe).
        fn new(made: &str) -> Pair {
            let directory = tempfile::tempdir().unwrap();
            for tree in ["s", "t"] {
                fs::create_dir(directory.path().join(tree)).unwrap();
            }
            for word in made.split_whitespace() {
                let (tree, name) = word.split_once(':').unwrap();
                let path = directory
                    .path()
                    .join(tree)
                    .join(name.trim_end_matches(['@', '|']));
                match name.as_bytes().last() {
                    Some(b'/') => fs::create_dir(&path).unwrap(),
                    Some(b'@') => symlink("elsewhere", &path).unwrap(),
                    Some(b'|') => nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap(),
                    _ => fs::write(&path, "1").unwrap(),
                }
            }
            Pair { directory }
        }

        fn path(&self, tree: &str) -> String {
            format!("{}/{tree}/", self.directory.path().display())
        }

        /// The step for an event, with the trees as `S/` and `T/`.
        fn step(&self, change: Change, path: &str, to: Option<&str>, delete: bool) -> String {
            let (source, target) = (self.path("s"), self.path("t"));
            let trees = Trees {
                source: source.as_bytes(),
                target: target.as_bytes(),
                delete,
                filtered: false,
            };
            let entry = Entry {
                change,
                path: path.as_bytes(),
                to: to.map(str::as_bytes),
            };
            match trees.step(&entry, false).unwrap() {
                Step::Run(words) => {
                    let text = String::from_utf8(words.join(&b' ')).unwrap();
                    text.replace(&source, "S/").replace(&target, "T/")
                }
                other => format!("{other:?}"),
            }
        }
    }

    fn step(made: &str, change: Change, path: &str) -> String {
        Pair::new(made).step(change, path, None, true)
    }

    use Change::{Attrib, Create, Delete, Modify, Move};

    #[test]
    fn plain_cases_are_one_tool_each() {
        assert_eq!(step("s:f", Create, "/f"), "cp -p -- S//f T//");
        assert_eq!(step("s:f t:f", Modify, "/f"), "cp -p -- S//f T//");
        assert_eq!(
            step("s:d/ s:d/f t:d/", Create, "/d/f"),
            "cp -p -- S//d/f T//d/"
        );
        assert_eq!(step("s:d/", Create, "/d/"), "mkdir -- T//d/");
        assert_eq!(step("t:f", Delete, "/f"), "rm -rf -- T//f");
        assert_eq!(step("t:d/", Delete, "/d/"), "rm -rf -- T//d/");
    }

    #[test]
    fn links_and_pipes_are_copied_as_they_are() {
        assert_eq!(step("s:l@", Create, "/l"), "cp -Pp -- S//l T//");
        assert_eq!(step("s:p|", Create, "/p"), "cp -Rp -- S//p T//");
    }

    #[test]
    fn nothing_is_written_through_what_is_at_the_target() {
        let removing = "cp -p --remove-destination -- S//f T//";
        assert_eq!(step("s:f t:f@", Modify, "/f"), removing);
        assert_eq!(step("s:f t:f|", Modify, "/f"), removing);
        assert_eq!(step("s:d/ s:d/f t:d@", Create, "/d/f"), "Transfer");
        assert_eq!(step("t:d@", Delete, "/d/f"), "Nothing");
        assert_eq!(step("t:d@", Delete, "/d/"), "rm -rf -- T//d");
        let pair = Pair::new("s:f t:f");
        let path = pair.path("t") + "f";
        fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
        assert_eq!(pair.step(Modify, "/f", None, true), removing);
    }

    #[test]
    fn other_kinds_and_missing_parents_are_for_rsync() {
        assert_eq!(step("s:x t:x/", Create, "/x"), "Transfer");
        assert_eq!(step("s:x/ t:x", Create, "/x/"), "Transfer");
        assert_eq!(step("s:x/ t:x@", Create, "/x/"), "Transfer");
        assert_eq!(step("s:d/ s:d/f", Create, "/d/f"), "Transfer");
        assert_eq!(step("s:d/ t:d/", Delete, "/d/"), "Transfer");
    }

    #[test]
    fn the_disk_is_believed_and_not_the_event() {
        assert_eq!(step("s:f t:f", Delete, "/f"), "cp -p -- S//f T//");
        assert_eq!(step("s:x/ t:x", Delete, "/x"), "rm -rf -- T//x");
        assert_eq!(step("s:x/ t:x/", Delete, "/x"), "Nothing");
        assert_eq!(step("s:x t:x", Delete, "/x/"), "Nothing");
        assert_eq!(step("", Delete, "/f"), "Nothing");
        assert_eq!(step("t:f", Modify, "/f"), "Wait");
        assert_eq!(step("s:x", Create, "/x/"), "Wait");
    }

    #[test]
    fn attributes_alone_are_taken_over_only_if_the_contents_are_there() {
        assert_eq!(step("s:d/ t:d/", Attrib, "/d/"), "Attributes");
        assert_eq!(step("", Attrib, "/"), "Attributes");
        let pair = Pair::new("s:f t:f");
        let [source, target] = ["s", "t"].map(|tree| pair.path(tree) + "f");
        let file = fs::File::options().write(true).open(&target).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(pair.step(Attrib, "/f", None, true), "cp -p -- S//f T//");
        fs::set_permissions(&source, fs::Permissions::from_mode(0o751)).unwrap();
        take_attributes(source.as_bytes(), target.as_bytes(), true).unwrap();
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o751);
        assert_eq!(pair.step(Attrib, "/f", None, true), "Attributes");
    }

    #[test]
    fn without_delete_nothing_is_deleted() {
        let pair = Pair::new("t:f t:d/");
        assert_eq!(pair.step(Delete, "/f", None, false), "Nothing");
        assert_eq!(pair.step(Delete, "/d/", None, false), "Nothing");
        assert_eq!(
            pair.step(Move, "/f", Some("/g"), false),
            "sh -c mv -- \"$1\" \"$2\" sh T//f T//g"
        );
    }

    #[test]
    fn moves_that_would_go_astray_are_split() {
        let step = |made, from, to| Pair::new(made).step(Move, from, Some(to), true);
        let moved = "sh -c mv -- \"$1\" \"$2\" || rm -rf -- \"$1\" sh";
        assert_eq!(step("t:a", "/a", "/b"), format!("{moved} T//a T//b"));
        assert_eq!(step("t:a t:b", "/a", "/b"), format!("{moved} T//a T//b"));
        assert_eq!(step("t:a@", "/a", "/b"), format!("{moved} T//a T//b"));
        assert_eq!(step("t:a/", "/a/", "/b/"), format!("{moved} T//a/ T//b/"));
        for made in ["", "t:a/", "t:a t:b/", "t:a t:b@"] {
            assert_eq!(step(made, "/a", "/b"), "Split", "{made}");
        }
        assert_eq!(step("t:a/ t:b/", "/a/", "/b/"), "Split");
        assert_eq!(step("t:a/ t:b", "/a/", "/b/"), "Split");
        assert_eq!(step("t:a", "/a", "/d/b"), "Split");
    }

    #[test]
    fn the_root_is_never_deleted() {
        let trees = Trees {
            source: b"/nowhere/",
            target: b"/",
            delete: true,
            filtered: false,
        };
        assert!(is_root(&trees.at_target(b"/")));
        let entry = |path, to| Entry {
            change: Move,
            path,
            to,
        };
        assert_eq!(
            trees.step(&entry(b"/", Some(b"/x/")), false).unwrap(),
            Step::Refuse
        );
        let delete = Entry {
            change: Delete,
            path: b"/",
            to: None,
        };
        assert_eq!(trees.step(&delete, false).unwrap(), Step::Nothing);
    }
}
