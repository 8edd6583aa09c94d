//! Parts of the library against the real kernel, without a daemon.
//!
//! | file | what it is about |
//! |---|---|
//! | local_mirror, local_attributes, local_differences, local_trees, local_events, local_links, local_deep, local_security | the worker of default.direct; `copy_job` makes its jobs |
//! | process_children, process_limits | child processes |
//! | watch_live, watch_scopes, watch_churn, watch_marks, watch_open_files | the watcher; `watch_rig` has its observer |
//! | detach_and_pid_file | detaching, and who holds the pid file |
//! | log_output | what the log writes where |
//! | atomic_file, safe_path | own files where other users may write |

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod atomic_file;
mod copy_job;
mod detach_and_pid_file;
mod local_attributes;
mod local_deep;
mod local_differences;
mod local_events;
mod local_links;
mod local_mirror;
mod local_security;
mod local_trees;
mod log_output;
mod process_children;
mod process_limits;
mod safe_path;
mod watch_churn;
mod watch_live;
mod watch_marks;
mod watch_open_files;
mod watch_rig;
mod watch_scopes;
