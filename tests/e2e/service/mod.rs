//! The daemon as a service.
//!
//! | file | what it is about |
//! |---|---|
//! | background | detaching, pid file, signals |
//! | log_status | log lines and the status file |
//! | manager | what a service manager and the journal get |

mod background;
mod log_status;
mod manager;
