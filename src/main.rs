//! Parse, configure, detach, run, exit code.

fn main() {}
