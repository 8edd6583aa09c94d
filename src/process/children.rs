//! Running children, from their start to their end.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Child};

use mio::unix::pipe::Receiver;
use mio::{Registry, event::Event};
use nix::errno::Errno;
use nix::sys::signal::{self, Signal};

use super::command::{self, ChildEnd, Command, Output, SpawnError, Stdin};
use super::orphans;
use super::pid::Pid;
use super::pipes::{Pipes, Sink, Stream};
use super::process_tree;
use crate::log;

/// The end of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this status, 0 to 255.
    Exit(i32),
    /// It was ended by this signal.
    Signal(i32),
}

impl ExitStatus {
    /// Returns the exit status as a shell does: 128 + number after a signal, so it is never
    /// success.
    pub fn code(self) -> i32 {
        match self {
            Self::Exit(code) => code,
            Self::Signal(number) => 128 + number,
        }
    }

    /// Returns true for exit code 0.
    pub fn is_success(self) -> bool {
        self == Self::Exit(0)
    }
}

impl From<process::ExitStatus> for ExitStatus {
    fn from(status: process::ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exit(code),
            (None, Some(number)) => Self::Signal(number),
            (None, None) => UNKNOWN,
        }
    }
}

/// Reported when the status of a child was lost: a failure.
const UNKNOWN: ExitStatus = ExitStatus::Exit(255);

/// A child that has ended and been reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedChild {
    /// The process id; the kernel may assign it to another process from now on.
    pub pid: Pid,
    /// The exit status or signal.
    pub end: ExitStatus,
}

#[derive(Debug)]
struct RunningChild {
    child: Child,
    /// The tokens of its output pipes.
    outputs: Vec<usize>,
}

/// All children that have not been reaped, and their pipes.
#[derive(Debug)]
pub struct Children {
    /// The children in order of their start.
    running: Vec<RunningChild>,
    pipes: Pipes,
}

impl Children {
    /// Returns an empty set of children. Pipes will be registered with `registry`, under
    /// `first_token` and all tokens above it.
    pub fn new(registry: Registry, first_token: usize) -> Self {
        Self {
            running: Vec::new(),
            pipes: Pipes::new(registry, first_token),
        }
    }

    /// Starts a child. Descriptors other than the three standard ones are closed in it, no signal
    /// is blocked and `SIGPIPE` has its default action.
    ///
    /// # Errors
    /// It could not be started; nothing has changed then.
    pub fn spawn(&mut self, command: Command) -> Result<Pid, SpawnError> {
        let Command {
            program,
            args,
            stdin,
            output,
            environment,
            priority,
        } = command;
        let (input_end, feed) = match stdin {
            Stdin::Inherit => (ChildEnd::Inherit, None),
            Stdin::Null => (ChildEnd::Null, None),
            Stdin::Bytes(bytes) => {
                let (fd, feed) = self.pipes.feed(bytes).map_err(SpawnError::Resources)?;
                (ChildEnd::Open(fd), feed)
            }
        };
        let tied = output == Output::Lines;
        let (output_end, error_end, captures) =
            self.outputs(output).map_err(SpawnError::Resources)?;

        let child = command::start(
            &program,
            &args,
            &environment,
            &[input_end, output_end, error_end],
            tied,
            priority,
        )?;
        // The child has it from the start if it is a program of this machine. Refusals of the
        // system are reported here.
        if let Err(error) = priority.give(child.id()) {
            let program = log::escape(&program);
            log::warn(format_args!(
                "cannot set the priority of {program}: {error}"
            ));
        }

        let pid = Pid(child.id());
        let outputs = captures.iter().map(|(_, token, _)| *token).collect();
        if let Some((token, feed)) = feed {
            self.pipes.keep_feeding(token, feed);
        }
        for (stream, token, receiver) in captures {
            self.pipes.listen(token, receiver, pid, stream);
        }
        self.running.push(RunningChild { child, outputs });
        Ok(pid)
    }

    /// Returns another handle of the registry, for other descriptors.
    ///
    /// # Errors
    /// The system is out of descriptors.
    pub fn registry(&self) -> io::Result<Registry> {
        self.pipes.registry()
    }

    /// Moves the data of a pipe, input or output, up to 64 KiB. An event of another token has no
    /// effect.
    pub fn ready(&mut self, event: &Event, lines: Sink<'_>) {
        self.pipes.ready(event.token(), lines);
    }

    /// Returns true if pipes have more data than they may move at once. No event will come for
    /// these, so the next poll must not wait and [`Children::resume`] must be called after it.
    pub fn pending(&self) -> bool {
        self.pipes.pending()
    }

    /// Continues with pipes that had more data, up to about 256 KiB in all.
    pub fn resume(&mut self, lines: Sink<'_>) {
        self.pipes.resume(lines);
    }

    /// Returns the children that have ended, in order of their start; to be called after `SIGCHLD`.
    /// Only own children are waited for, by their number (waitpid(2)), independent of their session
    /// or process group.
    ///
    /// The output of a child is reported before its end. If a process it left behind holds an
    /// output pipe, that does not delay the end: its lines are reported as they come.
    pub fn reap(&mut self, lines: Sink<'_>) -> Vec<EndedChild> {
        let mut ended = Vec::new();
        let Self { running, pipes } = self;
        running.retain_mut(|each| {
            let end = match each.child.try_wait() {
                Ok(None) => return true,
                Ok(Some(status)) => ExitStatus::from(status),
                Err(_) => UNKNOWN,
            };
            for &token in &each.outputs {
                pipes.drain(token, lines);
            }
            let pid = Pid(each.child.id());
            ended.push(EndedChild { pid, end });
            false
        });
        if orphans::are_ours() {
            let known = |pid| {
                self.pids()
                    .any(|child| i64::from(child.0) == i64::from(pid))
            };
            orphans::reap(known);
        }
        ended
    }

    /// Sends a signal to a child that has not been reaped.
    ///
    /// # Errors
    /// `ESRCH` for any other process, else the error of kill(2) (`EPERM` if the child changed its
    /// user).
    pub fn kill(&self, pid: Pid, signal: Signal) -> io::Result<()> {
        if !self.pids().any(|known| known == pid) {
            return Err(Errno::ESRCH.into());
        }
        let number = i32::try_from(pid.0).map_err(|_| Errno::ESRCH)?;
        Ok(signal::kill(nix::unistd::Pid::from_raw(number), signal)?)
    }

    /// Sends a signal to a child and its descendants. The child is stopped while these are searched
    /// for, which takes longer the more processes the host has.
    ///
    /// # Errors
    /// As for [`Children::kill`].
    pub fn kill_tree(&self, pid: Pid, signal: Signal) -> io::Result<()> {
        self.kill(pid, Signal::SIGSTOP)?;
        for descendant in process_tree::below([pid]) {
            descendant.kill(signal);
        }
        self.kill(pid, signal)?;
        self.kill(pid, Signal::SIGCONT)
    }

    /// Returns the number of children that have not been reaped.
    pub fn count(&self) -> usize {
        self.running.len()
    }

    /// Returns the children that have not been reaped, in order of their start.
    pub fn pids(&self) -> impl Iterator<Item = Pid> {
        self.running.iter().map(|each| Pid(each.child.id()))
    }

    fn outputs(&mut self, output: Output) -> io::Result<Outputs> {
        Ok(match output {
            Output::Inherit => (ChildEnd::Inherit, ChildEnd::Inherit, Vec::new()),
            Output::Null => (ChildEnd::Null, ChildEnd::Null, Vec::new()),
            Output::Append(path) => {
                let (out, err) = ChildEnd::append_to(&path);
                (out, err, Vec::new())
            }
            Output::Lines => {
                let (out, out_token, out_pipe) = self.pipes.capture()?;
                let (err, err_token, err_pipe) = self.pipes.capture()?;
                let captures = vec![
                    (Stream::Stdout, out_token, out_pipe),
                    (Stream::Stderr, err_token, err_pipe),
                ];
                (ChildEnd::Open(out), ChildEnd::Open(err), captures)
            }
        })
    }
}

/// The child's standard output and error, and the daemon's ends of them if they are pipes.
type Outputs = (ChildEnd, ChildEnd, Vec<(Stream, usize, Receiver)>);
