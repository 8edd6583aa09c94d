//! Progress of the files of one pass through the checks of their sync. The checks run one after
//! another; a file that fails one skips the others.

use crate::config::Check;
use crate::staging::{Candidate, Groups, ScanAnswer};

/// The progress of one pass.
pub struct PassProgress {
    /// All files, in their order.
    pub candidates: Vec<Candidate>,
    /// The number of running scanner calls.
    pub running: usize,
    /// The verdicts of files that have failed, by index.
    out: Vec<Option<ScanAnswer>>,
    /// The number of completed checks.
    done: usize,
    stage: Option<ScanStage>,
}

/// One check and its files.
struct ScanStage {
    check: Check,
    /// Indexes of candidates. The fields below count in this list.
    files: Vec<usize>,
    groups: Groups,
    /// The number of files the function has been called for.
    asked: usize,
}

impl PassProgress {
    /// Returns the progress before the first check.
    pub fn new(candidates: Vec<Candidate>) -> PassProgress {
        PassProgress {
            out: vec![None; candidates.len()],
            candidates,
            running: 0,
            done: 0,
            stage: None,
        }
    }

    /// Begins the next check and returns it with its index among checks of its kind; `None` when
    /// all are complete. `tried` returns how often a scanner has failed for a file alone; such
    /// files come last.
    pub fn begin(
        &mut self,
        checks: &[Check],
        room: usize,
        tried: impl Fn(&[u8]) -> u32,
    ) -> Option<(usize, Check)> {
        if self.stage.as_ref().is_some_and(|stage| self.is_over(stage)) {
            self.finish();
        }
        let check = checks.get(self.done)?;
        let kind = checks[..self.done].iter();
        let number = kind.filter(|check| **check == Check::Function).count();
        if self.stage.is_none() {
            let left = (0..self.out.len()).filter(|&file| self.out[file].is_none());
            let mut files: Vec<usize> = left.collect();
            files.sort_by_key(|&file| tried(&self.candidates[file].path));
            let lengths: Vec<usize> = files
                .iter()
                .map(|&file| self.candidates[file].copy.len() + 1)
                .collect();
            let alone = |file: usize| tried(&self.candidates[files[file]].path) > 0;
            let groups = Groups::new(&lengths, room, alone);
            self.stage = Some(ScanStage {
                check: check.clone(),
                files,
                groups,
                asked: 0,
            });
        }
        Some((number, check.clone()))
    }

    fn is_over(&self, stage: &ScanStage) -> bool {
        match stage.check {
            Check::Command(_) => self.running == 0 && stage.groups.is_done(),
            Check::Function => stage.asked >= stage.files.len(),
        }
    }

    fn finish(&mut self) {
        let Some(stage) = self.stage.take() else {
            return;
        };
        self.done += 1;
        if let Check::Command(_) = stage.check {
            for (file, answer) in stage.files.iter().zip(stage.groups.into_answers()) {
                self.out[*file] = (answer != ScanAnswer::Passed).then_some(answer);
            }
        }
    }

    /// Returns the groups of the current scanner.
    pub fn groups(&mut self) -> &mut Groups {
        let none = || ScanStage {
            check: Check::Function,
            files: Vec::new(),
            groups: Groups::new(&[], 0, |_| false),
            asked: 0,
        };
        &mut self.stage.get_or_insert_with(none).groups
    }

    /// Returns the paths of the copies of a group.
    pub fn copies(&self, group: &[usize]) -> Vec<Vec<u8>> {
        let stage = self.stage.as_ref();
        let file = |&handle: &usize| stage?.files.get(handle).copied();
        let files = group.iter().filter_map(file);
        files
            .map(|file| self.candidates[file].copy.clone())
            .collect()
    }

    /// Records the answer of a scanner for a group.
    pub fn answered(&mut self, group: Vec<usize>, answer: ScanAnswer) {
        if let Some(stage) = &mut self.stage {
            stage.groups.ended(group, answer);
        }
    }

    /// Returns the next candidate for the function.
    pub fn next_single(&self) -> Option<usize> {
        let stage = self.stage.as_ref()?;
        stage.files.get(stage.asked).copied()
    }

    /// Records the answer of the function.
    pub fn single(&mut self, file: usize, answer: ScanAnswer) {
        if let Some(stage) = &mut self.stage {
            stage.asked += 1;
            self.out[file] = (answer != ScanAnswer::Passed).then_some(answer);
        }
    }

    /// Returns true if the current check is a function.
    pub fn asks_function(&self) -> bool {
        let stage = self.stage.as_ref();
        stage.is_some_and(|stage| stage.check == Check::Function)
    }

    /// Returns all candidates with their verdicts. Must be called when all checks are complete.
    pub fn into_answers(self) -> impl Iterator<Item = (Candidate, ScanAnswer)> {
        let answers = self.out.into_iter();
        let answers = answers.map(|answer| answer.unwrap_or(ScanAnswer::Passed));
        self.candidates.into_iter().zip(answers)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Scanner;
    use crate::staging::verdict_cache::FileIdentity;

    fn scanner() -> Check {
        Check::Command(Scanner {
            words: vec![b"scan".to_vec()],
            stdin: false,
            ok: vec![0],
            reject: vec![1],
            timeout: Duration::from_secs(60),
            parallel: 1,
        })
    }

    fn progress(names: &[&str]) -> PassProgress {
        let identity = FileIdentity {
            device: 1,
            inode: 1,
            size: 1,
            changed: (1, 1),
        };
        let candidate = |name: &&str| Candidate {
            path: name.as_bytes().to_vec(),
            copy: name.as_bytes().to_vec(),
            identity,
            made: identity,
            settled: true,
        };
        PassProgress::new(names.iter().map(candidate).collect())
    }

    /// The number says which function of the list is called.
    #[test]
    fn functions_are_counted_without_scanners() {
        let checks = [Check::Function, scanner(), Check::Function, Check::Function];
        let mut progress = progress(&["a"]);
        let mut begun = Vec::new();
        while let Some((number, check)) = progress.begin(&checks, 100, |_| 0) {
            assert_eq!(progress.asks_function(), check == Check::Function);
            if check == Check::Function {
                begun.push(number);
                let file = progress.next_single().unwrap();
                progress.single(file, ScanAnswer::Passed);
            } else {
                let group = progress.groups().take().unwrap();
                progress.answered(group, ScanAnswer::Passed);
            }
        }
        assert_eq!(begun, [0, 1, 2]);
        assert!(!progress.asks_function());
    }

    /// Otherwise several of them in a row would count as a failure of the scanner itself, which
    /// holds all other files.
    #[test]
    fn files_at_which_a_scanner_failed_come_last_and_alone() {
        let mut progress = progress(&["bad", "a", "worse", "b"]);
        let tried = |path: &[u8]| match path {
            b"bad" => 1,
            b"worse" => 2,
            _ => 0,
        };
        progress.begin(&[scanner()], 100, tried).unwrap();
        let mut groups = Vec::new();
        while let Some(group) = progress.groups().take() {
            groups.push(progress.copies(&group));
        }
        let expected: [&[&[u8]]; 3] = [&[b"a", b"b"], &[b"bad"], &[b"worse"]];
        assert_eq!(groups, expected);
    }
}
