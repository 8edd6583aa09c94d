//! What a loaded sync is, for who asks about a configuration: its kind and where it goes.

use mlua::{Function, Result, Table};

use super::host::Member;
use super::runtime::Script;
use crate::config::text_of;

/// Members of `default` that a sync may inherit its behaviour from.
const KINDS: [&str; 4] = ["rsyncssh", "rsync", "direct", "rclone"];

impl Script {
    /// The built-in kind whose action the sync has; `None` for what user code does.
    pub fn kind(&self, member: &Member) -> Option<&'static str> {
        let action: Function = member.config.get("action").ok()?;
        let same = |kind: &str| -> Result<bool> {
            let default: Table = self.lua.globals().get("default")?;
            let theirs: Function = default.get::<Table>(kind)?.get("action")?;
            Ok(theirs.to_pointer() == action.to_pointer())
        };
        KINDS.into_iter().find(|kind| same(kind).unwrap_or(false))
    }

    /// The program that the sync starts, if it is of a kind that runs rsync for changes.
    pub fn program(&self, member: &Member) -> Option<Vec<u8>> {
        self.kind(member)
            .filter(|&kind| kind != "direct" && kind != "rclone")?;
        let rsync: Table = member.config.get("rsync").ok()?;
        text_of(&rsync.get("binary").ok()?)
    }
}

impl Member {
    /// Where things go: `target`, or `HOST:TARGETDIR`. `None` where user code decides.
    pub fn destination(&self) -> Option<Vec<u8>> {
        let text = |key: &str| text_of(&self.config.get(key).ok()?);
        match (text("host"), text("targetdir")) {
            (Some(host), Some(directory)) => Some([&host[..], b":", &directory].concat()),
            _ => self.sync.borrow().config.target.clone(),
        }
    }
}
