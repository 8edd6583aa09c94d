//! Audits: comparisons of source and target on request (`lsyncdctl verify`) and at configured times
//! (`verify = { … }`).
//!
//! | file | what it does |
//! |---|---|
//! | `audits` | the component: requests, one after the other, and the dry run of the current one |
//! | `audits_tests` | tests of it, with a daemon whose state they set |
//! | `schedule` | the comparisons at configured times |
//! | `run` | the comparison of one sync, from the flush to the report |
//! | `child` | a child of a comparison |
//! | `passes` | which differences are drift, and which paths are compared again |
//! | `view` | what it reads of the daemon |
//!
//! A comparison begins when all changes from before its request are on the target, as for
//! `status -wait`. A dry run of rsync then lists the differences while the sync continues. A second
//! barrier after the dry run waits until everything that the dry run has seen is on the target. A
//! difference is drift if no event concerned its path between the request and this barrier. The
//! other paths are compared again, by a list, at most [`MAX_PASSES`] times in total. Paths that
//! still change are in motion.
//!
//! The room may call `control`, `script` and those below. It starts the dry runs and changes
//! nothing else of the daemon.

mod audits;
#[cfg(test)]
mod audits_tests;
mod child;
mod passes;
mod run;
mod schedule;
mod view;

pub use audits::{AuditStep, Audits};
pub use schedule::VerifySchedule;
pub use view::{AuditView, Obstacle};

/// The maximum number of dry runs that look for differences.
const MAX_PASSES: u32 = 3;
