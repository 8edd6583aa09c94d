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
