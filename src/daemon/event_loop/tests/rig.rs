//! An event loop with a configuration of its own. The syncs have actions in Lua, which start
//! nothing, or copy within the loop's process.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use tempfile::TempDir;

use super::super::*;
use crate::cli::Options;
use crate::component::SyncCommand;
use crate::id::SyncId;
use crate::script::SyncHandle;

/// The time after which a condition is given up.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// What an event loop borrows.
pub(super) struct Site {
    directory: TempDir,
    pub(super) environment: Environment,
    pub(super) context: Context,
}

impl Site {
    pub(super) fn new() -> Site {
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

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a configuration with these settings and syncs of these names. Each call of their
    /// actions creates the file `called`. The state is stored in `state`, if that exists.
    pub(super) fn configure(&self, settings: &str, syncs: &[&str]) {
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
    pub(super) fn mirror(&self, init: &str) {
        let root = self.directory.path().display();
        let text = format!(
            "settings{{ nodaemon = true, stateDir = '{root}/state' }}
            sync{{ default.direct, name = 'one', source = '{root}/src', target = '{root}/trg',
              init = {init} }}"
        );
        fs::create_dir(self.path("state")).unwrap();
        fs::write(self.path("lsyncd.conf.lua"), text).unwrap();
    }

    /// Writes a configuration with the sync `one`, which has these keys. Each `@` is the directory
    /// of the site.
    pub(super) fn write(&self, settings: &str, keys: &str) {
        let text = format!(
            "settings{{ nodaemon = true, stateDir = false, {settings} }}
            sync{{ {keys}, name = 'one', source = '@/src' }}"
        );
        let root = self.directory.path().to_str().unwrap();
        fs::write(self.path("lsyncd.conf.lua"), text.replace('@', root)).unwrap();
    }

    /// Writes a configuration with the sync `one`, whose first comparison does not end.
    pub(super) fn compare_for_long(&self) {
        // A file that this process writes could be busy when it is called.
        let text = "printf '#!/bin/sh\\nexec sleep 300\\n' > rsync; chmod +x rsync";
        let mut shell = Command::new("sh");
        shell.args(["-c", text]).current_dir(self.directory.path());
        assert!(shell.status().unwrap().success());
        let text = "default.rsync, target = '@/trg', rsync = { binary = '@/rsync' }";
        self.write("", text);
    }

    /// Makes so many directories that reading them takes more than one turn.
    pub(super) fn make_directories(&self) {
        for number in 0..2000 {
            fs::create_dir_all(self.path(&format!("src/{number}/a"))).unwrap();
        }
    }

    /// Returns a loop that has started up.
    pub(super) fn start(&mut self) -> EventLoop<'_> {
        let mut started = self.begin();
        started.run_until(|event_loop| event_loop.watching.is_complete());
        started
    }

    /// Returns a loop that has started up, and whose sync `one` has nothing pending.
    pub(super) fn start_and_settle(&mut self) -> EventLoop<'_> {
        let mut started = self.start();
        started.run_until(|event_loop| !event_loop.is_pending("one"));
        started
    }

    /// Returns a loop that has taken no turn.
    pub(super) fn begin(&mut self) -> EventLoop<'_> {
        let (context, environment) = (&mut self.context, &self.environment);
        let script = Script::load(environment, &context.children, context.clock, Vec::new());
        let script = script.unwrap_or_else(|error| panic!("{error}"));
        context.open_state(&script.settings);
        let watcher = new_watcher(context, &script, false).unwrap();
        script.run().unwrap();
        let mut started = EventLoop::new(context, environment, Rc::new(script), watcher);
        started.start_watching();
        started
    }
}

impl EventLoop<'_> {
    /// Takes turns until a condition holds.
    pub(super) fn run_until(&mut self, condition: impl Fn(&EventLoop<'_>) -> bool) {
        self.take_turns(condition, Self::wait);
    }

    /// Takes turns until a condition holds that nothing wakes the loop for: it catches no signals.
    pub(super) fn poll_until(&mut self, condition: impl Fn(&EventLoop<'_>) -> bool) {
        self.take_turns(condition, |_| thread::sleep(Duration::from_millis(5)));
    }

    fn take_turns(&mut self, condition: impl Fn(&EventLoop<'_>) -> bool, pause: fn(&mut Self)) {
        let limit = Instant::now() + LIMIT;
        loop {
            assert_eq!(self.turn(), None);
            if condition(self) {
                return;
            }
            assert!(Instant::now() < limit);
            pause(self);
        }
    }

    /// Takes turns until a sync has entries. Asserts that it has none before all directories are
    /// watched.
    pub(super) fn run_until_watched_and_pending(&mut self, sync: &str) {
        self.run_until(|event_loop| {
            let is_crawling = event_loop.watching.watcher().crawling();
            assert!(!is_crawling || !event_loop.is_pending(sync));
            event_loop.is_pending(sync)
        });
    }

    /// Takes turns until the loop ends.
    pub(super) fn run_to_its_end(&mut self) -> Exit {
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
    pub(super) fn is_pending(&self, name: &str) -> bool {
        self.sync(name).sync.borrow().pending() > 0
    }

    /// Takes turns until nothing is pending in a sync, and pauses it.
    pub(super) fn pause(&mut self, name: &str) -> SyncId {
        self.run_until(|event_loop| !event_loop.is_pending(name));
        let id = self.sync(name).sync.borrow().id;
        self.apply(vec![Action::Command(id, SyncCommand::Pause)]);
        id
    }

    pub(super) fn sync(&self, name: &str) -> &Rc<SyncHandle> {
        let mut syncs = self.sending.syncs().iter();
        let found = syncs.find(|handle| handle.sync.borrow().config.name == name);
        found.unwrap()
    }
}
