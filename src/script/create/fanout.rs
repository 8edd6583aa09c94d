//! Syncs of one source: sharing of journals, scopes and check gates, and targets from files.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use mlua::{Lua, Result, Table, Value};

use crate::config::{
    CheckConfig, SyncConfig, bare_config_error, config_error_about, text_of, truthy,
};
use crate::filter::Filter;
use crate::script::context::ScriptContext;
use crate::script::sync_handle::SyncHandle;
use crate::staging::Gate;
use crate::sync::{self, Sync};

/// Returns a text that is equal for syncs that include the same files. Returns `None` for syncs
/// with user functions, which may change the filter at run time, unless they come from one
/// `sync{}`.
pub fn files(
    config: &Table,
    typed: &SyncConfig,
    filter: &Filter,
    built_in: bool,
) -> Result<Option<Vec<u8>>> {
    let family = config.get::<Value>("_family")?;
    if !built_in && !truthy(&family) {
        return Ok(None);
    }
    let family = if built_in {
        Vec::new()
    } else {
        text_of(&family).unwrap_or_default()
    };
    let seen = format!("{} {}", typed.subdirs, typed.guard.on).into_bytes();
    let mut parts = vec![family, typed.source.clone(), seen];
    parts.extend(filter.rules());
    parts.push(Vec::new());
    parts.extend(filter.excludes().map(<[u8]>::to_vec));
    Ok(Some(parts.join(&0)))
}

/// Returns a text that is equal for syncs that may share a journal: those with equal [`files`] and
/// equal queue settings, and that agree whether a directory may be compared in place of changes in
/// it.
pub fn group(files: &[u8], typed: &SyncConfig) -> Vec<u8> {
    let keeps = typed.delete.keeps_others();
    let way = format!("{:?} {:?} {keeps}", typed.delay, typed.mode).into_bytes();
    [files, b"\0", &way].concat()
}

/// Lets a sync share the journal of an existing one, of this configuration or the previous one.
pub fn join(context: &ScriptContext, sync: &Rc<RefCell<Sync>>, group: Option<Vec<u8>>) {
    let like = |handle: &&Rc<SyncHandle>| {
        !Rc::ptr_eq(&handle.sync, sync) && {
            let other = handle.sync.borrow();
            other.journal_group() == group.as_deref() && !other.has_ended()
        }
    };
    if group.is_some() {
        let (syncs, before) = (context.syncs.borrow(), context.previous_syncs.borrow());
        if let Some(first) = syncs.iter().chain(before.iter()).find(like) {
            sync::share(&mut first.sync.borrow_mut(), &mut sync.borrow_mut());
        }
    }
    sync.borrow_mut().set_journal_group(group);
}

/// Lets a sync share the check gate of one with the same [`files`] and the same checks. Check
/// functions may differ after a reload.
///
/// # Errors
///
/// Another gate uses the same staging directory.
pub fn join_gate(context: &ScriptContext, sync: &mut Sync, files: Option<&[u8]>) -> Result<()> {
    let Some(check) = &sync.config.check else {
        return Ok(());
    };
    let key = files.map(|files| [files, b"\0", &check.sharing()].concat());
    let (syncs, before) = (context.syncs.borrow(), context.previous_syncs.borrow());
    let stay = before.iter().filter(|_| check.rules().is_some());
    let like = |handle: &&Rc<SyncHandle>| {
        let gate = &handle.sync.borrow().gate;
        key.as_ref().is_some_and(|key| gate.is_for(key))
    };
    let first = syncs.iter().chain(stay).find(like);
    let gate = first.map(|handle| Rc::clone(&handle.sync.borrow().gate));
    sync.gate = gate.unwrap_or_else(|| Rc::new(Gate::new(key)));
    let clashes = |handle: &&Rc<SyncHandle>| {
        let other = handle.sync.borrow();
        let place = other
            .config
            .check
            .as_ref()
            .and_then(CheckConfig::given_staging);
        other.gate.id() != sync.gate.id() && place.is_some() && place == check.given_staging()
    };
    match syncs.iter().find(clashes) {
        None => Ok(()),
        Some(other) => Err(config_error_about(
            "staging",
            format!(
                "check.staging is used by sync \"{}\" for other files or checks",
                other.sync.borrow().config.name
            ),
        )),
    }
}

/// Returns the targets listed in a file, one on each line. Empty lines and lines that begin with
/// `#` or `;` are skipped.
///
/// # Errors
///
/// The value is not a file name, or the file cannot be read.
pub fn targets_from(lua: &Lua, name: &Value) -> Result<Table> {
    let wrong = || config_error_about("targetsFrom", "targetsFrom must be the name of a file");
    let name = text_of(name).ok_or_else(wrong)?;
    let name = OsStr::from_bytes(&name);
    let text = fs::read(name).map_err(|error| {
        let text = format!("Cannot open targets file \"{}\": {error}", name.display());
        bare_config_error("targetsFrom", text)
    })?;
    let targets = lua.create_table()?;
    for line in text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii) {
        if !line.is_empty() && !line.starts_with(b"#") && !line.starts_with(b";") {
            targets.raw_push(lua.create_string(line)?)?;
        }
    }
    Ok(targets)
}
