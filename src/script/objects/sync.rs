//! The object returned by `inlet.getSync()`: reads the state of a sync and adds changes.

use std::rc::{Rc, Weak};
use std::sync::PoisonError;

use mlua::{Function, IntoLua, Lua, MultiValue, Result, Table, Value};

use super::timestamp;
use crate::config::{config_error, text_of};
use crate::script::context::{ScriptContext, Stage};
use crate::script::sync_handle::SyncHandle;
use crate::watch::Event;

/// Returns the object of a sync, always the same one.
pub fn object(lua: &Lua, context: &Rc<ScriptContext>, handle: &Rc<SyncHandle>) -> Result<Table> {
    if let Some(object) = handle.object.get() {
        return Ok(object.clone());
    }
    let public: Function = lua.named_registry_value("public")?;
    let (shared, weak) = (Rc::clone(context), Rc::downgrade(handle));
    let look = lua.create_function(move |lua, (_, key): (Value, Value)| {
        let handle = upgrade(&weak)?;
        let key = text_of(&key).unwrap_or_default();
        field(lua, &shared, &handle, &String::from_utf8_lossy(&key))
    })?;
    let meta = lua.create_table()?;
    meta.raw_set("__index", public.call::<Function>(look)?)?;
    let object = lua.create_table()?;
    object.set_metatable(Some(meta))?;

    let (shared, weak) = (Rc::clone(context), Rc::downgrade(handle));
    let delay = lua.create_function(move |_, arguments: MultiValue| {
        let handle = upgrade(&weak)?;
        delay(&shared, &handle, arguments)
    })?;
    let weak = Rc::downgrade(handle);
    let concerns = lua.create_function(move |_, arguments: MultiValue| {
        let handle = upgrade(&weak)?;
        let path = without_self(arguments).pop_front();
        let path = path
            .and_then(|path| text_of(&path))
            .ok_or_else(|| config_error("concerns needs a path"))?;
        Ok(handle.sync.borrow().concerns(&path))
    })?;
    for (name, function) in [("delay", delay), ("concerns", concerns)] {
        object.raw_set(name, public.call::<Function>(function)?)?;
    }
    Ok(handle.object.get_or_init(|| object).clone())
}

fn upgrade(handle: &Weak<SyncHandle>) -> Result<Rc<SyncHandle>> {
    handle
        .upgrade()
        .ok_or_else(|| config_error("the sync is gone"))
}

/// Removes the object from the arguments, so that methods can be called with a colon or a dot.
fn without_self(mut arguments: MultiValue) -> MultiValue {
    if let Some(Value::Table(_)) = arguments.front() {
        arguments.pop_front();
    }
    arguments
}

fn field(
    lua: &Lua,
    context: &Rc<ScriptContext>,
    handle: &Rc<SyncHandle>,
    name: &str,
) -> Result<Value> {
    match name {
        "source" | "name" => handle.config.get(name),
        "config" => handle.config.clone().into_lua(lua),
        "inlet" => handle.inlet.clone().into_lua(lua),
        "initDone" => {
            let running = context.stage.get() != Stage::Loading;
            (running && handle.sync.borrow().has_started()).into_lua(lua)
        }
        "processes" => processes(lua, context, handle),
        "delays" => delays(lua, handle),
        "excludes" => excludes(lua, handle),
        _ => Ok(Value::Nil),
    }
}

fn processes(lua: &Lua, context: &Rc<ScriptContext>, handle: &Rc<SyncHandle>) -> Result<Value> {
    let (shared, weak) = (Rc::clone(context), Rc::downgrade(handle));
    let size = lua.create_function(move |_, _: MultiValue| {
        let Some(handle) = weak.upgrade() else {
            return Ok(0);
        };
        Ok(handle.sync.borrow().running() + shared.requests.spawns_of(&handle))
    })?;
    let processes = lua.create_table()?;
    processes.raw_set("size", size)?;
    processes.into_lua(lua)
}

/// Returns a `Queue` of the pending entries. It is a copy: changing it does not change the sync.
fn delays(lua: &Lua, handle: &SyncHandle) -> Result<Value> {
    let pending: Vec<_> = {
        let sync = handle.sync.borrow();
        let delays = sync.queue.iter();
        delays
            .map(|d| (d.etype().name(), d.status().name(), d.due(), d.paths()))
            .collect()
    };
    let class: Table = lua.named_registry_value("queue_class")?;
    let queue: Table = class.raw_get::<Function>("new")?.call(())?;
    let push: Function = class.raw_get("push")?;
    for (etype, status, due, (path, path2)) in pending {
        let delay = lua.create_table()?;
        delay.raw_set("etype", etype)?;
        delay.raw_set("status", status)?;
        delay.raw_set("alarm", timestamp::Timestamp(due))?;
        delay.raw_set("path", lua.create_string(path)?)?;
        if let Some(path2) = path2 {
            delay.raw_set("path2", lua.create_string(path2)?)?;
        }
        push.call::<()>((&queue, delay))?;
    }
    queue.into_lua(lua)
}

fn excludes(lua: &Lua, handle: &SyncHandle) -> Result<Value> {
    let patterns: Vec<Vec<u8>> = {
        let sync = handle.sync.borrow();
        let filter = sync.filter.read().unwrap_or_else(PoisonError::into_inner);
        filter.excludes().map(<[u8]>::to_vec).collect()
    };
    let list = lua.create_table()?;
    for pattern in patterns {
        list.raw_set(lua.create_string(pattern)?, true)?;
    }
    let excludes = lua.create_table()?;
    excludes.raw_set("list", list)?;
    excludes.into_lua(lua)
}

/// `delay(etype, time, path, path2)`: adds a change as if it was reported at the timestamp `time`,
/// or now without one.
fn delay(context: &ScriptContext, handle: &SyncHandle, arguments: MultiValue) -> Result<()> {
    let mut arguments = without_self(arguments).into_iter();
    let mut next = || arguments.next().unwrap_or(Value::Nil);
    let etype = text_of(&next()).unwrap_or_default();
    let time = timestamp::stamp(&next()).map_or_else(|| context.clock.now(), |stamp| stamp.0);
    let source = handle.sync.borrow().config.source.clone();
    let mut absolute = || -> Option<Vec<u8>> {
        let path = text_of(&next())?;
        let path = path.strip_prefix(b"/").filter(|path| !path.contains(&0))?;
        Some([source.as_slice(), path].concat())
    };
    let (from, to) = (absolute(), absolute());
    let path = from
        .as_deref()
        .ok_or_else(|| config_error("delay needs a path that begins with a slash"))?;
    let event = match (etype.as_slice(), to.as_deref()) {
        (b"Create", _) => Event::Create { path },
        (b"Modify", _) => Event::Modify { path },
        (b"Attrib", _) => Event::Attrib { path },
        (b"Delete", _) => Event::Delete { path },
        (b"Move", Some(to)) => Event::Move { from: path, to },
        (b"Move", None) => return Err(config_error("a Move needs two paths")),
        _ => {
            return Err(config_error(
                "delay needs Create, Modify, Attrib, Delete or Move, and when",
            ));
        }
    };
    handle.sync.borrow_mut().ingest(event, time);
    Ok(())
}

#[cfg(test)]
mod tests {
    use mlua::{Function, Table, Value};

    use crate::queue::Time;
    use crate::script::test_setup::Loaded;

    fn loaded() -> Loaded {
        Loaded::of(
            "inlet = sync{ source = '@DIR@/src', init = false, onMove = true,
               onCreate = function(event) spawn(event, 'true') end }
             s = inlet.getSync()",
        )
    }

    #[test]
    fn delay_adds_events_of_each_type() {
        let sync = loaded();
        let handle = sync.handle(0);
        for etype in ["Create", "Modify", "Attrib", "Delete"] {
            sync.eval::<()>(&format!("s.delay('{etype}', now(), '/{etype}')"));
        }
        sync.eval::<()>("s:delay('Move', nil, '/from', '/to')");
        let queue = &handle.sync.borrow().queue;
        let queued: Vec<_> = queue
            .iter()
            .map(|delay| (delay.etype().name(), delay.paths()))
            .collect();
        let path = |text: &str| text.as_bytes().to_vec();
        for (at, etype) in ["Create", "Modify", "Attrib", "Delete"].iter().enumerate() {
            assert_eq!(queued[at], (*etype, (path(&format!("/{etype}")), None)));
        }
        assert_eq!(queued[4], ("Move", (path("/from"), Some(path("/to")))));
        let due: Vec<Time> = queue.iter().map(|delay| delay.due()).collect();
        assert!(due.windows(2).all(|two| two[0] <= two[1]), "{due:?}");
        for wrong in [
            "'Move', now(), '/a'",
            "'Nonsense', now(), '/a'",
            "'Create', now(), 'a'",
        ] {
            let (ok, text): (bool, String) = sync.eval(&format!("pcall(s.delay, {wrong})"));
            assert!(!ok, "{wrong}");
            assert_eq!(
                text.contains("needs two paths"),
                wrong.contains("Move"),
                "{text}"
            );
        }
    }

    #[test]
    fn processes_are_those_that_run_and_those_that_are_requested() {
        let sync = loaded();
        let handle = sync.handle(0);
        let size = || -> usize {
            let s: Table = sync.eval("s");
            let processes: Table = s.get("processes").unwrap();
            let size: Function = processes.get("size").unwrap();
            size.call(Value::Nil).unwrap()
        };
        assert_eq!(size(), 0);
        sync.create("f");
        sync.script.act(&handle, sync.due()).unwrap();
        assert_eq!(size(), 1);
        handle.sync.borrow_mut().child_started();
        assert_eq!(size(), 2);
    }
}
