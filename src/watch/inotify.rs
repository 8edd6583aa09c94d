//! The kernel's record format, the mask, and the one call that both sets and asks.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use inotify::{Inotify, WatchMask, Watches};

use super::InotifyMode;
use crate::log;

/// Bytes before the name: wd, mask, cookie, length (inotify(7)).
const HEADER_BYTES: usize = 16;

/// One record as the kernel wrote it. `name` is empty for events of the directory itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawEvent<'a> {
    /// The watch, or -1.
    pub wd: i32,
    /// `IN_*` bits.
    pub mask: u32,
    /// What the two halves of a rename have in common.
    pub cookie: u32,
    /// In the watched directory.
    pub name: &'a [u8],
}

impl RawEvent<'_> {
    /// Is any of these `IN_*` bits set?
    pub fn is(&self, bits: u32) -> bool {
        self.mask & bits != 0
    }

    /// Is the thing named a directory?
    pub fn directory(&self) -> bool {
        self.is(libc::IN_ISDIR)
    }
}

/// The records in what read(2) returned. Ends at the first one that is cut short.
pub fn decode(bytes: &[u8]) -> Decoder<'_> {
    Decoder { rest: bytes }
}

/// See [`decode`].
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

/// A record as the kernel would write it: what the reader puts in for what it had to drop.
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

/// What is asked of the kernel for every directory.
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
        // Writes to a file that has lost its name change nothing that could be sent.
        | WatchMask::EXCL_UNLINK
}

/// Sets watches; one for each thread that does.
#[derive(Clone)]
pub struct Kernel {
    watches: Watches,
    mask: WatchMask,
}

impl Kernel {
    /// With `unclosed`, writes are told even if only closing counts.
    pub fn new(inotify: &Inotify, mode: InotifyMode, unclosed: bool) -> Kernel {
        Kernel {
            watches: inotify.watches(),
            mask: mask(mode, unclosed),
        }
    }

    /// Watches the directory at `path` (ends with `/`) and returns its descriptor, the same
    /// one as ever if it is watched already.
    ///
    /// A trailing slash makes the kernel follow a symlink in spite of `IN_DONT_FOLLOW`;
    /// that is right for a root only.
    ///
    /// # Errors
    /// `ENOENT` and `ENOTDIR` when there is no directory, `ENOSPC` when the user has no
    /// watches left, `EACCES` when it may not be read.
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

/// Does this error say that there is no directory (any more)?
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
