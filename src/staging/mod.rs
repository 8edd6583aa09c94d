//! The staged tree of the check gate: a file is sent only after the user's scanners have passed it,
//! and exactly the checked contents are sent.
//!
//! rsync never reads the source of a sync with `check`. It reads a *staged tree*, a private copy in
//! which each file has passed. A changed file is copied aside, the copy is checked, and only then
//! moved into the tree; so no change of the source after the copy can affect what is sent.
//! docs/check.md has the threat model.
//!
//! | file | what it does |
//! |---|---|
//! | `gate` | the state shared by syncs that check the same files |
//! | `request` | the scope and the result of a scan pass |
//! | `staged_tree` | the staged tree, compared with the source |
//! | `staged_tree_tests` | tests of it |
//! | `walk` | directories, links, and the selection of files to be checked |
//! | `walk_tests` | tests of it |
//! | `files` | one file: if it is known, and the copy that is checked |
//! | `files_tests` | tests of it |
//! | `incoming` | the directory of the copies |
//! | `commit` | applies the decisions about the copies |
//! | `staging_dir` | the private directory |
//! | `removal` | removal of trees that may be read |
//! | `readers` | the transfers that read the tree, and changes that must wait for them |
//! | `verdict_cache` | remembers files, so that an unchanged one is not checked twice |
//! | `groups` | groups files for the calls of a scanner |
//! | `blocked` | files that are not sent, with their reasons |
//! | `worker` | the thread |
//!
//! The room may call `batch`, `filter`, `local` and `log`. It starts no scanner and no transfer.

pub mod blocked;
pub mod commit;
mod files;
pub mod gate;
pub mod groups;
mod incoming;
pub mod readers;
mod removal;
pub mod request;
pub mod staged_tree;
mod staging_dir;
pub mod verdict_cache;
mod walk;
pub mod worker;

pub use blocked::Blocked;
pub use commit::{CommitAction, Committed};
pub use gate::Gate;
pub use groups::{Groups, ScanAnswer};
pub use request::{Candidate, Collected, ScanScope};
pub use staged_tree::Layout;
pub use worker::{ScanWorker, WorkerDone, WorkerOrder, WorkerResult};
