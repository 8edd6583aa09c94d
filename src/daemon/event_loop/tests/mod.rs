//! Unit tests of the event loop.
//!
//! * `rig`: a loop with a configuration of its own;
//! * `turns`: what is called and stored, turn by turn;
//! * `processes`: the processes of syncs, and the end of the daemon;
//! * `reports`: what is reported of it.

mod processes;
mod reports;
mod rig;
mod turns;
