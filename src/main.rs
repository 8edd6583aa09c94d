//! The lsyncd daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Descriptors that were open at the start are not inherited by children.
    lsyncd::sys::close_all_on_exec();
    lsyncd::daemon::main(std::env::args_os().skip(1)).into()
}
