//! What a Unix daemon does with the operating system.
//!
//! * [`detach`]: leaves the terminal and goes to the background;
//! * [`pid_file`]: the pid file and its lock;
//! * [`signals`]: signals as events of the loop;
//! * [`systemd`]: tells the service manager about state and progress, and its watchdog.
//!
//! The room knows neither syncs nor the event loop.

pub mod detach;
pub mod pid_file;
pub mod signals;
pub mod systemd;
