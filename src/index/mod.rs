//! Index of a source: one row for each directory, with its state as of the last transfer to the
//! target.
//!
//! A row holds a digest of the directory: the names and types of its entries, and size, times and
//! inode of those that are not directories. A change of the directory changes a ctime, which no user
//! can set, so a directory with an equal digest is as it was. A start with an index therefore
//! compares the directories whose digest differs, each without those below it.
//!
//! * `siphash`: the keyed hash of digests and paths;
//! * `digest`: the digest of a directory;
//! * `file`: the format of the index file;
//! * `rows`: the rows that stay when directories have changed;
//! * `changed`: the directories that have changed since the index was made;
//! * `walk`: reads a source on several threads;
//! * `walk_tests`: its tests;
//! * `plan`: the directories that a start compares.
//!
//! The room may call `batch`, `filter`, `local`, `log` and `paths`. It knows neither syncs nor
//! queues, and writes no file.

pub mod changed;
pub mod digest;
pub mod file;
pub mod plan;
pub mod rows;
pub mod siphash;
pub mod walk;

pub use changed::ChangedDirs;
pub use file::{Header, Index};
pub use plan::StartupPlan;
pub use rows::Row;
