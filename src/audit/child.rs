//! A child of a comparison: a dry run, or an rsync that prints its version.

use std::cell::RefCell;

use crate::batch;
use crate::batch::dry_run::{DryRunOutput, Printed};
use crate::log;
use crate::process::{ExitStatus, Pid, Stream};

/// A running child.
#[derive(Debug)]
pub struct Child {
    /// The process.
    pub pid: Pid,
    /// The parsed output.
    pub output: DryRunOutput,
    /// The exit status; `None` while it runs.
    pub status: Option<ExitStatus>,
    /// The first line of the output.
    pub first: RefCell<Option<Vec<u8>>>,
}

impl Child {
    /// Returns a child whose output goes to `output`.
    pub fn new(pid: Pid, output: DryRunOutput) -> Child {
        Child {
            pid,
            output,
            status: None,
            first: RefCell::default(),
        }
    }

    /// Takes in a line of output.
    pub fn on_output(&self, stream: Stream, line: &[u8]) {
        match stream {
            Stream::Stdout => {
                let mut first = self.first.borrow_mut();
                first.get_or_insert_with(|| line.to_vec());
                self.output.line(line);
            }
            Stream::Stderr => self.output.error(line),
        }
    }

    /// Returns the reason why a dry run that has ended with this status is incomplete. Files that
    /// have vanished in the meantime are in motion.
    pub fn failure(status: ExitStatus, printed: &Printed) -> Option<String> {
        if matches!(status, ExitStatus::Exit(0 | 24)) {
            return None;
        }
        let why = batch::reason(printed.errors.iter().map(Vec::as_slice));
        let why = log::escape(why).into_owned();
        let how = match status {
            ExitStatus::Exit(code) => format!("exit code {code}"),
            ExitStatus::Signal(number) => format!("signal {number}"),
        };
        Some(match why.as_str() {
            "" => format!("the comparison ended with {how}"),
            why => format!("the comparison ended with {how}: {why}"),
        })
    }
}
