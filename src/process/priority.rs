//! How much of the host a child may take.

use std::io;

use rustix::process::{Pid, setpriority_process};

use crate::sys;

/// The priorities of a sync's children. Nothing set: those of the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Priority {
    /// -20 to 19 (nice(1)).
    pub nice: Option<i32>,
    /// For the disk (ionice(1)).
    pub io: Option<IoPriority>,
}

/// A class of ioprio_set(2), with a level from 0 (first) to 7 where the class has levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoPriority {
    /// Before all others; root only.
    Realtime(u8),
    /// As all others, sooner or later among them.
    BestEffort(u8),
    /// Only when nobody else wants the disk.
    Idle,
}

impl IoPriority {
    /// The number ioprio_set(2) takes.
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
    /// Lowers, or raises, a process or thread; 0 is the calling thread. Children it starts later have
    /// the same.
    ///
    /// # Errors
    /// The first that the system refuses; what can be given is given. One that has ended needs none.
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

    /// The same for a command that has not been started yet, so that what it starts in turn has it,
    /// too. Nothing is told of what the system refuses.
    pub(super) fn give_at_start(self, command: &mut std::process::Command) {
        sys::begin_with_priority(command, self.nice, self.io.map(IoPriority::number));
    }

    /// What is not set here is as there.
    pub fn or(self, other: Priority) -> Priority {
        Priority {
            nice: self.nice.or(other.nice),
            io: self.io.or(other.io),
        }
    }
}
