//! What a child of a comparison is for.

/// What a child is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It tells the version of this host's rsync.
    Version,
    /// It tells the version of the rsync at the target.
    RemoteVersion,
    /// A dry run compares.
    Compare,
    /// A dry run compares the contents of a sample.
    Sample,
    /// A dry run tells which of the missing paths have another type at the target.
    Types,
    /// It lists what the source has at the paths that differ.
    ListSource,
    /// It lists what the target has there.
    ListTarget,
    /// A dry run tells which differences are repaired.
    Check,
}

impl Purpose {
    /// Returns what happens, for the user.
    pub(super) fn text(self) -> &'static str {
        match self {
            Purpose::Version | Purpose::RemoteVersion => "asking rsync for its version",
            Purpose::Compare => "comparing",
            Purpose::Sample => "comparing the contents of the sample",
            Purpose::Types => "comparing types",
            Purpose::ListSource | Purpose::ListTarget => "listing what differs",
            Purpose::Check => "comparing what was repaired",
        }
    }
}
