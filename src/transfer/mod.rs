//! Running processes of syncs.
//!
//! | file | what it does |
//! |---|---|
//! | `transfers` | the component: starts processes and threads and evaluates their ends |
//! | `transfers_tests` | its tests |
//! | `spawn` | the command of a request |
//! | `backups` | the dated directory of a transfer, and the removal of old ones |
//! | `recall` | ends transfers whose source or target has changed |
//! | `bandwidth` | limits by time of day |
//! | `job` | one running process, its entries and its output |
//! | `job_tests` | its tests |
//! | `progress` | the progress of a process or thread, for people |
//! | `local_jobs` | the threads of default.direct |
//! | `completion` | from the exit status to the queue, the counters and the report of a hook |
//! | `completion_tests` | its tests |
//! | `scanner_call` | a running scanner: timeout, output, verdict |
//! | `hooks` | the commands of `onSynced`, `onFailed` and `onRecovered` |
//! | `delete_limit` | dry runs for `maxDelete` |
//! | `dry_runs` | what follows their ends |
//! | `transfer_log` | the entry of the transfer log for a process that has ended |
//! | `entry_count` | threads that count a source for them |
//! | `stall_detector` | transfers without progress |
//! | `test_setup` | a sync with a transfer, for tests |
//!
//! The room may call `script`, `state`, `sync`, `scan` and those below. It knows neither the
//! watcher nor the event loop.

mod backups;
mod bandwidth;
mod completion;
mod delete_limit;
mod dry_runs;
mod entry_count;
mod hooks;
mod job;
mod local_jobs;
mod progress;
mod recall;
mod scanner_call;
mod spawn;
mod stall_detector;
#[cfg(test)]
mod test_setup;
mod transfer_log;
mod transfers;

pub use job::Job;
pub use scanner_call::ScannerCall;
pub use transfers::Transfers;
