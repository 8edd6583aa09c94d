//! Scan passes without the event loop. The gate is a function, so no scanner is started.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::{Poll, Token};

use super::*;
use crate::process::Children;
use crate::script::{ScriptRequest, SpawnRequest};
use crate::sync::{Next, micros};
use crate::watch::Event;

/// A sync whose gate rejects contents with `poison`.
struct Site {
    directory: tempfile::TempDir,
    /// The owner of the waker, which is never polled.
    _poll: Poll,
    script: Rc<Script>,
    syncs: Vec<Rc<SyncHandle>>,
    transfers: Transfers,
    passes: ScanPasses,
    now: Time,
}

impl Site {
    fn new() -> Site {
        Site::with_gate("not io.open(copy):read('a'):match('poison'), 'poison'")
    }

    /// Returns a site whose gate returns these values for `path` and `copy`.
    fn with_gate(values: &str) -> Site {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().display();
        fs::create_dir(directory.path().join("src")).unwrap();
        let script = Rc::new(Script::of_text(&format!(
            "sync {{ default.rsync, source = '{root}/src', target = '{root}/trg', delay = 1, \
             init = false, check = {{ function(path, copy) return {values} end, \
             staging = '{root}/staging' }} }}",
        )));
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let registry = poll.registry().try_clone().unwrap();
        let children = Rc::new(RefCell::new(Children::new(registry, 1)));
        let syncs = script.syncs();
        let mut passes = ScanPasses::new(Rc::clone(&children), Arc::clone(&waker));
        passes.assign_staging(&syncs);
        Site {
            transfers: Transfers::new(children, waker, &script, &syncs),
            directory,
            _poll: poll,
            script,
            syncs,
            passes,
            now: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of the source, and tells the sync.
    fn write(&self, name: &str, content: &str) {
        fs::write(self.path("src").join(name), content).unwrap();
        let mut sync = self.syncs[0].sync.borrow_mut();
        let path = [&sync.config.source, name.as_bytes()].concat();
        sync.ingest(Event::Modify { path: &path }, self.now);
    }

    /// Lets the action of the sync request a pass for what is due.
    fn request(&mut self) {
        self.now += micros(Duration::from_secs(10));
        let next = self.syncs[0].sync.borrow_mut().next(self.now);
        let Next::Act(id) = next else {
            panic!("nothing is due: {next:?}")
        };
        self.script.act(&self.syncs[0], id).unwrap();
        for request in self.script.context.requests.take() {
            let ScriptRequest::Scan(request) = request else {
                panic!("the transfer is not checked")
            };
            self.passes.on_request(request);
        }
        assert!(self.passes.is_busy());
    }

    fn turn(&mut self, is_ready: bool) {
        let mut turn = ScanTurn {
            syncs: &self.syncs,
            transfers: &mut self.transfers,
            script: &self.script,
            now: self.now,
        };
        self.passes.on_turn(&mut turn, &mut |_| is_ready);
    }

    /// Runs the pass to its end, and returns the transfer of what has passed.
    fn send(&mut self) -> Option<SpawnRequest> {
        let begun = Instant::now();
        while self.passes.ready.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(120), "the pass hangs");
            self.turn(true);
            std::thread::sleep(Duration::from_millis(1));
        }
        let (script, now) = (Rc::clone(&self.script), self.now);
        let sent = self.passes.send_checked(&script, now, &mut |_| true);
        sent.unwrap();
        let mut requests = self.script.context.requests.take().into_iter();
        requests.next().map(|request| match request {
            ScriptRequest::Spawn(request) => request,
            _ => panic!("no process is requested"),
        })
    }

    fn pending(&self) -> usize {
        self.syncs[0].sync.borrow().queue.len()
    }
}

fn content(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn what_has_passed_is_sent_as_it_was_checked() {
    let mut site = Site::new();
    site.write("good", "checked");
    site.write("bad", "poison");
    site.request();
    let request = site.send().expect("a transfer");
    fs::write(site.path("src/good"), "changed since").unwrap();
    let staged = site.path("staging/tree");
    let staged_arg = format!("{}/", staged.display()).into_bytes();
    assert!(request.args.contains(&staged_arg), "{:?}", request.args);
    assert!(request.reading.is_some());
    assert_eq!(content(&staged.join("good")), "checked");
    assert!(!staged.join("bad").exists());
    let sync = site.syncs[0].sync.borrow();
    assert!(!sync.gate.blocked().is_empty());
    assert!(!site.passes.is_busy());
}

#[test]
fn a_pass_for_a_sync_that_may_not_send_is_given_up() {
    let mut site = Site::new();
    site.write("good", "content");
    site.request();
    site.turn(false);
    assert!(!site.passes.is_busy());
    assert_eq!(site.pending(), 1);
    // It is requested again.
    site.request();
    assert!(site.send().is_some());
}

#[test]
fn at_the_end_everything_is_pending_again() {
    let mut site = Site::new();
    site.write("good", "content");
    site.request();
    let now = Instant::now();
    assert_eq!(site.passes.deadline(&site.transfers, true, now), Some(now));
    site.passes.close(&site.transfers, site.now);
    assert!(!site.passes.is_busy());
    assert_eq!(site.passes.deadline(&site.transfers, true, now), None);
    site.request();
    assert!(site.send().is_some());
    assert_eq!(site.pending(), 1);
}

#[test]
fn a_version_that_is_rejected_leaves_the_last_one_that_passed() {
    let mut site = Site::new();
    site.write("file", "first");
    site.request();
    let request = site.send().expect("a transfer");
    site.syncs[0].sync.borrow_mut().succeeded(&request.ids);
    drop(request);
    let staged = site.path("staging/tree/file");
    site.write("file", "poison");
    site.request();
    let request = site.send().expect("a transfer");
    // rsync leaves the file on the target as it is.
    assert!(request.args.contains(&b"--filter=- /file".to_vec()));
    site.syncs[0].sync.borrow_mut().succeeded(&request.ids);
    drop(request);
    assert_eq!(content(&staged), "first");
    site.write("file", "third");
    site.request();
    assert!(site.send().is_some());
    assert_eq!(content(&staged), "third");
    assert!(site.syncs[0].sync.borrow().gate.blocked().is_empty());
}

/// The changes wait in the queue, and the sync for nothing.
#[test]
fn what_cannot_be_checked_is_requested_again() {
    let mut site = Site::new();
    site.write("file", "content");
    fs::write(site.path("staging"), "in the way").unwrap();
    site.request();
    let begun = Instant::now();
    while site.passes.is_busy() {
        assert!(begun.elapsed() < Duration::from_secs(120), "the pass hangs");
        site.turn(true);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(site.pending(), 1);
    assert_eq!(site.syncs[0].sync.borrow().running(), 0);
    fs::remove_file(site.path("staging")).unwrap();
    site.request();
    assert!(site.send().is_some());
}

/// None of them is emptied as a staging directory.
#[test]
fn sources_and_targets_are_reported_to_the_staging_directory() {
    let site = Site::new();
    let of = |name: &str| site.path(name).display().to_string();
    let expected = [of("src") + "/", of("trg") + "/"].map(String::into_bytes);
    let configured = configured(&site.syncs);
    assert_eq!(configured, expected);
    let layout = layout(&site.syncs[0].sync.borrow(), configured).unwrap();
    assert_eq!(layout.configured, expected);
}

/// Nothing else wakes the loop.
#[test]
fn a_function_that_takes_long_is_continued_at_once() {
    let spin = format!(
        "(function() local t = os.clock() while os.clock() - t < {} do end return true end)()",
        2.0 * scanners::MAX_TURN.as_secs_f64()
    );
    let mut site = Site::with_gate(&spin);
    for name in ["a", "b", "c"] {
        site.write(name, "content");
    }
    site.request();
    let (begun, mut continued) = (Instant::now(), 0);
    while site.passes.ready.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(120), "the pass hangs");
        site.turn(true);
        let is_checking = |pass: &Pass| matches!(pass.phase, PassPhase::Checking(_));
        if site.passes.passes.iter().any(is_checking) {
            let now = Instant::now();
            let due = site.passes.deadline(&site.transfers, false, now);
            assert_eq!(due, Some(now));
            continued += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(continued >= 2, "{continued}");
}
