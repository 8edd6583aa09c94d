//! What the test programs share: the work directory of a test, the daemon under test, recording
//! programs, and the comparison of trees.
//!
//! The program under test is the one cargo built, or the one that the environment variable
//! `LSYNCD_TEST_BINARY` names: lsyncd itself, to see where the two differ. `LSYNCD_TEST_LIMIT` is
//! the time in seconds after which a condition is given up (120).
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
//! | watchdog | end of a program one of whose tests hangs |
//! | bin | programs that the tests put in the place of others |

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
