//! The files of one round on their way through the checks of their sync, one check after the
//! other. A file is asked about as long as it passes.

use crate::config::Check;
use crate::scan::{Candidate, Groups, ScanAnswer};

/// Where they are.
pub struct PassProgress {
    /// All files, in their order.
    pub candidates: Vec<Candidate>,
    /// Calls of a scanner that run.
    pub running: usize,
    /// Why files are out, by their numbers.
    out: Vec<Option<ScanAnswer>>,
    /// How many checks are done.
    done: usize,
    stage: Option<ScanStage>,
}

/// One check, and the files it is about.
struct ScanStage {
    check: Check,
    /// Numbers of candidates; what follows counts in this list.
    files: Vec<usize>,
    groups: Groups,
    /// How many a function was asked about.
    asked: usize,
}

impl PassProgress {
    /// At the first check.
    pub fn new(candidates: Vec<Candidate>) -> PassProgress {
        PassProgress {
            out: vec![None; candidates.len()],
            candidates,
            running: 0,
            done: 0,
            stage: None,
        }
    }

    /// The check whose turn it is, with its number among its kind; none when all are done.
    /// `tried` says how often a scanner failed at a file alone: those come last.
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

    /// The groups of the scanner whose turn it is.
    pub fn groups(&mut self) -> &mut Groups {
        let none = || ScanStage {
            check: Check::Function,
            files: Vec::new(),
            groups: Groups::new(&[], 0, |_| false),
            asked: 0,
        };
        &mut self.stage.get_or_insert_with(none).groups
    }

    /// The copies of a group.
    pub fn copies(&self, group: &[usize]) -> Vec<Vec<u8>> {
        let stage = self.stage.as_ref();
        let file = |&handle: &usize| stage?.files.get(handle).copied();
        let files = group.iter().filter_map(file);
        files
            .map(|file| self.candidates[file].copy.clone())
            .collect()
    }

    /// A scanner answered about a group.
    pub fn answered(&mut self, group: Vec<usize>, answer: ScanAnswer) {
        if let Some(stage) = &mut self.stage {
            stage.groups.ended(group, answer);
        }
    }

    /// The candidate the function is asked about next.
    pub fn next_single(&self) -> Option<usize> {
        let stage = self.stage.as_ref()?;
        stage.files.get(stage.asked).copied()
    }

    /// It answered.
    pub fn single(&mut self, file: usize, answer: ScanAnswer) {
        if let Some(stage) = &mut self.stage {
            stage.asked += 1;
            self.out[file] = (answer != ScanAnswer::Passed).then_some(answer);
        }
    }

    /// Returns true if it is a function's turn.
    pub fn asks_function(&self) -> bool {
        let stage = self.stage.as_ref();
        stage.is_some_and(|stage| stage.check == Check::Function)
    }

    /// What came of it all; to be asked when nothing is left to be checked.
    pub fn into_answers(self) -> impl Iterator<Item = (Candidate, ScanAnswer)> {
        let answers = self.out.into_iter();
        let answers = answers.map(|answer| answer.unwrap_or(ScanAnswer::Passed));
        self.candidates.into_iter().zip(answers)
    }
}
