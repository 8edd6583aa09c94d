//! Reports that are ahead of the events in the kernel's queue.
//!
//! Links of directories and contents are looked up on disk. Events that were in the queue at that
//! time are older than the result. A rename among them is reported as a rename only if it does not
//! concern a path that was looked up.

use hashbrown::HashMap;

use super::FanotifyBackend;
use super::records::EntryName;
use crate::paths;

/// The maximum number of answers. If there are more, all renames count as concerned.
const MAX_ANSWERS: usize = 20_000;

/// The object of a look-up.
#[derive(PartialEq, Eq, Hash)]
enum Answer {
    /// The place of the directory with this handle.
    Directory(usize, Vec<u8>),
    /// The object of this name in the directory with this handle.
    Name(usize, Vec<u8>, Vec<u8>),
}

/// The answers that may be ahead of events, each with the position up to which they may be.
#[derive(Default)]
pub struct Shadow {
    answers: HashMap<Answer, u64>,
    /// Directories whose contents were read.
    contents: Vec<(Vec<u8>, u64)>,
    /// The position for all other look-ups.
    all: u64,
}

impl Shadow {
    /// Forgets all: no event is outstanding.
    pub fn clear(&mut self) {
        if !self.answers.is_empty() || !self.contents.is_empty() {
            self.answers.clear();
            self.contents.clear();
        }
        self.all = 0;
    }

    /// Applies the position to all look-ups.
    pub fn merge(&mut self) {
        let contents = self.contents.iter().map(|&(_, mark)| mark);
        let marks = self.answers.values().copied().chain(contents);
        let all = marks.chain([self.all]).max();
        self.clear();
        self.all = all.unwrap_or(0);
    }

    fn add(&mut self, answer: Answer, mark: u64) {
        if self.answers.len() >= MAX_ANSWERS {
            self.merge();
        }
        self.answers.insert(answer, mark);
    }

    /// Records that a directory has moved with its contents.
    pub fn on_moved(&mut self, from: &[u8], to: &[u8]) {
        for (path, _) in &mut self.contents {
            if let Some(moved) = paths::moved(path, from, to) {
                *path = moved;
            }
        }
    }
}

impl FanotifyBackend {
    /// Records that the name of a directory was looked up on disk.
    pub(super) fn note_link(&mut self, place: usize, handle: &[u8], parent: &[u8], name: &[u8]) {
        let mark = self.reader.mark();
        self.shadow
            .add(Answer::Directory(place, handle.to_vec()), mark);
        let name = Answer::Name(place, parent.to_vec(), name.to_vec());
        self.shadow.add(name, mark);
    }

    /// Records that the contents of a directory were read.
    pub(super) fn note_contents(&mut self, path: &[u8]) {
        if self.catch_up() && self.upcoming.is_empty() {
            return;
        }
        if self.shadow.contents.len() >= MAX_ANSWERS / 100 {
            self.shadow.merge();
        }
        let mark = self.reader.mark();
        self.shadow.contents.push((path.to_vec(), mark));
    }

    /// Returns true if a look-up that concerns this rename of a directory is newer.
    pub(super) fn is_shadowed(
        &self,
        place: usize,
        target: Option<&[u8]>,
        names: [EntryName<'_>; 2],
        paths: [&[u8]; 2],
    ) -> bool {
        let is_newer = |mark: &u64| self.position <= *mark;
        let shadow = &self.shadow;
        if is_newer(&shadow.all) {
            return true;
        }
        let contents = shadow.contents.iter().any(|(path, mark)| {
            is_newer(mark) && paths.iter().any(|renamed| renamed.starts_with(path))
        });
        if contents || shadow.answers.is_empty() {
            return contents;
        }
        let name = |entry: EntryName<'_>| {
            Answer::Name(place, entry.directory.bytes.to_vec(), entry.name.to_vec())
        };
        let directory = target.map(|target| Answer::Directory(place, target.to_vec()));
        let asked = names.map(name).into_iter().chain(directory);
        asked
            .filter_map(|answer| shadow.answers.get(&answer))
            .any(is_newer)
    }
}
