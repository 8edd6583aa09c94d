//! What to write in place of a key that a sync does not know, where no known key is similar.

use mlua::{Result, Table, Value};

use super::{SETTINGS, find};
use crate::config::{text_of, truthy};
use crate::log::escape;

/// Keys of other programs, with the corresponding keys of a sync.
const SYNONYMS: &[(&str, &str)] = &[
    ("dest", "target"),
    ("destination", "target"),
    ("dst", "target"),
    ("from", "source"),
    ("ignore", "exclude"),
    ("path", "source"),
    ("src", "source"),
    ("to", "target"),
];

/// Returns the advice with a blank in front. `prefix` is `rsync.` for keys in `rsync = { ... }`.
///
/// # Errors
/// None but Lua's own.
pub fn advice(prefix: &str, name: &str, value: &Value, gauge: &Table) -> Result<Option<String>> {
    Ok(match prefix {
        "ssh." => for_ssh(name, value),
        "rsync." => for_rsync(name, value),
        "" => for_sync(name, value, gauge)?,
        _ => None,
    })
}

/// Keys of `ssh = { ... }` in a sync of default.rsync.
fn for_ssh(name: &str, value: &Value) -> Option<String> {
    let options = match name {
        "port" => format!(" -p {}", shown(value, "PORT")),
        "identityFile" => format!(" -i {}", shown(value, "FILE")),
        "options" | "_extra" | "binary" => " OPTIONS".to_owned(),
        _ => return None,
    };
    Some(format!(
        " It is for default.rsyncssh; with default.rsync write rsync = {{ rsh = \"ssh{options}\" \
         }}."
    ))
}

/// Options of rsync that have no key.
fn for_rsync(name: &str, value: &Value) -> Option<String> {
    let is_option = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.len() < 2 || !name.chars().all(is_option) || name.starts_with('_') {
        return None;
    }
    Some(match name {
        "password" => " Write password_file = \"FILE\", with the password in that file.".into(),
        "port" => format!(
            " Write rsh = \"ssh -p {port}\", or for an rsync daemon _extra = {{ \"--port={port}\" \
             }}.",
            port = shown(value, "PORT")
        ),
        _ => {
            let option = name.replace('_', "-");
            let value = match value {
                Value::Boolean(_) => String::new(),
                value => format!("={}", shown(value, "VALUE")),
            };
            format!(" Options without a key are written _extra = {{ \"--{option}{value}\" }}.")
        }
    })
}

fn for_sync(name: &str, value: &Value, gauge: &Table) -> Result<Option<String>> {
    if let Some((_, known)) = SYNONYMS.iter().find(|(word, _)| *word == name)
        && truthy(&gauge.get(*known)?)
    {
        return Ok(Some(format!(" Write {known} = ... instead.")));
    }
    if find(SETTINGS, name).is_some() {
        return Ok(Some(" It belongs in settings{ ... }.".into()));
    }
    if ["kind", "layer", "type"].contains(&name) {
        let text = " The kind is written without a key: sync{ default.rsync, ... }.";
        return Ok(Some(text.into()));
    }
    if !truthy(&gauge.get("rsync")?) {
        return Ok(None);
    }
    Ok(match name {
        "port" => Some(format!(
            " Write rsync = {{ rsh = \"ssh -p {}\" }}, or ssh = {{ port = ... }} with \
             default.rsyncssh.",
            shown(value, "PORT")
        )),
        "user" | "username" => Some(" Write USER@HOST where the host is named.".into()),
        "password" => Some(
            " Write rsync = { password_file = \"FILE\" } for an rsync daemon; ssh needs a key."
                .into(),
        ),
        _ => None,
    })
}

fn shown(value: &Value, otherwise: &str) -> String {
    text_of(value).map_or_else(|| otherwise.to_owned(), |text| escape(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_have_their_remedy() {
        let lua = crate::sys::lua();
        let gauge: Table = lua
            .load("{ source = true, target = true, exclude = true, rsync = { }, ssh = { } }")
            .eval()
            .unwrap();
        for (prefix, name, value, part) in [
            ("", "src", "'/x'", "Write source = ..."),
            ("", "destination", "'/x'", "Write target = ..."),
            ("", "logfile", "'/x'", "in settings{ ... }"),
            ("", "insist", "true", "in settings{ ... }"),
            ("", "port", "22", "rsh = \"ssh -p 22\""),
            ("", "user", "'me'", "USER@HOST"),
            ("", "kind", "{ }", "sync{ default.rsync, ... }"),
            ("ssh.", "port", "2222", "rsync = { rsh = \"ssh -p 2222\" }"),
            ("ssh.", "identityFile", "'/k'", "rsh = \"ssh -i /k\""),
            ("ssh.", "options", "{ }", "rsh = \"ssh OPTIONS\""),
            ("rsync.", "partial", "true", "_extra = { \"--partial\" }"),
            ("rsync.", "compress_level", "9", "\"--compress-level=9\""),
            ("rsync.", "port", "873", "\"--port=873\""),
            ("rsync.", "password", "'x'", "password_file"),
            ("", "foo", "1", ""),
            ("rsync.", "1", "'-a'", ""),
            ("rsync.", "_computed", "{ }", ""),
            ("check.", "clam", "1", ""),
        ] {
            let value: Value = lua.load(value).eval().unwrap();
            let said = advice(prefix, name, &value, &gauge)
                .unwrap()
                .unwrap_or_default();
            assert!(said.contains(part), "{prefix}{name}: {said}");
            assert_eq!(said.is_empty(), part.is_empty(), "{prefix}{name}: {said}");
        }
        // A user-defined kind has no keys for hosts.
        let own: Table = lua.load("{ source = true }").eval().unwrap();
        for name in ["port", "user", "dest"] {
            assert_eq!(advice("", name, &Value::Nil, &own).unwrap(), None, "{name}");
        }
    }
}
