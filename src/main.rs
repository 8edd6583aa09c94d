//! The lsyncd daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    // What was open at the start is nobody's down the line.
    lsyncd::sys::close_all_on_exec();
    lsyncd::daemon::main(std::env::args_os().skip(1)).into()
}
