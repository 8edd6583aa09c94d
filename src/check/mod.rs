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
//! | [`verdicts`] | what is known of files, so that an unchanged one is not checked twice |
//! | [`groups`] | many files for one call of a scanner, and which of them it meant |
//! | [`withheld`] | what does not leave, and why |
//! | [`stage`] | the tree and the copies |
//! | [`worker`] | the thread that makes them |

pub mod groups;
pub mod stage;
pub mod verdicts;
pub mod withheld;
pub mod worker;

pub use groups::{Answer, Groups};
pub use stage::{Candidate, Collected, Disposition, Layout, Settled};
pub use withheld::Withheld;
pub use worker::{Done, Order, Outcome, Worker};
