//! Compares the keys of a sync with a gauge of known keys, so that misspelt keys are errors.

use mlua::{Result, Table, Value};

use super::{Kinds, SYNC, advice, find};
use crate::config::{config_error, config_error_about, text_of, truthy};
use crate::log::escape;
use crate::spelling::nearest;

/// Compares `config` with its gauge. A true value permits a key, a table is the gauge of a nested
/// table, and any other value makes the key unknown.
///
/// # Errors
///
/// lsyncd's text for the first unknown key, with the most similar known key, if there is one.
pub fn check(config: &Table, gauge: &Table) -> Result<()> {
    check_below(config, gauge, gauge, "", 0)
}

/// Advice for keys of lsyncd 2.0 and keys that belong to another kind.
const ADVICE_BY_KEY: &[(&str, &str)] = &[
    ("rsyncOps", RSYNC_OPTIONS),
    ("rsyncOpts", RSYNC_OPTIONS),
    ("xargs", "It is not needed any more."),
    (
        "host",
        "default.rsyncssh has it; else write target = \"HOST:DIRECTORY\".",
    ),
    (
        "targetdir",
        "default.rsyncssh has it; else write target = \"DIRECTORY\".",
    ),
];

const RSYNC_OPTIONS: &str = "Write rsync = { ... }, with other options as a list in rsync._extra.";

/// The maximum nesting of tables. A deeper table contains itself.
const MAX_DEPTH: usize = 64;

fn check_below(
    config: &Table,
    gauge: &Table,
    outermost: &Table,
    prefix: &str,
    depth: usize,
) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(config_error("a table of the configuration contains itself"));
    }
    for pair in config.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let name = match &key {
            Value::String(name) => name.to_string_lossy(),
            other => other.to_string()?,
        };
        match gauge.get::<Value>(key)? {
            Value::Table(below) => match value {
                Value::Table(value) => {
                    let prefix = format!("{prefix}{name}.");
                    check_below(&value, &below, outermost, &prefix, depth + 1)?;
                }
                _ => {
                    let text = format!("Parameter \"{prefix}{name}\" must be a table.");
                    return Err(config_error_about(&name, text));
                }
            },
            known if truthy(&known) => {}
            _ => return Err(unknown(prefix, &name, &value, gauge, outermost)?),
        }
    }
    Ok(())
}

fn unknown(
    prefix: &str,
    name: &str,
    value: &Value,
    gauge: &Table,
    outermost: &Table,
) -> Result<mlua::Error> {
    let known: Vec<String> = gauge
        .pairs::<String, Value>()
        .flatten()
        .filter(|(_, value)| truthy(value))
        .map(|(key, _)| key)
        .collect();
    let mut text = format!(
        "Parameter \"{prefix}{name}\" unknown. ( if this is not a typo add it to checkgauge )"
    );
    if let Some(advice) = advice_for_item(prefix, name, value, gauge)? {
        text.push_str(&advice);
    } else if let Some(advice) = advice_for_kind(prefix, name, value, outermost)? {
        text.push_str(&advice);
    } else if prefix == "ssh."
        && let Some(advice) = advice::advice(prefix, name, value, outermost)?
    {
        text.push_str(&advice);
    } else if let Some(similar) = nearest(name, known.iter().map(String::as_str)) {
        text.push_str(&format!(" Did you mean \"{prefix}{similar}\"?"));
    } else if prefix.is_empty() && name == "backup" && value.is_table() {
        text.push_str(" It is for default.rsync only.");
    } else if let Some(table) = elsewhere(name, outermost)?
        && prefix != format!("{table}.")
    {
        text.push_str(&format!(" It belongs in {table} = {{ ... }}."));
    } else if !prefix.is_empty() && truthy(&outermost.get(name)?) {
        text.push_str(" It belongs in sync{ ... } itself.");
    } else if let Some((_, advice)) = ADVICE_BY_KEY.iter().find(|(key, _)| *key == name) {
        text.push_str(&format!(" {advice}"));
    } else if let Some(kind) = kind_with(name) {
        text.push_str(&format!(
            " It requires a kind such as default.{kind} in sync{{ ... }}."
        ));
    } else if let Some(advice) = advice::advice(prefix, name, value, outermost)? {
        text.push_str(&advice);
    }
    Ok(config_error_about(name, text))
}

/// Returns a built-in kind with a key that syncs without a kind do not have.
fn kind_with(name: &str) -> Option<&'static str> {
    let key = find(SYNC, name).filter(|key| !key.kinds.has(Kinds::OWN))?;
    key.kinds.names().next()
}

/// Returns advice for a text in a table that lacks a key.
fn advice_for_item(
    prefix: &str,
    name: &str,
    value: &Value,
    gauge: &Table,
) -> Result<Option<String>> {
    let (Ok(_), Some(item)) = (name.parse::<i64>(), text_of(value)) else {
        return Ok(None);
    };
    let shown = escape(&item).into_owned();
    let option = shown.trim_start_matches('-').replace('-', "_");
    let kind = shown.strip_prefix("default.").unwrap_or(&shown);
    Ok(Some(
        if prefix.is_empty() && Kinds::BUILT_IN.iter().any(|(_, name)| *name == kind) {
            format!(" Write default.{kind} without quotes.")
        } else if gauge.get::<Value>(option.as_str())? == Value::Boolean(true) {
            format!(" Write {option} = true instead of \"{shown}\".")
        } else if prefix.is_empty() {
            format!(
                " \"{shown}\" has no key; several targets are written targets = {{ \"...\", \
                 \"...\" }}."
            )
        } else {
            let table = prefix.trim_end_matches('.');
            format!(" \"{shown}\" in {table} has no key.")
        },
    ))
}

/// Returns advice for a key that the sync's kind does not have.
fn advice_for_kind(
    prefix: &str,
    name: &str,
    value: &Value,
    gauge: &Table,
) -> Result<Option<String>> {
    if !prefix.is_empty() {
        return Ok(None);
    }
    if name == "target" && truthy(&gauge.get("targetdir")?) {
        let target = text_of(value).unwrap_or_default();
        let target = escape(&target);
        return Ok(Some(match target.split_once(':') {
            Some((host, directory)) if is_ssh_target(host, directory) => {
                format!(" Write host = \"{host}\", targetdir = \"{directory}\" instead of target.")
            }
            _ => " Write host = \"HOST\", targetdir = \"DIRECTORY\" instead; \
                  default.rsync and default.direct have target."
                .to_owned(),
        }));
    }
    let is_action = name.starts_with("on") && gauge.get::<Value>(name)? == Value::Boolean(false);
    Ok(is_action.then(|| {
        format!(
            " The kind of this sync processes changes itself; {name} needs a sync of its own, \
             without a kind such as default.rsync. To run a command after each transfer, use \
             onSynced."
        )
    }))
}

/// Returns true for the two parts of `HOST:DIRECTORY`, and false for those of `HOST::MODULE` and
/// of `rsync://HOST/MODULE`.
fn is_ssh_target(host: &str, directory: &str) -> bool {
    let is_host = !host.is_empty() && !host.contains('/');
    is_host && !directory.is_empty() && !directory.starts_with(':') && !directory.starts_with("//")
}

/// Returns the nested table of a sync in which this key is valid.
fn elsewhere(name: &str, outermost: &Table) -> Result<Option<&'static str>> {
    for table in ["rsync", "ssh"] {
        if let Value::Table(below) = outermost.get(table)?
            && truthy(&below.get(name)?)
        {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(config: &str) -> String {
        let lua = crate::sys::lua();
        let gauge = "{ delay = true, onMove = false, rsync = { bwlimit = true } }";
        let gauge = lua.load(gauge).eval().unwrap();
        match check(&lua.load(config).eval().unwrap(), &gauge) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn known_keys_pass() {
        assert_eq!(checked("{ delay = 5, rsync = { bwlimit = 1 } }"), "");
    }

    #[test]
    fn unknown_keys_are_named_with_a_suggestion() {
        let text = checked("{ rsync = { bwlimt = 1 } }");
        assert!(text.contains(
            "Parameter \"rsync.bwlimt\" unknown. ( if this is not a typo add it to checkgauge )"
        ));
        assert!(text.contains("Did you mean \"rsync.bwlimit\"?"));
        assert!(checked("{ bwlimit = 1 }").ends_with("It belongs in rsync = { ... }."));
        assert!(checked("{ rsync = { delay = 1 } }").ends_with("in sync{ ... } itself."));
        assert!(checked("{ xargs = 1 }").ends_with("It is not needed any more."));
        assert!(checked("{ onMove = 1 }").contains("\"onMove\" unknown"));
        assert!(checked("{ 'x' }").contains("\"1\" unknown"));
    }

    #[test]
    fn items_without_a_key_are_quoted_with_what_to_write() {
        let said = |config: &str, part: &str| {
            let text = checked(config);
            assert!(text.contains(part), "{config}: {text}");
        };
        said("{ 'rsync' }", "Write default.rsync without quotes.");
        said(
            "{ 'default.direct' }",
            "Write default.direct without quotes.",
        );
        said("{ 'b::m' }", "\"b::m\" has no key; several targets");
        said(
            "{ rsync = { 'bwlimit' } }",
            "Write bwlimit = true instead of",
        );
        said(
            "{ rsync = { '--bwlimit' } }",
            "Write bwlimit = true instead of",
        );
        said("{ rsync = { '-x' } }", "\"-x\" in rsync has no key.");
    }

    #[test]
    fn the_target_of_rsyncssh_is_taken_apart() {
        let lua = crate::sys::lua();
        let gauge: Table = lua
            .load("{ target = false, targets = true, host = true, targetdir = true, onCreate = false }")
            .eval()
            .unwrap();
        let said = |config: &str, part: &str| {
            let config: Table = lua.load(config).eval().unwrap();
            let text = check(&config, &gauge).unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        };
        said(
            "{ target = 'u@web2:/srv/x' }",
            "Write host = \"u@web2\", targetdir = \"/srv/x\" instead of target.",
        );
        let general = "Write host = \"HOST\", targetdir = \"DIRECTORY\" instead;";
        for target in [
            "'/srv/x'",
            "'h::m'",
            "'rsync://h/m'",
            "'./a:b'",
            "{ }",
            "'h:'",
        ] {
            said(&format!("{{ target = {target} }}"), general);
        }
        said("{ onCreate = 'x' }", "onCreate needs a sync of its own,");
    }

    #[test]
    fn a_table_must_be_one() {
        assert!(checked("{ rsync = '-a' }").contains("Parameter \"rsync\" must be a table."));
    }
}
