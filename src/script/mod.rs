//! The Lua side: preludes, user configuration, and the API of user code.
//!
//! The event loop calls a sync's Lua action for a due entry. The action calls `spawn`, which stores
//! a [`ScriptRequest`] for the loop. Requests are executed in the order of the calls.
//!
//! * `loader`, `search_paths`: loading of a configuration, and directories of `require`;
//! * `runtime`, `hook`: calls into the loaded configuration;
//! * `context`: the state shared with the event loop, with these parts:
//! * `sync_handle`, `tunnel_object`, `observed`: a sync with its Lua objects, a tunnel, and
//!   observed file descriptors;
//! * `request`: requests for the event loop;
//! * `prelude_api`: native functions of the preludes;
//! * `load_error`: failures to load a configuration;
//! * `errors`, `hints`: error messages with file, line and key, and hints;
//! * `lua_source`: lines of keys in the text of a configuration;
//! * `watchdog`: limits of running user code;
//! * `api`: functions that user code calls;
//! * `objects`: events, lists, inlets, syncs and timestamps of user code;
//! * `layer3`: actions given as texts;
//! * `kinds`: the built-in behaviours;
//! * `create`: creation of a sync from its configuration;
//! * `test_setup`: a loaded configuration, for tests.
//!
//! The room may call `config`, `sync` and the rooms below them. It must not call `daemon`, must not
//! block, and must not keep a sync borrowed while Lua runs.

mod api;
mod context;
mod create;
mod errors;
mod hints;
mod hook;
mod kinds;
mod layer3;
mod load_error;
mod loader;
mod lua_source;
mod objects;
mod observed;
mod prelude_api;
mod request;
mod runtime;
mod search_paths;
mod sync_handle;
#[cfg(test)]
mod test_setup;
mod tunnel_object;
mod watchdog;

pub use context::{Alarm, ScriptContext};
pub use hook::{HookEvent, HookReport};
pub use kinds::comparison::{Comparison, ComparisonScope, ListedPath};
pub use load_error::LoadError;
pub use loader::Environment;
pub use lua_source::has_code;
pub use request::{CopyRequest, RequestQueue, ScanRequest, ScriptRequest, SpawnRequest};
pub use runtime::{CollectResult, Script};
pub use sync_handle::SyncHandle;
pub use tunnel_object::{PROCESS_KIND, TunnelMode, TunnelObject};
