//! The interface of the daemon to the operating system.
//!
//! * [`detach`]: leaves the terminal and goes to the background;
//! * [`pid_file`]: the pid file and its lock;
//! * [`signals`]: signals as events of the loop;
//! * [`systemd`]: reports state, progress and watchdog messages to the service manager.
//!
//! The room knows neither syncs nor the event loop.

pub mod detach;
pub mod pid_file;
pub mod signals;
pub mod systemd;
