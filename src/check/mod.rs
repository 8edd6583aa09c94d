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
//! | [`look`] | what of the source is looked at, and what that comes to |
//! | [`stage`] | the staged tree, compared with the source |
//! | [`walk`] | directories, links, and which files are to be looked at |
//! | [`files`] | one file: is it known, and the copy that is checked |
//! | [`settle`] | what becomes of the copies |
//! | [`private`] | the directory for all that, which is nobody else's |
//! | [`readers`] | the transfers that read the tree, and what must wait for them |
//! | [`verdicts`] | what is known of files, so that an unchanged one is not checked twice |
//! | [`groups`] | many files for one call of a scanner, and which of them it meant |
//! | [`withheld`] | what does not leave, and why |
//! | [`worker`] | the thread that does it |

mod files;
pub mod gate;
pub mod groups;
pub mod look;
mod private;
pub mod readers;
pub mod settle;
pub mod stage;
pub mod verdicts;
mod walk;
pub mod withheld;
pub mod worker;

pub use gate::Gate;
pub use groups::{Answer, Groups};
pub use look::{Candidate, Collected, Look};
pub use settle::{CommitAction, Settled};
pub use stage::Layout;
pub use withheld::Blocked;
pub use worker::{Done, Order, Outcome, Worker};
