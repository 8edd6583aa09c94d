//! `backup = { … }`: the dated directories in which rsync keeps files that it replaces or deletes,
//! and the removal of old ones.
//!
//! A transfer that replaces or deletes something moves it to `DIR/DATE/TIME`, in local time of this
//! host. Only directories in DIR whose names are dates are ever removed.
//!
//! | file | what it does |
//! |---|---|
//! | `dates` | names of dated directories |
//! | `local` | removes old ones from a local directory |
//! | `remote` | the call of rsync that removes them on another host |
//!
//! The room may call `cron`, `local` and those below. It knows neither syncs nor processes.

mod dates;
mod local;
mod remote;

pub use dates::{Day, directory};
pub use local::prune;
pub use remote::arguments;
