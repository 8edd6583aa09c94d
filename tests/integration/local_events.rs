//! The worker of default.direct with the events of random operations, some of which are not known
//! yet when the worker reads the source.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::copy_job::copy_job;
use lsyncd::batch::Change;
use lsyncd::local::{CopyItem, CopyJob, CopyReport, CopyTask, Memory, run_job};
use lsyncd::queue::{Etype, Policy, Pushed, Queue, Take};
use proptest::prelude::*;

/// The names of files and directories.
const PATHS: [&str; 10] = [
    "a", "b", "d", "e", "d/a", "d/b", "d/e", "d/e/a", "e/a", "e/d",
];

/// A path of [`PATHS`], or the n-th of those that exist.
#[derive(Clone, Copy, Debug)]
enum At {
    Any(usize),
    Existing(usize),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(At),
    MakeDirectory(At),
    Symlink(At),
    Link(At, At),
    Rename(At, At),
    Exchange(At, At),
    Remove(At),
    Chmod(At, u32),
    /// The oldest events become known.
    Deliver(usize),
    /// The worker gets all known events.
    Run,
}

fn any_step() -> impl Strategy<Value = Step> {
    let any = || (0..PATHS.len()).prop_map(At::Any);
    let there = || (0..20usize).prop_map(At::Existing);
    prop_oneof![
        3 => any().prop_map(Step::Write),
        6 => there().prop_map(Step::Write),
        4 => any().prop_map(Step::MakeDirectory),
        1 => any().prop_map(Step::Symlink),
        4 => (there(), any()).prop_map(|(from, to)| Step::Link(from, to)),
        7 => (there(), any()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (there(), there()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (there(), there()).prop_map(|(from, to)| Step::Exchange(from, to)),
        3 => there().prop_map(Step::Remove),
        2 => (there(), 0..0o100u32).prop_map(|(at, mode)| Step::Chmod(at, mode)),
        5 => (1..8usize).prop_map(Step::Deliver),
        6 => Just(Step::Run),
    ]
}

type KnownEvent = (Etype, String, Option<String>);

struct Site {
    guard: tempfile::TempDir,
    memory: Memory,
    queue: Queue,
    /// Events that have happened and are not known yet.
    news: VecDeque<KnownEvent>,
    /// The number of events that have happened.
    happened: usize,
    /// The number of events that had happened when the worker last read the source.
    read: usize,
    /// The number of events that have left the queue.
    done: usize,
    /// Makes the size of each file different.
    count: usize,
    /// Everything is to be compared, because unknown names of a file have changed.
    names_missing: bool,
    /// True if a file has got another name since the worker knew all of them. Nothing tells that a
    /// name belonged to a file that has other names if it is gone before the worker sees it.
    has_unseen_links: bool,
}

impl Site {
    fn new() -> Site {
        let guard = tempfile::tempdir().unwrap();
        for name in ["s", "t"] {
            fs::create_dir(guard.path().join(name)).unwrap();
        }
        Site {
            guard,
            memory: Memory::default(),
            queue: Queue::new(Policy::Coalesce),
            news: VecDeque::new(),
            happened: 0,
            read: 0,
            done: 0,
            count: 0,
            names_missing: false,
            has_unseen_links: false,
        }
    }

    fn side(&self, name: &str) -> PathBuf {
        self.guard.path().join(name)
    }

    fn source(&self, path: &str) -> PathBuf {
        self.side("s").join(path)
    }

    /// Returns the path of an event about what is there now.
    fn event_path(&self, path: &str) -> String {
        let slash = if is_directory(&self.source(path)) {
            "/"
        } else {
            ""
        };
        format!("/{path}{slash}")
    }

    fn happen(&mut self, etype: Etype, path: String, to: Option<String>) {
        self.happened += 1;
        self.news.push_back((etype, path, to));
    }

    /// Returns true if something new can be made at this path.
    fn is_free(&self, path: &str) -> bool {
        let at = self.source(path);
        is_directory(at.parent().unwrap()) && fs::symlink_metadata(at).is_err()
    }

    fn may_be_unseen(&self, data: &fs::Metadata) -> bool {
        self.has_unseen_links && data.is_file() && data.nlink() > 1
    }

    fn path_at(&self, at: At) -> String {
        match at {
            At::Any(at) => PATHS[at].to_owned(),
            At::Existing(at) => {
                let tree = tree(&self.side("s"));
                let path = tree.keys().nth(at % tree.len().max(1));
                path.map_or("a".to_owned(), |path| path.to_str().unwrap().to_owned())
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(at) => self.write(&self.path_at(at)),
            Step::MakeDirectory(at) => self.make(&self.path_at(at), true),
            Step::Symlink(at) => self.make(&self.path_at(at), false),
            Step::Link(from, to) => self.link(&self.path_at(from), &self.path_at(to)),
            Step::Rename(from, to) => self.rename(&self.path_at(from), &self.path_at(to)),
            Step::Exchange(from, to) => self.exchange(&self.path_at(from), &self.path_at(to)),
            Step::Remove(at) => self.remove(&self.path_at(at)),
            Step::Chmod(at, mode) => self.chmod(&self.path_at(at), mode),
            Step::Deliver(count) => self.deliver(count),
            Step::Run => self.run(),
        }
    }

    fn make(&mut self, path: &str, directory: bool) {
        if !self.is_free(path) {
            return;
        }
        if directory {
            fs::create_dir(self.source(path)).unwrap();
        } else {
            symlink("a", self.source(path)).unwrap();
        }
        self.happen(Etype::Create, self.event_path(path), None);
    }

    fn link(&mut self, from: &str, to: &str) {
        let from = self.source(from);
        if self.is_free(to) && fs::symlink_metadata(&from).is_ok_and(|data| data.is_file()) {
            fs::hard_link(from, self.source(to)).unwrap();
            self.has_unseen_links = true;
            self.happen(Etype::Create, format!("/{to}"), None);
        }
    }

    fn chmod(&mut self, path: &str, mode: u32) {
        let at = self.source(path);
        let may = |data: fs::Metadata| !data.is_symlink() && !self.may_be_unseen(&data);
        if fs::symlink_metadata(&at).is_ok_and(may) {
            fs::set_permissions(&at, fs::Permissions::from_mode(0o700 | mode)).unwrap();
            self.happen(Etype::Attrib, self.event_path(path), None);
        }
    }

    fn write(&mut self, path: &str) {
        let at = self.source(path);
        let found = fs::symlink_metadata(&at).ok().filter(fs::Metadata::is_file);
        let exists = found.is_some();
        if found.is_some_and(|data| self.may_be_unseen(&data)) || !exists && !self.is_free(path) {
            return;
        }
        self.count += 1;
        fs::write(&at, vec![b'x'; self.count]).unwrap();
        if !exists {
            self.happen(Etype::Create, format!("/{path}"), None);
        }
        self.happen(Etype::Modify, format!("/{path}"), None);
    }

    fn rename(&mut self, from: &str, to: &str) {
        let (old, new) = (self.source(from), self.source(to));
        let path = self.event_path(from);
        let replaces =
            || !is_directory(&old) && fs::symlink_metadata(&new).is_ok_and(|data| !data.is_dir());
        if from == to || !(self.is_free(to) || replaces()) || fs::rename(&old, &new).is_err() {
            return;
        }
        // rename(2) does nothing for two names of one file.
        if fs::symlink_metadata(&old).is_err() {
            let to = self.event_path(to);
            self.happen(Etype::Move, path, Some(to));
        }
    }

    fn exchange(&mut self, from: &str, to: &str) {
        let (old, new) = (self.source(from), self.source(to));
        let (first, second) = (self.event_path(from), self.event_path(to));
        let here = rustix::fs::CWD;
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        if from != to && rustix::fs::renameat_with(here, &old, here, &new, flags).is_ok() {
            let (as_second, as_first) = (self.event_path(to), self.event_path(from));
            self.happen(Etype::Move, first, Some(as_second));
            self.happen(Etype::Move, second, Some(as_first));
        }
    }

    /// Removes a path as `rm -r` does.
    fn remove(&mut self, path: &str) {
        let at = self.source(path);
        let Ok(data) = fs::symlink_metadata(&at) else {
            return;
        };
        if !data.is_dir() {
            fs::remove_file(at).unwrap();
            return self.happen(Etype::Delete, format!("/{path}"), None);
        }
        for entry in fs::read_dir(&at).unwrap() {
            let name = entry.unwrap().file_name();
            self.remove(&format!("{path}/{}", name.to_str().unwrap()));
        }
        fs::remove_dir(at).unwrap();
        self.happen(Etype::Delete, format!("/{path}/"), None);
    }

    fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some((etype, path, to)) = self.news.pop_front() else {
                return;
            };
            let to = to.as_deref().map(str::as_bytes);
            let pushed = self.queue.push(etype, path.as_bytes(), to, 0);
            if let (Pushed::Split { .. }, Some(to)) = (pushed, to) {
                // The watcher reports what is in a renamed directory.
                let top = std::str::from_utf8(to)
                    .unwrap()
                    .trim_matches('/')
                    .to_owned();
                for below in tree(&self.source(&top)).keys() {
                    let below = format!("{top}/{}", below.to_str().unwrap());
                    let path = self.event_path(&below);
                    self.queue.push(Etype::Create, path.as_bytes(), None, 0);
                }
            }
        }
    }

    fn job(&self, task: CopyTask) -> CopyJob {
        CopyJob {
            renames_applied: self.done >= self.read,
            ..copy_job(&self.side("s"), &self.side("t"), task)
        }
    }

    fn run(&mut self) {
        if std::mem::take(&mut self.names_missing) {
            let report = run_job(&self.job(CopyTask::Everything), &mut self.memory);
            self.take(&report);
        }
        let ids = self.queue.take(|_| Take::Take);
        let items = ids.iter().filter_map(|id| {
            let delay = self.queue.get(*id)?;
            let (path, to) = delay.paths();
            let change = match delay.etype() {
                Etype::Create => Change::Create,
                Etype::Attrib => Change::Attrib,
                Etype::Delete => Change::Delete,
                Etype::Move => Change::Move,
                _ => Change::Modify,
            };
            Some(CopyItem { change, path, to })
        });
        let job = self.job(CopyTask::Events(items.collect()));
        self.queue.activate(&ids);
        let report = run_job(&job, &mut self.memory);
        for id in ids {
            assert!(self.queue.finish(id));
        }
        self.done = self.happened - self.news.len();
        self.has_unseen_links &= !self.news.is_empty();
        self.take(&report);
    }

    /// Queues what has failed once more.
    fn take(&mut self, report: &CopyReport) {
        self.read = self.happened;
        self.names_missing |= report.names_missing;
        for failure in &report.failures {
            let etype = match failure.path.last() {
                Some(b'/') => Etype::Delete,
                _ => Etype::Modify,
            };
            self.queue.push(etype, &failure.path, None, 0);
        }
    }

    /// Runs the worker until it has nothing to do any more.
    fn finish(&mut self) {
        self.deliver(usize::MAX);
        for _ in 0..4 {
            self.run();
            if self.queue.is_empty() && !self.names_missing {
                return;
            }
        }
        panic!("failures do not end");
    }
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|data| data.is_dir())
}

/// Type, mode, time and contents.
type Node = (char, u32, (i64, i64), Vec<u8>);

fn tree(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            let data = fs::symlink_metadata(&path).unwrap();
            let (mode, time) = (data.mode() & 0o7777, (data.mtime(), data.mtime_nsec()));
            let node = if data.is_dir() {
                open.push(path.clone());
                ('d', mode, time, Vec::new())
            } else if data.is_symlink() {
                let to = fs::read_link(&path).unwrap();
                ('l', 0, (0, 0), to.as_os_str().as_bytes().to_vec())
            } else {
                ('-', mode, time, fs::read(&path).unwrap())
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), node);
        }
    }
    found
}

/// The worker has read the source between a rename and its event: one file, the directory that
/// contains it, or everything.
#[test]
fn a_rename_does_not_move_a_file_that_was_copied_to_its_old_name_since() {
    let file = Some((Etype::Modify, "/d/a"));
    let directory = Some((Etype::Delete, "/d/"));
    for read in [file, directory, None] {
        let mut site = Site::new();
        site.make("d", true);
        site.write("d/a");
        site.deliver(usize::MAX);
        site.run();
        site.rename("d/a", "d/b");
        site.write("d/a");
        if let Some((etype, path)) = read {
            site.queue.push(etype, path.as_bytes(), None, 0);
            site.run();
            site.done = 3;
        } else {
            let report = run_job(&site.job(CopyTask::Everything), &mut site.memory);
            site.take(&report);
        }
        site.remove("d/a");
        site.deliver(1);
        site.run();
        site.finish();
        assert_eq!(tree(&site.side("s")), tree(&site.side("t")), "{read:?}");
    }
}

/// The kernel reports a change for the name through which it was made only.
#[test]
fn a_change_through_a_name_that_is_gone_reaches_the_other_names() {
    for (contents, replaced) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut site = Site::new();
        for name in ["a", "c"] {
            site.write(name);
        }
        site.link("a", "b");
        site.deliver(usize::MAX);
        site.run();
        site.run();
        if contents {
            site.write("b");
        } else {
            site.chmod("b", 0o70);
        }
        if replaced {
            site.rename("c", "b");
        } else {
            site.remove("b");
        }
        site.finish();
        let (source, target) = (tree(&site.side("s")), tree(&site.side("t")));
        assert_eq!(source, target, "{contents} {replaced}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn events_of_random_operations_make_trees_equal(
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let mut site = Site::new();
        for step in &steps {
            site.step(*step);
        }
        site.finish();
        prop_assert_eq!(tree(&site.side("s")), tree(&site.side("t")));
    }
}
