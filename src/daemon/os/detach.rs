//! Going to the background.

use std::fs::OpenOptions;
use std::io;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::exit::Exit;
use crate::sys::{Fork, fork};

/// Goes on in a new process, which leads a session of its own, has `/` as working directory and
/// `/dev/null` as standard input, output and error. The umask stays. The process that called ends
/// with [`Exit::Done`].
///
/// To be called while there is one thread, and before anything that holds the process number,
/// as [the pid file](super::pid_file) does. Names used later have to be absolute by now.
///
/// # Errors
/// When there can be no other process, then in the one that called; else in the new one.
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
