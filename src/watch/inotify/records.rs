//! The kernel's record format, the event mask, and the call that sets a watch and thereby
//! identifies a directory.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use inotify::{Inotify, WatchMask, Watches};

use crate::log;
use crate::watch::InotifyMode;
use crate::watch::reader::QueueFormat;

/// The bytes of a record before the name: wd, mask, cookie, length (inotify(7)).
const HEADER_BYTES: usize = 16;

/// One record of the kernel. `name` is empty for events of the directory itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawEvent<'a> {
    /// The watch descriptor, or -1.
    pub wd: i32,
    /// `IN_*` bits.
    pub mask: u32,
    /// The number that both halves of a rename share.
    pub cookie: u32,
    /// The name in the watched directory.
    pub name: &'a [u8],
}

impl RawEvent<'_> {
    /// Returns true if any of these `IN_*` bits is set.
    pub fn is(&self, bits: u32) -> bool {
        self.mask & bits != 0
    }

    /// Returns true if the name is that of a directory.
    pub fn directory(&self) -> bool {
        self.is(libc::IN_ISDIR)
    }

    /// Returns true if attributes have changed. utimensat(2) that sets the modification time alone
    /// causes IN_MODIFY, which has no other meaning for a directory.
    pub fn changes_attributes(&self) -> bool {
        self.is(libc::IN_ATTRIB) || self.is(libc::IN_MODIFY) && self.directory()
    }
}

/// Returns the records in the result of read(2). Iteration ends at the first truncated one.
pub fn decode(bytes: &[u8]) -> Decoder<'_> {
    Decoder { rest: bytes }
}

/// The iterator that [`decode`] returns.
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Decoder<'a> {
    type Item = RawEvent<'a>;

    fn next(&mut self) -> Option<RawEvent<'a>> {
        let (header, rest) = self.rest.split_first_chunk::<HEADER_BYTES>()?;
        let word = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&header[at..at + 4]);
            u32::from_ne_bytes(bytes)
        };
        let length = word(12) as usize;
        if length > rest.len() {
            self.rest = &[];
            return None;
        }
        let (name, rest) = rest.split_at(length);
        self.rest = rest;
        // The kernel pads names with NULs to the alignment of the next record.
        let end = name.iter().position(|&byte| byte == 0);
        Some(RawEvent {
            wd: word(0).cast_signed(),
            mask: word(4),
            cookie: word(8),
            name: &name[..end.unwrap_or(length)],
        })
    }
}

/// Returns a record in the kernel's format. The reader inserts one in place of dropped events.
pub fn encode(event: RawEvent<'_>) -> Vec<u8> {
    let padded = match event.name.len() {
        0 => 0,
        length => (length + 1).next_multiple_of(HEADER_BYTES),
    };
    let mut bytes = Vec::with_capacity(HEADER_BYTES + padded);
    bytes.extend_from_slice(&event.wd.to_ne_bytes());
    bytes.extend_from_slice(&event.mask.to_ne_bytes());
    bytes.extend_from_slice(&event.cookie.to_ne_bytes());
    bytes.extend_from_slice(&(padded as u32).to_ne_bytes());
    bytes.extend_from_slice(event.name);
    bytes.resize(HEADER_BYTES + padded, 0);
    bytes
}

/// The format of the queue. A unit is a byte.
pub const QUEUE: QueueFormat = QueueFormat {
    name: "inotify",
    units: |bytes| bytes.len() as u64,
    unit: 1,
    overflow: || {
        encode(RawEvent {
            wd: -1,
            mask: libc::IN_Q_OVERFLOW,
            cookie: 0,
            name: &[],
        })
    },
};

/// Returns the mask with which every directory is watched.
fn mask(mode: InotifyMode, unclosed: bool) -> WatchMask {
    let contents = match mode {
        InotifyMode::CloseWrite if unclosed => WatchMask::CLOSE_WRITE | WatchMask::MODIFY,
        InotifyMode::CloseWrite => WatchMask::CLOSE_WRITE,
        InotifyMode::Modify => WatchMask::MODIFY,
        InotifyMode::CloseWriteOrModify => WatchMask::CLOSE_WRITE | WatchMask::MODIFY,
    };
    contents
        | WatchMask::ATTRIB
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::MOVED_FROM
        | WatchMask::MOVED_TO
        | WatchMask::ONLYDIR
        | WatchMask::DONT_FOLLOW
        // Writes to an unlinked file change nothing that could be sent.
        | WatchMask::EXCL_UNLINK
}

/// Sets watches. Each thread that does so has its own.
#[derive(Clone)]
pub struct Kernel {
    watches: Watches,
    mask: WatchMask,
}

impl Kernel {
    /// Returns a handle that sets watches for `mode`. With `unclosed`, writes are reported even if
    /// only closing counts.
    pub fn new(inotify: &Inotify, mode: InotifyMode, unclosed: bool) -> Kernel {
        Kernel {
            watches: inotify.watches(),
            mask: mask(mode, unclosed),
        }
    }

    /// Watches the directory at `path` (ends with `/`) and returns its descriptor, which is the
    /// same for a directory that is watched already.
    ///
    /// A trailing slash makes the kernel follow a symlink in spite of `IN_DONT_FOLLOW`; that is
    /// intended for a root only.
    ///
    /// # Errors
    /// `ENOENT` and `ENOTDIR` if there is not a directory, `ENOSPC` if the user has no watches left,
    /// `EACCES` if it may not be read.
    pub fn add(&mut self, path: &[u8], root: bool) -> io::Result<i32> {
        let path = match path {
            [head @ .., b'/'] if !root => head,
            _ => path,
        };
        let descriptor = self.watches.add(OsStr::from_bytes(path), self.mask)?;
        let wd = descriptor.get_watch_descriptor_id();
        if log::enabled("Inotify") {
            let path = log::escape(path);
            log::say("Inotify", format_args!("addwatch( {path} )-> {wd} "));
        }
        Ok(wd)
    }
}

/// Returns true if the error says that there is not a directory (any more).
pub fn vanished(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_mask_has_what_counts_as_a_change() {
        let names = WatchMask::CREATE | WatchMask::DELETE;
        let moves = WatchMask::MOVED_FROM | WatchMask::MOVED_TO;
        let own = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ATTRIB;
        let limits = WatchMask::ONLYDIR | WatchMask::DONT_FOLLOW | WatchMask::EXCL_UNLINK;
        let always = names | moves | own | limits;
        let (close, modify) = (WatchMask::CLOSE_WRITE, WatchMask::MODIFY);
        let expected = [
            (InotifyMode::CloseWrite, false, close),
            (InotifyMode::CloseWrite, true, close | modify),
            (InotifyMode::Modify, false, modify),
            (InotifyMode::CloseWriteOrModify, false, close | modify),
        ];
        for (mode, unclosed, contents) in expected {
            assert_eq!(mask(mode, unclosed), always | contents, "{mode:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let total: usize = decode(&bytes).map(|event| HEADER_BYTES + event.name.len()).sum();
            prop_assert!(total <= bytes.len());
        }

        #[test]
        fn records_come_back(
            events in prop::collection::vec(
                (any::<i32>(), any::<u32>(), any::<u32>(), prop::collection::vec(1..=255u8, 0..60)),
                0..20,
            ),
            cut in 0..16usize,
        ) {
            let mut bytes = Vec::new();
            for (wd, mask, cookie, name) in &events {
                bytes.extend(encode(RawEvent { wd: *wd, mask: *mask, cookie: *cookie, name }));
            }
            let whole = decode(&bytes).map(|event| {
                (event.wd, event.mask, event.cookie, event.name.to_vec())
            });
            prop_assert_eq!(whole.collect::<Vec<_>>(), events.clone());
            let cut = cut.min(bytes.len());
            let count = decode(&bytes[..bytes.len() - cut]).count();
            prop_assert_eq!(count, events.len() - usize::from(cut > 0));
        }
    }
}
