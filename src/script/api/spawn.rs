//! `spawn`: converts its arguments to a request for the event loop.

use std::rc::Rc;

use mlua::{MultiValue, Result, Value};

use crate::batch::TransferKind;
use crate::config::{config_error, kind_of, text_of};
use crate::log;
use crate::queue::{DelayId, Status};
use crate::script::context::{ScriptContext, Stage};
use crate::script::objects::{Agent, Objects};
use crate::script::request::{RsyncCall, ScriptRequest, SpawnRequest};
use crate::script::sync_handle::SyncHandle;

/// The parsed arguments of a call.
#[derive(Default)]
struct Arguments {
    args: Vec<Vec<u8>>,
    stdin: Option<Vec<u8>>,
    transfer: Option<TransferKind>,
}

/// Adds a spawn request and marks its entries active.
///
/// # Errors
///
/// Invalid arguments, in lsyncd's words.
pub fn spawn(
    context: &Rc<ScriptContext>,
    objects: &Objects,
    captured: bool,
    arguments: MultiValue,
) -> Result<()> {
    let mut arguments = arguments.into_iter();
    let agent = match arguments.next() {
        Some(Value::Table(agent)) => agent,
        _ => return Err(config_error("spawning with an invalid agent")),
    };
    let Some(selected) = objects.agent(&agent)? else {
        return Err(config_error("spawning with an unknown agent"));
    };
    let program = match arguments.next() {
        Some(Value::String(program)) if !program.as_bytes().contains(&0) => {
            program.as_bytes().to_vec()
        }
        _ => {
            return Err(config_error(
                "calling spawn(agent, binary, ...): binary is not a string",
            ));
        }
    };
    if context.stage.get() == Stage::ShuttingDown {
        log::normal("ignored process spawning while fading");
        return Ok(());
    }
    let handle = selected
        .handle()
        .ok_or_else(|| config_error("spawning with an unknown agent"))?;
    let ids = selected.ids();
    let reading = context.staged_reading.borrow().clone();
    if reading.is_none() {
        if handle.sync.borrow().config.check.is_some() {
            return Err(config_error(
                "a sync with check can spawn only its transfers",
            ));
        }
        check_waiting(&handle, &selected, &ids)?;
    }
    if !context.may_spawn() {
        return Err(config_error("Spawned too much processes!"));
    }
    let mut words = words(arguments)?;
    let mut environment = if captured {
        handle.sync.borrow().environment().to_vec()
    } else {
        Vec::new()
    };
    context
        .sockets
        .keep_private(&mut words.args, &mut environment);
    let request = SpawnRequest {
        environment,
        handle,
        agent,
        ids,
        program,
        args: words.args,
        stdin: words.stdin,
        captured,
        transfer: words.transfer,
        reading,
    };
    context.requests.push(ScriptRequest::Spawn(request));
    Ok(())
}

fn check_waiting(handle: &SyncHandle, agent: &Agent, ids: &[DelayId]) -> Result<()> {
    let sync = handle.sync.borrow();
    let status = |id: &DelayId| sync.queue.get(*id).map(|delay| delay.status());
    match agent {
        Agent::Event(event) if status(&event.id) != Some(Status::Wait) => {
            Err(config_error("spawn() called on an non-waiting event"))
        }
        Agent::List(_)
            if !ids
                .iter()
                .all(|id| matches!(status(id), Some(Status::Wait | Status::Block))) =>
        {
            Err(config_error("spawn() called on an non-waiting event list"))
        }
        _ => Ok(()),
    }
}

/// Converts arguments: numbers become text, nils are dropped, tables are flattened one level. `"<"`
/// makes the next word the standard input. A transfer adds both arguments and input.
fn words(arguments: impl Iterator<Item = Value>) -> Result<Arguments> {
    let mut words = Arguments::default();
    for value in arguments {
        match value {
            Value::Nil => {}
            Value::Table(table) => {
                for item in table.sequence_values::<Value>() {
                    words.args.push(word(&item?)?);
                }
            }
            Value::UserData(data) => {
                let transfer = data
                    .borrow::<RsyncCall>()
                    .map_err(|_| config_error("spawn takes texts, numbers and lists of them"))?;
                words.args.extend(transfer.0.args.iter().cloned());
                words.stdin = Some(transfer.0.list.clone());
                words.transfer = Some(transfer.0.kind);
            }
            value => words.args.push(word(&value)?),
        }
    }
    if words.args.len() >= 2 && words.args[0] == b"<" {
        words.args.remove(0);
        let text = words.args.remove(0);
        words.stdin = (!text.is_empty() && text[0] != 0).then_some(text);
    }
    if words.args.iter().any(|word| word.contains(&0)) {
        Err(config_error("spawn: an argument contains a NUL byte"))
    } else {
        Ok(words)
    }
}

fn word(value: &Value) -> Result<Vec<u8>> {
    text_of(value).ok_or_else(|| {
        config_error(format!(
            "spawn takes texts, numbers and lists of them, not {}",
            kind_of(value)
        ))
    })
}

#[cfg(test)]
mod tests {
    use crate::script::request::{ScriptRequest, SpawnRequest};
    use crate::script::test_setup::Loaded;

    /// Returns the request, or the error, of `spawn` with these arguments after the event.
    fn requested(arguments: &str) -> Result<SpawnRequest, String> {
        let sync = Loaded::of(&format!(
            "sync{{ source = '@DIR@/src', init = false, onCreate = function(event)
               spawn(event, {arguments})
             end }}"
        ));
        sync.create("f");
        match sync.try_act()?.remove(0) {
            ScriptRequest::Spawn(request) => Ok(request),
            _ => panic!("no process was requested"),
        }
    }

    #[test]
    fn arguments_become_words_and_standard_input() {
        for (arguments, words, stdin) in [
            ("'true'", &[][..], None),
            ("'true', 1, nil, { 'x', 2 }", &["1", "x", "2"], None),
            ("'true', '<', 'in', 'a'", &["a"], Some("in")),
            ("'true', '<', '', 'a'", &["a"], None),
            ("'true', '<', '\\0in'", &[], None),
            ("'true', '<'", &["<"], None),
            ("'true', 'a', '<', 'b'", &["a", "<", "b"], None),
        ] {
            let request = requested(arguments).unwrap();
            let given: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
            assert_eq!(request.args, given, "{arguments}");
            let input = request.stdin.map(|text| String::from_utf8(text).unwrap());
            assert_eq!(input.as_deref(), stdin, "{arguments}");
        }
        for (arguments, error) in [
            ("'tr\\0ue'", "binary is not a string"),
            ("nil", "binary is not a string"),
            ("'true', 'a\\0b'", "NUL byte"),
            ("'true', print", "texts, numbers and lists"),
        ] {
            let found = requested(arguments).err().unwrap_or_default();
            assert!(found.contains(error), "{arguments}: {found}");
        }
    }
}
