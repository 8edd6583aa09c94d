//! The kind of a loaded sync and its destination, for `-check`, `-explain` and reports.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;

use mlua::{Result, Table, Value};

use crate::batch;
use crate::config::{self, Check, Hook, OnReject, destination, text_of, truthy};
use crate::script::create::sync_checks::{self, Origin};
use crate::script::layer3;
use crate::script::runtime::Script;
use crate::script::sync_handle::SyncHandle;

impl Script {
    /// Returns the built-in kind whose action the sync has; `None` if it has none of them.
    pub fn kind(&self, handle: &SyncHandle) -> Option<&'static str> {
        self.kind_of(handle, "action")
    }

    /// Returns true if the startup of the sync is that of default.rsync, default.rsyncssh or
    /// default.direct.
    pub fn starts_built_in(&self, handle: &SyncHandle) -> bool {
        matches!(
            self.kind_of(handle, "init"),
            Some("rsync" | "rsyncssh" | "direct")
        )
    }

    fn kind_of(&self, handle: &SyncHandle, key: &str) -> Option<&'static str> {
        match sync_checks::origin(&self.lua, &handle.config, key) {
            Ok(Origin::Kind(kind)) => Some(kind),
            _ => None,
        }
    }

    /// Returns true for a sync without any action.
    pub fn is_idle(&self, handle: &SyncHandle) -> bool {
        sync_checks::is_idle(&self.lua, &handle.config).unwrap_or(false)
    }

    /// Returns the keys of the functions and commands that the sync has for events; `None` if its
    /// action handles events in another way.
    pub fn handled_events(&self, handle: &SyncHandle) -> Option<Vec<&'static str>> {
        let origin = sync_checks::origin(&self.lua, &handle.config, "action").ok()?;
        if origin != Origin::Default {
            return None;
        }
        let is_set = |key: &&str| {
            let value = handle.config.get::<Value>(*key);
            value.is_ok_and(|value| truthy(&value))
        };
        Some(layer3::KEYS.into_iter().filter(is_set).collect())
    }

    /// Returns the programs of the sync, as far as its configuration names them.
    pub fn programs(&self, handle: &SyncHandle) -> Vec<Vec<u8>> {
        let kind = self.kind(handle);
        let mut programs: Vec<Vec<u8>> = match kind {
            Some("rclone") => self.binary(handle, "rclone").into_iter().collect(),
            Some("direct") | None => Vec::new(),
            Some(kind) => {
                let ssh = (kind == "rsyncssh").then(|| self.binary(handle, "ssh"));
                let rsync = self.binary(handle, "rsync");
                rsync
                    .into_iter()
                    .chain(ssh.flatten())
                    .chain(self.ssh_words(handle).into_iter().next())
                    .collect()
            }
        };
        if kind.is_none() {
            programs.extend(layer3::programs(&handle.config));
        }
        if let Some(tunnel) = &handle.tunnel {
            programs.extend(tunnel.program());
        }
        let sync = handle.sync.borrow();
        let config = &sync.config;
        let hooks = [&config.on_synced, &config.on_failed, &config.on_recovered];
        let mut hooks: Vec<&Hook> = hooks.into_iter().flatten().collect();
        if let Some(check) = &sync.config.check {
            for check in &check.checks {
                if let Check::Command(scanner) = check {
                    programs.extend(scanner.words.first().cloned());
                }
            }
            if let OnReject::Call(hook) = &check.on_reject {
                hooks.push(hook);
            }
        }
        for hook in hooks {
            if let Hook::Command(words) = hook {
                programs.extend(words.first().cloned());
            }
        }
        let mut seen = HashSet::new();
        programs.retain(|program| seen.insert(program.clone()));
        programs
    }

    /// Returns the options of the sync's rsync calls; none if it calls no rsync.
    pub fn rsync_options(&self, handle: &SyncHandle) -> Vec<Vec<u8>> {
        let words = || -> Result<Vec<Vec<u8>>> {
            let rsync: Table = handle.config.get("rsync")?;
            let words: Table = rsync.get("_computed")?;
            let words = words.sequence_values::<Value>();
            words
                .filter_map(|word| Some(Ok(text_of(&word.ok()?)?)))
                .collect()
        };
        words().unwrap_or_default()
    }

    fn binary(&self, handle: &SyncHandle, table: &str) -> Option<Vec<u8>> {
        let table: Table = handle.config.get(table).ok()?;
        text_of(&table.get("binary").ok()?)
    }

    /// Returns the command that rsync reaches the target's host with, cut into words; none if
    /// it needs no such command.
    pub fn ssh_words(&self, handle: &SyncHandle) -> Vec<Vec<u8>> {
        self.remote_shell(handle).unwrap_or_default()
    }

    fn remote_shell(&self, handle: &SyncHandle) -> Option<Vec<Vec<u8>>> {
        let options = self.rsync_options(handle);
        let target = handle.destination()?;
        let is_daemon =
            target.starts_with(b"rsync://") || target.windows(2).any(|two| two == b"::");
        if !batch::is_remote(&target) || is_daemon {
            return None;
        }
        match config::ssh::remote_shell(&options) {
            Some(command) => config::ssh::split_rsh(command),
            None => match std::env::var_os("RSYNC_RSH") {
                Some(command) => config::ssh::split_rsh(command.as_bytes()),
                None => Some(vec![b"ssh".to_vec()]),
            },
        }
    }
}

impl SyncHandle {
    /// Returns true if the configuration lets the sync wait for a source that is missing.
    pub fn waits_for_source(&self) -> bool {
        let value = self.config.get::<Value>("waitForSource");
        value.is_ok_and(|value| config::truthy(&value)) && self.sync.borrow().is_lost()
    }

    /// Returns the destination: `target`, or `HOST:TARGETDIR`. `None` for user code.
    pub fn destination(&self) -> Option<Vec<u8>> {
        destination(&self.config).ok().flatten()
    }
}
