//! Remembers files, so that an unchanged one is not checked twice.
//!
//! A file is identified by device and inode, and its state by its size and the time its inode was
//! changed, which no program can set. The cache saves work and does not decide what is sent: a file
//! that passed is in the staged tree, and an unknown one is checked again.
//!
//! Memory is bounded by two generations. When the younger is full it becomes the older, and the
//! entries of the former older one are dropped; an entry that is used is moved to the younger.

use std::collections::HashMap;

/// The maximum number of files in a generation: with short paths about 100 MB for both.
pub const MAX_GENERATION: usize = 400_000;

/// The identity and state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// The device number of the file system.
    pub device: u64,
    /// The inode number.
    pub inode: u64,
    /// The size in bytes.
    pub size: u64,
    /// The time of the last change of the inode: seconds and nanoseconds.
    pub changed: (i64, i64),
}

impl FileIdentity {
    /// Returns the identity of the file with a state that no file has.
    pub fn in_no_state(self) -> FileIdentity {
        FileIdentity {
            changed: (i64::MIN, 0),
            ..self
        }
    }

    /// Returns true if any change after `now` (seconds and nanoseconds) gives the file another
    /// time: clocks of file systems tick in steps of up to ten milliseconds, of those without
    /// fractions of a second in up to two seconds.
    pub fn is_settled(&self, now: (i64, i64)) -> bool {
        const STEPS: i64 = 100_000_000;
        const SECONDS: i64 = 2_100_000_000;
        let steps = if self.changed.1 == 0 { SECONDS } else { STEPS };
        let nanoseconds = |(seconds, rest): (i64, i64)| {
            seconds.saturating_mul(1_000_000_000).saturating_add(rest)
        };
        nanoseconds(now).saturating_sub(nanoseconds(self.changed)) >= steps
    }
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanVerdict {
    /// It passed, and its copy is in the staged tree at this path.
    Passed(Vec<u8>),
    /// It was rejected, at this path and for this reason.
    Rejected(Vec<u8>, String),
}

/// A bounded map from files to verdicts.
#[derive(Debug)]
pub struct VerdictCache {
    young: HashMap<(u64, u64), (FileIdentity, ScanVerdict)>,
    old: HashMap<(u64, u64), (FileIdentity, ScanVerdict)>,
    most: usize,
}

impl Default for VerdictCache {
    fn default() -> VerdictCache {
        VerdictCache::new(MAX_GENERATION)
    }
}

impl VerdictCache {
    /// Returns an empty cache with at most `most` files in a generation.
    pub fn new(most: usize) -> VerdictCache {
        VerdictCache {
            young: HashMap::new(),
            old: HashMap::new(),
            most,
        }
    }

    /// Stores a verdict.
    pub fn remember(&mut self, identity: FileIdentity, verdict: ScanVerdict) {
        let key = (identity.device, identity.inode);
        self.old.remove(&key);
        if self.young.len() >= self.most && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, (identity, verdict));
    }

    /// Returns the verdict of this file in exactly this state.
    pub fn of(&mut self, identity: &FileIdentity) -> Option<&ScanVerdict> {
        let key = (identity.device, identity.inode);
        if let Some((known, verdict)) = self.old.remove(&key) {
            self.remember(known, verdict);
        }
        let (known, verdict) = self.young.get(&key)?;
        (known == identity).then_some(verdict)
    }

    /// Returns the path of this file's copy, made in another state; a rename changes the state.
    pub fn copy_of(&self, device: u64, inode: u64) -> Option<&[u8]> {
        let key = (device, inode);
        match self.young.get(&key).or_else(|| self.old.get(&key)) {
            Some((_, ScanVerdict::Passed(path))) => Some(path),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity(inode: u64, changed: i64) -> FileIdentity {
        FileIdentity {
            device: 1,
            inode,
            size: 5,
            changed: (changed, 0),
        }
    }

    proptest! {
        /// Checks that a verdict is the last one stored for that state, or absent.
        #[test]
        fn nothing_is_made_up_and_memory_is_bounded(
            steps in prop::collection::vec((0..40_u64, 0..3_i64, 0..3_u8), 0..300),
            most in 1..20_usize,
        ) {
            let mut verdicts = VerdictCache::new(most);
            let mut model: HashMap<u64, (i64, ScanVerdict)> = HashMap::new();
            for (inode, changed, what) in steps {
                let id = identity(inode, changed);
                let verdict = match what {
                    0 => {
                        let known = verdicts.of(&id).cloned();
                        let expected = model.get(&inode).filter(|(at, _)| *at == changed);
                        prop_assert!(known.is_none() || known.as_ref() == expected.map(|(_, v)| v));
                        continue;
                    }
                    1 => ScanVerdict::Passed(inode.to_string().into_bytes()),
                    _ => ScanVerdict::Rejected(Vec::new(), changed.to_string()),
                };
                verdicts.remember(id, verdict.clone());
                model.insert(inode, (changed, verdict.clone()));
                prop_assert_eq!(verdicts.of(&id), Some(&verdict));
                prop_assert!(verdicts.young.len() <= most && verdicts.old.len() <= most);
            }
        }
    }

    #[test]
    fn another_state_is_another_file_but_its_copy_is_known() {
        let mut verdicts = VerdictCache::default();
        verdicts.remember(identity(7, 1), ScanVerdict::Passed(b"/a".to_vec()));
        assert_eq!(verdicts.of(&identity(7, 2)), None);
        let bigger = FileIdentity {
            size: 6,
            ..identity(7, 1)
        };
        assert_eq!(verdicts.of(&bigger), None);
        assert_eq!(verdicts.copy_of(1, 7), Some(b"/a".as_slice()));
        assert_eq!(verdicts.copy_of(2, 7), None);
    }

    /// Such a file could change without another time.
    #[test]
    fn a_file_without_its_state_is_known_by_its_copy_only() {
        let mut verdicts = VerdictCache::default();
        let id = identity(7, 1);
        verdicts.remember(id.in_no_state(), ScanVerdict::Passed(b"/a".to_vec()));
        assert_eq!(verdicts.of(&id), None);
        assert_eq!(verdicts.copy_of(1, 7), Some(b"/a".as_slice()));
    }

    #[test]
    fn a_change_within_one_step_of_the_clock_is_not_final() {
        let coarse = identity(1, 100);
        assert!(!coarse.is_settled((102, 0)));
        assert!(coarse.is_settled((102, 200_000_000)));
        let fine = FileIdentity {
            changed: (100, 1),
            ..coarse
        };
        assert!(!fine.is_settled((100, 1)));
        assert!(!fine.is_settled((100, 100_000_000)));
        assert!(fine.is_settled((100, 100_000_001)));
        assert!(!fine.is_settled((99, 1)));
    }
}
