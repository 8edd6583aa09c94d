//! Daemons with one sync and an index, one after the other: what the next start compares.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::*;
use crate::config::WarmStartConfig;
use crate::filter::Filter;
use crate::index::walk::RACY;
use crate::queue::{Policy, Take};
use crate::sync::tests::{idle_watcher, sync_of, waker};
use crate::watch::Event;

/// The number of waits for a thread, of 10 ms each, after which a step counts as one without end.
const MAX_WAITS: usize = 3000;

/// The part of a daemon that makes and uses the index of its only sync.
struct Daemon {
    starts: WarmStarts,
    syncs: Vec<Rc<SyncHandle>>,
    watcher: Watcher,
    poll: mio::Poll,
    waker: Arc<Waker>,
    state: StateDir,
    lacking: BTreeSet<SyncId>,
}

impl Daemon {
    /// Returns a daemon whose directories are watched.
    fn new(dir: &Path) -> Daemon {
        let path = |name: &str| [dir.join(name).as_os_str().as_bytes(), b"/"].concat();
        let mut config = sync_of(&path("src")).config;
        config.warm_start = Some(WarmStartConfig {
            conditions: Vec::new(),
            verify_every: None,
            by_directory: true,
            hard_links: false,
            by_name: false,
            local_target: Some(path("trg")),
        });
        let mut sync = Sync::new(config, Filter::default(), Policy::Coalesce, true);
        sync.await_watches();
        let (poll, waker) = waker();
        Daemon {
            starts: WarmStarts::default(),
            syncs: vec![SyncHandle::of_sync(&crate::sys::lua(), sync)],
            watcher: idle_watcher(),
            poll,
            waker,
            state: StateDir::at(&dir.join("state")),
            lacking: BTreeSet::new(),
        }
    }

    fn view<T>(&mut self, call: impl FnOnce(&mut WarmStarts, &mut WarmView<'_>) -> T) -> T {
        let mut view = WarmView {
            syncs: &self.syncs,
            watcher: &mut self.watcher,
            state: Some(&self.state),
            waker: Arc::clone(&self.waker),
            lacking: &self.lacking,
            now: 0,
        };
        call(&mut self.starts, &mut view)
    }

    fn sync<T>(&self, call: impl FnOnce(&mut Sync) -> T) -> T {
        call(&mut self.syncs[0].sync.borrow_mut())
    }

    /// Repeats a step until it returns true.
    fn until(&mut self, mut step: impl FnMut(&mut Daemon) -> bool) {
        let mut events = mio::Events::with_capacity(4);
        for _ in 0..MAX_WAITS {
            if step(self) {
                return;
            }
            let wait = Duration::from_millis(10);
            self.poll.poll(&mut events, Some(wait)).unwrap();
        }
        panic!("a step has no end");
    }

    /// Takes turns until no work on the index is left.
    fn settle(&mut self) {
        self.until(|daemon| {
            daemon.view(|starts, view| starts.on_turn(view));
            daemon.starts.tasks.is_empty()
        });
    }

    /// Starts, and returns the directories that are compared; `None` for everything.
    fn start(&mut self) -> Option<Vec<String>> {
        let begun = self.view(|starts, view| {
            let sync = view.syncs[0].sync.borrow();
            starts.begin(&sync, view, true)
        });
        assert!(begun);
        self.until(|daemon| {
            daemon.view(|starts, view| starts.on_turn(view));
            daemon.sync(|sync| !sync.awaits_watches())
        });
        self.sync(|sync| {
            let is_valid = sync.warm_start()?.state() == IndexState::Valid;
            let directories = sync.startup_directories().unwrap_or_default().iter();
            let directories = directories.map(|path| String::from_utf8(path.clone()).unwrap());
            let directories: Vec<_> = directories.collect();
            assert_eq!(sync.queue.is_empty(), is_valid && directories.is_empty());
            is_valid.then_some(directories)
        })
    }

    /// Sends everything that is queued.
    fn send(&mut self) {
        self.sync(|sync| {
            let ids = sync.queue.take(|_| Take::Take);
            sync.begin(&ids);
            sync.succeeded(&ids);
        });
    }

    /// Compares everything, and makes the index.
    fn compare(&mut self) {
        self.send();
        self.sync(|sync| {
            sync.begin_full_comparison();
            sync.full_comparison_succeeded();
            let warm = sync.warm_start_mut().unwrap();
            assert!(matches!(warm.state(), IndexState::Compared { .. }));
            warm.set_compared(SystemTime::now(), Instant::now());
        });
        self.view(|starts, view| starts.on_turn(view));
        self.settle();
    }

    fn stop(&mut self) {
        self.until(|daemon| !daemon.view(|starts, view| starts.on_stop(view)));
        // Nothing begins anew in further turns of the stop.
        assert!(!self.view(|starts, view| starts.on_stop(view)));
    }

    /// Returns true for an index, and for the mark of its use.
    fn files(&self) -> (bool, bool) {
        let has = |kind| self.sync(|sync| self.state.read(&sync.config, kind).is_some());
        (has("index"), has("index-open"))
    }

    /// Returns the time up to which the index contains all changes.
    fn taken(&self) -> SystemTime {
        let files = self.sync(|sync| IndexFiles::new(&self.state, sync));
        files.read().unwrap().header.taken
    }
}

/// Returns a directory with a source, a target and a state directory.
fn site() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["src/d", "src/e/s", "trg", "state"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    for name in ["src/d/f", "src/e/f"] {
        fs::write(dir.path().join(name), "1").unwrap();
    }
    dir
}

/// Waits until a change of a file would give it another time than it has.
fn wait_for_old_times(path: &Path) {
    let changed = |path| {
        let data = fs::metadata(path).unwrap();
        UNIX_EPOCH + Duration::new(data.ctime() as u64, data.ctime_nsec() as u32)
    };
    let is_racy = |time: SystemTime| time.elapsed().unwrap_or_default() < RACY + SETTLE_INTERVAL;
    while is_racy(changed(path)) {
        thread::sleep(SETTLE_INTERVAL);
    }
}

#[test]
fn a_start_compares_what_the_last_daemon_has_not_sent() {
    let dir = site();
    wait_for_old_times(&dir.path().join("src/e/f"));
    let mut first = Daemon::new(dir.path());
    assert_eq!(first.start(), None);
    let mark = first.sync(|sync| first.state.read(&sync.config, "index-open"));
    assert_eq!(mark, fs::read("/proc/sys/kernel/random/boot_id").ok());
    first.compare();
    assert_eq!(first.files(), (true, true));
    let is_valid = |daemon: &Daemon| {
        daemon.sync(|sync| sync.warm_start().unwrap().state()) == IndexState::Valid
    };
    assert!(is_valid(&first) && first.taken() + RACY <= SystemTime::now());
    first.stop();
    assert_eq!(first.files(), (true, false));

    let mut second = Daemon::new(dir.path());
    assert_eq!(second.start(), Some(Vec::new()));
    fs::write(dir.path().join("src/d/f"), "22").unwrap();
    let path = dir.path().join("src/d/f");
    let path = path.as_os_str().as_bytes();
    second.sync(|sync| sync.ingest(Event::Modify { path }, 0));
    second.send();
    // A directory that is as before, but whose event is still pending at the stop.
    second.sync(|sync| sync.queue.push(Etype::Create, b"/e/", None, 0));
    second.stop();
    assert_eq!(second.files(), (true, false));
    assert!(second.taken() + RACY <= SystemTime::now());

    let changed = ["/", "/d/", "/e/", "/e/s/"].map(str::to_owned);
    let mut third = Daemon::new(dir.path());
    assert_eq!(third.start().unwrap(), changed);
    // It is killed before it has compared them.
    assert_eq!(third.files(), (true, true));
    drop(third);
    let mut fourth = Daemon::new(dir.path());
    let compared = fourth.start().unwrap();
    assert!(changed.iter().all(|path| compared.contains(path)));
    fourth.stop();
    // The startup is not over: as after a kill.
    assert_eq!(fourth.files(), (true, true));

    type Change = fn(&mut Daemon);
    let changes: [(&str, Change); 3] = [
        ("a crash of the system", |daemon| {
            let config = daemon.sync(|sync| sync.config.clone());
            daemon.state.write(&config, "index-open", b"other").unwrap();
        }),
        ("another filter", |daemon| {
            daemon.sync(|sync| sync.filter.write().unwrap().add_exclude(b"*.o"));
        }),
        ("another target", |daemon| {
            daemon.sync(|sync| {
                let config = sync.config.warm_start.as_mut().unwrap();
                config.local_target = Some(sync.config.source.clone());
            });
        }),
    ];
    let index = fourth
        .sync(|sync| fourth.state.read(&sync.config, "index"))
        .unwrap();
    for (what, change) in changes {
        let mut next = Daemon::new(dir.path());
        let config = next.sync(|sync| sync.config.clone());
        next.state.write(&config, "index", &index).unwrap();
        next.state.remove(&config, "index-open");
        change(&mut next);
        assert_eq!(next.start(), None, "{what}");
        // A later daemon must not use it either.
        assert_eq!(next.files(), (false, true), "{what}");
    }
}

/// The index would contain directories whose changes are not known.
#[test]
fn no_index_is_made_after_lost_events_or_without_all_watches() {
    type Change = fn(&mut Daemon);
    let changes: [(&str, Change, bool); 4] = [
        ("nothing", |_| {}, true),
        ("lost events", |daemon| daemon.sync(Sync::lose_index), false),
        (
            "unwatched directories",
            |daemon| {
                daemon.lacking = daemon.sync(|sync| [sync.id].into());
            },
            false,
        ),
        (
            "a halt",
            |daemon| {
                daemon.sync(|sync| sync.halt("gone".into()));
            },
            false,
        ),
    ];
    for (what, change, is_made) in changes {
        // Before the first step, and while the directories are read.
        for is_reading in [false, true] {
            let dir = site();
            let mut daemon = Daemon::new(dir.path());
            assert_eq!(daemon.start(), None);
            daemon.send();
            let due = Instant::now();
            daemon.sync(|sync| {
                let warm = sync.warm_start_mut().unwrap();
                warm.set_compared(SystemTime::now(), due);
            });
            let deadline = daemon.starts.deadline(&daemon.syncs, due);
            assert_eq!(deadline, Some(due));
            if is_reading {
                daemon.view(|starts, view| starts.on_turn(view));
                assert_eq!(daemon.starts.tasks.len(), 1);
                // The end of the thread wakes the event loop.
                assert_eq!(daemon.starts.deadline(&daemon.syncs, due), None);
            }
            change(&mut daemon);
            daemon.view(|starts, view| starts.on_turn(view));
            daemon.settle();
            assert_eq!(daemon.files().0, is_made, "{what} {is_reading}");
            let state = daemon.sync(|sync| sync.warm_start().unwrap().state());
            assert_eq!(state == IndexState::Valid, is_made, "{what} {is_reading}");
            assert_eq!(daemon.starts.deadline(&daemon.syncs, due), None);
        }
    }
}

/// What happens to the files of an index at a stop: the index stays, and the mark of its use.
#[test]
fn an_index_outlives_a_stop_if_the_target_is_as_it_says() {
    type Change = fn(&mut Daemon);
    let changes: [(&str, Change, (bool, bool)); 8] = [
        ("nothing", |_| {}, (true, false)),
        (
            "a change",
            |daemon| {
                let path = daemon.sync(|sync| [&sync.config.source[..], b"d/f"].concat());
                daemon.sync(|sync| sync.ingest(Event::Modify { path: &path }, 0));
                daemon.send();
            },
            (true, false),
        ),
        (
            "lost events",
            |daemon| daemon.sync(Sync::lose_index),
            (false, false),
        ),
        (
            "a halt",
            |daemon| {
                daemon.sync(|sync| sync.halt("gone".into()));
            },
            (false, false),
        ),
        (
            "a pending comparison",
            |daemon| {
                daemon.sync(|sync| sync.queue.push(Etype::Full, b"/", None, 0));
            },
            (false, false),
        ),
        (
            "unwatched directories",
            |daemon| {
                daemon.lacking = daemon.sync(|sync| [sync.id].into());
            },
            (false, false),
        ),
        (
            "too many changes",
            |daemon| {
                let all = (0..=200_000).map(|number| format!("/{number}/").into_bytes());
                let all: Vec<_> = all.collect();
                daemon.sync(|sync| sync.warm_start_mut().unwrap().made(&all));
            },
            (false, false),
        ),
        (
            "an unfinished startup",
            |daemon| {
                daemon.sync(|sync| sync.queue.push(Etype::Init, b"", None, 0));
            },
            (true, true),
        ),
    ];
    for (what, change, expected) in changes {
        let dir = site();
        let mut daemon = Daemon::new(dir.path());
        assert_eq!(daemon.start(), None);
        daemon.compare();
        daemon.sync(|sync| drop(sync.warm_start_mut().unwrap().take_changed()));
        assert_eq!(daemon.files(), (true, true));
        change(&mut daemon);
        daemon.stop();
        assert_eq!(daemon.files(), expected, "{what}");
        assert!(daemon.starts.tasks.is_empty());
        // The stop is over, and the next one begins anew.
        daemon.starts.on_reload();
        assert!(!daemon.starts.is_stopping && daemon.starts.finished.is_empty());
    }
}

#[test]
fn a_thread_that_nobody_waits_for_is_cancelled() {
    let cancelled = Arc::new(AtomicBool::new(false));
    drop(Task {
        cancelled: Arc::clone(&cancelled),
        stage: TaskStage::Done,
    });
    assert!(cancelled.load(Ordering::Relaxed));
}

/// The event loop sleeps until the next step is due.
#[test]
fn reported_events_are_checked_for_in_short_intervals() {
    let dir = site();
    let mut daemon = Daemon::new(dir.path());
    assert_eq!(daemon.start(), None);
    let now = Instant::now();
    assert_eq!(daemon.starts.deadline(&daemon.syncs, now), None);
    let making = Making {
        generation: 0,
        is_last: false,
    };
    let files = daemon.sync(|sync| IndexFiles::new(&daemon.state, sync));
    let filter = daemon.sync(|sync| Arc::clone(&sync.filter));
    let all = Directories::All {
        compared: SystemTime::now(),
    };
    let read = jobs::read(&files, &filter, all, &AtomicBool::new(false)).unwrap();
    let task = Task {
        cancelled: Arc::default(),
        stage: TaskStage::Settling {
            making,
            read,
            mark: daemon.watcher.event_mark(),
        },
    };
    let id = daemon.sync(|sync| sync.id);
    daemon.starts.tasks.insert(id, task);
    let deadline = daemon.starts.deadline(&daemon.syncs, now);
    assert_eq!(deadline, Some(now + SETTLE_INTERVAL));
}
