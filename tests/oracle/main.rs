//! Random input compared with an oracle: rsync itself, or a simple model.
//!
//! | file | what is compared with what |
//! |---|---|
//! | batch_rsync, batch_rules | the arguments and lists of a batch with what rsync makes of them; `batch_world` and `rule_world` have the trees |
//! | filter_rules | the filter with rsync's own |
//! | batch_collapse | the paths of a batch with a file system in memory |
//! | queue_model, queue_order | the queue with recorded facts, and with a target in memory |

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod batch_collapse;
mod batch_rsync;
mod batch_rules;
mod batch_world;
mod filter_rules;
mod queue_model;
mod queue_order;
mod rule_world;
