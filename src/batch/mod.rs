//! From the due events of one sync to what rsync gets: its arguments and the list on its
//! standard input.
//!
//! There are two kinds of call. The *classic* one, known from lsyncd, recurses and
//! includes every listed name, its parents and nothing else; rsync then compares each
//! entry of each listed directory with each rule, so it costs entries × rules. The
//! *files-from* one names what is to be sent and nothing is scanned, but it needs names
//! that agree with the disk, and options that not every rsync has.
//!
//! [`ListStrategy`] decides which one a batch gets:
//!
//! | module | what it does |
//! |---|---|
//! | [`list_strategy`] | which of the two calls, and what failures teach |
//! | [`collapse`] | events are hints: the disk says what exists and what is missing |
//! | [`error_lines`] | what a line of rsync's error output says |
//! | [`exposed`] | whose directories others may exchange |
//! | [`files_from`] | the call with `--files-from` |
//! | [`filter_list`] | the classic call with `--include-from` |
//! | [`output`] | what rsync says of its work: progress and totals |
//! | [`mod@reason`] | which line of the error output says why a child failed |
//! | [`probe`] | which binary runs, and whether it deletes missing names correctly |
//! | [`refusal`] | how an rsync says that it does not take an option |
//! | [`rsync_options`] | which of the user's own options forbid the files-from call |
//! | [`temp_name`] | which files a temporary one may be for |

pub mod collapse;
pub mod error_lines;
pub mod exposed;
pub mod files_from;
pub mod filter_list;
pub mod list_strategy;
pub mod output;
pub mod probe;
mod reason;
pub mod refusal;
pub mod rsync_options;
pub mod temp_name;

use std::time::SystemTime;

use crate::log::escape;

pub use list_strategy::ListStrategy;
pub use reason::reason;

/// What an event says has happened to its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The path is new.
    Create,
    /// Its contents changed.
    Modify,
    /// Its attributes changed.
    Attrib,
    /// It is gone.
    Delete,
    /// It was renamed to [`BatchEntry::to`].
    Move,
}

/// One due event. Paths begin with `/`, those of directories end with `/`.
#[derive(Clone, Copy, Debug)]
pub struct BatchEntry<'a> {
    /// What happened.
    pub change: Change,
    /// Where, relative to the source.
    pub path: &'a [u8],
    /// The new path of a [`Change::Move`]. What is in a moved directory has entries of
    /// its own.
    pub to: Option<&'a [u8]>,
}

/// Which call a sync wants (`rsync = { list = … }`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListMode {
    /// Files-from where it is known to do the same as the classic call.
    #[default]
    Auto,
    /// Files-from whatever the binary and the options are, proven or not. Only what it
    /// cannot express, a directory replaced by a new one, is still classic.
    FilesFrom,
    /// The classic call, always.
    Filter,
}

/// What a sync knows when it asks for a transfer.
#[derive(Clone, Copy, Debug)]
pub struct BatchRequest<'a> {
    /// The source, absolute, with trailing slash.
    pub source: &'a [u8],
    /// The target as rsync gets it.
    pub target: &'a [u8],
    /// The options computed from the `rsync` table, user's own `_extra` words included.
    pub words: &'a [Vec<u8>],
    /// The program to run, a path or a name to be found in `PATH`.
    pub binary: &'a [u8],
    /// True if what is gone at the source is to be deleted at the target.
    pub delete: bool,
    /// The sync's filters and excludes in the form the full sync gives to rsync:
    /// `- PATTERN` or `+ PATTERN`.
    ///
    /// Entries have passed them already. They are for what has no entries of its own:
    /// the contents of directories that are deleted, or replaced by new ones.
    pub filters: &'a [Vec<u8>],
    /// Excluded files at the target are deleted with their directory, not kept.
    pub delete_excluded: bool,
    /// When the last transfer of this sync ended, full or not, successful or not.
    pub last_transfer: Option<SystemTime>,
    /// Some of the files may be at the target already, with the same size and time as others
    /// that were sent before: their content is compared.
    pub by_content: bool,
    /// Which call to make.
    pub list: ListMode,
}

/// How rsync finds out whether a listed file is unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compare {
    /// By size and whole-second time of modification.
    #[default]
    Times,
    /// By its content as well.
    Content,
    /// It does not: every file is sent.
    Never,
}

impl Compare {
    /// The option that says so.
    pub fn option(self) -> Option<&'static str> {
        match self {
            Compare::Times => None,
            Compare::Content => Some("--checksum"),
            Compare::Never => Some("--ignore-times"),
        }
    }
}

/// Which call a [`Transfer`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferKind {
    /// `-r --include-from=- --exclude=*`
    Classic,
    /// `--files-from=-`
    FilesFrom {
        /// Some listed names do not exist and are to be deleted at the target.
        missing: bool,
    },
}

/// One rsync call, ready to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The arguments, without the name of the program.
    pub args: Vec<Vec<u8>>,
    /// What its standard input reads: names separated by NUL, none at the end.
    pub list: Vec<u8>,
    /// Where in `list` the names begin: behind the rules, if some are there. Names are rules as
    /// well then.
    pub names_at: usize,
    /// Which call it is; [`ListStrategy::failed`] wants it back.
    pub kind: TransferKind,
}

impl Transfer {
    /// The listed names for the log, one on a line, escaped.
    pub fn names(&self) -> String {
        let names = self.list[self.names_at..].split(|&byte| byte == 0);
        let names = names.map(|name| match self.names_at {
            0 => name,
            _ => name.strip_prefix(b"+ ").unwrap_or(name),
        });
        // The `/./` that makes rsync send the root's attributes says nothing to a reader.
        let plain = names.map(|name| match name {
            [b'/', b'.', rest @ ..] if rest.first() == Some(&b'/') => escape(rest),
            name => escape(name),
        });
        plain.collect::<Vec<_>>().join("\n")
    }
}

/// Returns true if rsync runs its receiver on another host, or at least in another rsync, for this
/// target: `rsync://…`, `host:…`, `host::…`. A colon behind the first slash is part of a
/// local path (rsync(1)).
pub fn is_remote(target: &[u8]) -> bool {
    target.starts_with(b"rsync://")
        || target
            .iter()
            .find(|&&byte| byte == b':' || byte == b'/')
            .is_some_and(|&byte| byte == b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_for_the_log() {
        let transfer = Transfer {
            args: Vec::new(),
            list: b"/./f\0/.h\0/n\nl\0/\xff\xc3\xa9\0/".to_vec(),
            names_at: 0,
            kind: TransferKind::Classic,
        };
        assert_eq!(transfer.names(), "/f\n/.h\n/n\\012l\n/\\377é\n/");
    }

    #[test]
    fn hosts_are_told_from_paths() {
        for target in ["h:/t", "u@h:", "h::m/d", "rsync://h/m", "[::1]:/t", ":x"] {
            assert!(is_remote(target.as_bytes()), "{target}");
        }
        for target in ["/t/", "t", "./a:b", "/a:b", "a/b:c", ""] {
            assert!(!is_remote(target.as_bytes()), "{target}");
        }
    }
}
