//! The keys of a configuration.

mod advice;
pub mod checkgauge;
