//! The texts of lsyncd's `Delay` log lines.

use crate::log::escape;
use crate::queue::{Delay, DelayId, Etype, Placed, Pushed, Queue};

/// Returns the log line for an event that was pushed.
pub fn describe(
    queue: &Queue,
    pushed: Pushed,
    etype: Etype,
    path: &[u8],
    to: Option<&[u8]>,
) -> String {
    let new = named(etype, path, to);
    match pushed {
        Pushed::Placed(placed) => place(queue, placed, etype, path, &new),
        Pushed::Split { on, was, .. } => {
            format!("{new} splits on {}", older(queue, on, Some(was)))
        }
    }
}

fn place(queue: &Queue, placed: Placed, etype: Etype, path: &[u8], new: &str) -> String {
    match placed {
        Placed::Appended { .. } => format!("New {new}"),
        Placed::Blocked { on, .. } => format!("{new} blocked by {}", older(queue, on, None)),
        Placed::Absorbed { by } => {
            let by = queue.get(by).map_or(etype, |delay| delay.etype());
            format!("{} absorbs {} on {}", by.name(), etype.name(), escape(path))
        }
        Placed::Replaced { was, .. } => {
            format!("{new} replaces {}", named(was, path, None))
        }
        Placed::Turned { on, .. } => {
            format!("{new} turns a Move into {}", older(queue, on, None))
        }
        Placed::Refused => format!("{new} does not fit into the queue"),
    }
}

fn older(queue: &Queue, id: DelayId, was: Option<Etype>) -> String {
    let Some(delay) = queue.get(id) else {
        return was.map_or("", Etype::name).to_owned();
    };
    let (path, to) = Delay::paths(&delay);
    named(was.unwrap_or(delay.etype()), &path, to.as_deref())
}

fn named(etype: Etype, path: &[u8], to: Option<&[u8]>) -> String {
    match to {
        Some(to) => format!("{}: {} -> {}", etype.name(), escape(path), escape(to)),
        None => format!("{}: {}", etype.name(), escape(path)),
    }
}
