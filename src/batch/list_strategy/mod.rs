//! Chooses between the two calls for each batch.
//!
//! Files-from is far cheaper, but the classic call is always correct. A batch is classic if there
//! is any reason against files-from: a wrapper in place of rsync, the user's own options, names to
//! be deleted by an rsync that is not known to do it correctly, an earlier failure.
//!
//! * `quick_check`: changes that rsync's quick check cannot detect;
//! * `refusal`: the options that a failed call has refused;
//! * `source_disk`: the source on disk;
//! * `tests`, `call_tests`: tests.

#[cfg(test)]
mod call_tests;
mod quick_check;
mod refusal;
mod source_disk;
#[cfg(test)]
mod tests;

use self::quick_check::{found_resent, has_renewed, is_written};
use self::refusal::OptionBlame;
use self::source_disk::SourceDisk;
use super::collapse::{Collapsed, Disk, FileKind, PathRef, collapse};
use super::long_paths;
use super::probe::Binary;
use super::reason::is_connection_lost;
use super::rsync_options::{self, ListSupport};
use super::{
    BatchEntry, BatchRequest, Change, Compare, ListMode, Transfer, TransferKind, files_from,
    filter_list, is_remote,
};
use crate::filter::Rules;

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
    /// True if the last call failed because the connection was lost.
    lost: bool,
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
            lost: false,
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
    /// that a local rsync is to delete missing names it is probed. Paths that are too long for
    /// rsync are left out.
    pub fn prepare<'a>(
        &mut self,
        request: &BatchRequest<'_>,
        entries: impl IntoIterator<Item = BatchEntry<'a>>,
    ) -> Transfer {
        let (entries, too_long) = long_paths::without_long(entries.into_iter().collect());
        let mut transfer = self.build(request, &entries);
        if transfer.kind == TransferKind::Classic
            && let Some(entries) = long_paths::with_short_patterns(&entries)
        {
            transfer = self.build(request, &entries);
        }
        transfer.too_long = too_long;
        transfer
    }

    fn build(&mut self, request: &BatchRequest<'_>, entries: &[BatchEntry<'_>]) -> Transfer {
        let disk = SourceDisk::new(request.source);
        let binary = Binary::plain(request.binary);
        let filters = if self.rules { request.filters } else { &[] };
        let rules = &Rules::new(filters.iter().map(Vec::as_slice));

        let compare = |by_content: bool, resent: &dyn Fn() -> bool| match &binary {
            None => Compare::Times,
            Some(_) if by_content => self.possible([Compare::Content, Compare::Never]),
            Some(_) if resent() => self.possible([Compare::Never, Compare::Content]),
            Some(_) => Compare::Times,
        };
        let follows_links = rsync_options::follows_links(request.options);
        let found = match &binary {
            None if request.list != ListMode::FilesFrom => None,
            _ => collapse(&disk, mentions(entries, follows_links)),
        };
        let mut transfer = match found {
            None => {
                let is_file = |path: &[u8]| {
                    let stat = disk.lstat(path);
                    stat.is_some_and(|stat| stat.node != FileKind::Directory)
                };
                filter_list::transfer(
                    request,
                    rules,
                    entries,
                    Compare::Times,
                    is_file,
                    follows_links,
                )
            }
            Some(mut found) => {
                let sent = rsync_options::sent_as_directories(request.options);
                found.judge(rules, |path| disk.is_sent_as_directory(path, sent));
                if !request.delete {
                    // Excluded objects are not sent, and those on the target stay.
                    found.present.retain(|item| !item.other_kind);
                }
                let by_content = request.by_content || has_renewed(request, &found);
                let compare = compare(by_content, &|| found_resent(request, &found));
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
    /// rsync, here or on the target, does not accept: the call is to be repeated at once.
    pub fn failed<L: AsRef<[u8]>>(
        &mut self,
        kind: TransferKind,
        code: i32,
        output: impl IntoIterator<Item = L>,
    ) -> Option<String> {
        let was_lost = std::mem::take(&mut self.lost);
        // 1 usage, 2 protocol, 4 action not supported, 10 and 12 the other side hung up.
        if !matches!(code, 1 | 2 | 4 | 10 | 12) {
            return None;
        }
        let mut blame = OptionBlame::default();
        let lines = output.into_iter().inspect(|line| blame.read(line.as_ref()));
        let lines: Vec<L> = lines.collect();
        self.lost = is_connection_lost(lines.iter().map(AsRef::as_ref));
        if let Some(name) = blame.refused {
            return self.refused(kind, name);
        }
        if blame.rules && self.rules && self.ruled {
            self.rules = false;
            return Some(USES_FILTERS.to_owned());
        }
        // Codes 2 and 4 would end the daemon otherwise, so trying another call costs nothing. Code 2
        // may also follow from a lost connection, which says nothing about the call if it is lost
        // once. If each call loses it, the reason may be lost each time as well.
        let is_unsupported = code == 4 || code == 2 && (was_lost || !self.lost);
        let doubt = blame.other || blame.rules || is_unsupported;
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
        // Only recursion sends and removes contents that no event mentions.
        if found.present.iter().any(|item| item.renewed) {
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
        // The contents of a link's target have no events, so only recursion sends them. If a file
        // replaces a directory, only recursion reports the deletions.
        let mut present = found.present.iter();
        if present.any(|item| item.was_directory && !item.is_directory()) {
            return true;
        }
        let deletes = request.delete && !found.missing.is_empty();
        // Only recursion finds out which directories have become empty.
        if rsync_options::prunes_directories(request.options) {
            return true;
        }
        // A call that one of the rsyncs has refused is not repeated, regardless of `list`.
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
