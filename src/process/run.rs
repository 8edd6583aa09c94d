//! Runs a program to its end, for the command line; the caller blocks.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{self, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{self, Signal};

use rustix::fs::{MemfdFlags, memfd_create};

use super::children::ExitStatus;
use super::command::{Command, Stdin};
use super::pid::Pid;
use super::process_tree;

/// The maximum size of error output that is kept.
const MAX_ERRORS: u64 = 1 << 18;

/// The end of a program.
#[derive(Debug)]
pub struct Ended {
    /// The exit status.
    pub status: ExitStatus,
    /// The error output, at most 256 KiB.
    pub errors: Vec<u8>,
    /// True if the program did not end in time and was killed.
    pub timed_out: bool,
}

/// Runs a command without a terminal, so that ssh and rsync fail instead of asking for a password,
/// as in the daemon. Passes each line of its standard output to `line`; output and priority of the
/// command do not count. The command ends with this process, or is killed after the `timeout`.
///
/// # Errors
///
/// The program cannot be started.
pub fn run_without_terminal(
    command: &Command,
    timeout: Option<Duration>,
    mut line: impl FnMut(&[u8]),
) -> io::Result<Ended> {
    // What user code has opened is not marked.
    crate::sys::close_all_on_exec();
    // A pipe would stay open as long as a shared connection of ssh.
    let mut errors = File::from(memfd_create("errors", MemfdFlags::CLOEXEC)?);
    let mut child = process::Command::new(OsStr::from_bytes(&command.program));
    child
        .args(command.args.iter().map(|arg| OsStr::from_bytes(arg)))
        .envs(command.environment.iter().map(|(key, value)| (key, value)))
        .stdin(match command.stdin {
            Stdin::Bytes(_) => Stdio::piped(),
            Stdin::Inherit | Stdin::Null => Stdio::null(),
        })
        .stdout(Stdio::piped())
        .stderr(errors.try_clone()?);
    crate::sys::end_with_parent(&mut child);
    crate::sys::begin_without_terminal(&mut child);
    let mut child = child.spawn()?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let pid = Pid(child.id());
    let timed_out = AtomicBool::new(false);
    let timed_out_here = &timed_out;
    thread::scope(|scope| -> io::Result<()> {
        // This sender is dropped at the end of the output. The process is not reaped before, so its
        // id is still valid.
        let (_reading, ended) = mpsc::channel::<()>();
        if let Some(timeout) = timeout {
            thread::Builder::new().spawn_scoped(scope, move || {
                if ended.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout) {
                    timed_out_here.store(true, Ordering::Relaxed);
                    kill_tree(pid);
                }
            })?;
        }
        if let (Some(mut input), Stdin::Bytes(bytes)) = (input, &command.stdin) {
            // A program that ends early leaves some unread; its exit status says why.
            thread::Builder::new().spawn_scoped(scope, move || drop(input.write_all(bytes)))?;
        }
        let Some(output) = output else {
            return Ok(());
        };
        let mut output = BufReader::new(output);
        let mut text = Vec::new();
        while output.read_until(b'\n', &mut text)? > 0 {
            line(text.strip_suffix(b"\n").unwrap_or(&text));
            text.clear();
        }
        Ok(())
    })?;
    let status = child.wait()?;
    errors.rewind()?;
    let mut kept = Vec::new();
    errors.take(MAX_ERRORS).read_to_end(&mut kept)?;
    Ok(Ended {
        status: status.into(),
        errors: kept,
        timed_out: timed_out.into_inner(),
    })
}

/// Kills a child and its descendants, which may keep its standard output. The child leads a process
/// group, in which no process can fork unnoticed; those that have left it were looked up before.
fn kill_tree(pid: Pid) {
    let below = process_tree::below([pid]);
    if let Ok(pid) = i32::try_from(pid.0) {
        // It may have ended meanwhile.
        let _ = signal::killpg(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
    }
    for process in below {
        process.kill(Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str, stdin: Stdin) -> Command {
        Command {
            args: vec![b"-c".to_vec(), text.as_bytes().to_vec()],
            stdin,
            ..Command::new("sh")
        }
    }

    #[test]
    fn output_errors_and_status_are_reported() {
        let mut lines = Vec::new();
        let input = Stdin::Bytes(b"x\ny".to_vec());
        let command = shell("cat; echo no >&2; exit 3", input);
        let ended = run_without_terminal(&command, None, |line| lines.push(line.to_vec())).unwrap();
        assert_eq!(lines, [b"x", b"y"]);
        assert_eq!(ended.status, ExitStatus::Exit(3));
        assert_eq!(ended.errors, b"no\n");
        assert!(run_without_terminal(&Command::new("/no/such"), None, |_| ()).is_err());
    }

    #[test]
    fn a_descendant_that_keeps_the_error_output_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let text = format!("cat '{}' >/dev/null </dev/null & exit 0", fifo.display());
        let ended = run_without_terminal(&shell(&text, Stdin::Null), None, |_| ()).unwrap();
        assert!(ended.status.is_success());
        // The descendant ends.
        drop(File::options().write(true).open(&fifo).unwrap());
    }

    #[test]
    fn there_is_no_terminal() {
        let command = shell("exec 2>/dev/null; : < /dev/tty", Stdin::Null);
        let ended = run_without_terminal(&command, None, |_| ()).unwrap();
        assert!(!ended.status.is_success() && !ended.timed_out);
    }

    #[test]
    fn what_does_not_end_is_killed_with_its_descendants() {
        let command = shell("sleep 1000; true", Stdin::Null);
        let ended = run_without_terminal(&command, Some(Duration::ZERO), |_| ()).unwrap();
        assert!(ended.timed_out && !ended.status.is_success());
    }
}
