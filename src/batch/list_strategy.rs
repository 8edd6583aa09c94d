//! Chooses between the two calls for each batch.
//!
//! Files-from is far cheaper, but the classic call is always correct. So a batch is classic if
//! anything speaks against files-from: a wrapper in place of rsync, the user's own options, names
//! to be deleted by an rsync that is not known to do it correctly, an earlier failure.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::collapse::{Collapsed, Disk, FileKind, PathRef, Stat, collapse};
use super::probe::Binary;
use super::rsync_options::{self, ListSupport, SentAsDirectories};
use super::{
    BatchEntry, BatchRequest, Change, Compare, ListMode, Transfer, TransferKind, files_from,
    filter_list, is_remote, refusal,
};
use crate::filter::Rules;
use crate::{paths, safe_path};

/// Builds the calls of one sync and learns from those that fail.
#[derive(Debug)]
pub struct ListStrategy {
    /// True while the rsyncs are assumed to accept the options of the files-from call.
    files_from: bool,
    /// True while deleting missing names has not failed.
    missing: bool,
    /// True while no call has failed because of the sync's filters.
    rules: bool,
    /// True if a call may have had filter rules.
    ruled: bool,
    /// Our options that are omitted because an rsync refused them.
    without: Vec<&'static str>,
    /// The options that the user set.
    own: Vec<Vec<u8>>,
    /// Probes a binary that is also the receiver.
    probe: fn(&Binary) -> bool,
    /// Probes if a binary stays below the source when directories are replaced.
    confined: fn(&Binary) -> bool,
}

impl Default for ListStrategy {
    fn default() -> Self {
        ListStrategy {
            files_from: true,
            missing: true,
            rules: true,
            ruled: false,
            without: Vec::new(),
            own: Vec::new(),
            probe: Binary::deletes_missing,
            confined: Binary::is_confined,
        }
    }
}

impl ListStrategy {
    /// Returns a strategy that has seen no failure yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Builds the call for these events, in the order of the queue; there must be at least one.
    ///
    /// A directory's Delete has to be among them even if a Create follows it: it says that the
    /// target may have contents without events.
    ///
    /// Every path is looked up once at the source, unless the call needs no lookup. The first time
    /// that a local rsync is to delete missing names it is probed.
    pub fn prepare<'a>(
        &mut self,
        request: &BatchRequest<'_>,
        entries: impl IntoIterator<Item = BatchEntry<'a>>,
    ) -> Transfer {
        let entries: Vec<BatchEntry<'a>> = entries.into_iter().collect();
        let disk = SourceDisk::new(request.source);
        let binary = Binary::plain(request.binary);
        let filters = if self.rules { request.filters } else { &[] };
        let rules = &Rules::new(filters.iter().map(Vec::as_slice));

        let compare = |resent: &dyn Fn() -> bool| match &binary {
            None => Compare::Times,
            Some(_) if request.by_content => self.possible([Compare::Content, Compare::Never]),
            Some(_) if resent() => self.possible([Compare::Never, Compare::Content]),
            Some(_) => Compare::Times,
        };
        let follows_links = rsync_options::follows_links(request.options);
        let found = match &binary {
            None if request.list != ListMode::FilesFrom => None,
            _ => collapse(&disk, mentions(&entries, follows_links)),
        };
        let mut transfer = match found {
            None => {
                let compare = compare(&|| resent(request, &disk, &entries));
                let is_file = |path: &[u8]| {
                    let stat = disk.lstat(path);
                    stat.is_some_and(|stat| stat.node != FileKind::Directory)
                };
                filter_list::transfer(request, rules, &entries, compare, is_file)
            }
            Some(mut found) => {
                let sent = rsync_options::sent_as_directories(request.options);
                found.judge(rules, |path| disk.is_sent_as_directory(path, sent));
                if !request.delete {
                    // Excluded objects are not sent, and those at the target stay.
                    found.present.retain(|item| !item.other_kind);
                }
                let compare = compare(&|| found_resent(request, &found));
                let transfer = if self.needs_classic(request, rules, &found, binary.as_ref()) {
                    None
                } else {
                    files_from::transfer(request, rules, &found, compare)
                };
                transfer.unwrap_or_else(|| filter_list::collapsed(request, rules, &found, compare))
            }
        };
        self.ruled |= !rules.is_empty();
        self.take_out(request.options, &mut transfer.args);
        transfer
    }

    /// Removes the options that an rsync refuses from the arguments of a call. `own` are those that
    /// the user set.
    pub fn take_out(&mut self, own: &[Vec<u8>], words: &mut Vec<Vec<u8>>) {
        if self.own != own {
            self.own = own.to_vec();
        }
        words.retain(|word| {
            let name = word.strip_prefix(b"--").unwrap_or_default();
            let refused = self.without.iter().any(|other| other.as_bytes() == name);
            !refused || own.contains(word)
        });
    }

    /// Returns the first of these that is not refused.
    fn possible(&self, wanted: [Compare; 2]) -> Compare {
        let refused = |compare: &Compare| {
            let name = compare.option().and_then(|word| word.strip_prefix("--"));
            name.is_some_and(|name| self.without.contains(&name))
        };
        let mut possible = wanted.into_iter().filter(|compare| !refused(compare));
        possible.next().unwrap_or_default()
    }

    /// Records how a call ended: its kind, its exit code and its error output, line by line.
    ///
    /// Returns a description of the changed behaviour if the failure is due to an option that an
    /// rsync, here or at the target, does not accept: the call is to be repeated at once.
    pub fn failed<L: AsRef<[u8]>>(
        &mut self,
        kind: TransferKind,
        code: i32,
        output: impl IntoIterator<Item = L>,
    ) -> Option<String> {
        // 1 usage, 2 protocol, 4 action not supported, 10 and 12 the other side hung up.
        if !matches!(code, 1 | 2 | 4 | 10 | 12) {
            return None;
        }
        let mut blame = OptionBlame::default();
        for line in output {
            blame.read(line.as_ref());
        }
        if let Some(name) = blame.refused {
            return self.refused(kind, name);
        }
        if blame.rules && self.rules && self.ruled {
            self.rules = false;
            return Some(USES_FILTERS.to_owned());
        }
        // Codes 2 and 4 would end the daemon otherwise, so trying another call costs nothing.
        let doubt = blame.other || blame.rules || matches!(code, 2 | 4);
        if kind == (TransferKind::FilesFrom { missing: true }) && doubt && self.missing {
            self.missing = false;
            return Some(USES_FILTERS.to_owned());
        }
        None
    }

    /// Records that one of the rsyncs does not accept this option.
    fn refused(&mut self, kind: TransferKind, name: &'static str) -> Option<String> {
        if refusal::is_own(&self.own, name) {
            return None;
        }
        let list = matches!(kind, TransferKind::FilesFrom { .. });
        match name {
            "delete-missing-args" if list && self.missing => self.missing = false,
            "ignore-missing-args" | "relative" | "dirs" if list && self.files_from => {
                self.files_from = false;
            }
            "force" | "ignore-errors" | "ignore-times" | "checksum"
                if !self.without.contains(&name) =>
            {
                self.without.push(name);
                // Without it only --delete removes directories that are not empty.
                self.files_from &= name != "force";
                return Some(format!(
                    "an rsync refuses --{name}, doing without it from now on"
                ));
            }
            _ => return None,
        }
        Some(USES_FILTERS.to_owned())
    }

    /// Returns true if only the classic call leaves the target correct, given the state on disk.
    fn needs_classic(
        &self,
        request: &BatchRequest<'_>,
        rules: &Rules,
        found: &Collapsed<'_>,
        binary: Option<&Binary>,
    ) -> bool {
        // Only recursion removes contents that no event mentions.
        if request.delete && found.present.iter().any(|item| item.renewed) {
            return true;
        }
        let mut all = found.present.iter().chain(&found.missing);
        let remote = is_remote(request.target);
        // Without --delete rsync does not send its filter rules, and it matches missing names as
        // files.
        if request.delete
            && !rules.is_empty()
            && all.any(|item| item.other_kind || remote && item.was_directory)
        {
            return true;
        }
        // The contents of a link's target have no events, so only recursion sends them.
        let mut present = found.present.iter();
        if present.any(|item| item.was_directory && item.is_special()) {
            return true;
        }
        let deletes = request.delete && !found.missing.is_empty();
        // What one of the rsyncs has refused is not asked of it again, whatever is insisted on.
        if request.list == ListMode::Filter || !self.files_from || deletes && !self.missing {
            return true;
        }
        if request.list == ListMode::FilesFrom {
            return false;
        }
        let freedom = rsync_options::list_support(request.options);
        if freedom == ListSupport::Classic {
            return true;
        }
        // A listed name leads rsync through whatever replaced its directories. The classic call
        // takes each name from the directory that it reads.
        if found.exposed && !binary.is_some_and(self.confined) {
            return true;
        }
        deletes
            && (freedom == ListSupport::ClassicToDelete
                || !remote && !binary.is_some_and(self.probe))
    }
}

/// The message for syncs that cannot use lists of files.
const USES_FILTERS: &str =
    "this rsync cannot take a list of missing files, using filters from now on";

/// The cause that the output of a failed call names.
#[derive(Default)]
struct OptionBlame {
    /// One of our options.
    refused: Option<&'static str>,
    rules: bool,
    /// Names that are missing.
    other: bool,
}

impl OptionBlame {
    fn read(&mut self, line: &[u8]) {
        let has = |text: &str| line.windows(text.len()).any(|part| part == text.as_bytes());
        self.refused = self.refused.or_else(|| refusal::refused(line));
        self.rules |= has("rejecting excluded file-list name") || has("filter rule");
        self.other |= has("invalid file mode")
            || has("ABORTING due to")
            || has("rejecting unrequested file-list name")
            // rrsync does not name the option.
            || has("invalid rsync-command syntax or options");
    }
}

fn mentions<'a>(entries: &[BatchEntry<'a>], follows_links: bool) -> Vec<PathRef<'a>> {
    let mut mentions = Vec::with_capacity(entries.len());
    for entry in entries {
        mentions.push(PathRef {
            path: entry.path,
            gone: matches!(entry.change, Change::Delete | Change::Move),
            written: is_written(entry.change),
            may_be_directory: follows_links,
        });
        mentions.extend(entry.to.map(|path| PathRef {
            path,
            gone: false,
            written: true,
            may_be_directory: follows_links,
        }));
    }
    mentions
}

/// Returns true if the event can mean other contents than before. A path that was gone and exists
/// now is another file.
fn is_written(change: Change) -> bool {
    change != Change::Attrib
}

/// Returns true if rsync may skip a changed file: it skips files that agree in size and
/// whole-second modification time. This is possible only if events report a change and the file's
/// time is nevertheless not after the last transfer: it was written during that transfer, or it
/// came with an older time, by a rename or with its time set.
fn found_resent(request: &BatchRequest<'_>, found: &Collapsed<'_>) -> bool {
    request.last_transfer.is_some_and(|end| {
        let written = found.present.iter().filter(|item| item.written);
        written
            .map(|item| item.stat)
            .any(|stat| is_resent(end, stat))
    })
}

/// Returns true if rsync may skip a changed file, for a call that needs no other lookup. See
/// [`found_resent`].
fn resent(request: &BatchRequest<'_>, disk: &impl Disk, entries: &[BatchEntry<'_>]) -> bool {
    request.last_transfer.is_some_and(|end| {
        entries
            .iter()
            .filter_map(|entry| match entry.change {
                Change::Move => entry.to,
                change => is_written(change).then_some(entry.path),
            })
            .filter(|path| !path.ends_with(b"/"))
            .any(|path| is_resent(end, disk.lstat(path)))
    })
}

fn is_resent(end: SystemTime, stat: Option<Stat>) -> bool {
    stat.is_some_and(|stat| stat.node == FileKind::File && stat.mtime <= seconds(end))
}

/// Returns whole seconds since the epoch.
fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs() as i64,
        Err(before) => -(before.duration().as_secs() as i64) - 1,
    }
}

/// Returns true if a symlink at a path below the source leads out of it, by its words.
fn leads_out(path: &[u8], to: &OsStr) -> bool {
    let to = to.as_bytes();
    let mut depth = path.iter().filter(|&&byte| byte == b'/').count() - 1;
    let mut out = to.is_empty() || to.starts_with(b"/");
    for part in to.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => out = true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    out
}

/// The source as it is on disk.
struct SourceDisk<'a> {
    source: &'a [u8],
    /// A buffer for full paths.
    path: RefCell<Vec<u8>>,
}

impl<'a> SourceDisk<'a> {
    fn new(source: &'a [u8]) -> Self {
        SourceDisk {
            source: paths::bare(source),
            path: RefCell::default(),
        }
    }

    fn is_sent_as_directory(&self, path: &[u8], sent: SentAsDirectories) -> bool {
        let full = [self.source, path].concat();
        let full = Path::new(OsStr::from_bytes(&full));
        let leaves = || fs::read_link(full).is_ok_and(|to| leads_out(path, to.as_os_str()));
        match sent {
            SentAsDirectories::None => false,
            SentAsDirectories::Unsafe => leaves() && full.is_dir(),
            SentAsDirectories::All => full.is_dir(),
        }
    }
}

impl Disk for SourceDisk<'_> {
    fn lstat(&self, path: &[u8]) -> Option<Stat> {
        let mut full = self.path.borrow_mut();
        full.clear();
        full.extend_from_slice(self.source);
        full.extend_from_slice(path);
        let path = Path::new(OsStr::from_bytes(&full));
        match fs::symlink_metadata(path) {
            Ok(data) => Some(Stat {
                node: match data.file_type() {
                    kind if kind.is_dir() => FileKind::Directory,
                    kind if kind.is_file() => FileKind::File,
                    _ => FileKind::Other,
                },
                mtime: data.mtime(),
                exposed: data.is_dir() && safe_path::is_exposed(path, &data),
            }),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => None,
                _ => Some(Stat {
                    node: FileKind::Unknown,
                    mtime: 0,
                    exposed: true,
                }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MISSING: TransferKind = TransferKind::FilesFrom { missing: true };
    const PRESENT: TransferKind = TransferKind::FilesFrom { missing: false };

    fn request(target: &[u8]) -> BatchRequest<'_> {
        static WORDS: std::sync::LazyLock<Vec<Vec<u8>>> =
            std::sync::LazyLock::new(|| vec![b"-lts".to_vec()]);
        BatchRequest {
            source: b"/",
            target,
            options: &WORDS,
            binary: b"rsync",
            delete: true,
            filters: &[],
            delete_excluded: false,
            last_transfer: None,
            by_content: false,
            list: ListMode::Auto,
        }
    }

    /// Returns the kind of call for one missing name and a target that this rsync, or another,
    /// receives.
    fn kind(chooser: &mut ListStrategy, target: &[u8], list: ListMode) -> TransferKind {
        let request = BatchRequest {
            list,
            ..request(target)
        };
        let entry = BatchEntry {
            change: Change::Delete,
            path: b"/no such file",
            to: None,
        };
        chooser.prepare(&request, [entry]).kind
    }

    #[test]
    fn a_local_rsync_must_prove_itself() {
        let mut chooser = ListStrategy {
            probe: |_| false,
            ..ListStrategy::new()
        };
        assert_eq!(
            kind(&mut chooser, b"/t/", ListMode::Auto),
            TransferKind::Classic
        );
        assert_eq!(kind(&mut chooser, b"/t/", ListMode::FilesFrom), MISSING);
        assert_eq!(kind(&mut chooser, b"h:/t/", ListMode::Auto), MISSING);
        assert_eq!(
            kind(&mut chooser, b"h:/t/", ListMode::Filter),
            TransferKind::Classic
        );
    }

    #[test]
    fn what_was_refused_is_not_insisted_on() {
        for (kind_of_list, refusal) in [
            (
                MISSING,
                "rsync: on remote machine: --delete-missing-args: unknown option",
            ),
            (
                PRESENT,
                "rsync: on remote machine: --ignore-missing-args: unknown option",
            ),
        ] {
            let mut chooser = ListStrategy::new();
            assert_eq!(kind(&mut chooser, b"h:/t/", ListMode::FilesFrom), MISSING);
            assert!(chooser.failed(kind_of_list, 12, [refusal]).is_some());
            let next = kind(&mut chooser, b"h:/t/", ListMode::FilesFrom);
            assert_eq!(next, TransferKind::Classic, "{refusal}");
        }
    }

    #[test]
    fn names_below_what_others_may_exchange_need_a_confined_rsync() {
        let directory = tempfile::tempdir().unwrap();
        let open = directory.path().join("open");
        fs::create_dir_all(open.join("own")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&open, mode).unwrap();
        let source = [directory.path().as_os_str().as_bytes(), b"/"].concat();
        let kind = |confined: bool, list: ListMode, change: Change, path: &[u8]| {
            let mut chooser = ListStrategy {
                confined: if confined { |_| true } else { |_| false },
                probe: |_| true,
                ..ListStrategy::new()
            };
            let request = BatchRequest {
                source: &source,
                list,
                ..request(b"/t/")
            };
            let to = None;
            chooser
                .prepare(&request, [BatchEntry { change, path, to }])
                .kind
        };
        use {Change::*, ListMode::*};
        for (change, path) in [
            (Create, b"/open/f".as_slice()),
            (Attrib, b"/open/own/"),
            (Delete, b"/open/own/gone/deep"),
        ] {
            assert_eq!(kind(false, Auto, change, path), TransferKind::Classic);
            assert_ne!(kind(true, Auto, change, path), TransferKind::Classic);
            assert_ne!(kind(false, FilesFrom, change, path), TransferKind::Classic);
        }
        for (change, path) in [(Create, b"/f".as_slice()), (Attrib, b"/open/")] {
            assert_ne!(kind(false, Auto, change, path), TransferKind::Classic);
        }
    }

    /// The expected state: lists are used, missing names can be in them, and the omitted options.
    type Learnt = (bool, bool, &'static [&'static str]);

    /// Exit codes and messages of refused calls, recorded from rsync 3.0.9 to 3.5.0.
    const REFUSALS: [(TransferKind, i32, &str, Learnt); 24] = [
        (
            PRESENT,
            1,
            "rsync: --ignore-missing-args: unknown option",
            NO_LIST,
        ),
        (
            MISSING,
            1,
            "rsync: --delete-missing-args: unknown option",
            NO_MISSING,
        ),
        (
            MISSING,
            12,
            "rsync: on remote machine: --delete-missing-args: unknown option",
            NO_MISSING,
        ),
        // A daemon of 3.0.9.
        (
            MISSING,
            10,
            "rsync: on remote machine: --delete-missing-args: unknown option",
            NO_MISSING,
        ),
        (
            MISSING,
            4,
            "rsync: The server is configured to refuse --delete-missing-args",
            NO_MISSING,
        ),
        (
            MISSING,
            10,
            "rsync: The server is configured to refuse --delete-missing-args",
            NO_MISSING,
        ),
        (
            PRESENT,
            4,
            "rsync: The server is configured to refuse --relative (-R)",
            NO_LIST,
        ),
        (
            MISSING,
            10,
            "rsync: The server is configured to refuse --relative (-R)",
            NO_LIST,
        ),
        (
            PRESENT,
            10,
            "rsync: The server is configured to refuse --dirs (-d)",
            NO_LIST,
        ),
        (
            PRESENT,
            4,
            "rsync: The server is configured to refuse --force",
            (false, true, &["force"]),
        ),
        (
            TransferKind::Classic,
            10,
            "rsync: The server is configured to refuse --force",
            (false, true, &["force"]),
        ),
        (
            TransferKind::Classic,
            4,
            "rsync: The server is configured to refuse --ignore-errors",
            (true, true, &["ignore-errors"]),
        ),
        (
            PRESENT,
            10,
            "rsync: The server is configured to refuse --ignore-times (-I)",
            (true, true, &["ignore-times"]),
        ),
        (
            MISSING,
            4,
            "rsync: The server is configured to refuse --checksum (-c)",
            (true, true, &["checksum"]),
        ),
        (
            PRESENT,
            12,
            "/usr/bin/rrsync: option --force has been disabled on this server.",
            (false, true, &["force"]),
        ),
        (
            MISSING,
            12,
            "rrsync error: option --delete-missing-args has been disabled on this server.",
            NO_MISSING,
        ),
        (
            MISSING,
            12,
            "/usr/bin/rrsync: invalid rsync-command syntax or options",
            NO_MISSING,
        ),
        (
            MISSING,
            2,
            "ABORTING due to invalid path from sender: a/b",
            NO_MISSING,
        ),
        (
            MISSING,
            12,
            "ABORTING due to invalid path from sender: a/b",
            NO_MISSING,
        ),
        (
            MISSING,
            2,
            "invalid file mode 00 for gone [Receiver]",
            NO_MISSING,
        ),
        (
            MISSING,
            12,
            "invalid file mode 00 for gone [Receiver]",
            NO_MISSING,
        ),
        (
            MISSING,
            12,
            "ERROR: rejecting excluded file-list name: gone",
            NO_MISSING,
        ),
        (
            MISSING,
            12,
            "ERROR: rejecting unrequested file-list name: gone",
            NO_MISSING,
        ),
        (MISSING, 4, "anything", NO_MISSING),
    ];

    const NO_LIST: Learnt = (false, true, &[]);
    const NO_MISSING: Learnt = (true, false, &[]);

    #[test]
    fn every_refusal_teaches_once() {
        for (kind_of, code, text, learnt) in REFUSALS {
            let mut chooser = ListStrategy::new();
            let first = [
                "rsync: connection unexpectedly closed",
                text,
                "rsync error: something",
            ];
            let told = chooser.failed(kind_of, code, first);
            let has = (chooser.files_from, chooser.missing, &chooser.without[..]);
            assert!(told.is_some() && has == learnt, "{code} {text}: {has:?}");
            let again = chooser.failed(kind_of, code, first);
            assert!(again.is_none(), "only once: {code} {text}");
            for name in learnt.2 {
                let word = format!("--{name}").into_bytes();
                let mut words = vec![word.clone(), b"-r".to_vec()];
                chooser.take_out(&[], &mut words);
                assert_eq!(words, [b"-r"], "{text}");
                chooser.take_out(std::slice::from_ref(&word), &mut vec![]);
                let mut users = ListStrategy::new();
                users.take_out(&[word], &mut vec![]);
                assert!(
                    users.failed(kind_of, code, [text]).is_none(),
                    "the user's: {text}"
                );
            }
            if learnt.2.is_empty() || !learnt.0 {
                assert_eq!(
                    kind(&mut chooser, b"h:/t/", ListMode::Auto),
                    TransferKind::Classic
                );
                let other = chooser.failed(TransferKind::Classic, code, [text]);
                assert!(other.is_none(), "not of this call: {text}");
            }
        }
    }

    #[test]
    fn what_compares_exactly_is_what_is_taken() {
        use Compare::{Content, Never, Times};
        for (refused, content, never) in [
            (&[][..], Content, Never),
            (&["checksum"], Never, Never),
            (&["ignore-times"], Content, Content),
            (&["ignore-times", "checksum"], Times, Times),
        ] {
            let chooser = ListStrategy {
                without: refused.to_vec(),
                ..ListStrategy::new()
            };
            assert_eq!(chooser.possible([Content, Never]), content, "{refused:?}");
            assert_eq!(chooser.possible([Never, Content]), never, "{refused:?}");
        }
    }

    #[test]
    fn other_troubles_are_not_ours() {
        let mut chooser = ListStrategy::new();
        for (code, text) in [
            (12, "rsync: connection unexpectedly closed"),
            (
                10,
                "rsync: [sender] read error: Connection reset by peer (104)",
            ),
            (1, "rsync: --bogus: unknown option"),
            (1, "rsync: The server is configured to refuse --delete"),
            (23, "rsync: invalid file mode"),
            (255, "ssh: connect to host h port 22: Connection refused"),
        ] {
            assert!(chooser.failed(MISSING, code, [text]).is_none(), "{text}");
        }
    }

    #[test]
    fn filters_that_are_refused_are_left_out() {
        for text in [
            "ERROR: rejecting excluded file-list name: gone",
            "unexpected end of filter rule: P",
        ] {
            let mut chooser = ListStrategy::new();
            chooser.ruled = true;
            assert!(chooser.failed(TransferKind::Classic, 4, [text]).is_some());
            assert!(!chooser.rules && chooser.missing);
            assert!(chooser.failed(TransferKind::Classic, 4, [text]).is_none());
            assert!(chooser.failed(MISSING, 4, [text]).is_some());
        }
    }

    #[test]
    fn files_of_the_last_seconds_are_sent_again() {
        let end = UNIX_EPOCH + Duration::from_millis(12_900);
        let file = |mtime| {
            Some(Stat {
                node: FileKind::File,
                mtime,
                exposed: false,
            })
        };
        let resent = |mtime| is_resent(end, file(mtime));
        assert_eq!([8, 12, 13].map(resent), [true, true, false]);
        assert!(!is_resent(end, None));
        assert_eq!(seconds(UNIX_EPOCH - Duration::from_millis(1)), -1);
    }

    /// Checks the detection of a confined rsync by known versions.
    #[test]
    fn confinement_came_with_3_5() {
        let binary = Binary::plain(b"rsync").unwrap();
        let version = std::process::Command::new("rsync")
            .arg("--version")
            .output();
        let version = String::from_utf8_lossy(&version.unwrap().stdout).into_owned();
        let old = [
            "version 3.0.",
            "version 3.1.",
            "version 3.2.",
            "version 3.3.",
        ];
        if old.iter().any(|old| version.contains(old)) {
            assert!(!binary.is_confined());
        } else if version.contains("version 3.5.") {
            assert!(binary.is_confined());
        }
    }

    /// Needs an rsync that is known to work, 3.4.4 or newer.
    #[test]
    fn the_probe_can_succeed() {
        let binary = Binary::plain(b"rsync").unwrap();
        let version = std::process::Command::new("rsync")
            .arg("--version")
            .output();
        let version = String::from_utf8_lossy(&version.unwrap().stdout).into_owned();
        if version.contains("version 3.5.") {
            assert!(binary.deletes_missing());
            assert!(binary.deletes_missing());
        }
    }
}
