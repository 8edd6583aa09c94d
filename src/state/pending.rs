//! Persistence of pending events over restarts of the daemon.
//!
//! The state file consists of records of three texts, each followed by a zero byte: the type of an
//! event, its path, and the destination of a Move (else empty). `Full` stands for a pending
//! comparison of the whole source. The first record is `Synced` and the time up to which everything
//! else is on the target.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::state_dir::{self, StateDir};
use crate::config::SyncConfig;
use crate::log;
use crate::paths;
use crate::queue::{Etype, Time};
use crate::sync::Sync;

/// The name of the state file.
const STATE_KIND: &str = "pending";
/// The name of a file that exists while a daemon is active. It holds the time up to which
/// everything is on the target: seconds, a point, nanoseconds. If it is found at startup, the
/// previous daemon was killed before it could save pending events, or it left changes that rsync's
/// quick check cannot detect.
const ALIVE_MARK: &str = "alive";

/// The name of a file that exists between a call of `onFailed` and that of `onRecovered`.
const FAILING_MARK: &str = "failing";

const ETYPES: [Etype; 6] = [
    Etype::Create,
    Etype::Modify,
    Etype::Attrib,
    Etype::Delete,
    Etype::Move,
    Etype::Full,
];

/// The type of the first record.
const SYNCED: &[u8] = b"Synced";

/// Type, path, and destination of a Move.
type PersistedEvent = (Etype, Vec<u8>, Option<Vec<u8>>);

/// The contents of the state file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pending {
    /// All changes from before this time that are not among `events` are on the target.
    synced: Option<SystemTime>,
    events: Vec<PersistedEvent>,
    /// The file has other contents as well, for example because it is damaged.
    whole: bool,
}

/// Saves the pending events of a sync; with `more`, others may be pending as well.
pub fn save(state: &StateDir, sync: &Sync, more: bool) {
    if sync.verify().is_done() && !sync.has_just_sent(SystemTime::now()) {
        state.remove(&sync.config, ALIVE_MARK);
    }
    if sync.counters.failing {
        // Without it, the failure is reported again.
        let _ = state.write(&sync.config, FAILING_MARK, b"\n");
    }
    let mut bytes = bounded(encode(sync, more), state_dir::MAX_BYTES);
    if !bytes.is_empty() {
        bytes.splice(..0, synced_record(sync.verify().synced()));
    }
    if bytes.is_empty() {
        state.remove(&sync.config, STATE_KIND);
    } else if let Err(error) = state.write(&sync.config, STATE_KIND, &bytes) {
        let name = &sync.config.name;
        log::error(format_args!(
            "{name}: cannot store pending changes: {error}"
        ));
    }
}

/// Saves the time up to which everything is on the target of a sync.
pub fn save_synced(state: &StateDir, sync: &Sync) {
    let synced = encode_time(sync.verify().synced());
    if let Err(error) = state.write(&sync.config, ALIVE_MARK, synced.as_bytes()) {
        let name = &sync.config.name;
        log::say(
            "Debug",
            format_args!("{name}: cannot store its state: {error}"),
        );
    }
}

/// Returns the time up to which everything is on the target, as the previous daemon saved it.
pub fn read_synced(state: &StateDir, sync: &SyncConfig) -> Option<SystemTime> {
    Some(decode_time(&state.read(sync, ALIVE_MARK)?))
}

/// Restores the pending events of a sync that starts. `is_first` is true if the previous daemon
/// wrote the state, and not this one. `is_searched` is true if changes that the previous daemon may
/// have missed have been searched for.
pub fn restore(state: &StateDir, sync: &mut Sync, is_first: bool, is_searched: bool, now: Time) {
    let name = sync.config.name.clone();
    if is_first
        && !is_searched
        && let Some(bytes) = state.read(&sync.config, ALIVE_MARK)
    {
        sync.verify_mut().suspect_since(decode_time(&bytes));
    }
    if is_first && state.read(&sync.config, FAILING_MARK).is_some() {
        sync.counters.failing = true;
        state.remove(&sync.config, FAILING_MARK);
    }
    let pending = match state.try_read(&sync.config, STATE_KIND) {
        Ok(bytes) => bytes.map(|bytes| decode(&bytes)),
        Err(error) => {
            let reason = log::reason(&error);
            log::warn(format_args!(
                "{name}: cannot read pending changes: {reason}"
            ));
            let whole = true;
            Some(Pending {
                whole,
                ..Pending::default()
            })
        }
    };
    if let Some(pending) = &pending {
        keep_synced(sync, pending);
    }
    let synced = encode_time(sync.verify().synced());
    if let Err(error) = state.write(&sync.config, ALIVE_MARK, synced.as_bytes()) {
        log::warn(format_args!("{name}: cannot store its state: {error}"));
    }
    let Some(Pending { events, whole, .. }) = pending else {
        return;
    };
    log::normal(format_args!(
        "{name}: {} changes were pending when the daemon stopped",
        events.len()
    ));
    if whole {
        log::warn(format_args!(
            "{name}: pending changes are not completely known: everything is compared"
        ));
        sync.restore(Etype::Full, b"/", None, now);
    }
    for (etype, path, to) in &events {
        sync.restore(*etype, path, to.as_deref(), now);
    }
    state.remove(&sync.config, STATE_KIND);
}

/// Takes over the time up to which everything but the pending events is on the target. If they are
/// not all known, changes after that time are searched for.
fn keep_synced(sync: &mut Sync, pending: &Pending) {
    let Some(synced) = pending.synced else {
        return;
    };
    let mut events = pending.events.iter();
    if pending.whole || events.any(|(etype, ..)| *etype == Etype::Full) {
        sync.verify_mut().suspect_since(synced);
    } else {
        sync.verify_mut().keep_synced(synced);
    }
}

/// Returns the first record of the state file.
fn synced_record(synced: SystemTime) -> Vec<u8> {
    let time = encode_time(synced);
    [SYNCED, b"\0", time.trim_end().as_bytes(), b"\0\0"].concat()
}

/// Returns the encoded events, or a full comparison if they exceed `most` bytes.
fn bounded(bytes: Vec<u8>, most: usize) -> Vec<u8> {
    if bytes.len() > most {
        b"Full\0/\0\0".to_vec()
    } else {
        bytes
    }
}

/// Encodes a time for [`ALIVE_MARK`]. Times before the epoch become the epoch.
fn encode_time(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:09}\n", since.as_secs(), since.subsec_nanos())
}

/// Decodes a time. Returns the epoch for invalid text, so that all files count as changed.
fn decode_time(bytes: &[u8]) -> SystemTime {
    let parse = || {
        let (seconds, nanos) = std::str::from_utf8(bytes)
            .ok()?
            .trim_end()
            .split_once('.')?;
        let since = Duration::from_secs(seconds.parse().ok()?)
            .checked_add(Duration::from_nanos(nanos.parse::<u32>().ok()?.into()))?;
        UNIX_EPOCH.checked_add(since)
    };
    parse().unwrap_or(UNIX_EPOCH)
}

fn encode(sync: &Sync, more: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |etype: Etype, path: &[u8], to: Option<&[u8]>| {
        for part in [etype.name().as_bytes(), path, to.unwrap_or_default()] {
            bytes.extend_from_slice(part);
            bytes.push(0);
        }
    };
    let (events, everything) = sync.pending_events();
    if everything || more {
        add(Etype::Full, b"/", None);
    }
    for (etype, path, to) in &events {
        add(*etype, path, to.as_deref());
    }
    bytes
}

/// Returns the decoded contents of the state file.
fn decode(bytes: &[u8]) -> Pending {
    let mut parts: Vec<&[u8]> = bytes.split(|&byte| byte == 0).collect();
    // The bytes after the last zero byte are an incomplete record.
    let mut pending = Pending {
        whole: parts.pop().is_some_and(|rest| !rest.is_empty()),
        ..Pending::default()
    };
    for parts in parts.chunks(3) {
        match (parts, event(parts)) {
            (_, Some(event)) => pending.events.push(event),
            ([SYNCED, time, b""], None) if pending.synced.is_none() => {
                pending.synced = Some(decode_time(time));
            }
            _ => pending.whole = true,
        }
    }
    pending
}

fn event(parts: &[&[u8]]) -> Option<PersistedEvent> {
    let &[etype, path, to] = parts else {
        return None;
    };
    let etype = ETYPES
        .into_iter()
        .find(|known| known.name().as_bytes() == etype)?;
    let to = Some(to).filter(|to| !to.is_empty());
    let known = match etype {
        Etype::Full => path == b"/" && to.is_none(),
        Etype::Move => is_inside(path) && to.is_some_and(is_inside),
        _ => is_inside(path) && to.is_none(),
    };
    known.then(|| (etype, path.to_vec(), to.map(<[u8]>::to_vec)))
}

/// Returns true for a path within a source: it begins with `/` and has no `..`.
fn is_inside(path: &[u8]) -> bool {
    let bare = paths::bare(path);
    let Some(names) = bare.strip_prefix(b"/") else {
        return false;
    };
    let mut names = names.split(|&byte| byte == b'/');
    names.all(|name| !matches!(name, b"" | b"." | b".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::tests::sync_of;
    use proptest::prelude::*;

    fn known(etype: Etype, path: &str, to: Option<&str>) -> PersistedEvent {
        (etype, path.into(), to.map(Into::into))
    }

    #[test]
    fn what_is_no_event_asks_for_a_comparison() {
        let bytes = b"Create\0/a\nb\0\0Move\0/c/\0/d/\0";
        let events = vec![
            known(Etype::Create, "/a\nb", None),
            known(Etype::Move, "/c/", Some("/d/")),
        ];
        let of = |events: &[PersistedEvent], whole| Pending {
            synced: None,
            events: events.to_vec(),
            whole,
        };
        assert_eq!(decode(bytes), of(&events, false));
        let full = known(Etype::Full, "/", None);
        assert_eq!(decode(b"Full\0/\0\0"), of(&[full], false));
        assert_eq!(decode(b""), Pending::default());
        let synced = UNIX_EPOCH + Duration::new(12, 5);
        let dated = [&synced_record(synced)[..], bytes].concat();
        let mut expected = of(&events, false);
        expected.synced = Some(synced);
        assert_eq!(decode(&dated), expected);
        for broken in [
            &b"Nonsense\0/e\0\0"[..],
            b"Delete\0x\0\0",
            b"Delete\0\0\0",
            b"Delete\0/\0\0",
            b"Delete\0/../victim/\0\0",
            b"Delete\0/a/../../victim\0\0",
            b"Delete\0/a/..\0\0",
            b"Delete\0/./a\0\0",
            b"Delete\0//etc\0\0",
            b"Delete\0/a//\0\0",
            b"Move\0/a\0\0",
            b"Move\0/a\0/../b\0",
            b"Create\0/a\0/b\0",
            b"Full\0/a\0\0",
        ] {
            let all = [bytes, broken].concat();
            assert_eq!(decode(&all), of(&events, true), "{}", broken.escape_ascii());
        }
        for end in 1..b"Move\0/c/\0/d/\0".len() {
            let cut = &bytes[..bytes.len() - end];
            assert_eq!(decode(cut), of(&events[..1], true), "{end}");
        }
    }

    #[test]
    fn what_is_too_much_is_compared() {
        let bytes = b"Create\0/a\0\0".to_vec();
        assert_eq!(bounded(bytes.clone(), bytes.len()), bytes);
        let pending = decode(&bounded(bytes, 5));
        assert_eq!(pending.events, [known(Etype::Full, "/", None)]);
    }

    proptest! {
        #[test]
        fn nothing_leads_out_of_a_source(bytes in "(Create|Delete|Move|Full|\0|/|\\.|a){0,40}") {
            for (_, path, to) in decode(bytes.as_bytes()).events {
                for path in [Some(path), to].into_iter().flatten() {
                    let mut names = path.split(|&byte| byte == b'/');
                    prop_assert_eq!(names.next(), Some(&b""[..]));
                    prop_assert!(names.all(|name| name != b".." && name != b"."));
                }
            }
        }
    }

    #[test]
    fn a_time_is_read_as_it_was_written() {
        for nanos in [0, 1, 999_999_999, 1_800_000_000_123_456_789] {
            let time = UNIX_EPOCH + Duration::from_nanos(nanos);
            assert_eq!(decode_time(encode_time(time).as_bytes()), time);
        }
        let nonsense: [&[u8]; 5] = [b"", b"1", b"-1.0", b"1.x", b"99999999999999999999.0"];
        for bytes in nonsense {
            assert_eq!(decode_time(bytes), UNIX_EPOCH);
        }
    }

    /// A state directory for the sync of `/src/`.
    fn state() -> (tempfile::TempDir, StateDir) {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::at(directory.path());
        (directory, state)
    }

    fn changed(paths: &[&[u8]]) -> Sync {
        let mut sync = sync_of(b"/src/");
        for path in paths {
            sync.queue.push(Etype::Modify, path, None, 0);
        }
        sync
    }

    /// Returns the paths that a sync has queued after it has restored its state.
    fn restored(state: &StateDir, is_first: bool) -> (Sync, Vec<Vec<u8>>) {
        let mut sync = sync_of(b"/src/");
        restore(state, &mut sync, is_first, false, 0);
        let paths = sync.queue.iter().map(|delay| delay.paths().0);
        let paths = paths.collect();
        (sync, paths)
    }

    #[test]
    fn pending_changes_are_restored_once() {
        let (_directory, state) = state();
        save(&state, &changed(&[b"/a", b"/b"]), false);
        let (sync, paths) = restored(&state, true);
        assert_eq!(paths, [b"/a", b"/b"]);
        // Size and time may be those of the file that was sent before.
        assert!(sync.verify().is_by_content(b"/a"));
        assert_eq!(restored(&state, false).1, [b""; 0]);
        save(&state, &changed(&[b"/a"]), false);
        save(&state, &changed(&[]), false);
        assert_eq!(restored(&state, false).1, [b""; 0]);
    }

    /// If the changes are not all known, those since that time are searched for.
    #[test]
    fn the_time_before_the_pending_changes_is_restored() {
        let then = UNIX_EPOCH + Duration::from_secs(5);
        for (more, is_done) in [(false, true), (true, false)] {
            let (_directory, state) = state();
            let mut sync = changed(&[b"/a"]);
            sync.verify_mut().keep_synced(then);
            save(&state, &sync, more);
            let (sync, _) = restored(&state, true);
            assert_eq!(sync.verify().synced(), then);
            assert_eq!(sync.verify().is_done(), is_done, "{more}");
            // The next daemon reads the time if this one is killed.
            assert_eq!(read_synced(&state, &sync.config), Some(then));
        }
    }

    #[test]
    fn changes_are_searched_for_unless_all_pending_ones_are_known() {
        for (whole, full) in [(false, false), (true, false), (false, true)] {
            let mut sync = sync_of(b"/src/");
            let etype = if full { Etype::Full } else { Etype::Modify };
            let mut pending = decode(&synced_record(UNIX_EPOCH));
            pending.events.push(known(etype, "/", None));
            pending.whole = whole;
            keep_synced(&mut sync, &pending);
            assert_eq!(sync.verify().is_done(), !whole && !full, "{pending:?}");
        }
    }

    #[test]
    fn restored_changes_below_a_missing_mount_are_dropped() {
        let (_directory, state) = state();
        save(&state, &changed(&[b"/inner/f", b"/g"]), false);
        let mut sync = sync_of(b"/src/");
        sync.remember_nested_mounts([b"/src/inner".to_vec()].into_iter());
        sync.update_nested_mounts(&Default::default());
        restore(&state, &mut sync, true, false, 0);
        let paths = sync.queue.iter().map(|delay| delay.paths().0);
        assert_eq!(paths.collect::<Vec<_>>(), [b"/g"]);
    }

    #[test]
    fn everything_is_compared_if_pending_changes_are_not_known() {
        let (directory, state) = state();
        let config = sync_of(b"/src/").config;
        let compares = |state: &StateDir| {
            let (sync, _) = restored(state, true);
            let mut specials = sync.queue.specials();
            specials.any(|delay| delay.etype() == Etype::Init)
        };
        assert!(!compares(&state));
        save(&state, &changed(&[b"/a"]), false);
        assert!(!compares(&state));
        save(&state, &changed(&[b"/a"]), true);
        assert!(compares(&state));
        let mut owing = changed(&[]);
        owing.queue.push(Etype::Full, b"/", None, 0);
        save(&state, &owing, false);
        assert!(compares(&state));
        state.write(&config, STATE_KIND, b"damaged").unwrap();
        assert!(compares(&state));
        // It cannot be read.
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            std::fs::create_dir(entry.unwrap().path().join(STATE_KIND)).unwrap();
        }
        assert!(compares(&state));
    }

    /// The mark is removed by an orderly stop, when the second of the last transfer is over.
    #[test]
    fn after_a_kill_changes_since_the_saved_time_are_searched_for() {
        let (_directory, state) = state();
        let config = sync_of(b"/src/").config;
        assert_eq!(read_synced(&state, &config), None);
        let (mut sync, _) = restored(&state, true);
        assert!(sync.verify().is_done());
        assert_eq!(read_synced(&state, &config), Some(sync.verify().synced()));
        let then = UNIX_EPOCH + Duration::from_nanos(1_000_000_001);
        sync.verify_mut().suspect_since(then);
        save_synced(&state, &sync);
        assert_eq!(read_synced(&state, &config), Some(then));
        assert!(restored(&state, false).0.verify().is_done());
        save_synced(&state, &sync);
        let (killed, _) = restored(&state, true);
        assert!(!killed.verify().is_done());
        assert_eq!(killed.verify().synced(), then);
        // Files that look unchanged are still to be searched for.
        save(&state, &killed, false);
        assert!(read_synced(&state, &config).is_some());
        let stopped = sync_of(b"/src/");
        save(&state, &stopped, false);
        assert!(read_synced(&state, &config).is_some());
        while stopped.has_just_sent(SystemTime::now()) {
            std::thread::sleep(Duration::from_millis(10));
        }
        save(&state, &killed, false);
        assert!(read_synced(&state, &config).is_some());
        save(&state, &stopped, false);
        assert_eq!(read_synced(&state, &config), None);
    }

    #[test]
    fn a_failure_that_was_reported_is_known_to_the_next_daemon() {
        let (_directory, state) = state();
        let mut failing = sync_of(b"/src/");
        failing.counters.failing = true;
        save(&state, &failing, false);
        assert!(!restored(&state, false).0.counters.failing);
        assert!(restored(&state, true).0.counters.failing);
        assert!(!restored(&state, true).0.counters.failing);
    }
}
