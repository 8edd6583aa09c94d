//! The daemon as a process: the event loop, detaching, pid file, signals.

pub mod detach;
pub mod pidfile;
pub mod signals;
