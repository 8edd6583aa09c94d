//! Unit tests of the event loop, turn by turn. The syncs have actions in Lua, which start nothing.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::cli::Options;
use crate::component::SyncCommand;
use crate::id::SyncId;
use crate::script::SyncHandle;

/// The time after which a condition is given up.
const LIMIT: Duration = Duration::from_secs(60);

/// What an event loop borrows.
struct Site {
    directory: TempDir,
    environment: Environment,
    context: Context,
}

impl Site {
    fn new() -> Site {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("src")).unwrap();
        let options = Options {
            config: Some(directory.path().join("lsyncd.conf.lua")),
            ..Options::default()
        };
        let environment = Environment {
            options,
            // A reload changes to it, and all tests share it.
            directory: std::env::current_dir().unwrap(),
        };
        Site {
            directory,
            environment,
            context: Context::without_signals().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a configuration with these settings and syncs of these names. Each call of their
    /// actions creates the file `called`. The state is stored in `state`, if that exists.
    fn configure(&self, settings: &str, syncs: &[&str]) {
        let root = self.directory.path().display();
        let sync = |name: &&str| {
            format!(
                "sync{{ name = '{name}', source = '{root}/src', delay = 3600, action = function(inlet)
                   io.open('{root}/called', 'w'):close()
                   inlet.discardEvent(inlet.getEvent())
                 end }}\n"
            )
        };
        let syncs: String = syncs.iter().map(sync).collect();
        let state = match self.path("state").exists() {
            true => format!("'{root}/state'"),
            false => "false".to_owned(),
        };
        let text =
            format!("settings{{ nodaemon = true, stateDir = {state}, {settings} }}\n{syncs}");
        fs::write(self.path("lsyncd.conf.lua"), text).unwrap();
    }

    /// Writes a configuration with the sync `one`, which copies `src` to `trg`. `init` is its key of
    /// that name.
    fn mirror(&self, init: &str) {
        let root = self.directory.path().display();
        let text = format!(
            "settings{{ nodaemon = true, stateDir = '{root}/state' }}
            sync{{ default.direct, name = 'one', source = '{root}/src', target = '{root}/trg',
              init = {init} }}"
        );
        fs::create_dir(self.path("state")).unwrap();
        fs::write(self.path("lsyncd.conf.lua"), text).unwrap();
    }

    /// Makes so many directories that reading them takes more than one turn.
    fn make_directories(&self) {
        for number in 0..2000 {
            fs::create_dir_all(self.path(&format!("src/{number}/a"))).unwrap();
        }
    }

    /// Returns a loop that has started up.
    fn start(&mut self) -> EventLoop<'_> {
        let (context, environment) = (&mut self.context, &self.environment);
        let script = Script::load(environment, &context.children, context.clock, Vec::new());
        let script = script.unwrap_or_else(|error| panic!("{error}"));
        context.open_state(&script.settings);
        let watcher = new_watcher(context, &script, false).unwrap();
        script.run().unwrap();
        let mut started = EventLoop::new(context, environment, Rc::new(script), watcher);
        started.start_watching();
        started.run_until(|event_loop| event_loop.watching.is_complete());
        started
    }
}

impl EventLoop<'_> {
    /// Takes turns until a condition holds.
    fn run_until(&mut self, condition: impl Fn(&EventLoop<'_>) -> bool) {
        let limit = Instant::now() + LIMIT;
        loop {
            assert_eq!(self.turn(), None);
            if condition(self) {
                return;
            }
            assert!(Instant::now() < limit);
            self.wait();
        }
    }

    /// Takes turns until a sync has entries. Asserts that it has none before all directories are
    /// watched.
    fn run_until_watched_and_pending(&mut self, sync: &str) {
        self.run_until(|event_loop| {
            let is_crawling = event_loop.watching.watcher().crawling();
            assert!(!is_crawling || !event_loop.is_pending(sync));
            event_loop.is_pending(sync)
        });
    }

    /// Takes turns until the loop ends.
    fn run_to_its_end(&mut self) -> Exit {
        let limit = Instant::now() + LIMIT;
        loop {
            if let Some(exit) = self.turn() {
                return exit;
            }
            assert!(Instant::now() < limit);
            self.wait();
        }
    }

    /// Returns true if a sync has entries.
    fn is_pending(&self, name: &str) -> bool {
        self.sync(name).sync.borrow().pending() > 0
    }

    /// Takes turns until nothing is pending in a sync, and pauses it.
    fn pause(&mut self, name: &str) -> SyncId {
        self.run_until(|event_loop| !event_loop.is_pending(name));
        let id = self.sync(name).sync.borrow().id;
        self.apply(vec![Action::Command(id, SyncCommand::Pause)]);
        id
    }

    fn sync(&self, name: &str) -> &Rc<SyncHandle> {
        let mut syncs = self.sending.syncs().iter();
        let found = syncs.find(|handle| handle.sync.borrow().config.name == name);
        found.unwrap()
    }
}

#[test]
fn the_loop_does_not_sleep_while_something_is_due() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let file = site.path("src/f");
    let mut event_loop = site.start();
    fs::write(file, "x").unwrap();
    event_loop.run_until(|event_loop| event_loop.is_pending("one"));
    // The changes are due in an hour.
    assert_ne!(event_loop.timeout(), Some(Duration::ZERO));
    let id = event_loop.sync("one").sync.borrow().id;
    event_loop.apply(vec![Action::Command(id, SyncCommand::Flush)]);
    assert_eq!(event_loop.timeout(), Some(Duration::ZERO));
    event_loop.apply(vec![Action::Command(id, SyncCommand::Pause)]);
    assert_ne!(event_loop.timeout(), Some(Duration::ZERO));
}

#[test]
fn a_report_file_wakes_the_loop() {
    let mut site = Site::new();
    let status = site.path("status");
    let settings = format!("statusFile = '{}', statusInterval = 1", status.display());
    site.configure(&settings, &["one"]);
    let mut event_loop = site.start();
    event_loop.run_until(|_| status.exists());
    let first = fs::read(&status).unwrap();
    event_loop.run_until(|_| fs::read(&status).unwrap() != first);
    let timeout = event_loop.timeout().unwrap();
    // On a busy host the pause grows with the time that a report takes.
    assert!(timeout < Duration::from_secs(60), "{timeout:?}");
}

/// Nothing else would wake the loop at that time.
#[test]
fn an_alarm_wakes_the_loop() {
    for (alarm, is_due) in [("", false), ("alarm(now() + 3600, function() end)", true)] {
        let mut site = Site::new();
        site.configure("", &["one"]);
        let file = site.path("lsyncd.conf.lua");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(file, text + alarm).unwrap();
        let event_loop = site.start();
        let now = event_loop.context.clock.now();
        let due = event_loop.sending.due(true, now);
        assert_eq!(due.is_some_and(|due| due > now), is_due, "{due:?}");
    }
}

#[test]
fn a_command_is_for_its_sync_alone() {
    let mut site = Site::new();
    site.configure("", &["one", "two"]);
    let mut event_loop = site.start();
    let id = event_loop.sync("two").sync.borrow().id;
    event_loop.apply(vec![Action::Command(id, SyncCommand::Pause)]);
    let is_paused = |name| event_loop.sync(name).sync.borrow().is_paused();
    assert!(!is_paused("one") && is_paused("two"));
}

#[test]
fn nothing_begins_once_the_end_is_asked_for() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let (file, called) = (site.path("src/f"), site.path("called"));
    let mut event_loop = site.start();
    fs::write(file, "x").unwrap();
    event_loop.run_until(|event_loop| event_loop.is_pending("one"));
    event_loop.sending.flush();
    event_loop.apply(vec![Action::ShutDown(Exit::Asked(5))]);
    assert_eq!(event_loop.run_to_its_end(), Exit::Asked(5));
    assert!(!called.exists());
}

#[test]
fn what_is_due_is_called_before_the_end_is_asked_for() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let (file, called) = (site.path("src/f"), site.path("called"));
    let mut event_loop = site.start();
    fs::write(file, "x").unwrap();
    event_loop.run_until(|event_loop| event_loop.is_pending("one"));
    event_loop.sending.flush();
    event_loop.run_until(|_| called.exists());
}

#[test]
fn a_wrong_configuration_leaves_the_old_one_in_force() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let config = site.path("lsyncd.conf.lua");
    let good = fs::read(&config).unwrap();
    let mut event_loop = site.start();
    fs::write(&config, "settings{ nodaemon = true }\nsync{ nonsense }").unwrap();
    let problem = event_loop.reload(ReloadScope::Changed).unwrap_err();
    assert!(problem.contains("lsyncd.conf.lua:2"), "{problem}");
    assert_eq!(event_loop.state().reload_error, Some(problem.as_str()));
    event_loop.sync("one");
    let second = String::from_utf8(good).unwrap().replace("'one'", "'two'");
    fs::write(&config, second).unwrap();
    event_loop.reload(ReloadScope::Changed).unwrap();
    assert_eq!(event_loop.state().reload_error, None);
    event_loop.sync("two");
    assert_eq!(event_loop.sending.syncs().len(), 1);
}

#[test]
fn a_new_start_waits_for_the_end_of_the_old_one() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let mut event_loop = site.start();
    let before = event_loop.sync("one").sync.borrow().id;
    event_loop.on_reload_request(ReloadScope::All).unwrap();
    assert!(event_loop.shutdown.is_some());
    event_loop
        .run_until(|event_loop| event_loop.shutdown.is_none() && event_loop.watching.is_complete());
    assert_ne!(event_loop.sync("one").sync.borrow().id, before);
}

/// Returns the contents of the only file with stored changes.
fn stored(state: &Path) -> Vec<u8> {
    let mut found = Vec::new();
    for directory in fs::read_dir(state).unwrap() {
        found.extend(fs::read(directory.unwrap().path().join("pending")).ok());
    }
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[test]
fn a_new_start_watches_for_the_events_of_the_new_configuration() {
    for scope in [ReloadScope::All, ReloadScope::Changed] {
        let mut site = Site::new();
        site.configure("maxStaleness = 0", &["one"]);
        let (config, file) = (site.path("lsyncd.conf.lua"), site.path("src/f"));
        fs::write(&file, "x").unwrap();
        let mut event_loop = site.start();
        let text = fs::read_to_string(&config).unwrap();
        let text = text.replace("nodaemon", "inotifyMode = 'Modify', nodaemon");
        fs::write(&config, text).unwrap();
        event_loop.on_reload_request(scope).unwrap();
        event_loop.run_until(|event_loop| {
            event_loop.shutdown.is_none() && event_loop.watching.is_complete()
        });
        let mut open = File::options().append(true).open(&file).unwrap();
        open.write_all(b"y").unwrap();
        event_loop.run_until(|event_loop| event_loop.is_pending("one"));
    }
}

/// A daemon that exits after an error in user code has not begun a shutdown.
#[test]
fn a_file_that_is_open_at_the_end_is_stored_as_pending() {
    let mut site = Site::new();
    let (file, state) = (site.path("src/f"), site.path("state"));
    fs::write(&file, "x").unwrap();
    fs::create_dir(&state).unwrap();
    site.configure("", &["one"]);
    let mut event_loop = site.start();
    let mut open = File::options().append(true).open(&file).unwrap();
    open.write_all(b"y").unwrap();
    event_loop.run_until(|event_loop| event_loop.watching.watcher().oldest_open().is_some());
    assert!(!event_loop.is_pending("one"));
    event_loop.apply(vec![Action::Exit(Exit::Failure)]);
    assert_eq!(event_loop.run_to_its_end(), Exit::Failure);
    let stored = stored(&state);
    let stored = stored.escape_ascii().to_string();
    assert!(stored.contains("Modify\\x00/f\\x00"), "{stored}");
}

/// A change that is reported after a transfer has begun may be missing in it.
#[test]
fn a_running_transfer_is_noted_before_events_are_taken() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let mut event_loop = site.start();
    let handle = Rc::clone(event_loop.sync("one"));
    handle.sync.borrow_mut().child_started();
    event_loop.watching.on_turn(false, event_loop.now);
    handle.sync.borrow_mut().child_ended();
    assert_eq!(handle.sync.borrow().caught_up_since(), None);
}

#[test]
fn syncs_start_up_when_all_directories_are_watched() {
    let mut site = Site::new();
    site.make_directories();
    site.configure("", &["one"]);
    let (context, environment) = (&mut site.context, &site.environment);
    let script = Script::load(environment, &context.children, context.clock, Vec::new());
    let script = script.unwrap_or_else(|error| panic!("{error}"));
    let watcher = new_watcher(context, &script, false).unwrap();
    let mut event_loop = EventLoop::new(context, environment, Rc::new(script), watcher);
    event_loop.start_watching();
    event_loop.run_until(|event_loop| {
        let is_crawling = event_loop.watching.watcher().crawling();
        let handle = event_loop.sync("one");
        assert!(!is_crawling || handle.sync.borrow().awaits_watches());
        !is_crawling
    });
}

/// It may be due to an overflow of the kernel's queue.
#[test]
fn a_comparison_that_waits_for_the_watches_outlives_a_reload() {
    let mut site = Site::new();
    site.mirror("nil");
    let mut event_loop = site.start();
    let id = event_loop.pause("one");
    event_loop.apply(vec![Action::Watch(WatchAction::FullSync(id))]);
    event_loop.reload(ReloadScope::Changed).unwrap();
    assert_eq!(event_loop.sync("one").sync.borrow().id, id);
    event_loop.run_until(|event_loop| event_loop.is_pending("one"));
}

#[test]
fn changes_that_have_not_been_read_at_the_end_are_stored_as_a_comparison() {
    let mut site = Site::new();
    let (file, state) = (site.path("src/f"), site.path("state"));
    fs::create_dir(&state).unwrap();
    site.configure("", &["one"]);
    let mut event_loop = site.start();
    fs::write(file, "x").unwrap();
    let mark = event_loop.watching.watcher().event_mark();
    event_loop.watching.save_pending(mark, event_loop.now);
    assert!(stored(&state).windows(5).any(|word| word == b"Full\0"));
}

/// They are restored when its directories are watched.
#[test]
fn stored_changes_of_a_new_sync_outlive_an_end_before_its_start() {
    let mut site = Site::new();
    let (file, state) = (site.path("src/f"), site.path("state"));
    let config = site.path("lsyncd.conf.lua");
    fs::create_dir(&state).unwrap();
    site.configure("", &["one"]);
    let mut event_loop = site.start();
    fs::write(file, "x").unwrap();
    event_loop.run_until(|event_loop| event_loop.is_pending("one"));
    event_loop.apply(vec![Action::Exit(Exit::Failure)]);
    event_loop.run_to_its_end();
    drop(event_loop);
    let before = stored(&state);
    let text = fs::read_to_string(&config).unwrap();
    site.configure("", &["two"]);
    let mut event_loop = site.start();
    fs::write(&config, text).unwrap();
    event_loop.reload(ReloadScope::Changed).unwrap();
    event_loop
        .watching
        .save_pending(Default::default(), event_loop.now);
    assert_eq!(stored(&state), before);
}

#[test]
fn after_an_overflow_nothing_that_events_told_is_relied_on() {
    let mut site = Site::new();
    site.mirror("'changed'");
    let mut event_loop = site.start();
    event_loop.pause("one");
    let handle = Rc::clone(event_loop.sync("one"));
    let comparisons = || handle.sync.borrow().warm_start().unwrap().generation();
    event_loop.run_until(|_| handle.sync.borrow().verify().is_done());
    let before = comparisons();
    event_loop.watching.overflow();
    assert!(!handle.sync.borrow().verify().is_done());
    assert_ne!(comparisons(), before);
}

#[test]
fn the_comparison_after_an_overflow_begins_when_all_directories_are_watched() {
    let mut site = Site::new();
    site.make_directories();
    site.mirror("nil");
    let mut event_loop = site.start();
    event_loop.pause("one");
    event_loop.watching.overflow();
    event_loop.run_until_watched_and_pending("one");
}

#[test]
fn a_source_that_is_back_is_compared_when_all_directories_are_watched() {
    let mut site = Site::new();
    site.make_directories();
    site.mirror("nil");
    let (source, other) = (site.path("src"), site.path("other"));
    let mut event_loop = site.start();
    event_loop.pause("one");
    let handle = Rc::clone(event_loop.sync("one"));
    fs::rename(&source, &other).unwrap();
    event_loop.run_until(|_| handle.sync.borrow().halted().is_some());
    fs::rename(&other, &source).unwrap();
    event_loop.run_until_watched_and_pending("one");
}

/// User functions get each path.
#[test]
fn a_directory_is_compared_on_request_for_one_sync_with_its_contents() {
    let mut site = Site::new();
    fs::create_dir(site.path("src/d")).unwrap();
    for name in ["f", "g"] {
        fs::write(site.path("src/d").join(name), "x").unwrap();
    }
    site.configure("", &["one", "two"]);
    let mut event_loop = site.start();
    let handle = Rc::clone(event_loop.sync("two"));
    let id = handle.sync.borrow().id;
    let command = SyncCommand::ResyncPath(b"/d/".to_vec());
    event_loop.apply(vec![Action::Command(id, command)]);
    event_loop.run_until(|_| {
        let sync = handle.sync.borrow();
        let paths: Vec<_> = sync.queue.iter().map(|delay| delay.paths().0).collect();
        [&b"/d/"[..], b"/d/f", b"/d/g"]
            .iter()
            .all(|path| paths.iter().any(|found| found == path))
    });
    assert!(!event_loop.is_pending("one"));
}
