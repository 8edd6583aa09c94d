//! CPU and disk priorities of children.

use std::io;

use rustix::process::{Pid, setpriority_process};

use crate::sys;

/// The priorities of a sync's children. Unset ones are those of the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Priority {
    /// -20 to 19 (nice(1)).
    pub nice: Option<i32>,
    /// The disk priority (ionice(1)).
    pub io: Option<IoPriority>,
}

/// A class of ioprio_set(2), with a level from 0 (first) to 7 where the class has levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoPriority {
    /// Before all others; root only.
    Realtime(u8),
    /// The default class, with a level among its processes.
    BestEffort(u8),
    /// Only when no other process uses the disk.
    Idle,
}

impl IoPriority {
    /// Returns the value for ioprio_set(2).
    pub fn number(self) -> i32 {
        let (class, level) = match self {
            IoPriority::Realtime(level) => (1, level),
            IoPriority::BestEffort(level) => (2, level),
            IoPriority::Idle => (3, 0),
        };
        class << 13 | i32::from(level)
    }
}

impl Priority {
    /// Sets the priorities of a process or thread; 0 is the calling thread. Children it starts
    /// later inherit them.
    ///
    /// # Errors
    /// The first one that the system refuses; the others are set. A process that has ended is no
    /// error.
    pub fn give(self, id: u32) -> io::Result<()> {
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
        let nice = self.nice.map_or(Ok(()), |nice| {
            setpriority_process(pid, nice).map_err(io::Error::from)
        });
        let io = self.io.map(IoPriority::number);
        let io = io.map_or(Ok(()), |number| sys::set_io_priority(id, number));
        for given in [nice, io] {
            match given {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Sets the priorities of a command that has not been started yet, so that its children inherit
    /// them too. Refusals of the system are not reported.
    pub(super) fn give_at_start(self, command: &mut std::process::Command) {
        sys::begin_with_priority(command, self.nice, self.io.map(IoPriority::number));
    }

    /// Returns these priorities, with unset ones replaced by those of `other`.
    pub fn or(self, other: Priority) -> Priority {
        Priority {
            nice: self.nice.or(other.nice),
            io: self.io.or(other.io),
        }
    }
}
