//! A chain of lines: each has a number and the hash of the line before.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::page::KeptReport;
use crate::status::drift_report::DriftReport;

/// The maximum number of problems that are named.
const MAX_PROBLEMS: usize = 100;

/// The ends of a chain. It is kept beside the lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHead {
    /// The number of the first line.
    pub first: u64,
    /// The hash of the line before it, which was removed because of its age.
    pub anchor: String,
    /// The number of the last line; `first - 1` if there is none.
    pub last: u64,
    /// The hash of the last line.
    pub hash: String,
    /// The problems of lines that were removed because of their age.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

impl ChainHead {
    /// Returns the head of a chain without lines.
    pub fn empty() -> ChainHead {
        ChainHead {
            first: 1,
            ..ChainHead::default()
        }
    }
}

/// The number and the hash of a line's predecessor, as the line has them.
#[derive(Debug, Deserialize)]
pub struct ChainLink {
    pub number: u64,
    pub previous: String,
}

impl ChainLink {
    /// Returns the link of a line; `None` if it is not a report.
    pub fn of(line: &[u8]) -> Option<ChainLink> {
        serde_json::from_slice(line).ok()
    }
}

/// Returns the SHA-256 of a line, which is passed without its newline, in hexadecimal.
pub fn hash(line: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(line) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Returns the line behind the end of a chain, without a newline.
pub fn line(head: &ChainHead, report: DriftReport) -> Vec<u8> {
    let kept = KeptReport {
        number: head.last + 1,
        previous: head.hash.clone(),
        report,
    };
    serde_json::to_vec(&kept).unwrap_or_default()
}

/// The problems of a chain, with the numbers of the lines.
pub type ChainProblems = Vec<(u64, String)>;

/// The result of a check.
pub struct CheckedChain {
    /// The ends of the chain as it is, with what was wrong earlier.
    pub head: ChainHead,
    /// The current problems.
    pub problems: ChainProblems,
    /// The last line that the head names exists.
    pub reaches_end: bool,
}

/// The check of a chain, line by line.
pub struct ChainCheck {
    head: ChainHead,
    has_head: bool,
    /// The number of the next line, and the hash that it must name.
    next: u64,
    previous: String,
    lines: u64,
    problems: ChainProblems,
}

impl ChainCheck {
    /// Returns a check that has seen no line. Without a head, lines that are missing at the ends do
    /// not show.
    pub fn new(head: Option<ChainHead>) -> ChainCheck {
        let has_head = head.is_some();
        let head = head.unwrap_or_else(ChainHead::empty);
        ChainCheck {
            next: head.first,
            previous: head.anchor.clone(),
            head,
            has_head,
            lines: 0,
            problems: Vec::new(),
        }
    }

    /// Takes in the next line, without its newline.
    pub fn on_line(&mut self, line: &[u8]) {
        self.lines += 1;
        let Some(ChainLink { number, previous }) = ChainLink::of(line) else {
            return self.report(self.next, format!("line {} is not a report", self.lines));
        };
        if self.lines == 1 && !self.has_head {
            self.head.first = number;
            (self.next, self.previous) = (number, previous.clone());
        }
        if number < self.head.first {
            // The daemon was killed before it could remove the line.
            return;
        }
        if number < self.next {
            return self.report(number, format!("report {number} is out of order"));
        }
        if number > self.next {
            self.report(self.next, missing(self.next, number - 1));
        } else if previous != self.previous && number == self.head.first {
            let text = format!("report {number} is altered, or does not follow the previous one");
            self.report(number, text);
        } else if previous != self.previous {
            let before = number - 1;
            self.report(before, format!("report {before} or {number} is altered"));
        }
        self.next = number.saturating_add(1);
        self.previous = hash(line);
        if number == self.head.last && self.previous != self.head.hash {
            self.report(number, format!("report {number} is altered"));
        }
    }

    /// Ends the check.
    pub fn finish(mut self) -> CheckedChain {
        let reaches_end = self.next > self.head.last;
        if !reaches_end {
            self.report(self.next, missing(self.next, self.head.last));
        } else if self.next > self.head.first {
            self.head.last = self.next - 1;
            self.head.hash = self.previous;
        }
        if !self.has_head && self.lines > 0 {
            let text =
                "the file \"head\" is missing, so missing reports at the ends are not detected";
            self.problems.push((self.head.first, text.to_owned()));
        }
        CheckedChain {
            head: self.head,
            problems: self.problems,
            reaches_end,
        }
    }

    fn report(&mut self, number: u64, text: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push((number, text));
        }
    }
}

fn missing(first: u64, last: u64) -> String {
    if first == last {
        format!("report {first} is missing")
    } else {
        format!("reports {first} to {last} are missing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns a chain of this many lines and its head.
    fn chain(count: u64) -> (Vec<Vec<u8>>, ChainHead) {
        let mut head = ChainHead::empty();
        let mut lines = Vec::new();
        for number in 1..=count {
            let report = DriftReport {
                sync: format!("s{number}"),
                ..DriftReport::default()
            };
            let line = line(&head, report);
            (head.last, head.hash) = (number, hash(&line));
            lines.push(line);
        }
        (lines, head)
    }

    fn check(lines: &[Vec<u8>], head: Option<&ChainHead>) -> Vec<String> {
        let mut check = ChainCheck::new(head.cloned());
        lines.iter().for_each(|line| check.on_line(line));
        check
            .finish()
            .problems
            .into_iter()
            .map(|(_, text)| text)
            .collect()
    }

    #[test]
    fn the_hash_is_that_of_sha256sum() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(b"abc"), expected);
    }

    #[test]
    fn an_untouched_chain_has_no_problem() {
        let (lines, head) = chain(5);
        assert_eq!(check(&lines, Some(&head)), Vec::<String>::new());
        assert_eq!(check(&[], None), Vec::<String>::new());
        // Killed between the line and the head.
        let (_, before) = chain(4);
        assert_eq!(check(&lines, Some(&before)), Vec::<String>::new());
        // Killed before the removal of old lines.
        let rotated = ChainHead {
            first: 3,
            anchor: hash(&lines[1]),
            ..head.clone()
        };
        assert_eq!(check(&lines, Some(&rotated)), Vec::<String>::new());
        assert_eq!(check(&lines[2..], Some(&rotated)), Vec::<String>::new());
    }

    #[test]
    fn missing_and_altered_lines_show() {
        let (lines, head) = chain(5);
        let altered = |at: usize| {
            let mut lines = lines.clone();
            let text = String::from_utf8(lines[at].clone()).unwrap();
            lines[at] = text.replace("\"sync\":\"s", "\"sync\":\"x").into_bytes();
            assert_ne!(lines[at], text.as_bytes());
            lines
        };
        let without = |range: std::ops::Range<usize>| {
            let mut lines = lines.clone();
            lines.drain(range);
            lines
        };
        let mut torn = lines.clone();
        torn[4].truncate(20);
        let mut swapped = lines.clone();
        swapped.swap(1, 2);
        for (lines, expected) in [
            (altered(1), "report 2 or 3 is altered"),
            (altered(4), "report 5 is altered"),
            (without(0..1), "report 1 is missing"),
            (without(1..3), "reports 2 to 3 are missing"),
            (without(3..5), "reports 4 to 5 are missing"),
            (without(0..5), "reports 1 to 5 are missing"),
            (torn, "line 5 is not a report"),
            (swapped, "report 2 is missing"),
        ] {
            let problems = check(&lines, Some(&head));
            assert_eq!(problems[0], expected, "{problems:?}");
        }
        let problems = check(&lines, None);
        assert!(problems[0].contains("\"head\" is missing"));
    }

    proptest! {
        /// Whatever byte is changed and whatever line is removed, it shows.
        #[test]
        fn no_change_is_hidden(count in 1u64..6, at in any::<usize>(), bit in 0..8u8, cut: bool) {
            let (mut lines, head) = chain(count);
            let index = at % lines.len();
            if cut {
                lines.remove(index);
            } else {
                let byte = at / 7 % lines[index].len();
                lines[index][byte] ^= 1 << bit;
            }
            prop_assert!(!check(&lines, Some(&head)).is_empty());
        }
    }
}
