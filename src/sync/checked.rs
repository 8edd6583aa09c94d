//! What checks mean for a sync's transfers: where rsync reads, and what it leaves alone.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::Sync;
use crate::check::withheld::{MOST_RULES, Reason};
use crate::config::OnReject;
use crate::filter::literal;

impl Sync {
    /// The directory rsync reads: the source, or what of it has passed the checks. None while it
    /// is not known where that is.
    pub fn rsync_source(&self) -> Option<Vec<u8>> {
        match &self.config.check {
            None => Some(self.config.source.clone()),
            Some(_) => Some([self.gate.staging()?, b"/tree/"].concat()),
        }
    }

    /// Patterns of what the target keeps, though it is not in what rsync reads; `None` if that is
    /// too much for rules.
    pub fn protected(&self) -> Option<Vec<Vec<u8>>> {
        let withheld = self.gate.withheld();
        let kept = withheld.iter().filter(|(_, reason)| self.keeps(reason));
        let patterns: Vec<_> = kept
            .take(MOST_RULES + 1)
            .map(|(path, _)| literal(path))
            .collect();
        (patterns.len() <= MOST_RULES).then_some(patterns)
    }

    /// Whether nothing is to be done at the target for this path: what is there did not pass the
    /// checks, and neither is there an older version that has.
    pub fn is_withheld(&self, path: &[u8]) -> bool {
        let kept = self
            .gate
            .withheld()
            .why(path)
            .is_some_and(|reason| self.keeps(reason));
        let staged = || {
            let staged = self.rsync_source().map(|tree| [&tree, path].concat());
            staged.is_some_and(|path| fs::symlink_metadata(OsStr::from_bytes(&path)).is_ok())
        };
        kept && !staged()
    }

    fn keeps(&self, reason: &Reason) -> bool {
        let check = self.config.check.as_ref();
        let removes = check.is_some_and(|check| check.on_reject == OnReject::DeleteTarget);
        !(removes && reason.rejected)
    }
}
