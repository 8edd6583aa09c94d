//! Common code of the test programs.
//!
//! The program under test is the one that cargo has built, or the one in the environment variable
//! `LSYNCD_TEST_BINARY`, for example lsyncd 2. `LSYNCD_TEST_LIMIT` is the time in seconds after
//! which a test gives up waiting (120).
//!
//! | file | contents |
//! |---|---|
//! | dir | work directory, waiting for a condition, skipping |
//! | daemon | the daemon under test |
//! | fake | a recording rsync |
//! | tree | comparison of trees |
//! | random | random numbers |
//! | script | executable scripts, a stand-in for ssh |
//! | own_process | tests that run in a process of their own |
//! | watchdog | the end of a test program with a hanging test |
//! | bin | stand-ins for other programs |

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]
// No program needs all of it.
#![allow(dead_code)]

pub mod daemon;
pub mod dir;
pub mod fake;
pub mod own_process;
pub mod random;
pub mod script;
pub mod tree;
pub mod watchdog;
