//! Warnings about valid but dubious syncs: ineffective values, patterns without a match, missing
//! actions.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mlua::{Lua, Result, Table, Value};

use crate::batch;
use crate::config::keys::{self, Kinds, ValueType};
use crate::config::{self, SyncConfig, config_error, config_error_about, kind_of, text_of, truthy};
use crate::filter::Filter;
use crate::log;
use crate::mount_table::{self, shared_kind};
use crate::rsync_syntax;
use crate::script::{errors, layer3};
use crate::spelling;

/// Warns of values that lsyncd accepts and that have no effect with a built-in action.
///
/// # Errors
///
/// Errors of Lua only.
pub fn warn_of_values(lua: &Lua, config: &Table) -> Result<()> {
    if is_built_in(lua, config, "collect")? {
        for error in config::unknown_results(config)? {
            log::warn(errors::message(lua, &error));
        }
    }
    if !is_built_in(lua, config, "action")? {
        return Ok(());
    }
    let warn = |key: &str, text: String| {
        log::warn(errors::message(lua, &config_error_about(key, text)));
    };
    let delete: Value = config.get("delete")?;
    if !config::is_delete(&delete) {
        let shown = match text_of(&delete) {
            Some(text) => format!("\"{}\"", log::escape(&text)),
            None => kind_of(&delete).to_owned(),
        };
        let known = "true, false, \"startup\" or \"running\"";
        let text = format!("delete must be {known}, not {shown}: nothing is deleted");
        warn("delete", text);
    }
    if deletes_anyway(config)? {
        let text = "full comparisons delete everything that is not in the source: rsync's \
                    --delete-excluded implies --delete; remove it, or set delete = true";
        warn("delete_excluded", text.to_owned());
    }
    let host = text_of(&config.get("host")?).unwrap_or_default();
    if origin(lua, config, "action")? == Origin::Kind("rsyncssh") && host.contains(&b'/') {
        let text = format!(
            "host = \"{}\" is not the name of a host; write the directory in targetdir",
            log::escape(&host)
        );
        warn("host", text);
    }
    if let Value::Table(options) = config.get("rsync")? {
        for pair in options.pairs::<Value, Value>() {
            let (key, value) = pair?;
            let (key, value) = (text_of(&key), text_of(&value));
            let (Some(key), Some(value)) = (key, value) else {
                continue;
            };
            let is_no = ["no", "false", "off", "0"]
                .map(str::as_bytes)
                .contains(&&*value);
            if is_no && is_switch_of_rsync(&key) {
                let (key, value) = (log::escape(&key), log::escape(&value));
                let text = format!("{key} is true for the text \"{value}\"; write {key} = false");
                warn(&key, text);
            }
        }
    }
    for table in ["rsync", "ssh"] {
        if let Value::Table(options) = config.get(table)?
            && let Value::String(text) = options.get("_extra")?
        {
            let text = log::escape(&text.as_bytes()).into_owned();
            let text = format!(
                "{table}._extra is a text and has no effect; write _extra = {{ \"{text}\" }}, \
                 with a text for each word"
            );
            warn("_extra", text);
        }
    }
    if let Value::Table(options) = config.get("rsync")?
        && let Value::Table(extra) = options.get("_extra")?
    {
        let words = extra.sequence_values::<Value>();
        let words = words.map(|word| Ok(text_of(&word?)));
        let words: Vec<_> = words.flat_map(Result::transpose).collect::<Result<_>>()?;
        if rsync_syntax::without(&words, &["relative"], b"R") != words {
            let text = "with --relative (-R) in rsync._extra, rsync finds no changed path, and \
                        only full comparisons send; remove it, and write the path of the source \
                        at the end of the target";
            warn("_extra", text.to_owned());
        }
        for text in words {
            if is_two_words(&text) {
                let (shown, parts) = (log::escape(&text), text.split(|&byte| byte == b' '));
                let parts = parts.filter(|part| !part.is_empty());
                let parts = parts.map(|part| format!("\"{}\"", log::escape(part)));
                let parts = parts.collect::<Vec<_>>().join(", ");
                let text = format!(
                    "\"{shown}\" in rsync._extra is one word, which rsync does not know; \
                     write {parts}"
                );
                warn("_extra", text);
            }
        }
    }
    Ok(())
}

/// Returns true if full comparisons by rsync delete files although `delete` excludes it. As in
/// lsyncd, `delete_excluded` is passed regardless of `delete`.
fn deletes_anyway(config: &Table) -> Result<bool> {
    let Value::Table(rsync) = config.get("rsync")? else {
        return Ok(false);
    };
    let delete: Value = config.get("delete")?;
    let deletes = delete == Value::Boolean(true) || text_of(&delete).as_deref() == Some(b"startup");
    let copies = config.get::<Value>("_wants_rsync")? == Value::Boolean(false);
    Ok(!deletes && !copies && rsync.get::<Value>("delete_excluded")? == Value::Boolean(true))
}

/// Returns true for a key of `rsync = { … }` that is true or false.
fn is_switch_of_rsync(key: &[u8]) -> bool {
    let key = std::str::from_utf8(key).ok();
    let key = key.and_then(|key| keys::find(keys::RSYNC, key));
    key.is_some_and(|key| matches!(key.value, ValueType::Switch))
}

/// Returns true for options of rsync with a blank where none can be: a long one before its value,
/// or letters of which none has a value before more.
fn is_two_words(text: &[u8]) -> bool {
    let Some(blank) = text.iter().position(|&byte| byte == b' ') else {
        return false;
    };
    let (first, rest) = text.split_at(blank);
    let more = rest.iter().any(|&byte| byte != b' ');
    more && match first {
        [b'-', b'-', name @ ..] => !name.is_empty() && !name.contains(&b'='),
        [b'-', letters @ ..] => {
            let is_switch = |byte: &u8| byte.is_ascii_alphanumeric() && !b"BefTM".contains(byte);
            !letters.is_empty() && letters.iter().all(is_switch)
        }
        _ => false,
    }
}

/// Warns of patterns that cannot match anything.
pub fn warn_of_patterns(lua: &Lua, filter: &Filter, source: &[u8]) {
    let warn = |key: &str, pattern: &[u8]| {
        if let Some(advice) = crate::filter::suspicious(pattern, source) {
            let shown = log::escape(pattern);
            let text = format!("the pattern \"{shown}\" in {key}: {advice}");
            log::warn(errors::message(lua, &config_error_about(key, text)));
        }
    };
    for pattern in filter.excludes() {
        warn("exclude", pattern);
    }
    for rule in filter.rules() {
        if let Some(pattern) = rule.get(2..) {
            warn("filter", pattern);
        }
    }
}

/// Warns of a target that a shell would expand. A configuration does not, so it names a directory
/// below the working directory.
pub fn warn_of_target(lua: &Lua, sync: &SyncConfig, is_direct: bool) {
    let target = sync.target.as_deref().unwrap_or_default();
    // Only a suspicious target is looked at: its file system may not answer.
    let exists = || Path::new(OsStr::from_bytes(target)).exists();
    if is_direct && batch::is_remote(target) && !exists() {
        let text = format!(
            "default.direct copies on this host only, so {} is a directory of this host; use \
             default.rsync or default.rsyncssh for another host",
            log::escape(target)
        );
        log::warn(errors::message(lua, &config_error_about("target", text)));
    }
    if let Some(advice) = unexpanded(target).filter(|_| !batch::is_remote(target) && !exists()) {
        let text = format!("the target {}:{advice}", log::escape(target));
        log::warn(errors::message(lua, &config_error_about("target", text)));
    }
}

/// Returns advice on a path with `~` or a shell variable, beginning with a blank; `None` for other
/// paths.
pub fn unexpanded(path: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(path).ok()?;
    let advice = |what: &str, code: String| {
        format!(" {what} is not expanded in a configuration, write {code}")
    };
    if text == "~" || text.starts_with("~/") {
        let rest = text[1..].trim_end_matches('/');
        return Some(advice("\"~\"", joined("", "HOME", rest)));
    }
    let (before, rest) = text.split_once('$')?;
    let (name, after) = match rest.strip_prefix('{') {
        Some(inner) => inner.split_once('}')?,
        None => {
            let end = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
            rest.split_at(end.unwrap_or(rest.len()))
        }
    };
    let is_name = |c: char| c == '_' || c.is_ascii_alphanumeric();
    if name.is_empty()
        || name.starts_with(|c: char| c.is_ascii_digit())
        || !name.chars().all(is_name)
    {
        return None;
    }
    let after = after.trim_end_matches('/');
    Some(advice(&format!("\"${name}\""), joined(before, name, after)))
}

/// Returns the Lua expression of a path with an environment variable.
fn joined(before: &str, name: &str, after: &str) -> String {
    let before = match before {
        "" => String::new(),
        text => format!("\"{}\" .. ", log::escape(text.as_bytes())),
    };
    let after = match after {
        "" => String::new(),
        text => format!(" .. \"{}\"", log::escape(text.as_bytes())),
    };
    format!("{before}os.getenv(\"{name}\"){after}")
}

/// Warns of a source on a shared file system. The kernel does not report changes made by other
/// machines.
pub fn warn_of_file_system(lua: &Lua, sync: &SyncConfig) {
    let Some(kind) = shared_kind(&mount_table::read(), &sync.source) else {
        return;
    };
    if sync.crontab.is_empty() {
        let text = format!(
            "the source is on {kind}, where only changes by this host are reported; crontab = \
             \"...\" runs full comparisons at given times"
        );
        log::warn(errors::message(lua, &config_error_about("source", text)));
    }
}

/// Warns of a sync without any action.
pub fn warn_of_idleness(lua: &Lua, config: &Table) -> Result<()> {
    if is_idle(lua, config)? {
        let idle = config_error("the sync does nothing: it has no action, no on… and no default.…");
        log::warn(errors::message(lua, &idle));
    }
    Ok(())
}

/// Returns true for a sync without an action of its own. The default action calls the `on…`
/// functions; without any of them, the sync does nothing.
pub fn is_idle(lua: &Lua, config: &Table) -> Result<bool> {
    let default: Table = lua.globals().raw_get("default")?;
    for key in layer3::KEYS {
        if truthy(&config.get(key)?) {
            return Ok(false);
        }
    }
    for key in ["action", "init"] {
        if config.get::<Value>(key)? != default.raw_get::<Value>(key)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Refuses an unknown field of `default`, which would be nil and make a sync inherit nothing.
pub fn missing_default(default: &Table, key: &str) -> Result<()> {
    let known: Vec<String> = default
        .pairs::<String, Value>()
        .flatten()
        .map(|(key, _)| key)
        .collect();
    match spelling::nearest(key, known.iter().map(String::as_str)) {
        Some(known) => Err(config_error(format!(
            "default.{key} does not exist. Did you mean \"default.{known}\"?"
        ))),
        None => Ok(()),
    }
}

/// Whose function a sync has at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// That of `default`: for `action`, the one that calls the `on…` functions.
    Default,
    /// That of this built-in kind.
    Kind(&'static str),
    /// The user's, or none.
    User,
}

/// Returns whose function is at this key of a sync's configuration.
pub fn origin(lua: &Lua, config: &Table, key: &str) -> Result<Origin> {
    let function = config.get::<Value>(key)?;
    let default: Table = lua.globals().raw_get("default")?;
    if default.raw_get::<Value>(key)? == function {
        return Ok(Origin::Default);
    }
    for (_, name) in Kinds::BUILT_IN {
        if let Value::Table(kind) = default.raw_get(name)?
            && kind.raw_get::<Value>(key)? == function
        {
            return Ok(Origin::Kind(name));
        }
    }
    Ok(Origin::User)
}

/// Returns true if the function at this key is that of `default` or of one of the built-in kinds.
pub fn is_built_in(lua: &Lua, config: &Table, key: &str) -> Result<bool> {
    Ok(origin(lua, config, key)? != Origin::User)
}

#[cfg(test)]
mod tests {
    use super::{deletes_anyway, is_switch_of_rsync, is_two_words, unexpanded};
    use crate::script::test_setup::{Loaded, has};

    #[test]
    fn delete_excluded_deletes_regardless_of_delete() {
        let excluded = "rsync = { delete_excluded = true }";
        for (keys, expected) in [
            (format!("default.rsync, delete = false, {excluded}"), true),
            (
                format!("default.rsync, delete = 'running', {excluded}"),
                true,
            ),
            (
                format!("default.rsync, delete = 'startup', {excluded}"),
                false,
            ),
            (format!("default.rsync, {excluded}"), false),
            ("default.rsync, delete = false".to_owned(), false),
            (
                "default.rsync, delete = false, rsync = { _extra = { '--delete-excluded' } }"
                    .into(),
                true,
            ),
            (format!("default.direct, delete = false, {excluded}"), false),
            (
                "default.direct, delete = false, rsync = { delete_excluded = true, update = true }"
                    .into(),
                true,
            ),
        ] {
            let sync = Loaded::of(&format!(
                "sync{{ source = '@DIR@/src', target = '/trg', {keys} }}"
            ));
            let handle = sync.handle(0);
            assert_eq!(deletes_anyway(&handle.config).unwrap(), expected, "{keys}");
            // The request of the startup.
            if keys.starts_with("default.rsync") && expected {
                assert!(has(&sync.spawn().args, "--delete-excluded"), "{keys}");
            }
        }
    }

    #[test]
    fn options_with_a_blank_that_rsync_does_not_know() {
        for text in [
            "--bwlimit 9",
            "-p 22",
            "-e ssh",
            "--rsync-path  /x/rsync",
            "-ax --delete",
        ] {
            // The letter of a remote shell has its value behind it: `-e ssh` is one word.
            assert_eq!(is_two_words(text.as_bytes()), text != "-e ssh", "{text}");
        }
        for text in [
            "--rsh=ssh -p 22",
            "--delete",
            "-a",
            "-a ",
            "--delete ",
            "-- x",
            "- x",
            "--exclude=a b",
            "-f- *.tmp",
            "-fP *",
            "x y",
            "a",
            "",
            " ",
        ] {
            assert!(!is_two_words(text.as_bytes()), "{text}");
        }
        for (key, expected) in [
            ("links", true),
            ("bwlimit", false),
            ("_extra", false),
            ("x", false),
        ] {
            assert_eq!(is_switch_of_rsync(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn targets_that_a_shell_would_expand_get_a_hint() {
        for (path, code) in [
            ("~", "os.getenv(\"HOME\")"),
            ("~/src/", "os.getenv(\"HOME\") .. \"/src\""),
            ("$HOME/trg", "os.getenv(\"HOME\") .. \"/trg\""),
            ("/a/${X_1}/b", "\"/a/\" .. os.getenv(\"X_1\") .. \"/b\""),
            ("/a/$X", "\"/a/\" .. os.getenv(\"X\")"),
        ] {
            let said = unexpanded(path.as_bytes()).unwrap_or_default();
            assert!(said.ends_with(&format!("write {code}")), "{path}: {said}");
        }
        for path in [
            "/a/~", "~user/x", "/a/$", "/a/$1", "/a/${", "/a/${}", "/a/$-x", "a b",
        ] {
            assert_eq!(unexpanded(path.as_bytes()), None, "{path}");
        }
        assert_eq!(unexpanded(b"/\xff/$HOME"), None);
    }
}
