//! The Lua side: preludes, user configuration, and the API of user code.
//!
//! The event loop calls a sync's Lua action for a due entry. The action calls `spawn`, which stores
//! a [`SpawnRequest`] for the loop.
//!
//! * `loader`, `runtime`: loading of a configuration, and calls into the loaded one;
//! * `context`: the state shared with the event loop;
//! * `api`, `lsyncd_table`, `timestamp`, `spawn`, `observe`: global functions of user code;
//! * `inlet`, `event`, `sync_object`: the objects passed to user functions;
//! * `hook`: the hooks `onSynced` and `onFailed`;
//! * `layer3`, `template`: actions given as texts, and their parser;
//! * `prelude_api`, `config_api`: native functions of the preludes;
//! * `create`, `sync_checks`, `user_keys`: creation of a sync, warnings, keys of user-defined kinds;
//! * `fanout`: sharing among syncs of one source;
//! * `kind`: the built-in kind of a sync, for `-check` and reports;
//! * `batch_size`, `transfer`: selection of a batch, and its rsync call;
//! * `rsyncssh`, `local_copy`, `scan_request`: requests of the built-in behaviours;
//! * `tunnel`: `tunnel{ … }` and its substitutions;
//! * `search_paths`, `shell`: directories of `require`, and words for a shell;
//! * `errors`, `hints`: error messages with file, line and key, and hints;
//! * `watchdog`: limits of running user code.
//!
//! The room may call `config`, `sync` and the rooms below them. It must not call `daemon`, must not
//! block, and must not keep a sync borrowed while Lua runs.

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
