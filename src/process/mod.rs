//! Child processes: start, input, output, end.
//!
//! | file | what it does |
//! |---|---|
//! | `command` | the description of a child, and its start |
//! | `pid` | process ids |
//! | `children` | running children, from their start to their end |
//! | `pipes` | the daemon's ends of the children's pipes |
//! | `lines` | splits output into lines |
//! | `program` | the lookup of programs in `PATH` |
//! | `priority` | CPU and disk priorities |
//! | `process_tree` | descendants of children |
//! | `activity` | observes CPU time and I/O of a child and its descendants |
//! | `idle_clock` | the time without progress of a process or thread |
//! | `orphans` | reaps orphans if the daemon is process 1 |
//! | `run` | runs a program to its end, for the command line |
//! | `ssh_control` | private sockets of shared ssh connections |
//!
//! Nothing here blocks but `run`. The event loop owns the poll; it passes the events of the pipes'
//! tokens to [`Children::ready`], calls [`Children::reap`] after `SIGCHLD`, and
//! [`Children::resume`] in each turn while [`Children::pending`] returns true. The room may call
//! `log` and `sys`; it knows neither rsync's options nor syncs.

mod activity;
mod children;
mod command;
mod idle_clock;
mod lines;
mod orphans;
mod pid;
mod pipes;
mod priority;
pub mod process_tree;
pub mod program;
mod run;
mod ssh_control;

pub use activity::{FifoWait, KEEP_ALIVE, Observation, ProcessObserver};
pub use children::{Children, EndedChild, ExitStatus};
pub use command::{Command, Output, SpawnError, Stdin};
pub use idle_clock::{CHECK_INTERVAL, IdleClock};
pub use lines::MAX_LINE;
pub use pid::Pid;
pub use pipes::{Sink, Stream};
pub use priority::{IoPriority, Priority};
pub use run::{Ended, run_without_terminal};
pub use ssh_control::{SshControl, wait_for_closed_sockets};
