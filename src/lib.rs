//! The live syncing daemon.
//!
//! It watches directories with inotify and keeps others, mostly on other hosts, current by running
//! rsync. Lua decides which processes are run, Rust runs them.
//!
//! The rooms, in the order in which a change passes them. A room may call the rooms below it, never
//! those above:
//!
//! | room | what it does |
//! |---|---|
//! | [`daemon`] | the event loop, detaching, pid file, signals |
//! | [`audit`] | comparisons of source and target on request |
//! | [`control`] | the control server: sockets, clients and what they request; the protocol |
//! | [`scan`] | the check gate: passes and scanners |
//! | [`transfer`] | running processes of syncs: start, output, exit status, delete limit, hooks |
//! | [`state`] | persistent state |
//! | [`script`] | the Lua side: preludes, user configuration, what user code sees |
//! | [`sync`] | one sync: filter, queue, running processes, retry; fairness among syncs |
//! | [`staging`] | the check gate: staged copies of approved files |
//! | [`backup`] | the dated directories of `backup`, and the removal of old ones |
//! | [`index`] | the index of a warm start: digests of directories |
//! | [`local`] | copies, renames and deletions of default.direct |
//! | [`config`] | typed settings and syncs, read from Lua tables |
//! | [`tunnel`] | the processes and states of tunnels |
//! | [`component`] | the contract between the event loop and its components |
//! | [`reports`] | the kept reports of comparisons, chained by hashes |
//! | [`trends`] | series of the last hour and day of each sync |
//! | [`history`] | the transfer log |
//! | [`batch`] | arguments and lists of rsync for due delays |
//! | [`cli`] | the command line |
//! | [`cron`] | crontabs: times at which a sync compares everything |
//! | [`filter`] | rsync's patterns |
//! | [`queue`] | delays, the combination of events, the path index |
//! | [`watch`] | watched directory trees: converts events of the kernel to changes of paths |
//! | [`status`] | snapshot, health, status file, metrics, page |
//! | [`process`] | children: spawn, feed, capture, reap |
//! | [`log`] | the log and its channels |
//! | [`mount_table`] | the mount table of the system |
//! | [`paths`] | byte paths: slashes, parents, components |
//! | [`safe_path`] | opens the daemon's files without following links of other users |
//! | [`rsync_syntax`] | the syntax of rsync's command line: options with their values |
//! | [`takeover`] | waits for what a killed daemon still holds |
//! | [`spelling`] | the most similar known word for a misspelt one |
//! | [`id`] | ids of syncs and gates, never reused |
//! | [`exit`] | the exit codes |
//! | [`sys`] | the only `unsafe` code |
//! | `test_user` | runs unit tests without the rights of root |
//! | `test_skip` | counts unit tests that cannot run here |
//!
//! `lsyncdctl` (`src/bin/lsyncdctl`) is a program of its own that shares the rooms `control`,
//! `status` and `log`.
//!
//! Paths are bytes everywhere. Paths relative to a source begin with `/`, those of
//! directories end with `/`.

/// The version of both programs.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub mod audit;
pub mod backup;
pub mod batch;
pub mod cli;
pub mod component;
pub mod config;
pub mod control;
pub mod cron;
pub mod daemon;
pub mod exit;
pub mod filter;
pub mod history;
pub mod id;
pub mod index;
pub mod local;
pub mod log;
pub mod mount_table;
pub mod paths;
pub mod process;
pub mod queue;
pub mod reports;
pub mod rsync_syntax;
pub mod safe_path;
pub mod scan;
pub mod script;
pub mod spelling;
pub mod staging;
pub mod state;
pub mod status;
pub mod sync;
pub mod sys;
pub mod takeover;
#[cfg(test)]
mod test_skip;
#[cfg(test)]
mod test_user;
pub mod transfer;
pub mod trends;
pub mod tunnel;
pub mod watch;
