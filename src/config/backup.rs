//! `backup = { … }`: replaced and deleted files are kept in dated directories.

use mlua::{Result, Table, Value};

use super::config_error::config_error_about;
use super::keys::{self, BACKUP};
use super::rsync_args::has_extra;
use super::{target, text_of, truthy};
use crate::batch;

/// The field of a prepared configuration whose transfers keep backups.
const FIELD: &str = "_backup";

/// The directory of backups, and their maximum age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The directory as rsync gets it, without a trailing slash.
    pub dir: Vec<u8>,
    /// The number of days after which they are removed; `None` for never.
    pub keep: Option<u32>,
}

impl Backup {
    /// Returns the directory in rsync's form, for a target in the same form.
    pub fn directory(&self, target: &[u8]) -> Vec<u8> {
        match (self.dir.starts_with(b"/"), batch::is_remote(target)) {
            (true, true) => [split_remote(target).0, &self.dir].concat(),
            (true, false) => self.dir.clone(),
            (false, _) if target.ends_with(b":") => [target, &self.dir].concat(),
            (false, _) => [with_slash(target.to_vec()), self.dir.clone()].concat(),
        }
    }
}

/// Returns the backups of a sync whose transfers keep them.
///
/// # Errors
///
/// An invalid key or value.
pub fn backup(config: &Table) -> Result<Option<Backup>> {
    if truthy(&config.get(FIELD)?) {
        read(config)
    } else {
        Ok(None)
    }
}

/// Returns the options of rsync that keep backups, and marks the configuration. The directory of a
/// transfer is added when it starts.
///
/// # Errors
///
/// An invalid key or value, or options of rsync that have the same purpose.
pub fn words(config: &Table) -> Result<Vec<Vec<u8>>> {
    let Some(backup) = read(config)? else {
        return Ok(Vec::new());
    };
    if let Value::Table(rsync) = config.get("rsync")? {
        refuse_own_options(&rsync)?;
    }
    config.set(FIELD, true)?;
    let dir = [b"--backup-dir=", &backup.dir[..]].concat();
    Ok(vec![b"--backup".to_vec(), dir])
}

/// Returns the rule that excludes the directory if it is in the target: it is neither deleted nor
/// overwritten.
///
/// # Errors
///
/// The directory cannot be used with this target.
pub fn exclusion(config: &Table, source: &[u8]) -> Result<Option<Vec<u8>>> {
    let Some(backup) = backup(config)? else {
        return Ok(None);
    };
    let given = target::destination(config)?.unwrap_or_default();
    let Some(inside) = place(&backup.dir, &given, source)? else {
        return Ok(None);
    };
    if let Value::Table(rsync) = config.get("rsync")?
        && (truthy(&rsync.get("delete_excluded")?) || has_extra(&rsync, &["delete-excluded"], b"")?)
    {
        let text = "deletes excluded files, and with them the backups in the target. Write a \
                    backup.dir outside of the target.";
        return Err(config_error_about("dir", format!("delete_excluded {text}")));
    }
    let escaped = inside.iter().flat_map(|&byte| {
        let is_special = matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\');
        is_special.then_some(b'\\').into_iter().chain([byte])
    });
    // Without a wildcard, a backslash is an ordinary character.
    let has_wildcard = inside.iter().any(|byte| b"*?[".contains(byte));
    let pattern: Vec<u8> = if has_wildcard {
        escaped.collect()
    } else {
        inside
    };
    Ok(Some([b"- /", &pattern[..], b"/"].concat()))
}

/// Returns the directory relative to the target if it is in it.
fn place(dir: &[u8], target: &[u8], source: &[u8]) -> Result<Option<Vec<u8>>> {
    if !dir.starts_with(b"/") {
        return Ok(Some(dir.to_vec()));
    }
    let (root, dir) = if batch::is_remote(target) {
        let (_, path) = split_remote(target);
        if !path.starts_with(b"/") {
            return Err(wrong(
                "must be relative to the target, since the target is relative to the home directory \
                 of the user on the target host.",
            ));
        }
        (with_slash(path), with_slash(dir.to_vec()))
    } else {
        (target::resolved_soon(target), target::resolved_soon(dir))
    };
    if !batch::is_remote(target) && (dir.starts_with(source) || source.starts_with(&dir)) {
        return Err(wrong("must not be in the source, or contain it."));
    }
    if root.starts_with(&dir) {
        return Err(wrong("must not be the target, or contain it."));
    }
    let inside = dir.strip_prefix(&root[..]);
    Ok(inside.map(|inside| inside.strip_suffix(b"/").unwrap_or(inside).to_vec()))
}

/// Splits a remote target behind the host or the module; absolute paths of a daemon begin there.
fn split_remote(target: &[u8]) -> (&[u8], Vec<u8>) {
    let slash = |from: usize| {
        let found = target[from..].iter().position(|&byte| byte == b'/');
        found.map_or(target.len(), |found| from + found)
    };
    let of_module = |end: usize| {
        let path = target[end..].to_vec();
        (
            &target[..end],
            if path.is_empty() { b"/".to_vec() } else { path },
        )
    };
    if target.starts_with(b"rsync://") {
        let host = slash(b"rsync://".len());
        return of_module(slash((host + 1).min(target.len())));
    }
    let is_colon = |&byte: &u8| byte == b':';
    // A numeric address of IPv6 is in brackets.
    let bracket = target
        .iter()
        .position(|&byte| byte == b']')
        .filter(|_| target.contains(&b'['));
    let host = bracket.unwrap_or_default();
    let colon = target[host..]
        .iter()
        .position(is_colon)
        .map_or(target.len(), |at| host + at);
    if target[colon..].starts_with(b"::") {
        return of_module(slash(colon));
    }
    let path = (colon + 1).min(target.len());
    (&target[..path], target[path..].to_vec())
}

fn with_slash(mut path: Vec<u8>) -> Vec<u8> {
    crate::paths::push_slash(&mut path);
    path
}

fn read(config: &Table) -> Result<Option<Backup>> {
    let table = match config.get("backup")? {
        Value::Nil | Value::Boolean(false) => return Ok(None),
        Value::Table(table) => table,
        _ => {
            let text = "backup must be a table such as { dir = \"/backup/old\", keep = \"30d\" }.";
            return Err(config_error_about("backup", text));
        }
    };
    for pair in table.pairs::<Value, Value>() {
        let name = text_of(&pair?.0).unwrap_or_default();
        let name = String::from_utf8_lossy(&name).into_owned();
        if let Some(text) = keys::unknown(BACKUP, "backup.", &name) {
            return Err(config_error_about(&name, text));
        }
    }
    let dir = text_of(&table.get("dir")?).unwrap_or_default();
    let dir = dir.strip_suffix(b"/").unwrap_or(&dir).to_vec();
    let mut names = dir
        .strip_prefix(b"/")
        .unwrap_or(&dir)
        .split(|&byte| byte == b'/');
    if dir.is_empty() || dir.contains(&0) {
        return Err(wrong("must be the name of a directory."));
    }
    if names.any(|name| matches!(name, b"" | b"." | b"..")) {
        return Err(wrong(
            "must be absolute, or relative to the target and in it, without \"..\".",
        ));
    }
    Ok(Some(Backup {
        dir,
        keep: keep(&table.get("keep")?)?,
    }))
}

/// Reads a number of days: `"30d"` or `"4w"`.
fn keep(value: &Value) -> Result<Option<u32>> {
    if !truthy(value) {
        return Ok(None);
    }
    let days = || {
        let text = String::from_utf8(text_of(value)?).ok()?;
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let number: u32 = number.parse().ok()?;
        let days = match unit {
            "d" => number,
            "w" => number.checked_mul(7)?,
            _ => return None,
        };
        (1..=MAX_DAYS).contains(&days).then_some(days)
    };
    match days() {
        Some(days) => Ok(Some(days)),
        None => Err(config_error_about(
            "keep",
            format!(
                "backup.keep must be a number of days or weeks such as \"30d\" or \"4w\", at most \
                 {MAX_DAYS} days."
            ),
        )),
    }
}

/// The maximum number of days. The calls that remove old backups name each day that is kept.
const MAX_DAYS: u32 = 3650;

fn refuse_own_options(rsync: &Table) -> Result<()> {
    for key in ["backup", "backup_dir", "suffix"] {
        if truthy(&rsync.get(key)?) {
            let text = format!("rsync.{key} and backup = {{ ... }} exclude each other.");
            return Err(config_error_about(key, text));
        }
    }
    if has_extra(rsync, &["backup", "backup-dir", "suffix"], b"b")? {
        let text = "rsync._extra has an option of backups, and so has backup = { ... }. \
                    Remove one of them.";
        return Err(config_error_about("_extra", text));
    }
    Ok(())
}

fn wrong(why: &str) -> mlua::Error {
    config_error_about("dir", format!("backup.dir {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(keys: &str) -> std::result::Result<(Option<Backup>, Option<String>), String> {
        let lua = crate::sys::lua();
        let config: Table = lua.load(format!("{{ {keys} }}")).eval().unwrap();
        let read = || {
            words(&config)?;
            let rule = exclusion(&config, b"/src/")?;
            let rule = rule.map(|rule| String::from_utf8_lossy(&rule).into_owned());
            Ok((backup(&config)?, rule))
        };
        read().map_err(|error: mlua::Error| error.to_string())
    }

    #[test]
    fn a_directory_in_the_target_is_excluded() {
        for (target, dir, rule) in [
            ("/trg/", ".old", Some("- /.old/")),
            ("/trg/", "/trg/a/old/", Some("- /a/old/")),
            ("/trg/", "/trg/a*[", Some("- /a\\*\\[/")),
            ("/trg/", "/trgs/old", None),
            ("h:/trg/", "/trg/old", Some("- /old/")),
            ("u@h:/trg", "/old", None),
            ("u@[::1]:/trg/", "/trg/old", Some("- /old/")),
            ("h:", ".old", Some("- /.old/")),
            ("h::m/www/", "/www/old", Some("- /old/")),
            ("h::m/www/", "/old", None),
            ("rsync://h/m/www/", "/www/old", Some("- /old/")),
        ] {
            let keys = format!("target = '{target}', backup = {{ dir = '{dir}', keep = '2w' }}");
            let (backup, excluded) = of(&keys).unwrap();
            assert_eq!(excluded.as_deref(), rule, "{target} {dir}");
            assert_eq!(backup.unwrap().keep, Some(14));
        }
        assert_eq!(of("target = '/trg/'").unwrap(), (None, None));
    }

    #[test]
    fn the_directory_is_named_as_rsync_names_it() {
        for (dir, target, expected) in [
            ("/old", "/trg/", "/old"),
            (".old", "/trg/", "/trg/.old"),
            ("/old", "u@h:/trg/", "u@h:/old"),
            (".old", "h:www/", "h:www/.old"),
            (".old", "h:", "h:.old"),
            ("/old", "u@[fe80::1]:/trg", "u@[fe80::1]:/old"),
            ("/old", "h::m", "h::m/old"),
            (".old", "h::m/www/", "h::m/www/.old"),
            ("/old", "rsync://u@h:873/m/www/", "rsync://u@h:873/m/old"),
            (".old", "rsync://h/m", "rsync://h/m/.old"),
        ] {
            let backup = Backup {
                dir: dir.into(),
                keep: None,
            };
            let directory = backup.directory(target.as_bytes());
            assert_eq!(
                String::from_utf8_lossy(&directory),
                expected,
                "{dir} {target}"
            );
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let dir =
            |target: &str, dir: &str| format!("target = '{target}', backup = {{ dir = '{dir}' }}");
        let more = |more: &str| format!("target = '/trg/', backup = {{ dir = '/old' }}, {more}");
        for (keys, text) in [
            (dir("/trg/", "/trg"), "must not be the target"),
            (dir("/trg/x/", "/trg"), "or contain it"),
            (dir("h::m/", "/"), "must be the name of a directory"),
            (dir("/trg/", "/src/old"), "must not be in the source"),
            (dir("/trg/", "../old"), "without \"..\""),
            (dir("/trg/", "a//b"), "without \"..\""),
            (dir("/trg/", ""), "must be the name"),
            (
                dir("h:www/", "/home/u/www/old"),
                "must be relative to the target",
            ),
            (more("rsync = { backup = true }"), "exclude each other"),
            (
                more("rsync = { _extra = { '--backup-dir=x' } }"),
                "rsync._extra has an option",
            ),
            (
                dir("/trg/", "x") + ", rsync = { delete_excluded = true }",
                "delete_excluded deletes",
            ),
            (
                "backup = { dir = 'x', keep = 30 }".into(),
                "such as \"30d\"",
            ),
            (
                "backup = { dir = 'x', keep = '0d' }".into(),
                "such as \"30d\"",
            ),
            (
                "backup = { dir = 'x', kep = '1d' }".into(),
                "Did you mean \"backup.keep\"?",
            ),
            ("backup = true".into(), "must be a table"),
        ] {
            let error = of(&keys).unwrap_err();
            assert!(error.contains(text), "{keys}: {error}");
        }
    }
}
