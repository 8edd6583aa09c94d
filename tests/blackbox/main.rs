//! Black-box tests: the built daemon is started on a directory of its own, files
//! are changed, and what arrives, is logged or is run is looked at.
//!
//! The program under test is the one cargo built, or the one that the environment
//! variable `LSYNCD_TEST_BINARY` names: lsyncd itself, to see where the two differ.
//! `LSYNCD_TEST_LIMIT` is the time in seconds after which a condition is given up (120).
//! Nothing here asserts how long something takes.
//!
//! | file | what it is about |
//! |---|---|
//! | util, daemon, tree, fake | the harness: work directory, daemon under test, comparing, recording |
//! | mirror | one kind of change after the other arrives |
//! | names | strange names arrive, change and go |
//! | races | changes made while the daemon is stopped, or while a transfer runs |
//! | sending | delay, limits, excludes, filters, what deletes, several syncs |
//! | refusals | receivers that do not take an option |
//! | retry | what each way of a child's ending leads to |
//! | background | detaching, pid file, signals |
//! | log_status | log lines and the status file |
//! | broken | no configuration, however broken, makes a panic, an abort or a hang |
//! | lua_api, lua_events | what user code finds, in the configuration and in its functions |
//! | lua_texts | actions as texts |
//! | mistakes | mistakes in a configuration end with file, line and what is wrong |
//! | command_line, config_errors | what is refused, and in which words |
//! | drop_in | what configurations of lsyncd ask for and get |
//! | followed | links that rsync follows |
//! | inspect | `-check` and `-explain` |
//! | service | what a service manager and the journal get |
//! | options | what the other options and settings do |
//! | batch_size, crontab, observed, tunnels | the keys and functions of these names |
//! | ssh | over a real sshd on the loopback interface |

// clippy.toml allows these in test functions only, and a harness is made of helpers.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod daemon;
mod fake;
mod tree;
mod util;

mod background;
mod batch_size;
mod broken;
mod command_line;
mod config_errors;
mod crontab;
mod drop_in;
mod followed;
mod inspect;
mod limits;
mod log_status;
mod lua_api;
mod lua_events;
mod lua_texts;
mod meanwhile;
mod mirror;
mod mistakes;
mod names;
mod observed;
mod options;
mod races;
mod refusals;
mod retry;
mod sending;
mod service;
mod ssh;
mod startup_options;
mod tunnels;
