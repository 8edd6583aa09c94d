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
/// The maximum number of directories whose contents were read.
const MAX_CONTENTS: usize = 200;

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
        self.answers.clear();
        self.contents.clear();
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

    /// Records the look-up of the name of a directory: the handle of its parent, and the name.
    fn add_link(&mut self, place: usize, handle: &[u8], (parent, name): (&[u8], &[u8]), mark: u64) {
        self.add(Answer::Directory(place, handle.to_vec()), mark);
        let name = Answer::Name(place, parent.to_vec(), name.to_vec());
        self.add(name, mark);
    }

    fn add_contents(&mut self, path: &[u8], mark: u64) {
        if self.contents.len() >= MAX_CONTENTS {
            self.merge();
        }
        self.contents.push((path.to_vec(), mark));
    }

    /// Records that a directory has moved with its contents.
    pub fn on_moved(&mut self, from: &[u8], to: &[u8]) {
        for (path, _) in &mut self.contents {
            if let Some(moved) = paths::moved(path, from, to) {
                *path = moved;
            }
        }
    }

    /// Returns true if an answer that is ahead of this position concerns the rename of the
    /// directory with the handle `target` between two names, each a directory's handle and a name,
    /// and the paths of these names.
    fn concerns(
        &self,
        position: u64,
        place: usize,
        target: Option<&[u8]>,
        names: [(&[u8], &[u8]); 2],
        paths: [&[u8]; 2],
    ) -> bool {
        let is_newer = |mark: &u64| position <= *mark;
        if is_newer(&self.all) {
            return true;
        }
        let contents = self.contents.iter().any(|(path, mark)| {
            is_newer(mark) && paths.iter().any(|renamed| renamed.starts_with(path))
        });
        if contents || self.answers.is_empty() {
            return contents;
        }
        let name = |(directory, name): (&[u8], &[u8])| {
            Answer::Name(place, directory.to_vec(), name.to_vec())
        };
        let directory = target.map(|target| Answer::Directory(place, target.to_vec()));
        let asked = names.map(name).into_iter().chain(directory);
        asked
            .filter_map(|answer| self.answers.get(&answer))
            .any(is_newer)
    }
}

impl FanotifyBackend {
    /// Records that the name of a directory was looked up on disk.
    pub(super) fn note_link(&mut self, place: usize, handle: &[u8], parent: &[u8], name: &[u8]) {
        let mark = self.reader.mark();
        self.shadow.add_link(place, handle, (parent, name), mark);
    }

    /// Records that the contents of a directory were read.
    pub(super) fn note_contents(&mut self, path: &[u8]) {
        if self.catch_up() && self.upcoming.is_empty() {
            return;
        }
        let mark = self.reader.mark();
        self.shadow.add_contents(path, mark);
    }

    /// Returns true if a look-up that concerns this rename of a directory is newer.
    pub(super) fn is_shadowed(
        &self,
        place: usize,
        target: Option<&[u8]>,
        names: [EntryName<'_>; 2],
        paths: [&[u8]; 2],
    ) -> bool {
        let names = names.map(|entry| (entry.directory.bytes, entry.name));
        self.shadow
            .concerns(self.position, place, target, names, paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [&[u8]; 2] = [b"/s/p/a/", b"/s/q/b/"];
    const NAMES: [(&[u8], &[u8]); 2] = [(b"p", b"a"), (b"q", b"b")];

    fn concerns(shadow: &Shadow, position: u64) -> bool {
        shadow.concerns(position, 0, Some(b"t"), NAMES, PATHS)
    }

    #[test]
    fn a_rename_is_concerned_by_a_later_look_up_of_the_directory_or_of_a_name() {
        let links: [(usize, &str, [&str; 2], bool); 8] = [
            (0, "t", ["x", "x"], true),
            (0, "x", ["p", "a"], true),
            (0, "x", ["q", "b"], true),
            (0, "x", ["p", "b"], false),
            (0, "x", ["x", "a"], false),
            (0, "p", ["t", "t"], false),
            (1, "t", ["x", "x"], false),
            (1, "x", ["p", "a"], false),
        ];
        for (place, handle, name, is_concerned) in links {
            let mut shadow = Shadow::default();
            let [parent, child] = name.map(str::as_bytes);
            shadow.add_link(place, handle.as_bytes(), (parent, child), 5);
            assert_eq!(concerns(&shadow, 5), is_concerned, "{handle} {name:?}");
            assert_eq!(concerns(&shadow, 1), is_concerned, "{handle} {name:?}");
            assert!(!concerns(&shadow, 6));
            shadow.clear();
            assert!(!concerns(&shadow, 1));
        }
    }

    #[test]
    fn a_rename_is_concerned_by_contents_that_were_read_later_around_it() {
        let tops: [(&[u8], bool); 5] = [
            (b"/s/", true),
            (b"/s/p/a/", true),
            (b"/s/q/", true),
            (b"/s/p/a/x/", false),
            (b"/s/r/", false),
        ];
        for (path, is_concerned) in tops {
            let mut shadow = Shadow::default();
            shadow.add_contents(path, 5);
            assert_eq!(concerns(&shadow, 5), is_concerned, "{path:?}");
            assert!(!concerns(&shadow, 6));
            shadow.clear();
            assert!(!concerns(&shadow, 1));
        }
        let mut shadow = Shadow::default();
        shadow.add_contents(b"/s/r/p/", 5);
        shadow.add_link(0, b"x", (b"x", b"x"), 5);
        shadow.on_moved(b"/s/r/", b"/s/o/");
        assert!(!concerns(&shadow, 5));
        shadow.on_moved(b"/s/o/p/", b"/s/p/");
        assert!(concerns(&shadow, 5));
    }

    #[test]
    fn the_position_of_forgotten_answers_applies_to_all() {
        let mut shadow = Shadow::default();
        shadow.add_link(0, b"x", (b"y", b"z"), 7);
        shadow.add_contents(b"/other/", 9);
        shadow.merge();
        assert!(concerns(&shadow, 9) && !concerns(&shadow, 10));
        shadow.add_contents(b"/other/", 8);
        shadow.merge();
        assert!(concerns(&shadow, 9) && !concerns(&shadow, 10));
        shadow.clear();
        assert!(!concerns(&shadow, 1));

        for number in 0..=MAX_ANSWERS as u64 {
            assert!(!concerns(&shadow, 1));
            shadow.add(Answer::Directory(3, number.to_ne_bytes().to_vec()), number);
        }
        assert!(concerns(&shadow, MAX_ANSWERS as u64 - 1));
        assert_eq!(shadow.answers.len(), 1);
        shadow.clear();
        for number in 0..=MAX_CONTENTS as u64 {
            assert!(!concerns(&shadow, 1));
            shadow.add_contents(b"/other/", number);
        }
        assert!(concerns(&shadow, MAX_CONTENTS as u64 - 1));
        assert_eq!(shadow.contents.len(), 1);
    }
}
