//! A loaded configuration and the directory of its sources, for the tests of this room.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use mlua::FromLuaMulti;

use super::request::{ScriptRequest, SpawnRequest};
use super::runtime::Script;
use super::sync_handle::SyncHandle;
use crate::queue::{DelayId, Time};
use crate::sync::Next;
use crate::watch::Event;

/// The time at which all changes are due.
pub const NOW: Time = 1_000_000_000;

/// A loaded configuration.
pub struct Loaded {
    directory: tempfile::TempDir,
    pub script: Script,
}

impl Loaded {
    /// Loads a configuration, in which `@DIR@` is a new directory that contains the source `src`.
    pub fn of(config: &str) -> Loaded {
        let (directory, config) = expanded(config);
        let script = Script::of_text(&config);
        for handle in script.syncs() {
            handle.sync.borrow_mut().start(0);
        }
        Loaded { directory, script }
    }

    /// As [`Loaded::of`], for a sync of default.rsync with these keys and without a startup.
    pub fn rsync(keys: &str) -> Loaded {
        Loaded::of(&format!(
            "sync{{ default.rsync, source = '@DIR@/src', target = '@DIR@/trg', init = false, \
             {keys} }}"
        ))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn handle(&self, number: usize) -> Rc<SyncHandle> {
        self.script.syncs().remove(number)
    }

    /// Creates a file in the source and tells the first sync of it.
    pub fn create(&self, name: &str) {
        fs::write(self.path("src").join(name), "content").unwrap();
        self.ingest(name, |path| Event::Create { path });
    }

    /// Tells the first sync of an event of this name in its source.
    pub fn ingest(&self, name: &str, event: fn(&[u8]) -> Event<'_>) {
        let handle = self.handle(0);
        let mut sync = handle.sync.borrow_mut();
        let path = [&sync.config.source, name.as_bytes()].concat();
        sync.ingest(event(&path), 0);
    }

    /// Reports a rename in the source of the first sync.
    pub fn rename(&self, from: &str, to: &str) {
        let handle = self.handle(0);
        let mut sync = handle.sync.borrow_mut();
        let [from, to] = [from, to].map(|name| [&sync.config.source, name.as_bytes()].concat());
        sync.ingest(
            Event::Move {
                from: &from,
                to: &to,
            },
            0,
        );
    }

    /// Lets a mount below the source of the first sync be missing.
    pub fn lose_mount(&self, name: &str) {
        let handle = self.handle(0);
        let mut sync = handle.sync.borrow_mut();
        let mount = [&sync.config.source, name.as_bytes()].concat();
        sync.update_nested_mounts(&BTreeSet::from([mount]));
        sync.update_nested_mounts(&BTreeSet::new());
        assert!(sync.misses_mounts());
    }

    /// Returns the entry of the first sync that is due.
    pub fn due(&self) -> DelayId {
        let handle = self.handle(0);
        let next = handle.sync.borrow_mut().next(NOW);
        match next {
            Next::Act(id) => id,
            next => panic!("nothing is due: {next:?}"),
        }
    }

    /// Calls the action of the first sync for what is due, and returns its requests or its error.
    pub fn try_act(&self) -> Result<Vec<ScriptRequest>, String> {
        let done = self.script.act(&self.handle(0), self.due());
        done.map_err(|error| error.to_string())?;
        Ok(self.script.context.requests.take())
    }

    /// As [`Loaded::try_act`], for an action without an error.
    pub fn act(&self) -> Vec<ScriptRequest> {
        self.try_act().unwrap()
    }

    /// Returns the value of a Lua expression.
    pub fn eval<T: FromLuaMulti>(&self, expression: &str) -> T {
        self.script.lua().load(expression).eval().unwrap()
    }

    /// As [`Loaded::act`], for an action that starts one process.
    pub fn spawn(&self) -> SpawnRequest {
        match self.act().remove(0) {
            ScriptRequest::Spawn(request) => request,
            _ => panic!("no process was requested"),
        }
    }
}

/// Returns the error of an invalid configuration, in which `@DIR@` is a new directory; an empty
/// text if it is valid.
pub fn error_of(config: &str) -> String {
    let (_directory, config) = expanded(config);
    let loaded = Script::try_text(&config, true);
    loaded.map_or_else(|error| error.to_string(), |_| String::new())
}

fn expanded(config: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("src")).unwrap();
    let root = directory.path().to_str().unwrap();
    let config = config.replace("@DIR@", root);
    (directory, config)
}

/// Returns true if one of the words is this one.
pub fn has(words: &[Vec<u8>], word: &str) -> bool {
    words.iter().any(|each| each == word.as_bytes())
}
