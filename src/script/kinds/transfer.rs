//! The rsync call of a batch: target, filter and file list.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::rc::Rc;
use std::sync::PoisonError;

use mlua::{Lua, MultiValue, Result, Table, Value};

use super::batch_size;
use crate::batch::changed_directories::ChangedDirectories;
use crate::batch::list_first::{self, WholeComparison};
use crate::batch::long_paths::listed_directory;
use crate::batch::output::PROGRESS;
use crate::batch::probe::Binary;
use crate::batch::{self, BatchEntry, BatchRequest, Change, ListMode};
use crate::config::{config_error, destination, text_of, truthy};
use crate::queue::{DelayId, Etype};
use crate::script::api::{spawn, tunnel};
use crate::script::context::{ScriptContext, handle_of};
use crate::script::objects::{Agent, Objects};
use crate::script::request::RsyncCall;
use crate::script::sync_handle::SyncHandle;
use crate::sync::{OtherNames, Sync};

/// Adds the native functions for transfers.
///
/// # Errors
///
/// Errors of Lua only.
pub fn add(
    lua: &Lua,
    context: &Rc<ScriptContext>,
    objects: &Objects,
    native: &Table,
) -> Result<()> {
    let (shared, mapping) = (Rc::clone(context), objects.clone());
    native.set(
        "spawn",
        lua.create_function(move |_, arguments: MultiValue| {
            spawn::spawn(&shared, &mapping, true, arguments)
        })?,
    )?;
    native.set(
        "rsync_target",
        lua.create_function(|lua, config: Table| lua.create_string(rsync_target(lua, &config)?))?,
    )?;
    native.set(
        "compares_all",
        lua.create_function(|lua, inlet: Table| compares_all(&*handle_of(lua, &inlet)?))?,
    )?;
    native.set(
        "accepted",
        lua.create_function(|lua, (inlet, words): (Table, Vec<mlua::LuaString>)| {
            let handle = handle_of(lua, &inlet)?;
            let own = whole_words(&handle.config)?;
            let mut words: Vec<Vec<u8>> =
                words.iter().map(|word| word.as_bytes().to_vec()).collect();
            let mut sync = handle.sync.borrow_mut();
            sync.list_strategy().take_out(&own, &mut words);
            words.extend(sync.size_option());
            if lists_first(lua, &handle.config, &sync, &own)? {
                words.push(b"--no-inc-recursive".to_vec());
            }
            // A dry run has the same options, and its output is read.
            let asks = sync.config.guard.max_delete.is_none()
                && reports_progress(lua, &handle.config, &sync, &own)?;
            sync.set_asks_progress(asks);
            words.extend(asks.then(|| PROGRESS.to_vec()));
            let words = words.iter().map(|word| lua.create_string(word));
            lua.create_sequence_from(words.collect::<Result<Vec<_>>>()?)
        })?,
    )?;
    native.set(
        "changed_directories",
        lua.create_function(|lua, inlet: Table| {
            changed_directories(lua, &*handle_of(lua, &inlet)?)
        })?,
    )?;
    native.set(
        "filter_input",
        lua.create_function(|lua, inlet: Table| {
            let handle = handle_of(lua, &inlet)?;
            let input = {
                let sync = handle.sync.borrow();
                let filter = sync.filter.read().unwrap_or_else(PoisonError::into_inner);
                filter.rsync_input()
            };
            Ok(match input {
                Some(input) => (
                    Some(lua.create_string(input.option)?),
                    Some(lua.create_string(input.text)?),
                ),
                None => (None, None),
            })
        })?,
    )?;
    for (name, wanted) in [
        ("batch", batch_size::changes as batch_size::Wanted),
        ("batch_before_move", batch_size::before_move),
    ] {
        let (shared, mapping) = (Rc::clone(context), objects.clone());
        let batch = lua.create_function(move |lua, inlet: Table| {
            let handle = handle_of(lua, &inlet)?;
            batch_size::batch(lua, &shared, &mapping, &handle, wanted)
        })?;
        native.set(name, batch)?;
    }
    let mapping = objects.clone();
    native.set(
        "changes",
        lua.create_function(move |lua, inlet: Table| {
            let handle = handle_of(lua, &inlet)?;
            batch_size::list(lua, &mapping, &handle, batch_size::changes)
        })?,
    )?;
    let (shared, mapping) = (Rc::clone(context), objects.clone());
    native.set(
        "transfer",
        lua.create_function(move |lua, list: Table| match mapping.agent(&list)? {
            Some(agent) => transfer(lua, &shared, &agent),
            None => Err(config_error("not a list of events")),
        })?,
    )
}

/// Returns the destination of transfers. A relative local path refers to the directory in which the
/// daemon was started.
pub(in crate::script) fn rsync_target(lua: &Lua, config: &Table) -> Result<Vec<u8>> {
    let target = destination(config)?.ok_or_else(|| config_error("the sync has no target"))?;
    let context = lua.app_data_ref::<Rc<ScriptContext>>();
    let target = match &context {
        Some(context) => {
            tunnel::of_config(context, config)?.map(|tunnel| tunnel.substitute_target(&target))
        }
        None => None,
    }
    .unwrap_or(target);
    let base = context
        .as_ref()
        .and_then(|context| context.base.borrow().clone());
    Ok(match base {
        Some(base) if !target.starts_with(b"/") && !batch::is_remote(&target) => base
            .join(OsStr::from_bytes(&target))
            .into_os_string()
            .into_vec(),
        _ => target,
    })
}

/// Records that rsync compares everything by size and time, and whether files can be limited by
/// size.
fn compares_all(handle: &SyncHandle) -> Result<()> {
    let rsync: Table = handle.config.get("rsync")?;
    // A wrapper gets no options that it might not know.
    let plain = Binary::plain(&binary(&rsync)?).is_some();
    // With `size_only` or a content comparison the file times do not matter.
    let words = whole_words(&handle.config)?;
    let by_time = plain && !words.iter().any(|word| word == b"--size-only");
    let sized = words.iter().any(|word| word.starts_with(b"--max-size"));
    let mut sync = handle.sync.borrow_mut();
    sync.verify_mut().compares_all(by_time);
    sync.begin_size_bound(plain && !sized);
    Ok(())
}

/// Returns the directories that the startup compares, each without those below it: a list for
/// rsync, rules, and a text for the log. Returns `None` if everything is compared.
fn changed_directories(lua: &Lua, handle: &SyncHandle) -> Result<Option<Table>> {
    let mut sync = handle.sync.borrow_mut();
    let Some(all) = sync.startup_directories() else {
        return Ok(None);
    };
    // One that was removed since has an event. A link in its place would be followed.
    let all = all.iter().filter_map(|path| listed_directory(path));
    let all: BTreeSet<_> = all.filter(|path| sync.is_directory(path)).collect();
    let all: Vec<_> = all.into_iter().map(<[u8]>::to_vec).collect();
    let rules: Vec<Vec<u8>> = filter_lines(&sync)
        .iter()
        .map(|rule| [b"--filter=", &rule[..]].concat())
        .collect();
    let Some(changed) = ChangedDirectories::new(&all, &rules) else {
        sync.forget_startup_directories();
        return Ok(None);
    };
    let table = lua.create_table()?;
    table.set("list", lua.create_string(changed.list)?)?;
    table.set("shown", lua.create_string(changed.shown)?)?;
    let rules = rules.iter().map(|word| lua.create_string(word));
    table.set(
        "rules",
        lua.create_sequence_from(rules.collect::<Result<Vec<_>>>()?)?,
    )?;
    Ok(Some(table))
}

pub(super) fn binary(rsync: &Table) -> Result<Vec<u8>> {
    Ok(text_of(&rsync.get("binary")?).unwrap_or_else(|| b"rsync".to_vec()))
}

/// Returns the options of every rsync call; none if a `prepare` of the user's own computed none.
fn computed(rsync: &Table) -> Result<Vec<Vec<u8>>> {
    let Some(words) = rsync.get::<Option<Table>>("_computed")? else {
        return Ok(Vec::new());
    };
    let words = words.sequence_values::<Value>();
    Ok(words.filter_map(|word| text_of(&word.ok()?)).collect())
}

/// Returns the options of full comparisons: those of every call, or those that
/// `startup = { rsync = … }` changes.
pub(in crate::script) fn whole_words(config: &Table) -> Result<Vec<Vec<u8>>> {
    if let Value::Table(startup) = config.get("startup")?
        && startup.contains_key("_computed")?
    {
        return computed(&startup);
    }
    computed(&config.get("rsync")?)
}

/// Returns true if a full comparison lists the whole source first. A wrapper gets no
/// option that it might not know.
pub(super) fn lists_first(
    lua: &Lua,
    config: &Table,
    sync: &Sync,
    words: &[Vec<u8>],
) -> Result<bool> {
    let comparison = whole_comparison(lua, config, sync, words, |comparison| {
        comparison.lists_first()
    });
    Ok(comparison?.is_some_and(|(_, lists_first)| lists_first))
}

/// Returns true if a full comparison is to report its progress.
fn reports_progress(lua: &Lua, config: &Table, sync: &Sync, words: &[Vec<u8>]) -> Result<bool> {
    let comparison = whole_comparison(lua, config, sync, words, |comparison| {
        comparison.reports_progress()
    });
    Ok(comparison?.is_some_and(|(rsync, reports)| reports && rsync.reports_progress()))
}

/// Asks something of a full comparison. Returns rsync and the answer; `None` for a wrapper.
fn whole_comparison(
    lua: &Lua,
    config: &Table,
    sync: &Sync,
    words: &[Vec<u8>],
    ask: impl FnOnce(&WholeComparison<'_>) -> bool,
) -> Result<Option<(Binary, bool)>> {
    let rsync: Table = config.get("rsync")?;
    let Some(plain) = Binary::plain(&binary(&rsync)?) else {
        return Ok(None);
    };
    let inc_recursive = match rsync.get("inc_recursive")? {
        Value::Nil => None,
        value => Some(truthy(&value)),
    };
    let comparison = WholeComparison {
        inc_recursive,
        words,
        target: &rsync_target(lua, config)?,
        source: sync.tree_size(),
        memory: list_first::available_memory,
    };
    Ok(Some((plain, ask(&comparison))))
}

/// Returns the rsync call of a batch.
fn transfer(lua: &Lua, context: &ScriptContext, agent: &Agent) -> Result<RsyncCall> {
    let handle = agent
        .handle()
        .ok_or_else(|| config_error("the list's sync is gone"))?;
    let rsync: Table = handle.config.get("rsync")?;
    let (binary, words) = (binary(&rsync)?, computed(&rsync)?);
    let list = list_mode(&rsync)?;
    let target = rsync_target(lua, &handle.config)?;
    let hard_links = truthy(&rsync.get("hard_links")?);
    let delete_excluded = rsync.get::<Value>("delete_excluded")? == Value::Boolean(true);

    // No Lua code may run from here on, since the sync is borrowed.
    let mut sync = handle.sync.borrow_mut();
    let sync = &mut *sync;
    let protected = sync.protected_patterns();
    let delete = sync.config.delete.in_batches() && protected.is_some();
    let delete_excluded =
        delete_excluded && sync.gate.blocked().is_empty() && !sync.misses_mounts();
    let protected = protected.into_iter().flatten();
    let protected = protected.map(|pattern| [b"- ".to_vec(), pattern].concat());
    let filters: Vec<_> = protected.chain(filter_lines(sync)).collect();
    let source = sync.rsync_source().ok_or_else(not_yet)?;
    let entries = entries(sync, &agent.ids());
    let request = BatchRequest {
        source: &source,
        target: &target,
        options: &words,
        binary: &binary,
        delete,
        filters: &filters,
        delete_excluded,
        last_transfer: Some(sync.last_transfer()),
        by_content: entries
            .iter()
            .any(|(_, path, _)| sync.verify().is_by_content(path)),
        list,
    };
    let entries = entries.iter().map(|(change, path, to)| BatchEntry {
        change: *change,
        path,
        to: to.as_deref(),
    });
    let transfer = sync.list_strategy().prepare(&request, entries.clone());
    if hard_links {
        let due = sync.due(context.clock.now());
        match sync.other_names(entries) {
            OtherNames::None => {}
            OtherNames::Unknown if transfer.distrusts_times() => sync.resync_once(due),
            OtherNames::Unknown | OtherNames::Verified => sync.compare_once(due),
        }
    }
    for path in &transfer.too_long {
        sync.leave_out_long_path(path);
    }
    Ok(RsyncCall(transfer))
}

/// Returns the list mode set in the configuration.
fn list_mode(rsync: &Table) -> Result<ListMode> {
    Ok(match text_of(&rsync.get("list")?).as_deref() {
        Some(b"filter") => ListMode::Filter,
        Some(b"files-from") => ListMode::FilesFrom,
        _ => ListMode::Auto,
    })
}

/// Returns the changes of these entries, without those that are blocked.
fn entries(sync: &Sync, ids: &[DelayId]) -> Vec<(Change, Vec<u8>, Option<Vec<u8>>)> {
    let delays = ids.iter().filter_map(|id| sync.queue.get(*id));
    let entries = delays.filter_map(|delay| {
        let (path, to) = delay.paths();
        let stays = sync.is_blocked(&path) || sync.is_below_missing_mount(delay.etype(), &path);
        (!stays).then(|| (change(delay.etype()), path, to))
    });
    entries.collect()
}

/// Returns the filter as lines for rsync: rules, then excludes.
pub(super) fn filter_lines(sync: &Sync) -> Vec<Vec<u8>> {
    let filter = sync.filter.read().unwrap_or_else(PoisonError::into_inner);
    let excludes = filter.excludes().map(|pattern| [b"- ", pattern].concat());
    let held = filter.held();
    held.chain(filter.rules()).chain(excludes).collect()
}

/// Returns the error for a transfer before the staging directory is known.
pub(super) fn not_yet() -> mlua::Error {
    config_error("transfers can begin when the configuration has been read")
}

/// Returns the change that a batch makes of an event.
pub(super) fn change(etype: Etype) -> Change {
    match etype {
        Etype::Delete => Change::Delete,
        Etype::Move => Change::Move,
        Etype::Modify => Change::Modify,
        Etype::Attrib => Change::Attrib,
        Etype::Create | Etype::Init | Etype::Blanket | Etype::Full => Change::Create,
    }
}
