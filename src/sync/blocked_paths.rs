//! Effects of the check gate on a sync's transfers: the directory rsync reads, and the paths it
//! must not touch.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::Sync;
use crate::config::{Delete, OnReject};
use crate::filter::{literal, push_entire};
use crate::queue::Time;
use crate::staging::blocked::{BlockReason, MAX_RULE_BYTES, MAX_RULES};

impl Sync {
    /// Returns the directory rsync reads: the source, or the staged tree of checked files. `None`
    /// while the staging directory is unknown.
    pub fn rsync_source(&self) -> Option<Vec<u8>> {
        match &self.config.check {
            None => Some(self.config.source.clone()),
            Some(_) => Some([self.gate.staging()?, b"/tree/"].concat()),
        }
    }

    /// Returns patterns of paths on the target that are protected because the staged tree lacks
    /// them; `None` if there are too many for filter rules. Nothing is deleted then, and
    /// [`Sync::repeat_deletions`] repeats the comparison later.
    pub fn protected_patterns(&mut self) -> Option<Vec<Vec<u8>>> {
        let patterns = self.patterns();
        self.protects = patterns
            .as_ref()
            .is_none_or(|patterns| !patterns.is_empty());
        self.owes_deletions |= patterns.is_none() && self.config.delete != Delete::Never;
        patterns
    }

    /// Queues a full comparison if deletions were left out that are possible now.
    pub fn repeat_deletions(&mut self, now: Time) {
        if self.owes_deletions && self.patterns().is_some() {
            self.owes_deletions = false;
            self.resync_once(now);
        }
    }

    fn patterns(&self) -> Option<Vec<Vec<u8>>> {
        let blocked = self.gate.blocked();
        let kept = blocked.iter().filter(|(_, reason)| self.keeps(reason));
        let kept = kept.take(MAX_RULES + 1);
        let patterns: Vec<_> = kept.map(|(path, _)| subtree(path)).collect();
        let bytes: usize = patterns.iter().map(Vec::len).sum();
        (patterns.len() <= MAX_RULES && bytes <= MAX_RULE_BYTES).then_some(patterns)
    }

    /// Returns true if the target must not be changed for this path: its file has not passed the
    /// checks, and no older version of it has.
    pub fn is_blocked(&self, path: &[u8]) -> bool {
        let kept = self
            .gate
            .blocked()
            .why(path)
            .is_some_and(|reason| self.keeps(reason));
        let staged = || {
            let staged = self.rsync_source().map(|tree| [&tree, path].concat());
            staged.is_some_and(|path| fs::symlink_metadata(OsStr::from_bytes(&path)).is_ok())
        };
        kept && !staged()
    }

    fn keeps(&self, reason: &BlockReason) -> bool {
        let check = self.config.check.as_ref();
        let removes = check.is_some_and(|check| check.on_reject == OnReject::DeleteTarget);
        !(removes && reason.rejected)
    }
}

/// Returns a path as a filter pattern. The pattern of a directory, which ends with a slash, also
/// matches its contents.
fn subtree(path: &[u8]) -> Vec<u8> {
    if !path.ends_with(b"/") {
        return literal(path);
    }
    let mut pattern = Vec::with_capacity(path.len() + 3);
    push_entire(&mut pattern, path);
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Check, CheckConfig, Staging};
    use crate::queue::Policy;
    use crate::sync::tests::sync_with;

    #[test]
    fn the_pattern_of_a_directory_matches_its_contents() {
        assert_eq!(subtree(b"/a\\b"), b"/a\\b");
        assert_eq!(subtree(b"/a\\b*/"), b"/a\\\\b\\*/***");
    }

    #[test]
    fn deletions_that_were_left_out_are_repeated_when_they_are_possible() {
        for (delete, repeated) in [(Delete::Always, 1), (Delete::Never, 0)] {
            let mut sync = sync_with(Policy::Coalesce);
            sync.config.delete = delete;
            assert_eq!(sync.protected_patterns(), Some(Vec::new()));
            sync.repeat_deletions(0);
            assert_eq!(sync.queue.len(), 0);
            for number in 0..=MAX_RULES {
                let path = format!("/{number}").into_bytes();
                sync.gate.blocked_mut().reject(&path, "no".into());
            }
            assert_eq!(sync.protected_patterns(), None);
            sync.repeat_deletions(0);
            assert_eq!(sync.queue.len(), 0);
            sync.gate.blocked_mut().clear(b"/0");
            sync.repeat_deletions(0);
            assert_eq!(sync.queue.len(), repeated);
            sync.repeat_deletions(0);
            assert_eq!(sync.queue.len(), repeated);
        }
    }

    /// A rule protects its file on the target for a while only.
    #[test]
    fn a_list_with_rules_for_blocked_files_protects() {
        let mut sync = sync_with(Policy::Coalesce);
        sync.protected_patterns();
        assert!(!sync.protects);
        sync.gate.blocked_mut().defer(b"/a", "busy".into(), false);
        assert_eq!(sync.protected_patterns(), Some(vec![b"/a".to_vec()]));
        assert!(sync.protects);
    }

    /// The target gets no change of a file that has not passed the checks, except for the deletion
    /// of a rejected one.
    #[test]
    fn a_file_that_has_not_passed_is_blocked_unless_it_is_to_be_deleted() {
        for (on_reject, rejected) in [(OnReject::Hold, true), (OnReject::DeleteTarget, false)] {
            let mut sync = sync_with(Policy::Coalesce);
            sync.config.check = Some(CheckConfig {
                checks: vec![Check::Function],
                on_reject,
                staging: Staging::Given(b"/staging".to_vec()),
                checksum: false,
            });
            sync.gate.blocked_mut().reject(b"/r", "virus".into());
            sync.gate.blocked_mut().defer(b"/d", "busy".into(), false);
            assert_eq!(sync.is_blocked(b"/r"), rejected);
            assert!(sync.is_blocked(b"/d") && !sync.is_blocked(b"/other"));
            let patterns = sync.protected_patterns().unwrap();
            assert_eq!(patterns.contains(&b"/r".to_vec()), rejected);
            assert!(patterns.contains(&b"/d".to_vec()));
        }
    }
}
