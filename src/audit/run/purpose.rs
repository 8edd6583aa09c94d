//! The purpose of a child of a comparison.

/// The purpose of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Prints the version of this host's rsync.
    Version,
    /// Prints the version of the rsync on the target.
    RemoteVersion,
    /// A dry run compares.
    Compare,
    /// A dry run compares the contents of a sample.
    Sample,
    /// A dry run that finds missing paths that have another type on the target.
    Types,
    /// Lists the entries of the source at the paths that differ.
    ListSource,
    /// Lists the entries of the target there.
    ListTarget,
    /// A dry run that finds the differences that are repaired.
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
            Purpose::ListSource | Purpose::ListTarget => "listing the differences",
            Purpose::Check => "comparing repaired paths",
        }
    }
}
