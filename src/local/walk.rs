//! The order in which a tree is walked: each directory before its contents, and again after all of
//! them. Only one full path is stored, and names for the directories on it, so that a deep tree
//! takes no more memory than a wide one.

/// A visit of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Before its contents; [`Walk::add`] selects subdirectories to be walked.
    Enter,
    /// After everything that was added.
    Leave,
}

/// A walk through a tree. Paths end with a slash.
pub struct Walk {
    path: Vec<u8>,
    /// The directories of the current path.
    open: Vec<WalkLevel>,
    begun: bool,
}

struct WalkLevel {
    /// The length of its path.
    end: usize,
    /// The names of subdirectories still to be visited.
    names: Vec<Vec<u8>>,
}

impl Walk {
    /// Returns a walk through a directory, whose path ends with a slash.
    pub fn through(top: &[u8]) -> Walk {
        Walk {
            path: top.to_vec(),
            open: Vec::new(),
            begun: false,
        }
    }

    /// Continues the walk; `None` at its end.
    pub fn step(&mut self) -> Option<Step> {
        if !self.begun {
            self.begun = true;
            return Some(self.enter());
        }
        let level = self.open.last_mut()?;
        self.path.truncate(level.end);
        if let Some(name) = level.names.pop() {
            self.path.extend_from_slice(&name);
            self.path.push(b'/');
            return Some(self.enter());
        }
        self.open.pop();
        Some(Step::Leave)
    }

    /// Continues to the next directory that is entered, and returns its path.
    pub fn enter_next(&mut self) -> Option<&[u8]> {
        while self.step()? == Step::Leave {}
        Some(&self.path)
    }

    fn enter(&mut self) -> Step {
        self.open.push(WalkLevel {
            end: self.path.len(),
            names: Vec::new(),
        });
        Step::Enter
    }

    /// Returns the directory of the last step.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Adds a subdirectory of the directory that was entered last.
    pub fn add(&mut self, name: Vec<u8>) {
        if let Some(level) = self.open.last_mut() {
            level.names.push(name);
        }
    }

    /// Enters no more directories; those that were entered are still left.
    pub fn stop(&mut self) {
        for level in &mut self.open {
            level.names.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the walk through a tree in which each directory above `depth` has `a` and `b`.
    fn way(depth: usize, stop_at: Option<&str>) -> Vec<(Step, String)> {
        let mut walk = Walk::through(b"/");
        let mut steps = Vec::new();
        while let Some(step) = walk.step() {
            let path = String::from_utf8(walk.path().to_vec()).unwrap();
            if step == Step::Enter && path.len() < 1 + 2 * depth {
                walk.add(b"a".to_vec());
                walk.add(b"b".to_vec());
            }
            if Some(path.as_str()) == stop_at {
                walk.stop();
            }
            steps.push((step, path));
        }
        steps
    }

    #[test]
    fn each_directory_is_left_when_all_in_it_is_done() {
        let way = way(2, None);
        assert_eq!(way.len(), 2 * 7);
        let at =
            |step: Step, path: &str| way.iter().position(|found| *found == (step, path.into()));
        for path in ["/", "/a/", "/b/", "/a/a/", "/a/b/", "/b/a/", "/b/b/"] {
            let (entered, left) = (at(Step::Enter, path), at(Step::Leave, path));
            assert!(entered < left, "{path}");
            let inside = way.iter().enumerate();
            let inside = inside.filter(|(_, (_, other))| other.starts_with(path));
            for (number, _) in inside {
                assert!(entered <= Some(number) && Some(number) <= left, "{path}");
            }
        }
    }

    #[test]
    fn after_a_stop_what_was_entered_is_left() {
        let way = way(2, Some("/b/b/"));
        let left: Vec<_> = way
            .iter()
            .filter(|(step, _)| *step == Step::Leave)
            .collect();
        assert_eq!(left.len(), 3);
        assert_eq!(way.last(), Some(&(Step::Leave, "/".to_owned())));
    }
}
