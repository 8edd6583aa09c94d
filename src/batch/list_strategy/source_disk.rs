//! The source as it is on disk.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::batch::collapse::{Disk, FileKind, Stat};
use crate::batch::rsync_options::SentAsDirectories;
use crate::{paths, safe_path};

/// Returns true if a symlink at a path below the source leads out of it, by its words.
fn leads_out(path: &[u8], to: &OsStr) -> bool {
    let to = to.as_bytes();
    let mut depth = path.iter().filter(|&&byte| byte == b'/').count() - 1;
    let mut out = to.is_empty() || to.starts_with(b"/");
    for part in to.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => out = true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    out
}

/// The source as it is on disk.
pub(super) struct SourceDisk<'a> {
    source: &'a [u8],
    /// A buffer for full paths.
    path: RefCell<Vec<u8>>,
}

impl<'a> SourceDisk<'a> {
    /// Returns the disk below `source`.
    pub(super) fn new(source: &'a [u8]) -> Self {
        SourceDisk {
            source: paths::bare(source),
            path: RefCell::default(),
        }
    }

    /// Returns true if rsync sends the symlink at this path as the directory that it leads to.
    pub(super) fn is_sent_as_directory(&self, path: &[u8], sent: SentAsDirectories) -> bool {
        let full = [self.source, path].concat();
        let full = Path::new(OsStr::from_bytes(&full));
        let leaves = || fs::read_link(full).is_ok_and(|to| leads_out(path, to.as_os_str()));
        match sent {
            SentAsDirectories::None => false,
            SentAsDirectories::Unsafe => leaves() && full.is_dir(),
            SentAsDirectories::All => full.is_dir(),
        }
    }
}

impl Disk for SourceDisk<'_> {
    fn lstat(&self, path: &[u8]) -> Option<Stat> {
        let mut full = self.path.borrow_mut();
        full.clear();
        full.extend_from_slice(self.source);
        full.extend_from_slice(path);
        let path = Path::new(OsStr::from_bytes(&full));
        match fs::symlink_metadata(path) {
            Ok(data) => Some(Stat {
                node: match data.file_type() {
                    kind if kind.is_dir() => FileKind::Directory,
                    kind if kind.is_file() => FileKind::File,
                    _ => FileKind::Other,
                },
                mtime: data.mtime(),
                ctime: data.ctime(),
                exposed: data.is_dir() && safe_path::is_exposed(path, &data),
            }),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => None,
                _ => Some(Stat {
                    node: FileKind::Unknown,
                    mtime: 0,
                    ctime: 0,
                    exposed: true,
                }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_out_by_their_words() {
        let out = |path: &str, to: &str| leads_out(path.as_bytes(), OsStr::new(to));
        for to in [
            "x",
            "./x",
            "../x",
            "../..",
            "..//../x",
            "d/../../..",
            "d/e/../../../x",
        ] {
            assert!(!out("/a/b/l", to), "{to}");
        }
        for to in [
            "",
            "/x",
            "/",
            "../../..",
            "../../x/../../..",
            "d/../../../../x",
        ] {
            assert!(out("/a/b/l", to), "{to}");
        }
        assert!(!out("/l", "x/..") && out("/l", ".."));
    }

    #[test]
    fn links_are_sent_as_directories_as_the_options_say() {
        use SentAsDirectories::{All, None, Unsafe};
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("source/d")).unwrap();
        std::fs::create_dir(at("other")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        for (name, to) in [
            ("inside", "d"),
            ("outside", "../other"),
            ("file", "../file"),
        ] {
            symlink(to, at("source").join(name)).unwrap();
        }
        let source = at("source").into_os_string().into_encoded_bytes();
        let disk = SourceDisk::new(&source);
        let sent = |sent| {
            ["/inside", "/outside", "/file"]
                .map(|path| disk.is_sent_as_directory(path.as_bytes(), sent))
        };
        assert_eq!(sent(None), [false, false, false]);
        assert_eq!(sent(Unsafe), [false, true, false]);
        assert_eq!(sent(All), [true, true, false]);
    }
}
