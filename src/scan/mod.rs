//! The check gate: scan passes between due entries and their transfer.
//!
//! | file | what it does |
//! |---|---|
//! | `pass` | the component: the passes of all gates |
//! | `pass_tests` | its tests |
//! | `checked_transfer` | a transfer that waits for its pass |
//! | `progress` | the files of one pass on their way through the checks |
//! | `scanners` | scanner processes and check functions |
//! | `apply` | applies the results to the files and their syncs |
//! | `hooks` | the commands of `onReject` |
//!
//! The room may call `transfer`, `script` and those below; `staging` holds the approved files. It
//! knows neither the watcher nor the event loop.

mod apply;
mod checked_transfer;
mod hooks;
mod pass;
mod progress;
mod scanners;

pub use pass::{ScanPasses, ScanTurn};
