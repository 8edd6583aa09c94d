//! `tunnel{ … }`: processes, such as an ssh that forwards a port, that have to run before the
//! syncs that use them may transfer.
//!
//! * `machine`: the states of one tunnel, without I/O.
//!
//! `script::api::tunnel` reads the configuration of a tunnel, and `daemon::tunnels` starts and ends
//! its processes. The room knows neither.

mod machine;

pub use machine::{Tunnel, TunnelConfig, TunnelProcess, TunnelState};
