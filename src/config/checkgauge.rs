//! Every key of a sync is compared with a gauge of known ones, so that a misspelt key is told
//! at the start instead of being ignored for years.

use mlua::{Result, Table, Value};

use super::complaint::{complaint, complaint_about};
use super::{nearest, truthy};

/// Compares `config` with its gauge: a true value knows the key, a table is the gauge of a
/// table, all else means unknown.
///
/// # Errors
/// lsyncd's text for the first wrong key, with the most similar known key where there is one.
pub fn check(config: &Table, gauge: &Table) -> Result<()> {
    check_below(config, gauge, gauge, "", 0)
}

/// Keys of lsyncd 2.0 and keys that only another kind has, and what to write instead.
const ADVICE: &[(&str, &str)] = &[
    (
        "rsyncOps",
        "Write rsync = { ... }, with other options as a list in rsync._extra.",
    ),
    (
        "rsyncOpts",
        "Write rsync = { ... }, with other options as a list in rsync._extra.",
    ),
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

/// Tables nested deeper than this hold themselves.
const DEPTH: usize = 64;

fn check_below(
    config: &Table,
    gauge: &Table,
    outermost: &Table,
    prefix: &str,
    depth: usize,
) -> Result<()> {
    if depth > DEPTH {
        return Err(complaint("a table of the configuration contains itself"));
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
                    return Err(complaint_about(&name, text));
                }
            },
            known if truthy(&known) => {}
            _ => return Err(unknown(prefix, &name, gauge, outermost)?),
        }
    }
    Ok(())
}

fn unknown(prefix: &str, name: &str, gauge: &Table, outermost: &Table) -> Result<mlua::Error> {
    let known: Vec<String> = gauge
        .pairs::<String, Value>()
        .flatten()
        .filter(|(_, value)| truthy(value))
        .map(|(key, _)| key)
        .collect();
    let mut text = format!(
        "Parameter \"{prefix}{name}\" unknown. ( if this is not a typo add it to checkgauge )"
    );
    if let Some(similar) = nearest(name, known.iter().map(String::as_str)) {
        text.push_str(&format!(" Did you mean \"{prefix}{similar}\"?"));
    } else if let Some(table) = elsewhere(name, outermost)?
        && prefix != format!("{table}.")
    {
        text.push_str(&format!(" It belongs into {table} = {{ ... }}."));
    } else if !prefix.is_empty() && truthy(&outermost.get(name)?) {
        text.push_str(" It belongs into sync{ ... } itself.");
    } else if let Some((_, advice)) = ADVICE.iter().find(|(key, _)| *key == name) {
        text.push_str(&format!(" {advice}"));
    }
    Ok(complaint_about(name, text))
}

/// The table of a sync that knows this key.
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
        assert!(checked("{ bwlimit = 1 }").ends_with("It belongs into rsync = { ... }."));
        assert!(checked("{ rsync = { delay = 1 } }").ends_with("into sync{ ... } itself."));
        assert!(checked("{ xargs = 1 }").ends_with("It is not needed any more."));
        assert!(checked("{ onMove = 1 }").contains("\"onMove\" unknown"));
        assert!(checked("{ 'x' }").contains("\"1\" unknown"));
    }

    #[test]
    fn a_table_must_be_one() {
        assert!(checked("{ rsync = '-a' }").contains("Parameter \"rsync\" must be a table."));
    }
}
