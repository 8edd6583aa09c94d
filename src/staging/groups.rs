//! Groups files for the calls of a scanner. Its exit code applies to all files of a call, so a
//! group that did not pass is halved until each file has its own answer.
//!
//! A scanner that is down fails for every group. Halving all of them would start it twice for each
//! file, so after [`MAX_FAILURES`] consecutive failures the rest counts as failed. A single file
//! that makes the scanner fail is found before that, as groups have at most [`MAX_GROUP`] files.

/// The maximum number of files in a group: six halvings lead to one.
pub const MAX_GROUP: usize = 64;

/// The number of consecutive failures after which the scanner counts as down.
pub const MAX_FAILURES: u32 = 10;

/// The answer of a scanner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanAnswer {
    /// It found nothing.
    Passed,
    /// It rejected the file, with this reason.
    Rejected(String),
    /// It failed, timed out, or did not start.
    Failed {
        /// The reason of the failure.
        reason: String,
        /// True if it was called for this file alone.
        alone: bool,
    },
}

/// The files of one check, identified by their numbers from 0 on.
#[derive(Debug)]
pub struct Groups {
    /// Groups that wait; the last one is next.
    waiting: Vec<Vec<usize>>,
    running: usize,
    answers: Vec<Option<ScanAnswer>>,
    failures: u32,
}

impl Groups {
    /// Splits files into groups of at most [`MAX_GROUP`] files and, if a group has several files,
    /// `room` bytes of names. Files for which `alone` returns true have a group each, after the
    /// others.
    pub fn new(lengths: &[usize], room: usize, alone: impl Fn(usize) -> bool) -> Groups {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut used = 0;
        for (file, &length) in lengths.iter().enumerate().filter(|(file, _)| !alone(*file)) {
            match groups.last_mut() {
                Some(group) if group.len() < MAX_GROUP && used + length <= room => {
                    group.push(file);
                    used += length;
                }
                _ => {
                    groups.push(vec![file]);
                    used = length;
                }
            }
        }
        let single = (0..lengths.len()).filter(|&file| alone(file));
        groups.extend(single.map(|file| vec![file]));
        groups.reverse();
        Groups {
            waiting: groups,
            running: 0,
            answers: vec![None; lengths.len()],
            failures: 0,
        }
    }

    /// Returns the files of the next call; [`Groups::ended`] takes its result.
    pub fn take(&mut self) -> Option<Vec<usize>> {
        let group = self.waiting.pop()?;
        self.running += 1;
        Some(group)
    }

    /// Records the answer for a group.
    pub fn ended(&mut self, group: Vec<usize>, answer: ScanAnswer) {
        self.running = self.running.saturating_sub(1);
        self.failures = match answer {
            ScanAnswer::Failed { .. } => self.failures + 1,
            _ => 0,
        };
        match answer {
            ScanAnswer::Failed { reason, .. } if self.failures >= MAX_FAILURES => {
                let alone = group.len() == 1;
                self.note(
                    &group,
                    &ScanAnswer::Failed {
                        reason: reason.clone(),
                        alone,
                    },
                );
                let down = ScanAnswer::Failed {
                    reason,
                    alone: false,
                };
                for group in std::mem::take(&mut self.waiting) {
                    self.note(&group, &down);
                }
            }
            ScanAnswer::Rejected(_) | ScanAnswer::Failed { .. } if group.len() > 1 => {
                let (first, second) = group.split_at(group.len() / 2);
                self.waiting.push(second.to_vec());
                self.waiting.push(first.to_vec());
            }
            ScanAnswer::Failed { reason, .. } => {
                self.note(
                    &group,
                    &ScanAnswer::Failed {
                        reason,
                        alone: true,
                    },
                );
            }
            answer => self.note(&group, &answer),
        }
    }

    /// Returns true if each file has its answer.
    pub fn is_done(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }

    /// Returns the answers in the order of the files. A file without an answer has not passed.
    pub fn into_answers(self) -> Vec<ScanAnswer> {
        let unasked = || ScanAnswer::Failed {
            reason: "not checked".to_owned(),
            alone: false,
        };
        let answers = self.answers.into_iter();
        answers
            .map(|answer| answer.unwrap_or_else(unasked))
            .collect()
    }

    fn note(&mut self, group: &[usize], answer: &ScanAnswer) {
        for &file in group {
            self.answers[file] = Some(answer.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum File {
        Good,
        Bad,
        /// Makes the scanner fail.
        Poison,
    }

    fn failed() -> ScanAnswer {
        ScanAnswer::Failed {
            reason: "exit code 2".to_owned(),
            alone: false,
        }
    }

    /// Simulates a scanner that knows each file's kind.
    fn scan(files: &[File], group: &[usize]) -> ScanAnswer {
        if group.iter().any(|&file| files[file] == File::Poison) {
            return failed();
        }
        if group.iter().any(|&file| files[file] == File::Bad) {
            ScanAnswer::Rejected("found".to_owned())
        } else {
            ScanAnswer::Passed
        }
    }

    fn run(
        groups: &mut Groups,
        mut scan: impl FnMut(&[usize]) -> ScanAnswer,
        parallel: usize,
    ) -> usize {
        let mut running = Vec::new();
        let mut calls = 0;
        while !groups.is_done() {
            while running.len() < parallel
                && let Some(group) = groups.take()
            {
                running.push(group);
            }
            let group: Vec<usize> = running.remove(0);
            calls += 1;
            let answer = scan(&group);
            groups.ended(group, answer);
        }
        calls
    }

    fn file() -> impl Strategy<Value = File> {
        prop_oneof![8 => Just(File::Good), 2 => Just(File::Bad), 1 => Just(File::Poison)]
    }

    proptest! {
        #[test]
        fn each_file_gets_its_own_answer(
            files in prop::collection::vec(file(), 0..200),
            parallel in 1..4_usize,
            alone in prop::collection::vec(any::<bool>(), 200),
        ) {
            let lengths = vec![10; files.len()];
            let mut groups = Groups::new(&lengths, 300, |file| alone[file]);
            run(&mut groups, |group| scan(&files, group), parallel);
            let mut given_up = false;
            for (file, answer) in files.iter().zip(groups.into_answers()) {
                match (file, answer) {
                    (File::Good, ScanAnswer::Passed) => {}
                    (File::Bad, ScanAnswer::Rejected(_)) => {}
                    (File::Poison, ScanAnswer::Failed { .. }) => {}
                    // Several consecutive ones look like a scanner that is down.
                    (_, ScanAnswer::Failed { alone: false, .. }) => given_up = true,
                    (file, answer) => prop_assert!(false, "{file:?} got {answer:?}"),
                }
            }
            let poisons = files.iter().filter(|file| **file == File::Poison).count();
            prop_assert!(!given_up || poisons > 1);
        }

        /// Checks that a file passes only in a group that passed.
        #[test]
        fn nothing_is_waved_through(
            answers in prop::collection::vec(0..3_u8, 1..50),
            count in 1..150_usize,
        ) {
            let mut passed = std::collections::BTreeSet::new();
            let mut groups = Groups::new(&vec![1; count], 1000, |_| false);
            let mut turn = answers.iter().cycle();
            run(&mut groups, |group| match turn.next() {
                Some(0) => {
                    passed.extend(group.iter().copied());
                    ScanAnswer::Passed
                }
                Some(1) => ScanAnswer::Rejected(String::new()),
                _ => failed(),
            }, 2);
            for (file, answer) in groups.into_answers().into_iter().enumerate() {
                prop_assert_eq!(answer == ScanAnswer::Passed, passed.contains(&file));
            }
        }
    }

    #[test]
    fn a_scanner_that_is_down_is_not_asked_for_each_file() {
        let mut groups = Groups::new(&[1; 10_000], 100_000, |_| false);
        let calls = run(&mut groups, |_| failed(), 2);
        assert!(calls <= MAX_FAILURES as usize + 2, "{calls}");
        let answers = groups.into_answers();
        assert_eq!(answers.len(), 10_000);
        assert!(
            answers
                .iter()
                .all(|answer| matches!(answer, ScanAnswer::Failed { .. }))
        );
    }

    #[test]
    fn names_fill_a_group_up_to_the_room() {
        let mut groups = Groups::new(&[60, 50, 40, 500, 1], 100, |file| file == 0);
        let mut made = Vec::new();
        while let Some(group) = groups.take() {
            made.push(group);
        }
        assert_eq!(made, [vec![1, 2], vec![3], vec![4], vec![0]]);
    }
}
