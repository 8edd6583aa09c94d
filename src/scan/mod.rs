//! The check gate at work: scan passes between due entries and their transfer.
//!
//! | file | what it does |
//! |---|---|
//! | `pass` | the component: the passes of all gates |
//! | `progress` | the files of one pass on their way through the checks |
//! | `scanners` | scanner processes and check functions |
//! | `apply` | what the results mean for the files and their syncs |
//! | `hooks` | the commands of `onReject` |
//! | `staging` | what has passed, staged for rsync: a room of its own |
//!
//! The room may call `transfer`, `script` and those below; `staging` is below `sync`. It knows
//! neither the watcher nor the event loop.

mod apply;
mod hooks;
mod pass;
mod progress;
mod scanners;
pub mod staging;

pub use pass::{CheckedTransfer, ScanPasses, ScanTurn};
