//! State that outlives the daemon: one directory for each sync, one file for each kind of state.
//!
//! | file | what it does |
//! |---|---|
//! | `state_dir` | the directories and their files |
//! | `pending` | pending events, and the time up to which everything is on the target |
//! | `sources` | the identity of each source, and what is mounted at source and target |
//! | `sample` | the part of the files that a comparison by sample reads next |
//! | `warm_start` | plans startups by the index of a source, and makes and updates it |
//! | `renamed` | finds the directories of syncs that had another name |
//! | `cleanup` | removes the directories of syncs that are no longer configured |
//!
//! Without a usable directory no state is saved. The room may call `config`, `sync` and the rooms
//! below them; it knows nothing of the event loop.

mod cleanup;
pub mod pending;
mod renamed;
pub mod sample;
pub mod sources;
mod state_dir;
pub mod warm_start;

pub use cleanup::{StateCleanup, remove_all};
pub use state_dir::{StateDir, key};
