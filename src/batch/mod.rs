//! Builds rsync calls from the due events of one sync: the arguments and the list on standard
//! input.
//!
//! There are two kinds of call. The *classic* one, known from lsyncd, recurses and includes every
//! listed name, its parents and nothing else; rsync then compares each entry of each listed
//! directory with each rule, so the cost is entries × rules. The *files-from* call names what is to
//! be sent and scans nothing, but it needs names that agree with the disk, and options that not
//! every rsync has. [`ListStrategy`] chooses one for each batch.
//!
//! | file | what it does |
//! |---|---|
//! | [`changed_directories`] | the call that compares single directories, without those below them |
//! | [`itemized`] | what a dry run would do, entry by entry |
//! | [`long_paths`] | paths that are too long for a list |
//! | [`list_first`] | whether a full comparison lists the whole source first |
//! | [`list_strategy`] | the choice of the call, also after failures |
//! | [`collapse`] | events are hints: the disk says what exists and what is missing |
//! | [`connection_options`] | the options that decide how rsync reaches the target |
//! | [`drift_line`] | what differs at a path, as `--itemize-changes` tells it |
//! | [`dry_run`] | the dry run of a comparison, and what it finds |
//! | [`error_lines`] | what a line of rsync's error output says |
//! | `error_lines_tests` | tests of that |
//! | `error_texts` | the messages of rsync that are known |
//! | [`files_from`] | the call with `--files-from` |
//! | [`filter_list`] | the classic call with `--include-from` |
//! | `filter_list_tests` | tests of that |
//! | `pattern_list` | its names as patterns |
//! | [`listing`] | the call that lists single paths of one side |
//! | [`output`] | what rsync says of its work: progress and totals |
//! | [`mod@reason`] | which line of the error output says why a child failed |
//! | [`probe`] | which binary runs, and whether it deletes missing names correctly |
//! | [`mod@remedy`] | what to do about such a line |
//! | [`rsync_options`] | which of the user's own options forbid the files-from call |
//! | [`temp_name`] | which files a temporary one may be for |

pub mod changed_directories;
pub mod collapse;
pub mod connection_options;
pub mod drift_line;
pub mod dry_run;
pub mod error_lines;
mod error_texts;
pub mod files_from;
pub mod filter_list;
pub mod itemized;
pub mod list_first;
pub mod list_strategy;
pub mod listing;
pub mod long_paths;
pub mod output;
mod pattern_list;
pub mod probe;
mod reason;
mod remedy;
pub mod rsync_options;
pub mod temp_name;

use std::time::SystemTime;

use crate::log::escape;

pub use list_strategy::ListStrategy;
pub use reason::{is_connection_lost, reason};
pub use remedy::remedy;

/// The change that an event reports for its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The path is new.
    Create,
    /// Its contents changed.
    Modify,
    /// Its attributes changed.
    Attrib,
    /// The path was deleted.
    Delete,
    /// It was renamed to [`BatchEntry::to`].
    Move,
}

/// One due event. Paths begin with `/`, those of directories end with `/`.
#[derive(Clone, Copy, Debug)]
pub struct BatchEntry<'a> {
    /// The reported change.
    pub change: Change,
    /// The path, relative to the source.
    pub path: &'a [u8],
    /// The new path of a [`Change::Move`]. The contents of a moved directory have entries of their
    /// own.
    pub to: Option<&'a [u8]>,
}

/// The call that a sync uses (`rsync = { list = … }`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListMode {
    /// Files-from where it is known to have the same result as the classic call.
    #[default]
    Auto,
    /// Files-from for all binaries and options. Only a directory replaced by a new one, which
    /// files-from cannot express, is sent by the classic call.
    FilesFrom,
    /// Always the classic call.
    Filter,
}

/// The properties of a sync that determine a call.
#[derive(Clone, Copy, Debug)]
pub struct BatchRequest<'a> {
    /// The source, absolute, with trailing slash.
    pub source: &'a [u8],
    /// The target in rsync's form.
    pub target: &'a [u8],
    /// The options computed from the `rsync` table, the user's own `_extra` included.
    pub options: &'a [Vec<u8>],
    /// The program to run, a path or a name to be searched in `PATH`.
    pub binary: &'a [u8],
    /// True if files on the target that are not in the source are to be deleted.
    pub delete: bool,
    /// The sync's filters and excludes in the form that the full sync passes to rsync: `- PATTERN`
    /// or `+ PATTERN`.
    ///
    /// Entries have passed them already. They apply to paths without entries of their own: the
    /// contents of directories that are deleted, or replaced by new ones.
    pub filters: &'a [Vec<u8>],
    /// True if excluded files on the target are deleted with their directory, not kept.
    pub delete_excluded: bool,
    /// The end of the last transfer of this sync, full or not, successful or not.
    pub last_transfer: Option<SystemTime>,
    /// True if some of the files may be on the target already with the size and time of others that
    /// were sent before, so that contents have to be compared.
    pub by_content: bool,
    /// The kind of call to make.
    pub list: ListMode,
}

/// The criterion by which rsync treats a listed file as unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compare {
    /// By size and whole-second time of modification.
    #[default]
    Times,
    /// By its contents as well.
    Content,
    /// No comparison: every file is sent.
    Never,
}

impl Compare {
    /// Returns the rsync option for this.
    pub fn option(self) -> Option<&'static str> {
        match self {
            Compare::Times => None,
            Compare::Content => Some("--checksum"),
            Compare::Never => Some("--ignore-times"),
        }
    }
}

/// The kind of call that a [`Transfer`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferKind {
    /// `-r --include-from=- --exclude=*`
    Classic,
    /// `--files-from=-`
    FilesFrom {
        /// Some listed names do not exist and are to be deleted on the target.
        missing: bool,
    },
}

/// One rsync call, ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The arguments, without the name of the program.
    pub args: Vec<Vec<u8>>,
    /// The standard input: names separated by NUL, none at the end.
    pub list: Vec<u8>,
    /// The offset of the names in `list`. If there are rules, they precede the names, which are
    /// then rules as well.
    pub names_at: usize,
    /// The kind of the call, for [`ListStrategy::failed`].
    pub kind: TransferKind,
    /// The paths that are left out because they are too long for rsync.
    pub too_long: Vec<Vec<u8>>,
}

impl Transfer {
    /// Returns true if the size and time of a listed file may be those of older contents at the
    /// target.
    pub fn distrusts_times(&self) -> bool {
        let options = [Compare::Content, Compare::Never].map(Compare::option);
        let words = options.into_iter().flatten();
        words
            .map(str::as_bytes)
            .any(|word| self.args.iter().any(|other| other == word))
    }

    /// Returns the listed names for the log, one per line, escaped.
    pub fn names(&self) -> String {
        let names = self.list[self.names_at..].split(|&byte| byte == 0);
        let names = names.map(|name| match self.names_at {
            0 => name,
            _ => name.strip_prefix(b"+ ").unwrap_or(name),
        });
        // The `/./` that makes rsync send the root's attributes is omitted.
        let plain = names.map(|name| match name {
            [b'/', b'.', rest @ ..] if rest.first() == Some(&b'/') => escape(rest),
            name => escape(name),
        });
        plain.collect::<Vec<_>>().join("\n")
    }
}

/// Returns true if the receiver runs on another host, or at least in another rsync, for this
/// target: `rsync://…`, `host:…`, `host::…`. A colon behind the first slash is part of a local path
/// (rsync(1)).
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
            too_long: Vec::new(),
        };
        assert_eq!(transfer.names(), "/f\n/.h\n/n\\012l\n/\\377é\n/");
    }

    #[test]
    fn a_call_that_compares_more_than_times_distrusts_them() {
        let distrusts = |args: &[&str]| {
            let transfer = Transfer {
                args: args.iter().map(|&arg| arg.into()).collect(),
                list: Vec::new(),
                names_at: 0,
                kind: TransferKind::Classic,
                too_long: Vec::new(),
            };
            transfer.distrusts_times()
        };
        assert!(distrusts(&["-lts", "--checksum", "/s/"]));
        assert!(distrusts(&["--ignore-times"]));
        assert!(!distrusts(&["-lts", "--ignore-errors", "/s/"]) && !distrusts(&[]));
    }

    #[test]
    fn hosts_are_distinguished_from_paths() {
        for target in ["h:/t", "u@h:", "h::m/d", "rsync://h/m", "[::1]:/t", ":x"] {
            assert!(is_remote(target.as_bytes()), "{target}");
        }
        for target in ["/t/", "t", "./a:b", "/a:b", "a/b:c", ""] {
            assert!(!is_remote(target.as_bytes()), "{target}");
        }
    }
}
