//! Unit tests of the tracked open files.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, mknod};
use proptest::prelude::*;

use super::*;
use crate::watch::{Follow, Loss};

#[test]
fn a_file_that_is_made_written_and_closed_is_forgotten() {
    let now = Instant::now();
    let mut open_files = OpenFiles::new(Some(Duration::from_secs(60)));
    for name in [&b"a"[..], b"b"] {
        open_files.touched(1, name, false, now);
        open_files.touched(1, name, true, now);
        open_files.closed(1, name);
        assert!(open_files.is_empty() && open_files.idle.capacity() == 0);
    }
    open_files.touched(1, b"a", true, now);
    open_files.touched(2, b"a", true, now);
    open_files.touched(1, b"b", false, now);
    open_files.moved((2, b"a"), (3, b"c"));
    open_files.closed(1, b"a");
    open_files.closed(1, b"b");
    assert!(open_files.take_due(now).is_empty());
    let left = open_files.take_due(now + CHECK_DELAY);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].0, (3, b"c".to_vec()));
    assert!(left[0].1.written);
    assert!(open_files.is_empty());
}

#[test]
fn what_is_not_written_is_never_due_and_forgotten_in_the_end() {
    let now = Instant::now();
    let mut open_files = OpenFiles::new(Some(Duration::from_secs(60)));
    open_files.touched(1, b"written", false, now);
    for i in 0..3 * MAX_UNWRITTEN {
        open_files.touched(2, i.to_string().as_bytes(), false, now);
    }
    assert!(open_files.idle.len() <= MAX_UNWRITTEN && open_files.next_deadline().is_none());
    open_files.touched(1, b"written", true, now);
    assert_eq!(open_files.next_deadline(), Some(now + CHECK_DELAY));
    assert_eq!(open_files.take_due(now + CHECK_DELAY).len(), 1);
    open_files.update_due(now);
    assert_eq!(open_files.next_deadline(), None);
}

#[test]
fn nothing_is_tracked_if_not_asked_for() {
    let mut open_files = OpenFiles::new(None);
    open_files.touched(1, b"a", true, Instant::now());
    assert!(open_files.is_empty() && open_files.next_deadline().is_none());
}

#[test]
fn an_open_file_is_known_by_its_lease() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    let bytes = path.as_os_str().as_bytes();
    assert!(matches!(check_writer(bytes), WriteCheck::Other));
    let writer = File::create(&path).unwrap();
    assert!(matches!(
        check_writer(bytes),
        WriteCheck::Open { certain: true }
    ));
    // A file is made by mknod(2) where it must not be open: a child process that another test
    // starts at the time has a copy of each descriptor until it executes its program.
    std::fs::remove_file(&path).unwrap();
    make(&path);
    let _reader = File::open(&path).unwrap();
    assert!(matches!(check_writer(bytes), WriteCheck::Complete));
    drop(writer);
}

/// Makes an empty file that is not open.
fn make(path: &Path) {
    mknod(path, SFlag::S_IFREG, Mode::S_IRUSR | Mode::S_IWUSR, 0).unwrap();
}

/// The number of files in the property test.
const FILES: usize = 6;

#[derive(Clone, Copy, Debug)]
enum Step {
    Touch(usize, bool),
    Close(usize),
    Move(usize, usize),
    /// Passes this number of seconds, and checks the due files whenever some may be due.
    Pass(u32),
    /// Asks for the files of this bit mask.
    Ask(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..FILES, any::<bool>()).prop_map(|(file, written)| Step::Touch(file, written)),
        (0..FILES).prop_map(Step::Close),
        (0..FILES, 0..FILES).prop_map(|(from, to)| Step::Move(from, to)),
        (0u32..12).prop_map(Step::Pass),
        any::<u8>().prop_map(Step::Ask),
    ]
}

struct Reports(Vec<Vec<u8>>);

impl Observer for Reports {
    fn event(&mut self, event: Event<'_>) -> Follow {
        if let Event::Modify { path } = event {
            self.0.push(path.to_vec());
        }
        Follow::Nothing
    }

    fn overflow(&mut self) {}
    fn root_lost(&mut self, _: usize, _: Loss) {}
    fn root_back(&mut self, _: usize) {}
    fn out_of_watches(&mut self, _: &[u8]) {}
    fn watch_failed(&mut self, _: &[u8], _: &std::io::Error, _: &'static str) {}
}

proptest! {
    /// Asks for single files and looks through all files: what is being written and what is
    /// reported is the same. At first every second file is open for writing.
    #[test]
    fn asking_for_files_tells_what_looking_through_all_tells(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let base = [directory.path().as_os_str().as_bytes(), b"/"].concat();
        let names: Vec<_> = (0..FILES).map(|file| file.to_string().into_bytes()).collect();
        let path_of = |name: &[u8]| [&base, name].concat();
        let os_path = |file: usize| PathBuf::from(OsString::from_vec(path_of(&names[file])));
        let mut writers: [Option<File>; FILES] = std::array::from_fn(|file| {
            make(&os_path(file));
            let is_open = file % 2 == 0;
            is_open.then(|| File::options().write(true).open(os_path(file)).unwrap())
        });
        let paths = |_, name: &[u8]| vec![path_of(name)];
        let mut now = Instant::now();
        let mut single = OpenFiles::new(Some(Duration::from_secs(5)));
        let mut all = OpenFiles::new(Some(Duration::from_secs(5)));
        for step in steps {
            match step {
                Step::Touch(file, written) => {
                    if !os_path(file).exists() {
                        make(&os_path(file));
                    }
                    single.touched(1, &names[file], written, now);
                    all.touched(1, &names[file], written, now);
                }
                Step::Close(file) => {
                    if writers[file].take().is_some() {
                        std::fs::remove_file(os_path(file)).unwrap();
                        make(&os_path(file));
                    }
                    single.closed(1, &names[file]);
                    all.closed(1, &names[file]);
                }
                Step::Move(from, to) => {
                    if from == to || std::fs::rename(os_path(from), os_path(to)).is_err() {
                        continue;
                    }
                    writers[to] = writers[from].take();
                    single.moved((1, &names[from]), (1, &names[to]));
                    all.moved((1, &names[from]), (1, &names[to]));
                }
                Step::Pass(seconds) => {
                    let [mut left, mut right] = [(); 2].map(|()| Reports(Vec::new()));
                    for _ in 0..seconds * 10 {
                        now += MIN_CHECK_INTERVAL;
                        single.report_due(&paths, now, &mut left);
                        all.report_due(&paths, now, &mut right);
                    }
                    left.0.sort();
                    right.0.sort();
                    prop_assert_eq!(left.0, right.0);
                }
                Step::Ask(mask) => {
                    let asked = |name: &[u8]| mask >> (name[0] - b'0') & 1 == 1;
                    let list = names.iter().filter(|name| asked(name));
                    let list = list.map(|name| ((1, name.clone()), path_of(name)));
                    let mut left = single.being_written_of(list, &paths, now);
                    let asked = |path: &[u8]| asked(&path[base.len()..]);
                    let mut right = all.being_written(&paths, &asked, now);
                    left.sort();
                    right.sort();
                    prop_assert_eq!(left, right);
                }
            }
        }
    }
}

#[test]
fn asking_for_one_file_does_not_look_through_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("500");
    let _writer = File::create(&path).unwrap();
    let path = path.as_os_str().as_bytes();
    let now = Instant::now();
    let mut open_files = OpenFiles::new(Some(Duration::from_secs(60)));
    for i in 0..1000 {
        open_files.touched(1, i.to_string().as_bytes(), i % 2 == 1, now);
    }
    assert_eq!(open_files.len(), 1000);
    let looked_up = std::cell::Cell::new(0);
    let paths = |_, name: &[u8]| {
        looked_up.set(looked_up.get() + 1);
        vec![[b"/none/", name].concat()]
    };
    let asked = || [((1, b"500".to_vec()), path.to_vec())];
    assert_eq!(open_files.being_written_of(asked(), &paths, now), [path]);
    assert_eq!((looked_up.get(), open_files.len()), (0, 1000));
    // A file that is complete and was not written is forgotten as well.
    let now = now + FORGET_DELAY;
    assert_eq!(open_files.being_written_of(asked(), &paths, now), [path]);
    assert_eq!(open_files.len(), 501);
}

/// What is at the path of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Nothing,
    Directory,
    Fifo,
    Symlink,
    /// A file that is not open.
    Closed,
    /// A file that is open for writing.
    Writer,
    /// A file that this user must not read.
    Unreadable,
}

const ALL: [There; 7] = [
    There::Nothing,
    There::Directory,
    There::Fifo,
    There::Symlink,
    There::Closed,
    There::Writer,
    There::Unreadable,
];

/// Makes the object at a path. Returns the writer.
fn put(path: &Path, there: There) -> Option<File> {
    match there {
        There::Nothing => {}
        There::Directory => std::fs::create_dir(path).unwrap(),
        There::Fifo => mknod(path, SFlag::S_IFIFO, Mode::S_IRWXU, 0).unwrap(),
        There::Symlink => std::os::unix::fs::symlink("none", path).unwrap(),
        There::Closed => make(path),
        There::Writer => return Some(File::create(path).unwrap()),
        There::Unreadable => mknod(path, SFlag::S_IFREG, Mode::empty(), 0).unwrap(),
    }
    None
}

/// Calls `test` for each kind of object, as a user that permissions stop.
fn for_each_kind(test: impl Fn(There, &[u8]) + Send + Sync) {
    crate::test_user::without_rights_of_root(|directory| {
        for there in ALL {
            let path = directory.join(format!("{there:?}"));
            let _writer = put(&path, there);
            test(there, path.as_os_str().as_bytes());
        }
    });
}

#[test]
fn an_object_is_complete_or_open_or_no_file() {
    for_each_kind(|there, path| {
        let is_as_expected = match check_writer(path) {
            WriteCheck::Other => matches!(there, There::Nothing | There::Directory | There::Fifo),
            WriteCheck::Complete => matches!(there, There::Symlink | There::Closed),
            WriteCheck::Open { certain: true } => there == There::Writer,
            WriteCheck::Open { certain: false } => there == There::Unreadable,
        };
        assert!(is_as_expected, "{there:?}");
    });
}

/// A FIFO may take the name between the checks, which would block the loop.
#[test]
fn a_file_is_opened_without_waiting_or_following() {
    let directory = tempfile::tempdir().unwrap();
    let (file, link) = (directory.path().join("f"), directory.path().join("l"));
    put(&file, There::Closed);
    std::os::unix::fs::symlink("f", &link).unwrap();
    assert!(open(link.as_os_str()).is_err());
    let opened = open(file.as_os_str()).unwrap();
    let flags = rustix::fs::fcntl_getfl(&opened).unwrap();
    assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
}

/// Returns the reports of one file that is due, and its state after that.
fn checked(path: &[u8], state: OpenFile, now: Instant) -> (usize, Option<OpenFile>) {
    let mut open_files = OpenFiles::new(Some(STALENESS));
    open_files.scheduled.insert((1, path.to_vec()), state);
    open_files.due = Some(now);
    let mut reports = Reports(Vec::new());
    open_files.report_due(&|_, path| vec![path.to_vec()], now, &mut reports);
    assert!(reports.0.iter().all(|reported| reported == path));
    let after = open_files.remove(1, path);
    assert!(open_files.is_empty());
    (reports.0.len(), after)
}

const STALENESS: Duration = Duration::from_secs(60);

/// Written, awaited, reported before, and the age of the change.
fn states(now: Instant) -> Vec<OpenFile> {
    let mut states = Vec::new();
    for bits in 0..16 {
        let is_set = |bit: u32| bits >> bit & 1 == 1;
        states.push(OpenFile {
            since: if is_set(0) { now - STALENESS } else { now },
            due: now,
            written: is_set(1),
            awaited: is_set(2),
            open: is_set(3),
            reported: is_set(3),
        });
    }
    states
}

#[test]
fn a_due_file_is_reported_when_it_is_complete_or_too_old() {
    let now = Instant::now() + STALENESS;
    for_each_kind(|there, path| {
        for state in states(now) {
            let news = state.written || state.awaited;
            let is_reported = match there {
                There::Nothing | There::Directory | There::Fifo => state.awaited,
                There::Symlink | There::Closed => news,
                There::Writer | There::Unreadable => news && state.since < now,
            };
            let is_kept = there == There::Writer || there == There::Unreadable && news;
            let (reports, after) = checked(path, state, now);
            let what = (there, state);
            assert_eq!(reports, usize::from(is_reported), "{what:?}");
            let expected = is_kept.then(|| OpenFile {
                since: now,
                due: now + STALENESS,
                written: state.written && !is_reported,
                awaited: state.awaited && !is_reported,
                open: true,
                reported: state.reported || is_reported,
            });
            assert_eq!(after, expected, "{what:?}");
        }
    });
}

#[test]
fn a_file_that_is_asked_for_is_awaited_if_it_is_open() {
    let now = Instant::now() + STALENESS;
    for_each_kind(|there, path| {
        for state in states(now) {
            for wanted in [false, true] {
                let news = state.written || state.awaited;
                let is_old = !news && !state.open && state.since < now;
                let is_open = match there {
                    There::Writer => true,
                    There::Unreadable => state.written,
                    _ => false,
                };
                let is_checked = wanted || is_old;
                let mut expected = state;
                expected.open |= is_open && is_old;
                expected.awaited |= is_open && wanted;
                let (mut after, mut found) = (state, Vec::new());
                let paths = [path.to_vec()];
                let is_kept = check_file(&paths, &mut after, &|_| wanted, &mut found, now);
                let what = (there, state, wanted);
                assert_eq!(is_kept, !is_checked || is_open || news, "{what:?}");
                assert_eq!(after, expected, "{what:?}");
                assert_eq!(found.len(), usize::from(is_open && wanted), "{what:?}");
            }
        }
    });
}

/// Each check visits all files.
#[test]
fn files_that_are_due_one_after_the_other_are_checked_together() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    let _writer = File::create(&path).unwrap();
    let path = path.as_os_str().as_bytes();
    let now = Instant::now();
    let mut open_files = OpenFiles::new(Some(STALENESS));
    open_files.touched(1, path, true, now);
    open_files.push_last();
    let later = now + CHECK_DELAY;
    open_files.update_due(later);
    assert_eq!(open_files.next_deadline(), Some(later + MIN_CHECK_INTERVAL));
    // A file that is asked for after its check would have been due.
    let mut open_files = OpenFiles::new(Some(STALENESS));
    open_files.touched(1, path, false, now);
    let asked = [((1, path.to_vec()), path.to_vec())];
    let paths = |_, path: &[u8]| vec![path.to_vec()];
    assert_eq!(open_files.being_written_of(asked, &paths, later), [path]);
    assert_eq!(open_files.next_deadline(), Some(later + MIN_CHECK_INTERVAL));
}
