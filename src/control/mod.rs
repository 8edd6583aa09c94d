//! The control socket as `lsyncd` and `lsyncdctl` both see it.
//!
//! * [`protocol`]: requests and replies, one JSON object a line;
//! * [`socket_paths`]: where the socket of a daemon is.
//!
//! docs/control.md describes the protocol. The room may call `status`.

pub mod protocol;
pub mod socket_paths;
