//! The kept reports of comparisons: JSON lines below the state directory, chained by hashes.
//!
//! Each line has a number and the SHA-256 of the line before, so that a missing or altered line is
//! detected. A second file, the head, has the number and the hash of the last line, and of the last
//! line that was removed because of its age, so that missing lines at either end are detected as
//! well.
//!
//! | file | what it does |
//! |---|---|
//! | `chain` | a line, the head, and the check of a chain |
//! | `store` | the files |
//! | `page` | the newest reports and the result of the check, for the protocol |
//! | `worker` | the thread that writes reports and answers queries |
//!
//! The room may call `history`, `safe_path`, `status` and `log`, and nothing else of the program.

mod chain;
mod page;
mod store;
mod worker;

pub use page::{KeptReport, ReportPage};
pub use worker::{ReportAnswer, Reports};
