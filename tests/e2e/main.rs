//! End-to-end tests: the built daemon is started on a directory of its own, files are changed, and
//! what arrives, is logged or is run is looked at. Nothing here asserts how long something takes.
//!
//! | folder | what it is about |
//! |---|---|
//! | config | command line and configuration: what is accepted, refused, reported and explained |
//! | lua | what user code finds, in the configuration and in its functions |
//! | mirror | what arrives at the target, and what is sent |
//! | service | background, signals, log, status file, service managers |
//! | control | the control socket, lsyncdctl, metrics and hooks |
//! | kinds | default.direct and default.rsyncssh |
//! | fanout | one source, many targets |
//! | check | files that scanners reject |

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod check;
mod config;
mod control;
mod fanout;
mod kinds;
mod lua;
mod mirror;
mod service;
