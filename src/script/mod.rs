//! The Lua side: the preludes, the user's configuration, and what user code sees of the daemon.
//!
//! Lua is asked what shall run when something is due; it answers with `spawn`, which leaves a
//! [`SpawnRequest`] for the engine. Nothing here waits, and no borrow of a sync is held while
//! Lua runs.

mod api;
mod by_size;
mod checked;
mod configuring;
mod create;
mod errors;
mod event;
mod fanout;
mod guard;
mod hints;
mod hook;
mod host;
mod inlet;
mod kind;
mod layer3;
mod loader;
mod members;
mod native;
mod observe;
mod orders;
mod remote;
mod runtime;
mod search_paths;
mod spawn;
mod sync_checks;
mod sync_object;
mod template;
mod timestamp;
mod transfer;
mod tunnel;
mod user_keys;

pub use checked::ScanRequest;
pub use hook::HookReport;
pub use host::{Alarm, ScriptContext, SyncHandle};
pub use loader::{Environment, Failure};
pub use orders::CopyRequest;
pub use runtime::{Script, Verdict};
pub use spawn::SpawnRequest;
pub use tunnel::{Mode as TunnelMode, PROCESS_KIND, TunnelObject};
