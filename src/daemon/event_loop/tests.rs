//! Unit tests of the event loop, turn by turn. The syncs have actions in Lua, which start nothing.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::cli::Options;
use crate::component::SyncCommand;
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
    /// actions creates the file `called`.
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
        let text = format!("settings{{ nodaemon = true, stateDir = false, {settings} }}\n{syncs}");
        fs::write(self.path("lsyncd.conf.lua"), text).unwrap();
    }

    /// Returns a loop that has started up.
    fn start(&mut self) -> EventLoop<'_> {
        let (context, environment) = (&mut self.context, &self.environment);
        let script = Script::load(environment, &context.children, context.clock, Vec::new());
        let script = script.unwrap_or_else(|error| panic!("{error}"));
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
