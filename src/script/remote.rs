//! What the preludes of default.rsyncssh and default.direct are given: the two kinds that carry
//! out moves at the target.

use std::rc::Rc;

use mlua::{Lua, Result, Table, Value};

use super::event::{Agent, EventRef, Objects};
use super::host::{Host, Member};
use super::native::{change, rsync_target};
use crate::batch::Entry;
use crate::batch::direct::{self, Step, Trees};
use crate::config::{complaint, complaint_about, ssh, text_of};
use crate::queue::Etype;
use crate::report;

/// Puts the functions into the table that preludes get.
pub fn add(lua: &Lua, host: &Rc<Host>, objects: &Objects, native: &Table) -> Result<()> {
    rsyncssh(lua, native)?;
    direct(lua, host, objects, native)?;

    // Queue entries up to the first Move, which goes alone.
    let with = objects.clone();
    let before_move = lua.create_function(move |_, event: Table| match with.agent(&event)? {
        Some(Agent::Event(event)) => Ok(event.etype != Etype::Move && !event.etype.is_special()),
        _ => Err(complaint("not an event")),
    })?;
    lua.set_named_registry_value("is_before_move", &before_move)?;
    native.set("is_before_move", before_move)?;

    let (h, with) = (Rc::clone(host), objects.clone());
    native.set(
        "split_move",
        lua.create_function(move |_, event: Table| {
            let (member, event) = behind(&with, &event)?;
            let now = h.clock.now();
            member.sync.borrow_mut().split_move(event.id, now);
            Ok(())
        })?,
    )
}

fn rsyncssh(lua: &Lua, native: &Table) -> Result<()> {
    native.set(
        "prepare_ssh",
        lua.create_function(|lua, config: Table| prepare_ssh(lua, &config))?,
    )?;
    native.set(
        "remote_word",
        lua.create_function(|lua, (directory, path): (mlua::BString, mlua::BString)| {
            lua.create_string(ssh::remote_word(&directory, &path))
        })?,
    )
}

/// Computes what reaches the host: `ssh.binary` and `ssh._computed` for moves, and what rsync
/// has to be told behind the words it has.
fn prepare_ssh(lua: &Lua, config: &Table) -> Result<()> {
    let table = match config.get("ssh")? {
        Value::Table(table) => table,
        _ => return Err(complaint_about("ssh", "Parameter \"ssh\" must be a table.")),
    };
    if !table.get::<Value>("_computed")?.is_nil() {
        return Err(complaint_about(
            "_computed",
            "please do not use the internal ssh._computed parameter",
        ));
    }
    let computed: Table = config.get::<Table>("rsync")?.get("_computed")?;
    let mut rsync = Vec::new();
    for word in computed.sequence_values::<Value>() {
        rsync.extend(text_of(&word?));
    }
    let connection = ssh::Connection::new(&table, &rsync)?;
    if let Some(rsh) = connection.rsh {
        computed.raw_push(lua.create_string(rsh)?)?;
    }
    let words = lua.create_table()?;
    for word in connection.words {
        words.raw_push(lua.create_string(word)?)?;
    }
    table.set("_computed", words)?;
    table.set("binary", lua.create_string(connection.binary)?)
}

fn direct(lua: &Lua, host: &Rc<Host>, objects: &Objects, native: &Table) -> Result<()> {
    let with = objects.clone();
    native.set(
        "direct_step",
        lua.create_function(move |lua, (event, waited): (Table, Option<bool>)| {
            let (member, event) = behind(&with, &event)?;
            let (name, words) = match step(lua, &member, &event, waited == Some(true))? {
                Step::Nothing => ("nothing", Vec::new()),
                Step::Wait => ("wait", Vec::new()),
                Step::Attributes => ("attributes", Vec::new()),
                Step::Run(words) => ("run", words),
                Step::Transfer => ("transfer", Vec::new()),
                Step::Split => ("split", Vec::new()),
                Step::Refuse => return Err(complaint("Refusing to erase your harddisk!")),
            };
            let list = lua.create_table()?;
            for word in words {
                list.raw_push(lua.create_string(word)?)?;
            }
            Ok((name, list))
        })?,
    )?;
    let (h, with) = (Rc::clone(host), objects.clone());
    native.set(
        "take_attributes",
        lua.create_function(move |lua, event: Table| {
            let (member, event) = behind(&with, &event)?;
            take_attributes(lua, &h, &member, &event)
        })?,
    )?;
    let with = objects.clone();
    native.set(
        "has_vanished",
        lua.create_function(move |_, event: Table| {
            let (member, event) = behind(&with, &event)?;
            let sync = member.sync.borrow();
            Ok(match sync.queue.get(event.id) {
                Some(delay) => !sync.is_at_source(&delay.paths().0),
                None => false,
            })
        })?,
    )
}

/// The sync and the queue entry that an event object stands for.
fn behind(objects: &Objects, event: &Table) -> Result<(Rc<Member>, EventRef)> {
    match objects.agent(event)? {
        Some(Agent::Event(event)) => match event.member.upgrade() {
            Some(member) => Ok((member, event)),
            None => Err(complaint("the event's sync is gone")),
        },
        _ => Err(complaint("not an event")),
    }
}

fn step(lua: &Lua, member: &Member, event: &EventRef, waited: bool) -> Result<Step> {
    let target = rsync_target(lua, &member.config)?;
    let sync = member.sync.borrow();
    let Some(delay) = sync.queue.get(event.id) else {
        return Ok(Step::Nothing);
    };
    let (path, to) = delay.paths();
    let trees = Trees {
        source: &sync.config.source,
        target: &target,
        delete: sync.config.delete.in_batches(),
        filtered: sync.is_filtered(),
    };
    let entry = Entry {
        change: change(delay.etype()),
        path: &path,
        to: to.as_deref(),
    };
    Ok(trees.step(&entry, waited).unwrap_or_else(|error| {
        let (name, path) = (&sync.config.name, report::escape(&path));
        report::warn(format_args!("{name}: cannot look at {path}: {error}"));
        Step::Nothing
    }))
}

/// Attributes of a new directory come before its contents, and its owner has to be able to
/// fill it: those of a read-only one are completed by an event behind its contents.
fn take_attributes(lua: &Lua, host: &Host, member: &Member, event: &EventRef) -> Result<()> {
    let target = rsync_target(lua, &member.config)?;
    let mut sync = member.sync.borrow_mut();
    let Some(delay) = sync.queue.get(event.id) else {
        return Ok(());
    };
    let (etype, (path, _)) = (delay.etype(), delay.paths());
    let bare = path.strip_suffix(b"/").unwrap_or(&path);
    let source = [&sync.config.source, bare].concat();
    let target = [&target, bare].concat();
    match direct::take_attributes(&source, &target, etype != Etype::Attrib) {
        Ok(false) => {}
        Ok(true) => sync.note(Etype::Attrib, &path, host.clock.now()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            let (name, path) = (&sync.config.name, report::escape(&path));
            report::warn(format_args!(
                "{name}: cannot set the attributes of {path} at the target: {error}"
            ));
        }
    }
    Ok(())
}
