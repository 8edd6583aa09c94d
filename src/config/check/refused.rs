//! Refuses options and paths that conflict with `check`: options of rsync that send other data than
//! the staged tree, and directories that contain each other.

use mlua::{Result, Table, Value};

use crate::batch;
use crate::config::target::resolved_soon;
use crate::config::{config_error_about, text_of, truthy};
use crate::log;
use crate::paths;
use crate::rsync_syntax::{self, RsyncArg};

/// Keys of rsync options that send, or create on the target, other data than the staged tree.
const UNCHECKED_KEYS: [&str; 7] = [
    "append",
    "append_verify",
    "copy_links",
    "copy_unsafe_links",
    "copy_dirlinks",
    "hard_links",
    "one_file_system",
];

/// The same options as words in `_extra`.
const UNCHECKED_OPTIONS: [&str; 12] = [
    "append",
    "append-verify",
    "copy-links",
    "copy-unsafe-links",
    "copy-dirlinks",
    "copy-devices",
    "hard-links",
    "one-file-system",
    "files-from",
    "remove-source-files",
    "remove-sent-files",
    "read-batch",
];

/// Checks the paths of staging and quarantine.
///
/// # Errors
///
/// `staging` (if it is given) or `quarantine` overlaps with the source, the target or the other
/// one.
pub fn places(config: &Table, staging: Option<&[u8]>, quarantine: Option<&[u8]>) -> Result<()> {
    let text = |key: &str| Ok::<_, mlua::Error>(text_of(&config.get(key)?));
    let source = text("source")?.unwrap_or_default();
    let is_in = |place: &[u8], other: &[u8]| paths::with_slash(place).starts_with(other);
    for (place, key) in [(staging, "staging"), (quarantine, "quarantine")] {
        if place.is_some_and(|place| is_in(place, &source)) {
            let text = format!("check.{key} must not be inside the source");
            return Err(wrong(key, text));
        }
    }
    let Some(staging) = staging else {
        return Ok(());
    };
    let within = paths::with_slash(staging);
    if source.starts_with(&within) {
        return Err(wrong(
            "staging",
            "check.staging must not contain the source",
        ));
    }
    if quarantine.is_some_and(|place| is_in(place, &within)) {
        let text = "check.quarantine must not be inside check.staging";
        return Err(wrong("quarantine", text));
    }
    let target = text("target")?.filter(|target| !batch::is_remote(target));
    let target = target.map(|target| resolved_soon(&target));
    if target.is_some_and(|target| is_in(staging, &target) || target.starts_with(&within)) {
        let text = "check.staging and the target must not contain each other";
        return Err(wrong("staging", text));
    }
    Ok(())
}

/// Checks the options of rsync.
///
/// # Errors
///
/// An option bypasses the checks.
pub fn options(config: &Table) -> Result<()> {
    if let Value::Table(startup) = config.get("startup")? {
        options(&startup)?;
    }
    let Value::Table(rsync) = config.get("rsync")? else {
        return Ok(());
    };
    for key in UNCHECKED_KEYS {
        if truthy(&rsync.get(key)?) {
            let text =
                format!("rsync.{key} cannot be combined with check, which sends staged copies");
            return Err(wrong(key, text));
        }
    }
    let extra = match rsync.get("_extra")? {
        Value::Table(list) => list.sequence_values::<Value>().flatten().collect(),
        Value::Nil => Vec::new(),
        value => vec![value],
    };
    let words: Vec<Vec<u8>> = extra.iter().filter_map(text_of).collect();
    let mut args = rsync_syntax::parse(&words);
    let refused = args.find(|(arg, _)| match arg {
        RsyncArg::Long { name, .. } => rsync_syntax::is_in(&UNCHECKED_OPTIONS, name),
        RsyncArg::Letters { flags, .. } => flags.iter().any(|flag| b"LkHx".contains(flag)),
        RsyncArg::Operand(_) => true,
    });
    let Some((_, own)) = refused else {
        return Ok(());
    };
    let word = log::escape(&own[0]);
    let text = format!("\"{word}\" in rsync._extra cannot be combined with check");
    Err(wrong("_extra", text))
}

/// Returns the error for one key.
pub fn wrong(key: &str, text: impl Into<String>) -> mlua::Error {
    config_error_about(key, text.into())
}
