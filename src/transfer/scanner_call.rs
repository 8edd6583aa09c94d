//! One running scanner process: its timeout, its output and its verdict.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::config::Scanner;
use crate::log;
use crate::process::ExitStatus;
use crate::staging::ScanAnswer;

/// The time between SIGTERM and SIGKILL for a scanner.
const KILL_DELAY: Duration = Duration::from_secs(2);

/// A running scanner.
pub struct ScannerCall {
    /// The token of its pass.
    pub token: u64,
    /// The files of the call.
    pub group: Vec<usize>,
    /// The exit codes for passed and for rejected.
    codes: (Vec<i32>, Vec<i32>),
    output: RefCell<Vec<Vec<u8>>>,
    /// The time of the next signal.
    due: Cell<Instant>,
    overdue: Cell<bool>,
}

impl ScannerCall {
    /// Returns the call of a scanner for a group of files of a pass, which starts now.
    pub fn new(token: u64, group: Vec<usize>, scanner: &Scanner) -> ScannerCall {
        ScannerCall {
            token,
            group,
            codes: (scanner.ok.clone(), scanner.reject.clone()),
            output: RefCell::default(),
            due: Cell::new(Instant::now() + scanner.timeout),
            overdue: Cell::new(false),
        }
    }

    /// Keeps a line of its output.
    pub fn line(&self, line: &[u8]) {
        const MAX_OUTPUT_BYTES: usize = 200;
        let mut output = self.output.borrow_mut();
        if output.len() < MAX_OUTPUT_BYTES && !line.trim_ascii().is_empty() {
            output.push(line.to_vec());
        }
    }

    /// Returns the time of the next signal.
    pub fn due(&self) -> Instant {
        self.due.get()
    }

    /// Returns the signal that is due by now, if one is: SIGTERM, then SIGKILL.
    pub fn signal(&self, now: Instant) -> Option<Signal> {
        if self.due.get() > now {
            return None;
        }
        self.due.set(now + KILL_DELAY);
        Some(if self.overdue.replace(true) {
            Signal::SIGKILL
        } else {
            Signal::SIGTERM
        })
    }

    /// Makes the timeout expire now.
    pub fn give_up(&self) {
        self.due.set(Instant::now());
    }

    /// Returns the verdict of its exit status for all its files, whose copies have these paths.
    pub fn answer(&self, status: ExitStatus, copies: &[Vec<u8>]) -> ScanAnswer {
        let alone = self.group.len() == 1;
        let failed = |reason: String| ScanAnswer::Failed { reason, alone };
        if self.overdue.get() {
            return failed("the scanner took too long".to_owned());
        }
        match status {
            ExitStatus::Exit(code) if self.codes.0.contains(&code) => ScanAnswer::Passed,
            ExitStatus::Exit(code) if self.codes.1.contains(&code) => ScanAnswer::Rejected(
                self.words(copies)
                    .unwrap_or_else(|| format!("the scanner ended with exit code {code}")),
            ),
            ExitStatus::Exit(code) => failed(match self.words(copies) {
                Some(words) => format!("the scanner failed with exit code {code}: {words}"),
                None => format!("the scanner failed with exit code {code}"),
            }),
            ExitStatus::Signal(number) => {
                failed(format!("the scanner was ended by signal {number}"))
            }
        }
    }

    /// Returns the first line of its output, without the path of the copy.
    fn words(&self, copies: &[Vec<u8>]) -> Option<String> {
        let output = self.output.borrow();
        let after = |line: &[u8]| {
            let copy = copies
                .iter()
                .find(|copy| line.starts_with(copy.as_slice()))?;
            let rest = &line[copy.len()..];
            let rest = rest.strip_prefix(b":").unwrap_or(rest).trim_ascii();
            (!rest.is_empty()).then(|| rest.to_vec())
        };
        let found = output.iter().find_map(|line| after(line));
        let line = found.or_else(|| output.first().cloned())?;
        Some(log::escape(&line[..line.len().min(300)]).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(group: Vec<usize>) -> ScannerCall {
        let scanner = Scanner {
            words: Vec::new(),
            stdin: false,
            ok: vec![0],
            reject: vec![1],
            timeout: Duration::from_secs(60),
            parallel: 1,
        };
        ScannerCall::new(1, group, &scanner)
    }

    #[test]
    fn a_scanner_is_signalled_after_its_timeout_and_not_before() {
        let call = call(vec![0]);
        let end = call.due();
        for before in [60, 45, 15, 1] {
            assert_eq!(call.signal(end - Duration::from_secs(before)), None);
        }
        assert_eq!(call.signal(end), Some(Signal::SIGTERM));
        assert_eq!(call.signal(end + KILL_DELAY / 2), None);
        assert_eq!(call.signal(end + KILL_DELAY), Some(Signal::SIGKILL));
    }

    #[test]
    fn a_scanner_that_is_given_up_is_signalled_at_once() {
        let call = call(vec![0]);
        call.give_up();
        assert_eq!(call.signal(Instant::now()), Some(Signal::SIGTERM));
    }

    /// A file is sent after exit code `ok` alone.
    #[test]
    fn each_end_of_a_scanner_has_its_verdict() {
        let found = "/copy: a virus";
        let rejected = |reason: &str| ScanAnswer::Rejected(reason.into());
        let failed = |reason: &str, alone| ScanAnswer::Failed {
            reason: reason.into(),
            alone,
        };
        let code_2 = "the scanner failed with exit code 2";
        for (files, output, status, expected) in [
            (1, &[found][..], ExitStatus::Exit(0), ScanAnswer::Passed),
            (
                1,
                &["", " ", "starting", found],
                ExitStatus::Exit(1),
                rejected("a virus"),
            ),
            (
                1,
                &["first", "second"],
                ExitStatus::Exit(1),
                rejected("first"),
            ),
            (
                2,
                &["/copy", "/copy: "],
                ExitStatus::Exit(1),
                rejected("/copy"),
            ),
            (
                1,
                &[],
                ExitStatus::Exit(1),
                rejected("the scanner ended with exit code 1"),
            ),
            (1, &[], ExitStatus::Exit(2), failed(code_2, true)),
            (2, &[], ExitStatus::Exit(2), failed(code_2, false)),
            (
                1,
                &["broken"],
                ExitStatus::Exit(2),
                failed(&format!("{code_2}: broken"), true),
            ),
            (
                1,
                &[],
                ExitStatus::Signal(0),
                failed("the scanner was ended by signal 0", true),
            ),
        ] {
            let call = call((0..files).collect());
            output.iter().for_each(|line| call.line(line.as_bytes()));
            let answer = call.answer(status, &[b"/copy".to_vec()]);
            assert_eq!(answer, expected, "{output:?} {status:?}");
        }
        let late = call(vec![0]);
        late.signal(late.due());
        let expected = failed("the scanner took too long", true);
        assert_eq!(late.answer(ExitStatus::Exit(0), &[]), expected);
    }
}
