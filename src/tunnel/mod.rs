//! `tunnel{ … }`: processes, such as an ssh that forwards a port, that have to run before the
//! syncs that use them may transfer.
//!
//! * `machine`: the states of one tunnel, without I/O;
//! * `supervisor`: the processes of all tunnels.
//!
//! `script::api::tunnel` reads the configuration of a tunnel. The room may call `process`, `queue`
//! and `log`.

mod machine;
mod supervisor;

pub use machine::{Tunnel, TunnelConfig, TunnelState};
pub use supervisor::{ConfiguredTunnel, TunnelSupervisor, of};
