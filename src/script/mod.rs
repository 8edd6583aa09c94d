//! The Lua side: the preludes, the user's configuration, and what user code sees of the daemon.
//!
//! Lua is asked what shall run when something is due; it answers with `spawn`, which leaves a
//! [`SpawnRequest`] for the engine. Nothing here waits, and no borrow of a sync is held while
//! Lua runs.

mod api;
mod batch_size;
mod config_api;
mod context;
mod create;
mod errors;
mod event;
mod fanout;
mod hints;
mod hook;
mod inlet;
mod kind;
mod layer3;
mod loader;
mod local_copy;
mod lsyncd_table;
mod observe;
mod prelude_api;
mod rsyncssh;
mod runtime;
mod scan_request;
mod search_paths;
mod shell;
mod spawn;
mod sync_checks;
mod sync_object;
mod template;
mod timestamp;
mod transfer;
mod tunnel;
mod user_keys;
mod watchdog;

pub use context::{Alarm, ScriptContext, SyncHandle};
pub use hook::HookReport;
pub use loader::{Environment, LoadError};
pub use local_copy::CopyRequest;
pub use runtime::{CollectResult, Script};
pub use scan_request::ScanRequest;
pub use spawn::SpawnRequest;
pub use tunnel::{PROCESS_KIND, TunnelMode, TunnelObject};
