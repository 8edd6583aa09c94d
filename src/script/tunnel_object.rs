//! A tunnel of the configuration: its command, and the variables that it substitutes in targets.

use std::cell::RefCell;

use mlua::{Function, Result, Table, Value};

use super::watchdog::{self, Watchdog};
use crate::queue::Time;
use crate::tunnel::{ConfiguredTunnel, Tunnel};

/// The mode of a tunnel: which variables of a target it substitutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelMode {
    /// None. The command forwards a port that the target names itself, for example.
    Command,
    /// `^localport` and `^localhost`, those of one process at a time in turn.
    Pool,
}

/// A tunnel of the configuration.
pub struct TunnelObject {
    /// The object returned by `tunnel{}`.
    pub object: Table,
    /// The states of its processes.
    pub machine: RefCell<Tunnel>,
    /// The mode.
    pub mode: TunnelMode,
    pub(super) command: Vec<Vec<u8>>,
    pub(super) localhost: Vec<u8>,
    /// The initial `Tunnel.check`, which accepts every tunnel.
    pub(super) initial_check: Function,
}

/// The type of a tunnel's command in lsyncd's status file. Another number denotes a check.
pub const PROCESS_KIND: i32 = 1;

impl TunnelObject {
    /// Returns the name for log and status file.
    pub fn name(&self) -> String {
        self.machine.borrow().config.name.clone()
    }

    /// Returns the program of the command; `None` if a variable names it.
    pub fn program(&self) -> Option<Vec<u8>> {
        self.command
            .first()
            .filter(|word| !word.contains(&b'^'))
            .cloned()
    }

    /// Returns true if a user function refuses the tunnel: the object's own method `check`, or a
    /// replacement of `Tunnel.check`.
    ///
    /// # Errors
    ///
    /// User code failed.
    pub fn is_refused(&self, watchdog: &Watchdog) -> Result<bool> {
        let check = match self.object.get("check")? {
            Value::Function(check) if check != self.initial_check => check,
            _ => return Ok(false),
        };
        let answer = watchdog::call(watchdog, || check.call::<Value>(&self.object))?;
        Ok(answer == Value::Boolean(false))
    }

    /// Returns the substitutions for a new transfer: names and values.
    pub(super) fn substitutions(&self) -> Vec<(&'static str, Vec<u8>)> {
        if self.mode != TunnelMode::Pool {
            return Vec::new();
        }
        let mut values = vec![("localhost", self.localhost.clone())];
        if let Some(port) = self.machine.borrow_mut().pick().and_then(|each| each.port) {
            values.push(("localport", port.to_string().into_bytes()));
        }
        values
    }

    /// Returns the target for a new transfer, with its variables substituted.
    pub fn substitute_target(&self, target: &[u8]) -> Vec<u8> {
        if self.mode != TunnelMode::Pool || !target.contains(&b'^') {
            return target.to_vec();
        }
        let values = self.substitutions();
        let port = values.iter().find(|(name, _)| *name == "localport");
        let mut found = vec![("^localhost", self.localhost.clone())];
        found.extend(port.map(|(_, port)| ("^localport", port.clone())));
        substitute(target, &found)
    }
}

impl ConfiguredTunnel for TunnelObject {
    fn machine(&self) -> &RefCell<Tunnel> {
        &self.machine
    }

    fn needs_port(&self) -> bool {
        self.mode == TunnelMode::Pool
    }

    fn words(&self, port: Option<u16>, now: Time) -> Vec<Vec<u8>> {
        let mut values = vec![
            ("^localhost", self.localhost.clone()),
            ("^type", PROCESS_KIND.to_string().into_bytes()),
            ("^started", (now / 1_000_000).to_string().into_bytes()),
            ("^ready", b"false".to_vec()),
        ];
        if let Some(port) = port {
            values.push(("^localport", port.to_string().into_bytes()));
        }
        let words = self.command.iter();
        words.map(|word| substitute(word, &values)).collect()
    }
}

/// Replaces each name by its value. No name is the beginning of another.
fn substitute(text: &[u8], values: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut result = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let named = |(name, _): &&(&str, Vec<u8>)| rest.starts_with(name.as_bytes());
        match values.iter().find(named) {
            Some((name, value)) => {
                result.extend_from_slice(value);
                rest = &rest[name.len()..];
            }
            None => {
                result.push(first);
                rest = tail;
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Vec<(&'static str, Vec<u8>)> {
        vec![("^localhost", b"h".to_vec()), ("^localport", b"7".to_vec())]
    }

    #[test]
    fn names_are_replaced_wherever_they_stand() {
        let placed = substitute(b"rsync://^localhost:^localport/^x/^localhosts", &values());
        assert_eq!(placed, b"rsync://h:7/^x/hs");
        assert_eq!(substitute(b"", &values()), b"");
    }
}
