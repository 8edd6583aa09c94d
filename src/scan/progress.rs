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
