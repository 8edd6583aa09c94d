//! The gauge of a kind: the table of known keys, as `checkgauge` has it in Lua.

use mlua::{Lua, Result, Table, Value};

use super::{Key, Kinds, SYNC, Since, ValueType};
use crate::config::{text_of, truthy};

/// The value of a gauge at keys that lsyncd does not have. A gauge of the user's that declares such
/// a key has another value there.
const VERSION_MARK: &str = "3.0";

/// Returns the gauge of a kind. A key that other syncs have and this kind does not is `false`.
///
/// # Errors
///
/// Errors of Lua only.
pub fn gauge(lua: &Lua, kind: Kinds) -> Result<Table> {
    let gauge = gauge_of(lua, SYNC, kind)?;
    for key in new_keys().filter(|key| key.kinds.has(kind)) {
        gauge.raw_set(key.name, VERSION_MARK)?;
    }
    Ok(gauge)
}

fn gauge_of(lua: &Lua, keys: &[Key], kind: Kinds) -> Result<Table> {
    let gauge = lua.create_table()?;
    for key in keys {
        match key.value {
            _ if !key.kinds.has(kind) => {
                // default.rsyncssh inherits the gauge of default.rsync.
                let is_inherited = kind == Kinds::RSYNCSSH && key.kinds.has(Kinds::RSYNC);
                if is_inherited || key.kinds.has(Kinds::OWN) {
                    gauge.raw_set(key.name, false)?;
                }
            }
            ValueType::Table(below) => gauge.raw_set(key.name, gauge_of(lua, below, kind)?)?,
            _ => gauge.raw_set(key.name, true)?,
        }
    }
    Ok(gauge)
}

/// Returns the keys of every sync that lsyncd does not have.
pub fn new_keys() -> impl Iterator<Item = &'static Key> {
    let is_new = |key: &&Key| key.since == Since::V3 && key.kinds.has(Kinds::OWN);
    SYNC.iter().filter(is_new)
}

/// Returns true if a gauge of the user's declares this key as one of its own.
///
/// # Errors
///
/// Errors of Lua only.
pub fn is_declared(config: &Table, key: &str) -> Result<bool> {
    let Value::Table(gauge) = config.get("checkgauge")? else {
        return Ok(false);
    };
    let known: Value = gauge.get(key)?;
    Ok(truthy(&known) && text_of(&known).as_deref() != Some(VERSION_MARK.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_knows_its_keys() {
        let lua = crate::sys::lua();
        let value = |kind, path: &str| {
            let gauge = gauge(&lua, kind).unwrap();
            let mut value = Value::Table(gauge);
            for name in path.split('.') {
                value = value.as_table().unwrap().get(name).unwrap();
            }
            value
        };
        let mark = Value::String(lua.create_string(VERSION_MARK).unwrap());
        for (kind, path, known) in [
            (Kinds::OWN, "onCreate", Value::Boolean(true)),
            (Kinds::OWN, "name", Value::Boolean(true)),
            (Kinds::OWN, "nice", mark.clone()),
            (Kinds::OWN, "exclude", Value::Nil),
            (Kinds::RSYNC, "onCreate", Value::Boolean(false)),
            (Kinds::RSYNC, "onMove", Value::Boolean(false)),
            (Kinds::RSYNC, "onAttrib", Value::Boolean(true)),
            (Kinds::RSYNC, "nice", mark),
            (Kinds::RSYNC, "rsync.list", Value::Boolean(true)),
            (Kinds::RSYNC, "ssh.reuse", Value::Boolean(true)),
            (Kinds::RSYNC, "ssh.port", Value::Nil),
            (Kinds::RSYNC, "startup.rsync.acls", Value::Boolean(true)),
            (Kinds::RSYNCSSH, "target", Value::Boolean(false)),
            (Kinds::RSYNCSSH, "onMove", Value::Boolean(true)),
            (Kinds::RSYNCSSH, "ssh.port", Value::Boolean(true)),
            (Kinds::DIRECT, "rsyncExitCodes", Value::Boolean(true)),
            (Kinds::DIRECT, "ssh", Value::Nil),
            (Kinds::RCLONE, "rclone.options", Value::Boolean(true)),
            (Kinds::RCLONE, "filter", Value::Nil),
        ] {
            assert_eq!(value(kind, path), known, "{kind:?} {path}");
        }
    }
}
