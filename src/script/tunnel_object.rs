//! A tunnel of the configuration: its command, and the variables that it substitutes in targets.

use std::cell::RefCell;

use mlua::{Result, Table, Value};

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

    /// Returns true if the method `check` refuses the tunnel: that of the object or of the class.
    /// The initial one accepts every tunnel.
    ///
    /// # Errors
    ///
    /// User code failed.
    pub fn is_refused(&self, watchdog: &Watchdog) -> Result<bool> {
        let Value::Function(check) = self.object.get("check")? else {
            return Ok(false);
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
    use crate::process::Pid;
    use crate::script::test_setup::Loaded;

    const TUNNEL: &str = "t = tunnel{ command = { 'true' }, localhost = '::1', readyDelay = 0 ";

    #[test]
    fn only_a_pool_has_ports_and_gives_them_to_targets() {
        let target = b"rsync://^localhost:^localport/m";
        for (mode, substituted) in [("pool", &b"rsync://::1:7777/m"[..]), ("command", target)] {
            let loaded = Loaded::of(&format!("{TUNNEL}, mode = '{mode}' }}"));
            let tunnel = loaded.script.tunnels().remove(0);
            let is_pool = mode == "pool";
            assert_eq!(tunnel.needs_port(), is_pool);
            assert_eq!(tunnel.substitutions().len(), usize::from(is_pool));
            tunnel.machine.borrow_mut().started(Pid(1), Some(7777), 0);
            tunnel.machine.borrow_mut().turn(1_000_000);
            assert_eq!(tunnel.substitute_target(target), substituted, "{mode}");
            assert_eq!(tunnel.substitute_target(b"/trg/"), b"/trg/", "{mode}");
            assert_eq!(tunnel.substitutions().len(), 2 * usize::from(is_pool));
        }
    }

    #[test]
    fn only_the_answer_false_refuses_a_tunnel() {
        for (check, is_refused) in [
            ("", false),
            ("t.check = function(self) return false end", true),
            ("t.check = function(self) return self ~= t end", true),
            ("t.check = function(self) return true end", false),
            ("t.check = function() end", false),
            ("t.check = false", false),
            ("Tunnel.check = function() return false end", true),
        ] {
            let loaded = Loaded::of(&format!("{TUNNEL} }} {check}"));
            let tunnel = loaded.script.tunnels().remove(0);
            let found = tunnel.is_refused(&loaded.script.context.watchdog);
            assert_eq!(found.unwrap(), is_refused, "{check}");
        }
    }

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
