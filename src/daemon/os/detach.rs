//! Detaches the daemon from the terminal.

use std::fs::OpenOptions;
use std::io;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::exit::Exit;
use crate::sys::{Fork, fork};

/// Continues in a new process, which leads its own session and has `/` as working directory and
/// `/dev/null` as standard input, output and error. The umask is kept. The calling process exits
/// with [`Exit::Done`].
///
/// It must be called while there is only one thread, and before the process id is used, for
/// instance by [the pid file](super::pid_file). Paths that are used later must be absolute.
///
/// # Errors
/// No process can be created: the error is returned in the calling process. Other errors are
/// returned in the new one.
pub fn detach() -> io::Result<()> {
    if fork()? == Fork::Parent {
        std::process::exit(Exit::Done.code().into());
    }
    setsid()?;
    std::env::set_current_dir("/")?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}
