//! The check gate: what is sent to the target has been looked at by the user's scanners, and what
//! they looked at is what is sent.
//!
//! rsync never reads the source of a sync with `check`. It reads a *staged tree*, a private copy
//! in which each file has passed. A changed file is copied aside, the copy is checked, and only
//! then takes its place in the tree; so nothing that happens to the source after the copy was made
//! can change what leaves. docs/check.md has the threat model.
//!
//! | module | what it does |
//! |---|---|
//! | [`gate`] | what syncs share that check the same files |
//! | [`request`] | what of the source is looked at, and what that comes to |
//! | [`staged_tree`] | the staged tree, compared with the source |
//! | [`walk`] | directories, links, and which files are to be looked at |
//! | [`files`] | one file: is it known, and the copy that is checked |
//! | [`commit`] | what becomes of the copies |
//! | [`staging_dir`] | the directory for all that, which is nobody else's |
//! | [`readers`] | the transfers that read the tree, and what must wait for them |
//! | [`verdict_cache`] | what is known of files, so that an unchanged one is not checked twice |
//! | [`groups`] | many files for one call of a scanner, and which of them it meant |
//! | [`blocked`] | what does not leave, and why |
//! | [`worker`] | the thread that does it |

pub mod blocked;
pub mod commit;
mod files;
pub mod gate;
pub mod groups;
pub mod readers;
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
