//! Mount of a local target. If its disk is not mounted, writes would fill the file system below and
//! be hidden by the next mount.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::super::Sync;
use crate::batch;
use crate::config::target::resolved;
use crate::log;
use crate::mount_table::{self, mount_of};

/// The time that the event loop waits for an answer of the target.
const ANSWER_TIME: Duration = Duration::from_millis(20);

/// The mount a target is known to be on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TargetMount {
    /// The mount point, without a trailing slash except for `/`.
    point: Vec<u8>,
    /// Device and inode of the mounted root; `None` if this daemon has not seen it yet.
    root: Option<(u64, u64)>,
}

/// The result of looking at a target.
struct FoundTarget {
    /// The resolved path.
    target: Vec<u8>,
    /// The mount point.
    point: Vec<u8>,
    root: Option<(u64, u64)>,
}

/// A thread that looks on the target.
pub(super) struct Probe {
    answer: Receiver<Option<FoundTarget>>,
    since: Instant,
}

/// The state of a target before a transfer.
#[derive(Debug, PartialEq, Eq)]
pub enum TargetState {
    /// It may be written to.
    Available,
    /// It must not be written to, with the reason as a log text.
    NotMounted(String),
    /// Its file system has not answered for this long.
    Silent(Duration),
}

impl TargetMount {
    /// Returns true if a target at this resolved path, which is on the mount at `point`, has lost
    /// the known mount.
    fn is_lost_at(&self, target: &[u8], point: &[u8]) -> bool {
        self.point.len() > point.len() && target.starts_with(&self.point)
    }

    /// Returns true if nothing has changed, given the root of the file system at the known mount
    /// point. `/` is always mounted.
    fn is_confirmed_by(&self, root: impl FnOnce() -> Option<(u64, u64)>) -> bool {
        self.point == b"/" || (self.root.is_some() && root() == self.root)
    }
}

impl Sync {
    /// Records that the target was on this mount once. A mount point above it is not accepted from
    /// then on.
    pub fn remember_target_mount(&mut self, point: Vec<u8>) {
        let known = self.guard.target.as_ref().map_or(0, |m| m.point.len());
        if point.len() > known {
            let root = None;
            self.guard.target = Some(TargetMount { point, root });
        }
    }

    /// Returns the mount point the target is known to be on.
    pub fn target_mount(&self) -> Option<&[u8]> {
        self.guard.target.as_ref().map(|mount| &*mount.point)
    }

    /// Determines if the target may be written to now. The system call is made by a thread, because
    /// a target on a network that is down must not block the event loop.
    pub fn check_target(&mut self) -> TargetState {
        let is_known = self.guard.target.as_ref().is_some_and(|m| m.point != b"/");
        if is_known || self.guard.probe.is_some() {
            self.accept_target(ANSWER_TIME)
        } else {
            TargetState::Available
        }
    }

    /// Begins to look on the target.
    pub fn ask_target(&mut self) {
        if let (Some(target), None) = (self.guarded_target(), &self.guard.probe) {
            let probe = Probe::start(target.to_vec(), self.guard.target.clone());
            self.guard.probe = Some(probe);
        }
    }

    /// Accepts the source when the target has answered, not before.
    pub fn await_target(&mut self) {
        self.guard.awaits_target = true;
    }

    /// Returns true if the source is accepted when the target has answered.
    pub fn awaits_target(&self) -> bool {
        self.guard.awaits_target
    }

    /// Returns the local target, if it is guarded.
    fn guarded_target(&self) -> Option<&[u8]> {
        let target = self.config.target.as_deref();
        let is_local = |target: &&[u8]| target.starts_with(b"/") && !batch::is_remote(target);
        target.filter(|target| self.config.guard.on && is_local(target))
    }

    /// Checks a target that may have moved to another mount, and records it. Waits for `time` at
    /// most.
    pub fn accept_target(&mut self, time: Duration) -> TargetState {
        self.ask_target();
        let (Some(probe), Some(target)) = (self.guard.probe.take(), self.guarded_target()) else {
            return TargetState::Available;
        };
        let target = target.to_vec();
        let found = match probe.answer.recv_timeout(time) {
            Ok(found) => found,
            Err(RecvTimeoutError::Timeout) => {
                let since = probe.since;
                self.guard.probe = Some(probe);
                return TargetState::Silent(since.elapsed());
            }
            // The thread has panicked or could not be started.
            Err(RecvTimeoutError::Disconnected) => look(&target, self.guard.target.as_ref()),
        };
        let Some(found) = found else {
            return TargetState::Available;
        };
        let known = self.guard.target.as_ref();
        if let Some(known) = known.filter(|known| known.is_lost_at(&found.target, &found.point)) {
            let known = log::escape(&known.point);
            return TargetState::NotMounted(format!(
                "{known}, the mount point of the target, is not mounted"
            ));
        }
        // The target did not answer when the configuration was read.
        if self.config.source.starts_with(&found.target) {
            return TargetState::NotMounted("the target is or contains the source".into());
        }
        let FoundTarget { point, root, .. } = found;
        self.guard.target = Some(TargetMount { point, root });
        TargetState::Available
    }

    /// Forgets the mount, so that the target is accepted as it is.
    pub(super) fn forget_target_mount(&mut self) {
        self.guard.target = None;
        self.guard.probe = None;
        let _ = self.accept_target(ANSWER_TIME);
    }
}

impl Probe {
    /// Starts a thread that examines a target; `known` is its known mount.
    fn start(target: Vec<u8>, known: Option<TargetMount>) -> Probe {
        let (sender, answer) = mpsc::channel();
        let builder = thread::Builder::new().name("target".into());
        let _ = builder.spawn(move || sender.send(look(&target, known.as_ref())));
        let since = Instant::now();
        Probe { answer, since }
    }
}

#[cfg(test)]
impl Sync {
    /// Sets a target that was asked this long ago and never answers.
    pub(crate) fn silence_target(&mut self, time: Duration) {
        let (sender, answer) = mpsc::channel();
        std::mem::forget(sender);
        let since = Instant::now().checked_sub(time).unwrap();
        self.config.target = Some(b"/silent/".to_vec());
        self.guard.probe = Some(Probe { answer, since });
    }
}

/// Returns where the target is mounted; `None` if this is known and has not changed.
fn look(target: &[u8], known: Option<&TargetMount>) -> Option<FoundTarget> {
    if known.is_some_and(|known| known.is_confirmed_by(|| root(&known.point))) {
        return None;
    }
    // Reading the directory triggers an automount (autofs(5)).
    let _ = fs::read_dir(OsStr::from_bytes(target)).map(|mut names| names.next());
    let target = resolved(target);
    let point = mount_of(&mount_table::read(), &target);
    let root = root(&point);
    Some(FoundTarget {
        target,
        point,
        root,
    })
}

fn root(point: &[u8]) -> Option<(u64, u64)> {
    let found = fs::metadata(OsStr::from_bytes(point));
    found.ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths;
    use crate::queue::Policy;
    use crate::sync::tests::sync_with;

    fn mount(point: &str, root: Option<(u64, u64)>) -> TargetMount {
        let point = point.as_bytes().to_vec();
        TargetMount { point, root }
    }

    #[test]
    fn a_target_above_its_mount_has_lost_it() {
        let known = mount("/mnt/disk", None);
        for (target, point, lost) in [
            ("/mnt/disk/t/", "/", true),
            ("/mnt/disk/t/", "/mnt", true),
            ("/mnt/disk/t/", "/mnt/disk", false),
            ("/mnt/disk/t/", "/mnt/disk/t", false),
            // Another target is configured.
            ("/srv/t/", "/", false),
        ] {
            let is_lost = known.is_lost_at(target.as_bytes(), point.as_bytes());
            assert_eq!(is_lost, lost, "{target} on {point}");
        }
    }

    #[test]
    fn a_target_that_does_not_answer_is_asked_once_and_stops_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().as_os_str().as_bytes().to_vec();
        let mut sync = sync_with(Policy::Coalesce);
        sync.config.target = Some(target.clone());
        sync.config.guard.on = true;
        assert_eq!(sync.check_target(), TargetState::Available);
        let (sender, answer) = mpsc::channel();
        let since = Instant::now();
        sync.guard.probe = Some(Probe { answer, since });
        for _ in 0..3 {
            assert!(matches!(sync.check_target(), TargetState::Silent(_)));
        }
        let found = |point: &str, root| FoundTarget {
            target: target.clone(),
            point: point.as_bytes().to_vec(),
            root,
        };
        sender.send(Some(found("/tmp", Some((1, 1))))).unwrap();
        assert_eq!(sync.check_target(), TargetState::Available);
        assert_eq!(sync.target_mount(), Some(&b"/tmp"[..]));
        assert!(sync.guard.probe.is_none());
        // A thread that has panicked leaves the question to the loop.
        drop(sender);
        let (_, answer) = mpsc::channel();
        sync.guard.target = Some(mount("/", None));
        sync.guard.probe = Some(Probe { answer, since });
        assert_eq!(sync.check_target(), TargetState::Available);
    }

    #[test]
    fn a_lost_mount_is_told_by_the_thread() {
        let directory = tempfile::tempdir().unwrap();
        let mut sync = sync_with(Policy::Coalesce);
        let target = resolved(directory.path().as_os_str().as_bytes());
        sync.config.target = Some(target.clone());
        sync.config.guard.on = true;
        let point = paths::bare(&target).to_vec();
        sync.guard.target = Some(TargetMount {
            point,
            root: Some((1, 2)),
        });
        let time = Duration::from_secs(60);
        assert!(matches!(
            sync.accept_target(time),
            TargetState::NotMounted(_)
        ));
        sync.forget_target_mount();
        assert_eq!(sync.accept_target(time), TargetState::Available);
    }

    #[test]
    fn the_same_root_confirms_a_mount() {
        let found = || Some((1, 2));
        assert!(mount("/", None).is_confirmed_by(|| None));
        assert!(mount("/mnt", Some((1, 2))).is_confirmed_by(found));
        assert!(!mount("/mnt", Some((1, 3))).is_confirmed_by(found));
        assert!(!mount("/mnt", Some((1, 2))).is_confirmed_by(|| None));
        assert!(!mount("/mnt", None).is_confirmed_by(|| None));
    }

    #[test]
    fn a_target_whose_mount_is_known_is_examined_before_each_transfer() {
        let directory = tempfile::tempdir().unwrap();
        let target = resolved(directory.path().as_os_str().as_bytes());
        let point = paths::bare(&target).to_vec();
        let time = Duration::from_secs(60);
        let mut sync = sync_with(Policy::Coalesce);
        sync.config.target = Some(target);
        sync.config.guard.on = true;
        sync.remember_target_mount(b"/".to_vec());
        assert_eq!(sync.check_target(), TargetState::Available);
        assert!(sync.guard.probe.is_none());
        sync.remember_target_mount(point);
        // The first answer may take longer than a check waits.
        let answered = match sync.check_target() {
            TargetState::Silent(_) => sync.accept_target(time),
            state => state,
        };
        assert!(matches!(answered, TargetState::NotMounted(_)));
    }

    /// rsync alone knows where another host or a relative path leads.
    #[test]
    fn only_an_absolute_path_of_this_host_is_guarded() {
        for (target, on, guarded) in [
            (Some("/trg/"), true, true),
            (Some("/trg/"), false, false),
            (Some("trg/"), true, false),
            (Some("host:/trg/"), true, false),
            (Some("rsync://host/trg/"), true, false),
            (None, true, false),
        ] {
            let mut sync = sync_with(Policy::Coalesce);
            sync.config.target = target.map(|target| target.as_bytes().to_vec());
            sync.config.guard.on = on;
            assert_eq!(sync.guarded_target().is_some(), guarded, "{target:?} {on}");
        }
    }

    #[test]
    fn the_root_of_a_mount_is_its_device_and_inode() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().metadata().unwrap();
        let path = dir.path().as_os_str().as_bytes();
        assert_eq!(root(path), Some((data.dev(), data.ino())));
        assert_eq!(root(&[path, b"/none"].concat()), None);
    }

    #[test]
    fn a_source_waits_for_its_target_until_it_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let mut sync = sync_with(Policy::Coalesce);
        sync.config.source = [dir.path().as_os_str().as_bytes(), b"/"].concat();
        assert!(!sync.awaits_target());
        sync.await_target();
        assert!(sync.awaits_target());
        assert_eq!(sync.accept_source(), None);
        assert!(!sync.awaits_target());
    }
}
