//! The keys of a configuration.
//!
//! * `checkgauge`: the check for unknown keys;
//! * `advice`: suggestions for unknown keys.

mod advice;
pub mod checkgauge;
