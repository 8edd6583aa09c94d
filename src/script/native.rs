//! What the preludes are given beyond the user's API: the parts of the built-in behaviours that
//! are Rust.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::rc::{Rc, Weak};
use std::sync::PoisonError;

use mlua::{Lua, MultiValue, Result, Table, UserData, UserDataFields, Value, Variadic};

use super::event::{Agent, Objects};
use super::host::{Host, Member, Stage};
use super::{
    api, by_size, checked, errors, fanout, inlet, layer3, members, observe, orders, remote, spawn,
    sync_checks, tunnel,
};
use crate::batch::{self, Change, Entry, ListMode, Request};
use crate::config::{
    self, SyncConfig, bare_complaint, checkgauge, complaint, complaint_about, inherit, kind_of,
    rsync_args, text_of, truthy,
};
use crate::filter::Filter;
use crate::queue::{Etype, Policy};
use crate::report;
use crate::sync::Sync;

/// A batch, ready to be sent: an argument of `spawn`.
pub struct Transfer(pub batch::Transfer);

impl UserData for Transfer {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_field_method_get("names", |lua, this| lua.create_string(this.0.names()));
    }
}

/// The table that preludes get as their argument.
pub fn table(lua: &Lua, host: &Rc<Host>, objects: &Objects) -> Result<Table> {
    let native = lua.create_table()?;
    let (event_meta, list_meta) = objects.metatables();
    native.set("event_meta", event_meta)?;
    native.set("list_meta", list_meta)?;
    native.set("version", crate::cli::VERSION)?;
    let globals = api::globals(lua, host, objects)?;
    tunnel::add(lua, host, &globals)?;
    let members = members::members(lua, host)?;
    observe::add(lua, host, &globals, &members)?;
    native.set("globals", globals)?;
    native.set("members", members)?;
    native.set("inotify", members::inotify(lua)?)?;
    calls(lua, &native)?;
    errors_and_texts(lua, host, &native)?;
    objects_of(lua, objects, &native)?;
    configuring(lua, host, objects, &native)?;
    transferring(lua, host, objects, &native)?;
    remote::add(lua, host, objects, &native)?;
    orders::add(lua, host, objects, &native)?;
    checked::add(lua, host, objects, &native)?;
    Ok(native)
}

/// The category Call shows what user code calls. Whether it is shown is settled before any Lua
/// runs, so that usually nothing is asked on each call.
fn calls(lua: &Lua, native: &Table) -> Result<()> {
    native.set("log_calls", report::enabled("Call"))?;
    native.set(
        "called",
        lua.create_function(|_, (name, values): (String, Variadic<Value>)| {
            let values: Vec<String> = values.iter().map(shown).collect();
            report::say("Call", format_args!("{name}( {} )", values.join(", ")));
            Ok(())
        })?,
    )
}

/// A value as the category Call shows it.
fn shown(value: &Value) -> String {
    match text_of(value) {
        Some(text) => report::escape(&text).into_owned(),
        None => value.type_name().to_owned(),
    }
}

fn errors_and_texts(lua: &Lua, host: &Rc<Host>, native: &Table) -> Result<()> {
    let h = Rc::clone(host);
    native.set(
        "message",
        lua.create_function(move |lua, value: Value| {
            let text = errors::raised(lua, &value);
            if matches!(value, Value::Error(_)) {
                h.complained.borrow_mut().clone_from(&text);
            }
            Ok(text)
        })?,
    )?;
    native.set(
        "fail",
        lua.create_function(|_, (text, key): (String, Option<String>)| -> Result<()> {
            Err(match key {
                Some(key) => complaint_about(&key, text),
                None => complaint(text),
            })
        })?,
    )?;
    native.set(
        "shown",
        lua.create_function(|_, path: mlua::BString| Ok(report::escape(&path).to_string()))?,
    )?;
    let h = Rc::clone(host);
    native.set(
        "failed_startup",
        lua.create_function(move |_, ()| {
            h.startup_failed.set(true);
            Ok(())
        })?,
    )
}

fn objects_of(lua: &Lua, objects: &Objects, native: &Table) -> Result<()> {
    let with = objects.clone();
    native.set(
        "event_field",
        lua.create_function(move |lua, (event, name): (Table, Value)| {
            let name = text_of(&name).unwrap_or_default();
            match with.agent(&event)? {
                Some(Agent::Event(event)) => event.field(lua, &String::from_utf8_lossy(&name)),
                _ => Err(complaint("not an event")),
            }
        })?,
    )?;
    let with = objects.clone();
    native.set(
        "list_field",
        lua.create_function(move |lua, (list, name): (Table, Value)| {
            let name = text_of(&name).unwrap_or_default();
            inlet::list_field(lua, &with, &list, &String::from_utf8_lossy(&name))
        })?,
    )?;
    let with = objects.clone();
    let is_change = lua.create_function(move |_, event: Table| match with.agent(&event)? {
        Some(Agent::Event(event)) => Ok(!event.etype.is_special()),
        _ => Err(complaint("not an event")),
    })?;
    lua.set_named_registry_value("is_change", &is_change)?;
    native.set("is_change", is_change)
}

fn configuring(lua: &Lua, host: &Rc<Host>, objects: &Objects, native: &Table) -> Result<()> {
    let h = Rc::clone(host);
    native.set(
        "missing_default",
        lua.create_function(move |_, (default, key): (Table, Value)| match key {
            Value::String(key) if h.stage.get() == Stage::Loading => {
                sync_checks::missing_default(&default, &key.to_string_lossy())
            }
            _ => Ok(()),
        })?,
    )?;
    let h = Rc::clone(host);
    native.set(
        "settings",
        lua.create_function(move |_, value: Value| match value {
            Value::Table(given) => h.settings.take(&given).map(|()| Value::Nil),
            Value::String(key) => h.settings.value(&key.to_string_lossy()),
            _ => Err(complaint("settings takes a table or the name of a setting")),
        })?,
    )?;
    let h = Rc::clone(host);
    native.set(
        "check_phase",
        lua.create_function(move |lua, ()| {
            if h.stage.get() != Stage::Loading {
                return Err(complaint("Sync can only be created during initialization."));
            }
            check_settings_kept(lua)
        })?,
    )?;
    let h = Rc::clone(host);
    native.set(
        "inherit",
        lua.create_function(move |lua, (given, default): (Value, Table)| match given {
            Value::Table(given) => inherit::inherit(
                lua,
                &given,
                |config| fill_from_settings(&h, config),
                &default,
            ),
            other => Err(complaint(format!(
                "sync takes a table, not {}",
                kind_of(&other)
            ))),
        })?,
    )?;
    native.set(
        "check_gauge",
        lua.create_function(|_, config: Table| match config.get("checkgauge")? {
            Value::Table(gauge) => checkgauge::check(&config, &gauge),
            _ => Ok(()),
        })?,
    )?;
    native.set(
        "rsync_words",
        lua.create_function(|lua, config: Table| {
            let rsync = config.get::<Value>("rsync")?;
            let Value::Table(rsync) = rsync else {
                return Err(complaint_about(
                    "rsync",
                    "Parameter \"rsync\" must be a table.",
                ));
            };
            let words = lua.create_table()?;
            for word in rsync_args::words(&rsync)? {
                words.raw_push(lua.create_string(word)?)?;
            }
            Ok(words)
        })?,
    )?;
    native.set(
        "as_directory",
        lua.create_function(|lua, target: Value| {
            let mut path = text_of(&target)
                .ok_or_else(|| complaint_about("target", "target must be a text"))?;
            match path.last() {
                None => return Err(complaint_about("target", "target must not be empty")),
                Some(b'/' | b':') => {}
                Some(_) => path.push(b'/'),
            }
            lua.create_string(path)
        })?,
    )?;
    native.set(
        "targets_from",
        lua.create_function(|lua, name: Value| fanout::targets_from(lua, &name))?,
    )?;
    let (h, with) = (Rc::clone(host), objects.clone());
    native.set(
        "create",
        lua.create_function(move |lua, config: Table| create(lua, &h, &with, config))?,
    )
}

/// A configuration of lsyncd 2.0 assigned a table; nothing in it would be seen.
pub fn check_settings_kept(lua: &Lua) -> Result<()> {
    match lua.globals().raw_get::<Value>("settings")? {
        Value::Function(_) => Ok(()),
        _ => Err(bare_complaint(
            "settings",
            "Do not use settings = { ... }\n      please use settings{ ... } (without the equal sign)",
        )),
    }
}

/// What the command line and the settings made so far say for every sync. A limit of the
/// sync's own counts more than the setting; see docs/differences.md.
fn fill_from_settings(host: &Host, config: &Table) -> Result<()> {
    if let Some(delay) = host.delay {
        config.set("delay", delay)?;
    }
    for key in ["maxDelays", "maxProcesses"] {
        if let Some(count) = host.settings.count(key)?
            && config.get::<Value>(key)?.is_nil()
        {
            config.set(key, count)?;
        }
    }
    Ok(())
}

/// Makes the sync of a prepared configuration; returns its inlet.
fn create(lua: &Lua, host: &Rc<Host>, objects: &Objects, config: Table) -> Result<Table> {
    let index = host.members.borrow().len();
    resolve_source(lua, &config)?;
    let monitor = config.get::<Value>("monitor")?;
    match text_of(&monitor) {
        _ if !truthy(&monitor) => {}
        Some(name) if name == b"inotify" => {}
        name => {
            let name = String::from_utf8_lossy(&name.unwrap_or_default()).into_owned();
            let text = format!("event monitor \"{name}\" unknown.");
            return Err(complaint_about("monitor", text));
        }
    }
    check_functions(&config)?;
    config::check_values(&config, sync_checks::is_built_in(lua, &config, "collect")?)?;
    layer3::check(&config)?;
    if !has_action(&config)? {
        return Err(no_actions(&config));
    }
    config.set("monitor", "inotify")?;
    if config.get::<Value>("name")?.is_nil() {
        config.set("name", format!("Sync{}", index + 1))?;
    }

    let typed = SyncConfig::from_table(&config)?;
    if typed.check.is_some() {
        checked::check_behaviour(lua, &config)?;
    }
    let tunnel = tunnel::of_config(host, &config)?;
    let filter = config::filter(&config)?;
    if report::enabled("Exclude") {
        for pattern in filter.excludes() {
            let pattern = report::escape(pattern);
            report::say(
                "Exclude",
                format_args!("{}: excludes {pattern}", typed.name),
            );
        }
    }
    sync_checks::warn_of_patterns(lua, &filter, &typed.source);
    sync_checks::warn_of_idleness(lua, &config)?;
    let full = config.get::<Value>("full")?.is_function();
    let policy = policy(lua, &config)?;
    if policy == Policy::Settle
        && let Some(target) = &typed.target
        && !batch::is_remote(target)
        && config.get::<Value>("host")?.is_nil()
    {
        config::target::check_local(&typed.source, target, &filter)?;
    }
    let fingerprint = fingerprint(lua, &config, &filter)?;
    let files = fanout::files(&config, &typed, &filter, fingerprint.is_some())?;
    let group = files.as_deref().map(|files| fanout::group(files, &typed));
    let sync = match unchanged(host, fingerprint.as_deref()) {
        Some(sync) => {
            sync.borrow_mut().config.name = typed.name;
            sync
        }
        None => {
            let mut sync = Sync::new(typed, filter, policy, full);
            add_crontab(&mut sync)?;
            fanout::join_gate(host, &mut sync, files.as_deref())?;
            Rc::new(RefCell::new(sync))
        }
    };
    if policy == Policy::Settle {
        fanout::join(host, &sync, group);
    }
    // User code runs what it likes, as it likes.
    if policy == Policy::Settle {
        sync.borrow_mut().environment = config::share_ssh(lua, &config, &host.sockets)?;
    }

    let functions = lua.create_table()?;
    let inlet = lua.create_table()?;
    let member = Rc::new(Member {
        sync,
        fingerprint,
        config,
        inlet: inlet.clone(),
        tunnel,
        events: Default::default(),
        object: Default::default(),
    });
    let weak: Weak<Member> = Rc::downgrade(&member);
    for pair in inlet::functions(lua, host, objects, &weak)?.pairs::<Value, Value>() {
        let (name, function) = pair?;
        functions.set(name, function)?;
    }
    let make: mlua::Function = lua.named_registry_value("make_inlet")?;
    make.call::<()>((&inlet, functions))?;
    host.members.borrow_mut().push(member);
    Ok(inlet)
}

/// Tells configurations of syncs apart, what is in files of filters included.
fn fingerprint(lua: &Lua, config: &Table, filter: &Filter) -> Result<Option<Vec<u8>>> {
    let function: mlua::Function = lua.named_registry_value("fingerprint")?;
    let text: Option<mlua::BString> = function.call(config)?;
    let excludes = filter.excludes().map(<[u8]>::to_vec);
    let lines: Vec<Vec<u8>> = filter.rules().chain([Vec::new()]).chain(excludes).collect();
    Ok(text.map(|text| [text.to_vec(), lines.join(&0)].join(&0)))
}

/// The state of the same sync in the configuration before, if it is there and nobody's yet.
fn unchanged(host: &Host, fingerprint: Option<&[u8]>) -> Option<Rc<RefCell<Sync>>> {
    let mut before = host.before.borrow_mut();
    let same = |member: &Rc<Member>| {
        let text = fingerprint?;
        (member.fingerprint.as_deref() == Some(text) && !member.sync.borrow().has_ended())
            .then_some(())
    };
    let found = before.iter().position(|member| same(member).is_some())?;
    Some(Rc::clone(&before.remove(found).sync))
}

fn add_crontab(sync: &mut Sync) -> Result<()> {
    for (at, rule) in sync.config.crontab.iter().enumerate() {
        sync.crontab.add(rule).map_err(|why| {
            let (name, number) = (&sync.config.name, at + 1);
            let rule = report::escape(rule.as_bytes());
            complaint_about(
                "crontab",
                format!("Sync: {name} - crontab rule {number} is not valid: {why} . Rule: {rule}"),
            )
        })?;
    }
    Ok(())
}

fn resolve_source(lua: &Lua, config: &Table) -> Result<()> {
    let given = text_of(&config.get("source")?)
        .ok_or_else(|| complaint_about("source", "source missing from sync."))?;
    let real = match config::real_directory(&given) {
        Ok(real) => real,
        Err(error) if error.is_missing() && truthy(&config.get("waitForSource")?) => {
            config::target::resolved(&given)
        }
        Err(error) => {
            let [first, second] = error.lines();
            report::error(first);
            return Err(bare_complaint("source", second));
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

/// Says why a sync without a gauge may have no action: its key may be misspelt.
fn no_actions(config: &Table) -> mlua::Error {
    let similar = config
        .pairs::<String, Value>()
        .flatten()
        .find_map(|(key, _)| Some((config::nearest(&key, layer3::KEYS)?, key)));
    match similar {
        Some((known, key)) => complaint_about(
            &key,
            format!("no actions specified. Did you mean \"{known}\" instead of \"{key}\"?"),
        ),
        None => complaint("no actions specified."),
    }
}

/// These keys are functions or switched off.
fn check_functions(config: &Table) -> Result<()> {
    for key in ["action", "collect", "full", "init", "prepare"] {
        match config.get(key)? {
            Value::Nil | Value::Boolean(false) | Value::Function(_) => {}
            Value::Boolean(true) => {
                let text = format!("{key} must be a function or false, not true.");
                return Err(complaint_about(key, text));
            }
            other => {
                let text = format!("{key} must be a function, not {}.", kind_of(&other));
                return Err(complaint_about(key, text));
            }
        }
    }
    Ok(())
}

/// Built-in behaviours are decided by the state of the disk; user code gets what happened.
fn policy(lua: &Lua, config: &Table) -> Result<Policy> {
    let default: Table = lua.globals().raw_get("default")?;
    let general = default.raw_get::<Value>("action")? == config.get::<Value>("action")?;
    Ok(
        match sync_checks::is_built_in(lua, config, "action")? && !general {
            true => Policy::Settle,
            false => Policy::Deliver,
        },
    )
}

fn transferring(lua: &Lua, host: &Rc<Host>, objects: &Objects, native: &Table) -> Result<()> {
    let (h, with) = (Rc::clone(host), objects.clone());
    native.set(
        "spawn",
        lua.create_function(move |_, arguments: MultiValue| {
            spawn::spawn(&h, &with, true, arguments)
        })?,
    )?;
    native.set(
        "rsync_target",
        lua.create_function(|lua, config: Table| lua.create_string(rsync_target(lua, &config)?))?,
    )?;
    native.set(
        "is_doubtful",
        lua.create_function(|lua, inlet: Table| {
            Ok(member_of(lua, &inlet)?.sync.borrow().doubtful)
        })?,
    )?;
    native.set(
        "filter_input",
        lua.create_function(|lua, inlet: Table| {
            let member = member_of(lua, &inlet)?;
            let input = {
                let sync = member.sync.borrow();
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
    let (h, with) = (Rc::clone(host), objects.clone());
    native.set(
        "batch",
        lua.create_function(move |lua, (inlet, test): (Table, mlua::Function)| {
            let member = member_of(lua, &inlet)?;
            by_size::batch(lua, &h, &with, &member, &test)
        })?,
    )?;
    let (h, with) = (Rc::clone(host), objects.clone());
    native.set(
        "transfer",
        lua.create_function(move |lua, list: Table| match with.agent(&list)? {
            Some(agent) => transfer(lua, &h, &agent),
            None => Err(complaint("not a list of events")),
        })?,
    )
}

/// The member whose inlet object this is.
pub(super) fn member_of(lua: &Lua, inlet: &Table) -> Result<Rc<Member>> {
    let host = lua
        .app_data_ref::<Rc<Host>>()
        .ok_or_else(|| complaint("the daemon is not set up"))?;
    let members = host.members.borrow();
    members
        .iter()
        .find(|member| member.inlet == *inlet)
        .cloned()
        .ok_or_else(|| complaint("not an inlet"))
}

/// `HOST:TARGETDIR` when a host is configured, else the target. A relative local one is meant
/// from where the daemon was started, not from `/` where it runs.
pub(super) fn rsync_target(lua: &Lua, config: &Table) -> Result<Vec<u8>> {
    let text = |key: &str| -> Result<Option<Vec<u8>>> { Ok(text_of(&config.get(key)?)) };
    if let (Some(host), Some(directory)) = (text("host")?, text("targetdir")?) {
        return Ok([host, b":".to_vec(), directory].concat());
    }
    let target = text("target")?.ok_or_else(|| complaint("the sync has no target"))?;
    let host = lua.app_data_ref::<Rc<Host>>();
    let target = match &host {
        Some(host) => tunnel::of_config(host, config)?.map(|tunnel| tunnel.place(&target)),
        None => None,
    }
    .unwrap_or(target);
    let base = host.as_ref().and_then(|host| host.base.borrow().clone());
    Ok(match base {
        Some(base) if !target.starts_with(b"/") && !batch::is_remote(&target) => base
            .join(OsStr::from_bytes(&target))
            .into_os_string()
            .into_vec(),
        _ => target,
    })
}

/// Makes the list of a batch.
fn transfer(lua: &Lua, h: &Host, agent: &Agent) -> Result<Transfer> {
    let member = agent
        .member()
        .ok_or_else(|| complaint("the list's sync is gone"))?;
    let rsync: Table = member.config.get("rsync")?;
    let binary = text_of(&rsync.get("binary")?).unwrap_or_else(|| b"rsync".to_vec());
    let words: Vec<Vec<u8>> = rsync
        .get::<Table>("_computed")?
        .sequence_values::<Value>()
        .filter_map(|word| text_of(&word.ok()?))
        .collect();
    let list = match text_of(&rsync.get("list")?).as_deref() {
        Some(b"filter") => ListMode::Filter,
        Some(b"files-from") => ListMode::FilesFrom,
        _ => ListMode::Auto,
    };
    let target = rsync_target(lua, &member.config)?;

    let delete_excluded = rsync.get::<Value>("delete_excluded")? == Value::Boolean(true);

    // No Lua from here on, not even a metamethod: the sync is borrowed.
    let mut sync = member.sync.borrow_mut();
    let sync = &mut *sync;
    let protected = sync.protected();
    let delete = sync.config.delete.in_batches() && protected.is_some();
    let delete_excluded = delete_excluded && sync.gate.withheld().is_empty();
    let protected = protected.into_iter().flatten();
    let protected = protected.map(|pattern| [b"- ".to_vec(), pattern].concat());
    let filters: Vec<_> = protected.chain(filter_lines(sync)).collect();
    let source = sync.rsync_source().ok_or_else(checked::not_yet)?;
    let request = Request {
        source: &source,
        target: &target,
        words: &words,
        binary: &binary,
        delete,
        filters: &filters,
        delete_excluded,
        last_transfer: Some(sync.last_transfer),
        list,
    };
    let mut entries = Vec::new();
    for id in agent.ids() {
        if let Some(delay) = sync.queue.get(id) {
            let (path, to) = delay.paths();
            if !sync.is_withheld(&path) {
                entries.push((change(delay.etype()), path, to));
            }
        }
    }
    let entries = entries.iter().map(|(change, path, to)| Entry {
        change: *change,
        path,
        to: to.as_deref(),
    });
    let transfer = sync.chooser.prepare(&request, entries.clone());
    if truthy(&rsync.get("hard_links")?) && entries.into_iter().any(|e| sync.has_other_names(&e)) {
        let due = sync.due(h.clock.now());
        sync.resync_once(due);
    }
    Ok(Transfer(transfer))
}

/// The sync's filter as lines for rsync: rules, then excludes.
fn filter_lines(sync: &Sync) -> Vec<Vec<u8>> {
    let filter = sync.filter.read().unwrap_or_else(PoisonError::into_inner);
    let excludes = filter.excludes().map(|pattern| [b"- ", pattern].concat());
    filter.rules().chain(excludes).collect()
}

pub(super) fn change(etype: Etype) -> Change {
    match etype {
        Etype::Delete => Change::Delete,
        Etype::Move => Change::Move,
        Etype::Modify => Change::Modify,
        Etype::Attrib => Change::Attrib,
        Etype::Create | Etype::Init | Etype::Blanket | Etype::Full => Change::Create,
    }
}
