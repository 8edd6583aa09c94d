//! Parse, configure, detach, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    lsyncd::daemon::main(std::env::args_os().skip(1)).into()
}
