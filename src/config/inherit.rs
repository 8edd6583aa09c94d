//! Inheritance of a `sync{}`: its own keys, then those of the tables at integer keys, in order and
//! recursively, and last those of `default`.

use mlua::{Lua, Result, Table, Value};

use super::config_error::config_error;

/// Merges the table given to `sync{}` and its parents into a new one.
///
/// `default` is merged last, restricted to its `_merge` list. `tunnel` and `check` may be in any of
/// the tables and are taken by reference.
///
/// `fill` may add values that take precedence over the defaults.
///
/// # Errors
///
/// A table contains itself, or `fill` fails.
pub fn inherit(
    lua: &Lua,
    given: &Table,
    fill: impl FnOnce(&Table) -> Result<()>,
    default: &Table,
) -> Result<Table> {
    let merger = Merger { lua };
    let config = lua.create_table()?;
    merger.merge(&config, given, 0)?;
    fill(&config)?;
    merger.merge(&config, default, 0)?;
    Ok(config)
}

/// The maximum nesting of tables. A deeper table contains itself.
const MAX_DEPTH: usize = 64;

struct Merger<'a> {
    lua: &'a Lua,
}

impl Merger<'_> {
    /// Copies the keys of `from` that `to` does not have.
    fn merge(&self, to: &Table, from: &Table, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(config_error("a table of the configuration contains itself"));
        }
        let only: Option<Table> = from.raw_get("_merge").ok();
        let verbatim = from.raw_get::<Value>("_verbatim")? == Value::Boolean(true);
        for pair in from.pairs::<Value, Value>() {
            let (key, value) = pair?;
            let named = !matches!(key, Value::Integer(_));
            if (named || verbatim) && wanted(&key, only.as_ref())? {
                self.merge_key(to, key, value, depth)?;
            }
        }
        if verbatim {
            return Ok(());
        }
        for value in from.sequence_values::<Value>() {
            match value? {
                Value::Table(parent) => self.merge(to, &parent, depth + 1)?,
                item => to.raw_push(item)?,
            }
        }
        Ok(())
    }

    fn merge_key(&self, to: &Table, key: Value, value: Value, depth: usize) -> Result<()> {
        let tables: [&[u8]; 3] = [b"exitcodes", b"rsyncExitCodes", b"sshExitCodes"];
        let codes = tables.iter().any(|name| is_name(&key, name));
        match (to.raw_get::<Value>(key.clone())?, value) {
            (Value::Nil, Value::Table(table)) if !is_whole(&key) => {
                let copy = self.lua.create_table()?;
                if codes {
                    copy_verbatim(&copy, &table)?;
                    copy.set_metatable(table.metatable())?;
                } else {
                    self.merge(&copy, &table, depth + 1)?;
                }
                to.raw_set(key, copy)
            }
            (Value::Nil, value) => to.raw_set(key, value),
            (Value::Table(own), Value::Table(theirs)) if !is_whole(&key) => {
                if theirs.raw_get::<Value>("_merge")? == Value::Boolean(false) {
                    Ok(())
                } else if codes {
                    copy_verbatim(&own, &theirs)
                } else {
                    self.merge(&own, &theirs, depth + 1)
                }
            }
            _ => Ok(()),
        }
    }
}

/// Returns true for keys whose tables are not merged: those that are neither options nor lists of
/// texts.
fn is_whole(key: &Value) -> bool {
    let whole: [&[u8]; 4] = [b"tunnel", b"targets", b"check", b"bwlimit"];
    whole.iter().any(|name| is_name(key, name))
}

fn is_name(key: &Value, name: &[u8]) -> bool {
    matches!(key, Value::String(key) if key.as_bytes() == name)
}

fn wanted(key: &Value, only: Option<&Table>) -> Result<bool> {
    if is_name(key, b"_merge") || is_name(key, b"_verbatim") {
        return Ok(false);
    }
    match only {
        Some(only) => Ok(only.raw_get::<Value>(key.clone())? == Value::Boolean(true)),
        None => Ok(true),
    }
}

/// Copies exit codes, whose small integer keys are not list indexes.
fn copy_verbatim(to: &Table, from: &Table) -> Result<()> {
    for pair in from.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let control = is_name(&key, b"_merge") || is_name(&key, b"_verbatim");
        if !control && to.raw_get::<Value>(key.clone())?.is_nil() {
            to.raw_set(key, value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(lua: &Lua, given: &str, default: &str) -> Table {
        let given = lua.load(given).eval().unwrap();
        let default = lua.load(default).eval().unwrap();
        inherit(lua, &given, |_| Ok(()), &default).unwrap()
    }

    #[test]
    fn own_keys_win_and_false_counts_as_own() {
        let lua = crate::sys::lua();
        let config = merged(
            &lua,
            "{ a = 1, d = false, { a = 2, b = 3, d = true, { c = 4 } } }",
            "{ _merge = { a = true, e = true }, a = 9, e = 5, f = 6 }",
        );
        assert_eq!(config.get::<i64>("a").unwrap(), 1);
        assert_eq!(config.get::<i64>("b").unwrap(), 3);
        assert_eq!(config.get::<i64>("c").unwrap(), 4);
        assert_eq!(config.get::<Value>("d").unwrap(), Value::Boolean(false));
        assert_eq!(config.get::<i64>("e").unwrap(), 5);
        assert!(config.get::<Value>("f").unwrap().is_nil());
    }

    #[test]
    fn tables_merge_and_lists_are_appended() {
        let lua = crate::sys::lua();
        let config = merged(
            &lua,
            "{ rsync = { x = 1, _extra = { 'a' } }, { rsync = { x = 2, y = 3, _extra = { 'b' } } \
             } }",
            "{}",
        );
        let rsync: Table = config.get("rsync").unwrap();
        assert_eq!(rsync.get::<i64>("x").unwrap(), 1);
        assert_eq!(rsync.get::<i64>("y").unwrap(), 3);
        let extra: Vec<String> = rsync.get("_extra").unwrap();
        assert_eq!(extra, ["a", "b"]);
    }

    #[test]
    fn exit_codes_are_no_list_and_replace_the_whole_table() {
        let lua = crate::sys::lua();
        let config = merged(
            &lua,
            "{ exitcodes = { [0] = 'ok', [1] = 'again', [2] = 'die' },
               { exitcodes = { _merge = false, _verbatim = true, [3] = 'again' } } }",
            "{}",
        );
        let codes: Table = config.get("exitcodes").unwrap();
        assert_eq!(codes.get::<String>(1).unwrap(), "again");
        assert!(codes.get::<Value>(3).unwrap().is_nil());
        assert!(codes.get::<Value>(4).unwrap().is_nil());
    }
}
