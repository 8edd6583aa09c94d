//! State of the delete limit (`guard = { maxDelete = … }`): whether the next transfer is exempt,
//! and what the last one would have deleted.

/// The delete limit of one sync at run time.
#[derive(Debug, Default)]
pub struct DeleteGuard {
    /// The next transfer is exempt from the limit, on request of the user.
    is_lifted: bool,
    /// The message about the transfer that exceeds the limit.
    excess: Option<String>,
    /// The number of entries on the target at least, if known: those of the last count without
    /// those deleted since.
    target_entries: Option<u64>,
}

impl DeleteGuard {
    /// Exempts the next transfer from the limit. Returns true if a transfer waits for that.
    pub fn lift(&mut self) -> bool {
        self.is_lifted = true;
        self.excess.take().is_some()
    }

    /// Returns true if the next transfer is exempt from the limit.
    pub fn is_lifted(&self) -> bool {
        self.is_lifted
    }

    /// Returns true once after the limit was lifted. How much is deleted then is not known.
    pub fn take_lifted(&mut self) -> bool {
        if self.is_lifted {
            self.target_entries = None;
        }
        std::mem::take(&mut self.is_lifted)
    }

    /// Records that the pending deletions exceed the limit.
    pub fn exceeded(&mut self, message: String) {
        self.excess = Some(message);
    }

    /// Records that the pending deletions are within the limit. Returns true if they were not
    /// before.
    pub fn within(&mut self) -> bool {
        self.excess.take().is_some()
    }

    /// Returns the message about the transfer that exceeds the limit.
    pub fn excess(&self) -> Option<&str> {
        self.excess.as_deref()
    }

    /// Returns the number of entries on the target at least, if known.
    pub fn target_entries(&self) -> Option<u64> {
        self.target_entries
    }

    /// Records the number of entries on the target at least, if known.
    pub fn set_target_entries(&mut self, count: Option<u64>) {
        self.target_entries = count;
    }

    /// Takes over what is known of the same target.
    pub(super) fn inherit(&mut self, old: &DeleteGuard) {
        self.target_entries = old.target_entries;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Policy;
    use crate::sync::tests::sync_with;

    #[test]
    fn a_lifted_limit_exempts_one_transfer() {
        let mut guard = DeleteGuard::default();
        assert!(!guard.take_lifted() && !guard.lift());
        assert!(guard.take_lifted() && !guard.take_lifted());
    }

    #[test]
    fn an_excess_ends_with_a_release_or_a_transfer_within_the_limit() {
        let mut guard = DeleteGuard::default();
        guard.exceeded("3 entries".into());
        assert_eq!(guard.excess(), Some("3 entries"));
        assert!(guard.within() && !guard.within());
        guard.exceeded("4 entries".into());
        assert!(guard.lift() && guard.excess().is_none());
        // A dry run that began before the limit was lifted does not take the exemption back.
        guard.exceeded("4 entries".into());
        assert!(guard.take_lifted());
    }

    /// A share of entries that may be deleted by then would permit too much.
    #[test]
    fn the_number_of_entries_is_not_known_after_an_exempt_transfer() {
        let mut guard = DeleteGuard::default();
        guard.set_target_entries(Some(5));
        assert!(!guard.take_lifted());
        assert_eq!(guard.target_entries(), Some(5));
        guard.lift();
        assert!(guard.take_lifted());
        assert_eq!(guard.target_entries(), None);
    }

    #[test]
    fn deletions_within_the_limit_end_the_excess() {
        let mut sync = sync_with(Policy::Coalesce);
        sync.delete_guard_mut().exceeded("3 deletions".into());
        sync.deletions_within_limit();
        assert_eq!(sync.delete_guard().excess(), None);
    }
}
