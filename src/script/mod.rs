//! The Lua side: the preludes, the user's configuration, and what user code sees of the daemon.
//!
//! Lua is asked what shall run when something is due; it answers with `spawn`, which leaves a
//! [`SpawnRequest`] for the engine. Nothing here waits, and no borrow of a sync is held while
//! Lua runs.

mod api;
mod errors;
mod event;
mod host;
mod inlet;
mod kind;
mod layer3;
mod native;
mod remote;
mod runtime;
mod spawn;
mod timestamp;

pub use host::{Alarm, Host, Member};
pub use runtime::{Environment, Failure, Script, Verdict};
pub use spawn::SpawnRequest;
