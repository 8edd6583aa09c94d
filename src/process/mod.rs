//! Child processes: spawn, feed, capture, reap. Nothing about rsync.
//!
//! Nothing here waits. The engine owns the poll; it hands on the events of tokens that
//! [`Children::owns`], calls [`Children::reap`] after `SIGCHLD`, and [`Children::resume`] in
//! each turn while [`Children::pending`] says so.

mod activity;
mod children;
mod command;
mod lines;
mod orphans;
mod pipes;
mod priority;
pub mod process_tree;
mod ssh_control;

pub use activity::{FifoWait, Observation, Observer};
pub use children::{Children, EndedChild, ExitStatus, Pid};
pub use command::{Command, Output, SpawnError, Stdin};
pub use lines::MAX_LINE;
pub use pipes::{Sink, Stream};
pub use priority::{IoPriority, Priority};
pub use ssh_control::{SshControl, wait_for_closed_sockets};
