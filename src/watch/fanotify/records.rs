//! The kernel's record format and the event mask.

use crate::watch::InotifyMode;
use crate::watch::reader::QueueFormat;

/// The bytes of `struct fanotify_event_metadata`: length, version, length of this part, mask,
/// descriptor, process (fanotify(7)).
const METADATA_BYTES: usize = 24;
/// The bytes of an information record before the handle: type, padding, length, file system.
const INFO_BYTES: usize = 12;
/// The bytes of `struct file_handle` before the handle: length, type.
const HANDLE_BYTES: usize = 8;

/// A directory and a name in it; `.` is the directory itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryName<'a> {
    /// The directory.
    pub directory: HandleRef<'a>,
    /// The name.
    pub name: &'a [u8],
}

/// A file handle: the identity of a file or directory, wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandleRef<'a> {
    /// The number of the file system (`f_fsid` of statfs(2)).
    pub system: [u8; 8],
    /// The type of the handle, 4 bytes, and its bytes.
    pub bytes: &'a [u8],
}

/// One record of the kernel. Events of a name that were in the queue together are one record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventRecord<'a> {
    /// `FAN_*` bits.
    pub mask: u64,
    /// The process that caused the event.
    pub process: i32,
    /// The name that the event is about.
    pub entry: Option<EntryName<'a>>,
    /// The old name of a rename.
    pub from: Option<EntryName<'a>>,
    /// The new name of a rename.
    pub to: Option<EntryName<'a>>,
    /// The file or directory itself.
    pub target: Option<HandleRef<'a>>,
}

impl EventRecord<'_> {
    /// Returns true if any of these `FAN_*` bits is set.
    pub fn is(&self, bits: u64) -> bool {
        self.mask & bits != 0
    }

    /// Returns true if the name is that of a directory.
    pub fn directory(&self) -> bool {
        self.is(libc::FAN_ONDIR)
    }
}

/// Returns the records in the result of read(2). Iteration ends at the first one that is truncated
/// or of an unknown version.
pub fn decode(bytes: &[u8]) -> RecordDecoder<'_> {
    RecordDecoder { rest: bytes }
}

/// The iterator that [`decode`] returns.
#[derive(Clone)]
pub struct RecordDecoder<'a> {
    rest: &'a [u8],
}

impl<'a> RecordDecoder<'a> {
    /// Returns the bytes of the records that follow.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for RecordDecoder<'a> {
    type Item = EventRecord<'a>;

    fn next(&mut self) -> Option<EventRecord<'a>> {
        let length = u32_at(self.rest, 0)? as usize;
        let version = *self.rest.get(4)?;
        let head = usize::from(u16::from_ne_bytes(array_at(self.rest, 6)?));
        let fits = (METADATA_BYTES..=length).contains(&head) && length <= self.rest.len();
        if !fits || version != libc::FANOTIFY_METADATA_VERSION {
            self.rest = &[];
            return None;
        }
        let (record, rest) = self.rest.split_at(length);
        self.rest = rest;
        let mut event = EventRecord {
            mask: u64::from_ne_bytes(array_at(record, 8)?),
            process: i32::from_ne_bytes(array_at(record, 20)?),
            ..EventRecord::default()
        };
        let mut infos = &record[head..];
        while let Some((info, rest)) = split_info(infos) {
            take_info(info, &mut event);
            infos = rest;
        }
        Some(event)
    }
}

/// Returns the number of records in the result of read(2).
pub fn count(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some(length) = u32_at(bytes, 0)
        && length as usize >= METADATA_BYTES
        && let Some(rest) = bytes.get(length as usize..)
    {
        bytes = rest;
        count += 1;
    }
    count
}

/// Splits off the first information record.
fn split_info(infos: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes(array_at(infos, 2)?));
    (length >= 4).then_some(())?;
    infos.split_at_checked(length)
}

/// Takes in an information record. One of an unknown type is skipped.
fn take_info<'a>(info: &'a [u8], event: &mut EventRecord<'a>) {
    let Some((handle, name)) = handle_of(info) else {
        return;
    };
    let entry = EntryName {
        directory: handle,
        name,
    };
    match info[0] {
        libc::FAN_EVENT_INFO_TYPE_FID => event.target = Some(handle),
        libc::FAN_EVENT_INFO_TYPE_DFID_NAME => event.entry = Some(entry),
        libc::FAN_EVENT_INFO_TYPE_DFID => {
            event.entry = Some(EntryName {
                name: b".",
                ..entry
            })
        }
        libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => event.from = Some(entry),
        libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => event.to = Some(entry),
        _ => {}
    }
}

/// Returns the handle of an information record, and the name after it, if there is one.
fn handle_of(info: &[u8]) -> Option<(HandleRef<'_>, &[u8])> {
    let system = array_at(info, 4)?;
    let length = u32_at(info, INFO_BYTES)? as usize;
    let handle = info.get(INFO_BYTES + 4..)?;
    let (bytes, name) = handle.split_at_checked(length.checked_add(HANDLE_BYTES - 4)?)?;
    // The kernel pads names with NULs.
    let end = name.iter().position(|&byte| byte == 0);
    let name = &name[..end.unwrap_or(name.len())];
    Some((HandleRef { system, bytes }, name))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

/// The format of the queue. A unit is an event.
pub const QUEUE: QueueFormat = QueueFormat {
    name: "fanotify",
    units: |bytes| count(bytes) as u64,
    // FIONREAD counts the metadata only.
    unit: METADATA_BYTES,
    overflow,
};

/// Returns the event that the kernel writes when its queue overflows.
fn overflow() -> Vec<u8> {
    let mut bytes = vec![0; METADATA_BYTES];
    bytes[..4].copy_from_slice(&(METADATA_BYTES as u32).to_ne_bytes());
    bytes[4] = libc::FANOTIFY_METADATA_VERSION;
    bytes[6..8].copy_from_slice(&(METADATA_BYTES as u16).to_ne_bytes());
    bytes[8..16].copy_from_slice(&libc::FAN_Q_OVERFLOW.to_ne_bytes());
    bytes[16..20].copy_from_slice(&libc::FAN_NOFD.to_ne_bytes());
    bytes
}

/// Returns the mask with which every file system is marked. With `unclosed`, writes are reported
/// even if only closing counts.
pub fn mask(mode: InotifyMode, unclosed: bool) -> u64 {
    let contents = match mode {
        InotifyMode::CloseWrite if !unclosed => libc::FAN_CLOSE_WRITE,
        InotifyMode::Modify => libc::FAN_MODIFY,
        InotifyMode::CloseWrite | InotifyMode::CloseWriteOrModify => {
            libc::FAN_CLOSE_WRITE | libc::FAN_MODIFY
        }
    };
    let names = libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_RENAME;
    contents | names | libc::FAN_ATTRIB | libc::FAN_ONDIR
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns an information record in the kernel's format.
    pub fn info(kind: u8, system: [u8; 8], handle: &[u8], name: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend(system);
        bytes.extend((handle.len() as u32 - 4).to_ne_bytes());
        bytes.extend(handle);
        if let Some(name) = name {
            bytes.extend(name);
            bytes.push(0);
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let length = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    /// Returns a record in the kernel's format.
    pub fn record(mask: u64, infos: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = overflow();
        bytes.extend(infos.concat());
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[8..16].copy_from_slice(&mask.to_ne_bytes());
        bytes
    }

    /// Returns the record of a rename, whose names are each a directory and a name in it.
    pub fn rename(mask: u64, from: [&[u8]; 2], to: [&[u8]; 2], target: &[u8]) -> Vec<u8> {
        let infos = [
            info(10, SYSTEM, from[0], Some(from[1])),
            info(12, SYSTEM, to[0], Some(to[1])),
            info(1, SYSTEM, target, None),
        ];
        record(libc::FAN_RENAME | mask, &infos)
    }

    /// The file system of [`rename`].
    pub const SYSTEM: [u8; 8] = *b"SYSTEM 1";

    #[test]
    fn a_change_of_a_directory_itself_has_the_name_of_a_period() {
        let handle = &b"\x01\0\0\0aaaa"[..];
        let bytes = record(
            libc::FAN_ATTRIB | libc::FAN_ONDIR,
            &[info(3, SYSTEM, handle, None)],
        );
        let entry = decode(&bytes).next().unwrap().entry.unwrap();
        assert_eq!((entry.directory.bytes, entry.name), (handle, &b"."[..]));
    }

    #[test]
    fn the_mask_has_what_counts_as_a_change() {
        let names = libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_RENAME;
        let always = names | libc::FAN_ATTRIB | libc::FAN_ONDIR;
        let (close, modify) = (libc::FAN_CLOSE_WRITE, libc::FAN_MODIFY);
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

    #[test]
    fn a_rename_has_both_names_and_the_target() {
        let (a, b, c) = (
            &b"\x01\0\0\0aaaa"[..],
            &b"\x01\0\0\0bbbb"[..],
            &b"\x81\0\0\0cccccc"[..],
        );
        let system = *b"SYSTEM 1";
        let infos = [
            info(10, system, a, Some(b"old")),
            info(12, system, b, Some(b"newer")),
            info(1, system, c, None),
        ];
        let bytes = record(libc::FAN_RENAME | libc::FAN_ONDIR, &infos);
        let event = decode(&bytes).next().unwrap();
        let entry = |bytes, name| EntryName {
            directory: HandleRef { system, bytes },
            name,
        };
        assert!(event.directory() && event.entry.is_none());
        assert_eq!(event.from, Some(entry(a, b"old")));
        assert_eq!(event.to, Some(entry(b, b"newer")));
        assert_eq!(event.target, Some(HandleRef { system, bytes: c }));
    }

    #[test]
    fn an_overflow_is_an_event() {
        let bytes = overflow();
        let events: Vec<_> = decode(&bytes).collect();
        assert!(events.len() == 1 && events[0].is(libc::FAN_Q_OVERFLOW));
    }

    #[test]
    fn an_unknown_version_ends_the_records() {
        let mut bytes = overflow();
        bytes[4] += 1;
        assert_eq!(decode(&bytes).count(), 0);
    }

    proptest! {
        #[test]
        fn garbage_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(decode(&bytes).count() <= count(&bytes));
            prop_assert!(count(&bytes) <= bytes.len() / METADATA_BYTES);
        }

        #[test]
        fn records_come_back(
            events in prop::collection::vec(
                (any::<u64>(), any::<[u8; 8]>(), prop::collection::vec(any::<u8>(), 4..40),
                    prop::collection::vec(1..=255u8, 0..60)),
                0..20,
            ),
            cut in 0..24usize,
        ) {
            let mut bytes = Vec::new();
            for (mask, system, handle, name) in &events {
                let infos = [info(2, *system, handle, Some(name)), info(1, *system, handle, None)];
                bytes.extend(record(*mask, &infos));
            }
            let found: Vec<_> = decode(&bytes).collect();
            prop_assert_eq!(found.len(), events.len());
            prop_assert_eq!(count(&bytes), events.len());
            for (event, (mask, system, handle, name)) in found.iter().zip(&events) {
                let target = HandleRef { system: *system, bytes: handle };
                prop_assert_eq!(event.mask, *mask);
                prop_assert_eq!(event.target, Some(target));
                prop_assert_eq!(event.entry, Some(EntryName { directory: target, name }));
            }
            let cut = cut.min(bytes.len());
            let count = decode(&bytes[..bytes.len() - cut]).count();
            prop_assert_eq!(count, events.len() - usize::from(cut > 0));
        }
    }
}
