//! Creates a sync from its prepared configuration.
//!
//! * `config_api`: the functions of the preludes for settings and syncs;
//! * `sync_checks`: warnings about a valid configuration;
//! * `user_keys`: keys that belong to kinds of the user's own;
//! * `warm_start`: `init = "changed"`;
//! * `fanout`: what syncs of one source share;
//! * `key_tests`: tests of the keys of users' kinds.
//!
//! The folder runs while a configuration is loaded, and not afterwards.

pub mod config_api;
mod fanout;
#[cfg(test)]
mod key_tests;
pub mod sync_checks;
mod user_keys;
mod warm_start;

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use mlua::{Lua, Result, Table, Value};

use crate::batch::{self, rsync_options};
use crate::config::{
    self, SyncConfig, bare_config_error, config_error, config_error_about, text_of, truthy,
};
use crate::cron::Crontab;
use crate::filter::Filter;
use crate::log;
use crate::queue::Policy;
use crate::script::api::tunnel;
use crate::script::context::ScriptContext;
use crate::script::kinds::scan_request;
use crate::script::objects::Objects;
use crate::script::objects::inlet;
use crate::script::sync_handle::SyncHandle;
use crate::script::{errors, layer3};
use crate::spelling;
use crate::sync::Sync;

/// Creates a sync and returns its inlet.
///
/// # Errors
///
/// The configuration is invalid.
pub fn create(
    lua: &Lua,
    context: &Rc<ScriptContext>,
    objects: &Objects,
    config: Table,
) -> Result<Table> {
    warm_start::resolve(lua, context, &config)?;
    let policy = policy(lua, &config)?;
    check(lua, &config, policy, context.syncs.borrow().len())?;
    let mut typed = SyncConfig::from_table(&user_keys::without(lua, &config)?)?;
    typed.warm_start = warm_start::config(lua, context, &config, &typed)?;
    if typed.check.is_some() {
        scan_request::check_behaviour(lua, &config)?;
    }
    let tunnel = tunnel::of_config(context, &config)?;
    let filter = config::filter(&config)?;
    advise(lua, &config, &typed, &filter)?;
    if policy == Policy::Coalesce {
        typed.verify = config::verify(&config)?;
        check_verify(&typed)?;
        let is_direct =
            sync_checks::origin(lua, &config, "action")? == sync_checks::Origin::Kind("direct");
        sync_checks::warn_of_target(lua, &typed, is_direct);
        check_target(lua, &config, &typed, &filter)?;
    }
    let fingerprint = fingerprint(lua, &config, &filter)?;
    let text = fingerprint.as_deref();
    let sync = sync_of(lua, context, &config, typed, filter, policy, text)?;

    let functions = lua.create_table()?;
    let inlet = lua.create_table()?;
    let handle = Rc::new(SyncHandle {
        sync,
        fingerprint,
        config,
        inlet: inlet.clone(),
        tunnel,
        events: Default::default(),
        object: Default::default(),
    });
    let weak: Weak<SyncHandle> = Rc::downgrade(&handle);
    for pair in inlet::functions(lua, context, objects, &weak)?.pairs::<Value, Value>() {
        let (name, function) = pair?;
        functions.set(name, function)?;
    }
    let make: mlua::Function = lua.named_registry_value("make_inlet")?;
    make.call::<()>((&inlet, functions))?;
    context.syncs.borrow_mut().push(handle);
    Ok(inlet)
}

/// Checks a configuration, and adds computed values.
fn check(lua: &Lua, config: &Table, policy: Policy, index: usize) -> Result<()> {
    resolve_source(lua, config)?;
    let monitor = config.get::<Value>("monitor")?;
    match text_of(&monitor) {
        _ if !truthy(&monitor) => {}
        Some(name) if name == b"inotify" => {}
        name => {
            let name = String::from_utf8_lossy(&name.unwrap_or_default()).into_owned();
            let text = format!("event monitor \"{name}\" unknown.");
            return Err(config_error_about("monitor", text));
        }
    }
    config::check_values(
        config,
        policy == Policy::Coalesce,
        sync_checks::is_built_in(lua, config, "collect")?,
    )?;
    layer3::check(config)?;
    if !has_action(config)? {
        return Err(no_actions(config));
    }
    config.set("monitor", "inotify")?;
    if config.get::<Value>("name")?.is_nil() {
        config.set("name", format!("Sync{}", index + 1))?;
    }
    Ok(())
}

/// Refuses a local target whose use would destroy data, and warns of a dubious one.
fn check_target(lua: &Lua, config: &Table, typed: &SyncConfig, filter: &Filter) -> Result<()> {
    let target = config::destination(config)?;
    let Some(target) = target.filter(|target| !batch::is_remote(target)) else {
        return Ok(());
    };
    let words = rsync_words(lua, config)?;
    let warning = config::target::check_local(&typed.source, &target, filter, words.as_deref())?;
    if let Some(warning) = warning {
        log::warn(errors::message(lua, &warning));
    }
    Ok(())
}

/// Returns the common rsync arguments of a built-in kind that sends all changes by rsync.
fn rsync_words(lua: &Lua, config: &Table) -> Result<Option<Vec<Vec<u8>>>> {
    let default: Table = lua.globals().raw_get("default")?;
    let direct: Table = default.raw_get("direct")?;
    if direct.raw_get::<Value>("action")? == config.get::<Value>("action")? {
        return Ok(None);
    }
    let Value::Table(rsync) = config.get("rsync")? else {
        return Ok(None);
    };
    let Value::Table(computed) = rsync.get("_computed")? else {
        return Ok(None);
    };
    let words = computed.sequence_values::<Value>();
    let words: Result<Vec<_>> = words.map(|word| Ok(text_of(&word?))).collect();
    Ok(Some(words?.into_iter().flatten().collect()))
}

/// Logs warnings about a valid configuration.
fn advise(lua: &Lua, config: &Table, typed: &SyncConfig, filter: &Filter) -> Result<()> {
    if log::enabled("Exclude") {
        for pattern in filter.excludes() {
            let pattern = log::escape(pattern);
            log::say(
                "Exclude",
                format_args!("{}: excludes {pattern}", typed.name),
            );
        }
    }
    sync_checks::warn_of_values(lua, config)?;
    sync_checks::warn_of_patterns(lua, filter, &typed.source);
    sync_checks::warn_of_file_system(lua, typed);
    sync_checks::warn_of_idleness(lua, config)
}

/// Returns a new sync, or that of the previous configuration if it is unchanged.
fn sync_of(
    lua: &Lua,
    context: &Rc<ScriptContext>,
    config: &Table,
    typed: SyncConfig,
    filter: Filter,
    policy: Policy,
    fingerprint: Option<&[u8]>,
) -> Result<Rc<RefCell<Sync>>> {
    let full = config.get::<Value>("full")?.is_function();
    let files = fanout::files(config, &typed, &filter, fingerprint.is_some())?;
    // A sync that shares a journal does not see each event.
    let shares = files.as_deref().filter(|_| typed.warm_start.is_none());
    let group = shares.map(|files| fanout::group(files, &typed));
    let sync = match unchanged(context, fingerprint) {
        Some(sync) => {
            let config = &mut sync.borrow_mut().config;
            config.name = typed.name;
            config.bandwidth = typed.bandwidth;
            Rc::clone(&sync)
        }
        None => {
            let mut sync = Sync::new(typed, filter, policy, full);
            let on_full = config.get::<Value>("onFull")?;
            sync.set_has_on_full(on_full.is_function() || on_full.is_string());
            let words = rsync_words(lua, config)?;
            sync.set_follows_links(words.is_some_and(|words| rsync_options::follows_links(&words)));
            add_crontab(&mut sync)?;
            fanout::join_gate(context, &mut sync, files.as_deref())?;
            Rc::new(RefCell::new(sync))
        }
    };
    // User functions may run anything, so only built-in behaviours are known.
    if policy == Policy::Coalesce {
        fanout::join(context, &sync, group);
        let environment = config::share_ssh(lua, config, &context.sockets)?;
        sync.borrow_mut().set_environment(environment);
    }
    Ok(sync)
}

/// Returns a text that differs for different configurations, including the contents of filter
/// files.
fn fingerprint(lua: &Lua, config: &Table, filter: &Filter) -> Result<Option<Vec<u8>>> {
    let function: mlua::Function = lua.named_registry_value("fingerprint")?;
    let text: Option<mlua::BString> = function.call(config)?;
    let excludes = filter.excludes().map(<[u8]>::to_vec);
    let lines: Vec<Vec<u8>> = filter.rules().chain([Vec::new()]).chain(excludes).collect();
    Ok(text.map(|text| [text.to_vec(), lines.join(&0)].join(&0)))
}

/// Returns the sync with this fingerprint of the previous configuration, if it is not taken yet.
fn unchanged(context: &ScriptContext, fingerprint: Option<&[u8]>) -> Option<Rc<RefCell<Sync>>> {
    let text = fingerprint?;
    let mut before = context.previous_syncs.borrow_mut();
    let found = before.iter().position(|handle| {
        handle.fingerprint.as_deref() == Some(text) && !handle.sync.borrow().has_ended()
    })?;
    Some(Rc::clone(&before.remove(found).sync))
}

fn add_crontab(sync: &mut Sync) -> Result<()> {
    let rules = sync.config.crontab.clone();
    for (at, rule) in rules.iter().enumerate() {
        sync.add_crontab(rule).map_err(|why| {
            let (name, number) = (&sync.config.name, at + 1);
            let rule = log::escape(rule.as_bytes());
            config_error_about(
                "crontab",
                format!("Sync: {name} - crontab rule {number} is not valid: {why} . Rule: {rule}"),
            )
        })?;
    }
    Ok(())
}

/// Refuses invalid times of comparisons.
fn check_verify(config: &SyncConfig) -> Result<()> {
    let rules = config.verify.iter().flat_map(|verify| &verify.at);
    for rule in rules {
        if let Err(why) = Crontab::new(crate::sys::utc_offset).add(rule) {
            let (name, rule) = (&config.name, log::escape(rule.as_bytes()));
            let text = format!("Sync: {name} - verify.at \"{rule}\" is not valid: {why}.");
            return Err(config_error_about("at", text));
        }
    }
    Ok(())
}

fn resolve_source(lua: &Lua, config: &Table) -> Result<()> {
    let value = config.get::<Value>("source")?;
    let Some(given) = text_of(&value) else {
        return Err(if truthy(&value) {
            config::no_text("source", "", &value)
        } else {
            config_error_about("source", "source missing from sync.")
        });
    };
    let real = match config::real_directory(&given) {
        Ok(real) => real,
        Err(error) if error.is_missing() && truthy(&config.get("waitForSource")?) => {
            config::target::resolved(&given)
        }
        Err(error) => {
            let [first, second] = error.lines();
            log::error(first);
            let advice = sync_checks::unexpanded(&given).unwrap_or_default();
            return Err(bare_config_error("source", second + &advice));
        }
    };
    config.set("_source", lua.create_string(given)?)?;
    config.set("source", lua.create_string(real)?)
}

fn has_action(config: &Table) -> Result<bool> {
    if truthy(&config.get("action")?) {
        return Ok(true);
    }
    for key in layer3::KEYS {
        if truthy(&config.get(key)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the error of a sync without an action. Without a gauge its key may be misspelt.
fn no_actions(config: &Table) -> mlua::Error {
    let similar = config
        .pairs::<String, Value>()
        .flatten()
        .find_map(|(key, _)| Some((spelling::nearest(&key, layer3::KEYS)?, key)));
    match similar {
        Some((known, key)) => config_error_about(
            &key,
            format!("no actions specified. Did you mean \"{known}\" instead of \"{key}\"?"),
        ),
        None => config_error("no actions specified."),
    }
}

/// Returns the queue policy: coalescing for built-in behaviours, which examine the disk; per event
/// for user functions.
fn policy(lua: &Lua, config: &Table) -> Result<Policy> {
    let default: Table = lua.globals().raw_get("default")?;
    let general = default.raw_get::<Value>("action")? == config.get::<Value>("action")?;
    Ok(
        if sync_checks::is_built_in(lua, config, "action")? && !general {
            Policy::Coalesce
        } else {
            Policy::PerEvent
        },
    )
}
