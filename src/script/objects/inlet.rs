//! The inlet object: the functions of a sync's action that read its queue.

use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::{Arc, PoisonError};

use mlua::{IntoLuaMulti, Lua, Result, Table, Value};

use super::sync;
use crate::config::{config_error, text_argument, truthy};
use crate::log;
use crate::paths;
use crate::queue::{DelayId, Etype, Placed, Pushed, Ready, Status, Take};
use crate::script::context::ScriptContext;
use crate::script::objects::{Agent, EventRef, Objects};
use crate::script::sync_handle::SyncHandle;

/// Returns the functions of an inlet by name.
pub fn functions(
    lua: &Lua,
    context: &Rc<ScriptContext>,
    objects: &Objects,
    handle: &Weak<SyncHandle>,
) -> Result<Table> {
    let table = lua.create_table()?;
    let add = Adder {
        lua,
        table: &table,
        handle,
    };

    add.function("getConfig", |_, handle, ()| Ok(handle.config.clone()))?;
    let (mapping, clock) = (objects.clone(), Rc::clone(context));
    add.function("getEvent", move |lua, handle, ()| {
        let id = first_due(handle, &clock).ok_or_else(|| config_error("no event is due"))?;
        let (event, event2) = mapping.event(lua, handle, id)?;
        (event, event2).into_lua_multi(lua)
    })?;
    let mapping = objects.clone();
    add.function("getEvents", move |lua, handle, test: Value| {
        let ids = select(lua, &mapping, handle, &test)?;
        mapping.list(lua, handle, ids)
    })?;
    let mapping = objects.clone();
    add.function("discardEvent", move |_, handle, event: Value| {
        let agent = event
            .as_table()
            .map(|event| mapping.agent(event))
            .transpose()?;
        match agent.flatten() {
            Some(Agent::Event(event)) if event.is_of(handle) => discard(handle, &event),
            Some(Agent::Event(_)) => Err(config_error(
                "discardEvent needs an event of the inlet's own sync",
            )),
            _ => Err(config_error("discardEvent needs an event")),
        }
    })?;
    for (name, etype) in [
        ("createBlanketEvent", Etype::Blanket),
        ("createFullEvent", Etype::Full),
    ] {
        let (mapping, clock) = (objects.clone(), Rc::clone(context));
        add.function(name, move |lua, handle, path: Value| {
            let path = match etype {
                Etype::Full => full_path(&path)?,
                _ => Vec::new(),
            };
            let now = clock.clock.now();
            let pushed = handle.sync.borrow_mut().queue.push(etype, &path, None, now);
            let Pushed::Placed(Placed::Appended { id }) = pushed else {
                return Err(config_error("the queue is full"));
            };
            Ok(mapping.event(lua, handle, id)?.0)
        })?;
    }
    add.function(
        "getSubstitutionData",
        |lua, handle, (_event, data): (Value, Option<Table>)| substitution_data(lua, handle, data),
    )?;
    let shared = Rc::clone(context);
    add.function("getSync", move |lua, handle, ()| {
        sync::object(lua, &shared, handle)
    })?;
    filter_functions(&add)?;
    Ok(table)
}

/// `inlet.getSubstitutionData`: adds the substitutions of the sync's tunnel to a table.
fn substitution_data(lua: &Lua, handle: &SyncHandle, data: Option<Table>) -> Result<Table> {
    let data = data.map_or_else(|| lua.create_table(), Ok)?;
    if let Some(tunnel) = &handle.tunnel {
        for (name, value) in tunnel.substitutions() {
            data.set(name, lua.create_string(value)?)?;
        }
    }
    Ok(data)
}

/// Returns the path of a Full event; by default the whole source.
fn full_path(path: &Value) -> Result<Vec<u8>> {
    let path = match path {
        Value::Nil => return Ok(b"/".to_vec()),
        path => text_argument(path, "createFullEvent")?,
    };
    if path.contains(&0) {
        return Err(config_error("createFullEvent: a path has no NUL byte"));
    }
    Ok(paths::rooted(&path))
}

fn filter_functions(add: &Adder<'_>) -> Result<()> {
    add.function("addExclude", |_, handle, pattern: mlua::BString| {
        with_filter(handle, |filter| filter.add_exclude(&pattern));
        log::say(
            "Exclude",
            format_args!("adding exclude {}", log::escape(&pattern)),
        );
        Ok(())
    })?;
    add.function("rmExclude", |_, handle, pattern: mlua::BString| {
        if !with_filter(handle, |filter| filter.remove_exclude(&pattern)) {
            log::normal(format_args!(
                "Removing not excluded exclude \"{}\"",
                log::escape(&pattern)
            ));
        }
        Ok(())
    })?;
    add.function(
        "appendFilter",
        |_, handle, (rule, pattern): (mlua::BString, Option<mlua::BString>)| {
            // lsyncd's manual documents two arguments, its code takes one with the whole rule.
            let line = match pattern {
                Some(pattern) => [rule.as_slice(), b" ", pattern.as_slice()].concat(),
                None => rule.to_vec(),
            };
            with_filter(handle, |filter| filter.append_rule(&line))
                .map_err(|error| config_error(error.to_string()))
        },
    )?;
    add.function("getExcludes", |lua, handle, ()| {
        let list = lua.create_table()?;
        let excludes: Vec<Vec<u8>> =
            with_filter(handle, |f| f.excludes().map(<[u8]>::to_vec).collect());
        for pattern in excludes {
            list.raw_push(lua.create_string(pattern)?)?;
        }
        Ok(list)
    })?;
    add.function("getFilters", |lua, handle, ()| {
        let list = lua.create_table()?;
        let lines: Vec<Vec<u8>> = with_filter(handle, |f| {
            let excludes = f.excludes().map(|pattern| [b"- ", pattern].concat());
            f.rules().chain(excludes).collect()
        });
        for line in lines {
            list.raw_push(lua.create_string(line)?)?;
        }
        Ok(list)
    })?;
    add.function("hasFilters", |_, handle, ()| {
        Ok(with_filter(handle, |filter| filter.has_rules()))
    })
}

fn with_filter<R>(handle: &SyncHandle, f: impl FnOnce(&mut crate::filter::Filter) -> R) -> R {
    let filter = Arc::clone(&handle.sync.borrow().filter);
    let mut filter = filter.write().unwrap_or_else(PoisonError::into_inner);
    f(&mut filter)
}

/// Adds functions of one sync handle to a table.
struct Adder<'a> {
    lua: &'a Lua,
    table: &'a Table,
    handle: &'a Weak<SyncHandle>,
}

impl Adder<'_> {
    fn function<A, R>(
        &self,
        name: &str,
        f: impl Fn(&Lua, &Rc<SyncHandle>, A) -> Result<R> + 'static,
    ) -> Result<()>
    where
        A: mlua::FromLuaMulti,
        R: IntoLuaMulti,
    {
        let handle = Weak::clone(self.handle);
        let function = self.lua.create_function(move |lua, arguments: A| {
            let handle = handle
                .upgrade()
                .ok_or_else(|| config_error("the inlet's sync is gone"))?;
            f(lua, &handle, arguments)
        })?;
        self.table.set(name, function)
    }
}

fn first_due(handle: &SyncHandle, context: &ScriptContext) -> Option<DelayId> {
    match handle.sync.borrow_mut().ready(context.clock.now()) {
        Ready::Now(id) => Some(id),
        _ => None,
    }
}

fn discard(handle: &SyncHandle, event: &EventRef) -> Result<()> {
    if event.waits(handle) {
        handle.sync.borrow_mut().queue.discard(event.id);
        handle.forget(&[event.id]);
    } else {
        log::error(format_args!(
            "Ignored cancel of a non-waiting event of type {}",
            event.etype.name()
        ));
    }
    Ok(())
}

/// Returns the due entries that the test accepts.
fn select(
    lua: &Lua,
    objects: &Objects,
    handle: &Rc<SyncHandle>,
    test: &Value,
) -> Result<Vec<DelayId>> {
    let Value::Function(test) = test else {
        return Ok(handle.sync.borrow().queue.take(|_| Take::Take));
    };
    // User code may read the queue in its test, so the test is called for all entries before the
    // selection is made.
    let candidates: Vec<DelayId> = {
        let sync = handle.sync.borrow();
        let waiting = sync
            .queue
            .iter()
            .filter(|delay| delay.status() != Status::Active);
        waiting.map(|delay| delay.id()).collect()
    };
    let mut answers: HashMap<DelayId, Take> = HashMap::new();
    for id in candidates {
        let taken = |id: DelayId| answers.get(&id) == Some(&Take::Take);
        let asked = match handle.sync.borrow().queue.get(id) {
            Some(delay) => delay.status() == Status::Wait || delay.blocker().is_some_and(taken),
            None => false,
        };
        if !asked {
            continue;
        }
        let (event, event2) = objects.event(lua, handle, id)?;
        let answer = match test.call::<Value>((event, event2))? {
            Value::String(text) if text.as_bytes() == b"break" => Take::Stop,
            value if truthy(&value) => Take::Take,
            _ => Take::Skip,
        };
        answers.insert(id, answer);
        if answer == Take::Stop {
            break;
        }
    }
    let sync = handle.sync.borrow();
    Ok(sync
        .queue
        .take(|delay| answers.get(&delay.id()).copied().unwrap_or(Take::Skip)))
}

#[cfg(test)]
mod tests {
    use mlua::Function;

    use super::*;
    use crate::script::test_setup::Loaded;
    use crate::watch::Event;

    const USER: &str =
        "sync{ source = '@DIR@/src', init = false, onCreate = print, onModify = print }
        ";

    /// Each sync numbers its events by itself.
    #[test]
    fn an_inlet_discards_events_of_its_own_sync_only() {
        let syncs = Loaded::of(&USER.repeat(2));
        for handle in syncs.script.syncs() {
            let mut sync = handle.sync.borrow_mut();
            let path = [&sync.config.source, &b"f"[..]].concat();
            sync.ingest(Event::Modify { path: &path }, 0);
        }
        let id = syncs.due();
        let (own, other) = (syncs.handle(0), syncs.handle(1));
        assert!(other.sync.borrow().queue.contains(id));
        let script = &syncs.script;
        let (event, _) = script.objects.event(script.lua(), &own, id).unwrap();
        let discard = |handle: &SyncHandle, event: &Table| {
            let discard: Function = handle.inlet.get("discardEvent").unwrap();
            discard.call::<()>(event).map_err(|error| error.to_string())
        };
        let error = discard(&other, &event).unwrap_err();
        assert!(error.contains("of the inlet's own sync"), "{error}");
        assert!(discard(&own, &other.inlet).is_err());
        assert_eq!(other.sync.borrow().queue.len(), 1);
        discard(&own, &event).unwrap();
        assert!(own.sync.borrow().queue.is_empty());
    }

    #[test]
    fn a_test_selects_entries_and_what_they_block() {
        let sync = Loaded::of(USER);
        sync.ingest("d/", |path| Event::Create { path });
        sync.ingest("d/f", |path| Event::Create { path });
        sync.ingest("x", |path| Event::Modify { path });
        let get_events: Function = sync.handle(0).inlet.get("getEvents").unwrap();
        for (test, expected) in [
            ("nil", "/d/ /d/f /x"),
            ("function() return true end", "/d/ /d/f /x"),
            ("function() return 'yes' end", "/d/ /d/f /x"),
            ("function() return false end", ""),
            ("function() return 'break' end", ""),
            ("function(e) return e.isdir or 'break' end", "/d/"),
            ("function(e) return not e.isdir end", "/x"),
        ] {
            let test: Value = sync.eval(test);
            let list: Table = get_events.call(test.clone()).unwrap();
            let paths: Function = list.get("getPaths").unwrap();
            let paths: Vec<String> = paths.call(()).unwrap();
            assert_eq!(paths.join(" "), expected, "{test:?}");
        }
    }
}
