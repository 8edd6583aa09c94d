//! The control server, and the protocol of its socket for both `lsyncd` and `lsyncdctl`.
//!
//! | file | what it does |
//! |---|---|
//! | `server` | the component: sockets and clients of a daemon, in steps |
//! | `view` | the part of the daemon's state that it reads |
//! | `fake_view` | a daemon for tests |
//! | `listener` | the listening sockets |
//! | `connection` | one connection: its input and its output |
//! | `connections` | open connections and their limits |
//! | `requests` | requests of the control socket to replies and actions |
//! | `barrier` | clients that wait for everything that happened before |
//! | `http` | requests for metrics and the status page |
//! | `protocol` | requests and replies, one JSON object per line |
//! | `socket_paths` | the paths of a daemon's socket |
//!
//! docs/control.md describes the protocol. The server does not change the daemon by itself: it
//! reads a [`DaemonView`] and returns actions. The room may call `sync`, `watch` and those below.

pub mod barrier;
mod connection;
mod connections;
#[cfg(test)]
pub mod fake_view;
mod http;
mod listener;
pub mod protocol;
mod requests;
mod server;
pub mod socket_paths;
mod view;

pub use server::{ControlServer, END_OF_TOKENS};
pub use view::{DaemonView, SyncView};
