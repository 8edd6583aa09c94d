//! The documents are correct: the examples of the manual and the README run, the tables of keys are
//! up to date, links lead to headings, packages contain the linked files, the map names every file,
//! `docs/differences.md` names existing tests, a test tries each answer of `docs/how-do-i.md`, and
//! typical configurations keep their targets current.
//!
//! Texts have the directories and hosts of the manual; [`site::Site`] puts a temporary
//! directory in front of them, and lets the other host be this one.

// clippy.toml allows these in test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod differences;
mod examples;
mod generated;
mod idioms;
mod links;
mod map;
mod packages;
mod site;
