//! The control socket, for both `lsyncd` and `lsyncdctl`.
//!
//! | file | what it does |
//! |---|---|
//! | `protocol` | requests and replies, one JSON object per line |
//! | `socket_paths` | the paths of a daemon's socket |
//!
//! docs/control.md describes the protocol. The room may call `status`; it opens no socket.

pub mod protocol;
pub mod socket_paths;
