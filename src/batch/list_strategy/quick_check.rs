//! Changes that rsync's quick check cannot detect. rsync skips files that agree in size and in the
//! modification time in whole seconds.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::batch::collapse::{Collapsed, CollapsedItem, FileKind, Stat};
use crate::batch::{BatchRequest, Change};

/// Returns true if the contents may have changed with the event. A path that did not exist and
/// exists now is another file.
pub(super) fn is_written(change: Change) -> bool {
    change != Change::Attrib
}

/// Returns true if rsync may skip a changed file: it skips files that agree in size and
/// whole-second modification time. This is possible only if events report a change and the file's
/// time is nevertheless not after the last transfer: it was written during that transfer, or it
/// came with an older time, by a rename or with its time set. The target may also have a later time
/// that was set.
pub(super) fn found_resent(request: &BatchRequest<'_>, found: &Collapsed<'_>) -> bool {
    request.last_transfer.is_some_and(|end| {
        let written = found.present.iter().filter(|item| item.written);
        written
            .map(|item| item.stat)
            .any(|stat| is_resent(end, stat))
    })
}

/// Returns true if a directory is sent whole whose contents the target may have in an older form:
/// files in it may have come by a rename, with the size and time of those that they replace.
pub(super) fn has_renewed(request: &BatchRequest<'_>, found: &Collapsed<'_>) -> bool {
    let renewed = |item: &CollapsedItem<'_>| item.renewed && item.is_directory();
    request.last_transfer.is_some() && found.present.iter().any(renewed)
}

fn is_resent(end: SystemTime, stat: Option<Stat>) -> bool {
    stat.is_some_and(|stat| match stat.node {
        FileKind::File => stat.mtime <= seconds(end) || !is_of_write(stat.mtime, stat.ctime),
        // rsync can look at paths that are too long for a system call.
        FileKind::Unknown => true,
        FileKind::Directory | FileKind::Other => false,
    })
}

/// Returns true if a modification time may be that of the write, which changes both times. Others
/// were set, so the target may have them: one in the future, which may have passed meanwhile.
fn is_of_write(mtime: i64, ctime: i64) -> bool {
    (ctime - 1..=ctime).contains(&mtime)
}

/// Returns whole seconds since the epoch.
fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs() as i64,
        Err(before) => -(before.duration().as_secs() as i64) - 1,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn files_of_the_last_seconds_are_sent_again() {
        let end = UNIX_EPOCH + Duration::from_millis(12_900);
        let resent = |node, mtime, ctime| {
            let stat = Stat {
                node,
                mtime,
                ctime,
                exposed: false,
            };
            is_resent(end, Some(stat))
        };
        let file = |mtime| resent(FileKind::File, mtime, 14);
        let expected = [true, true, false, false, true];
        assert_eq!([8, 12, 13, 14, 15].map(file), expected);
        // It was in the future when it was sent.
        assert!(resent(FileKind::File, 14, 16) && !resent(FileKind::File, 15, 16));
        assert!(resent(FileKind::Unknown, 0, 14) && !resent(FileKind::Directory, 0, 14));
        assert!(!is_resent(end, None));
        assert_eq!(seconds(UNIX_EPOCH - Duration::from_millis(1)), -1);
        assert_eq!(seconds(UNIX_EPOCH - Duration::from_millis(1001)), -2);
    }
}
