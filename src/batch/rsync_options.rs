//! Determines if the files-from call supports the user's own options.
//!
//! The options are those of rsync(1). An option is in a list here if it is known to have the same
//! effect in both calls; an unknown one makes the batch a classic one.

use crate::rsync_syntax::{self, RsyncArg};

/// The calls that the options permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListSupport {
    /// Both calls have the same effect.
    Any,
    /// Only the classic call deletes the same files.
    ClassicToDelete,
    /// Only the classic call supports the options.
    Classic,
}

/// Returns the calls that the options permit.
pub fn list_support(words: &[Vec<u8>]) -> ListSupport {
    let support = rsync_syntax::parse(words).map(|(arg, _)| match arg {
        RsyncArg::Long { name, value } => long(name, value),
        RsyncArg::Letters { flags, last } => short(flags, last),
        // Another source, or an option that is not understood.
        RsyncArg::Operand(_) => ListSupport::Classic,
    });
    support.max().unwrap_or(ListSupport::Any)
}

/// Long options that change how data is sent and what is printed, but not what the target gets.
const HOW: &[&str] = &[
    "bwlimit",
    "compress",
    "compress-choice",
    "compress-level",
    "contimeout",
    "debug",
    "human-readable",
    "info",
    "ipv4",
    "ipv6",
    "new-compress",
    "no-compress",
    "old-compress",
    "partial-dir",
    "progress",
    "quiet",
    "skip-compress",
    "stats",
    "temp-dir",
    "timeout",
    "verbose",
    "whole-file",
    "no-whole-file",
    "zc",
    "zl",
];

/// The letters of such options.
const HOW_LETTERS: &[u8] = b"46hqvWz";

/// Returns the words without options that only change how data is sent.
pub fn essential(words: &[Vec<u8>]) -> Vec<Vec<u8>> {
    rsync_syntax::without(words, HOW, HOW_LETTERS)
}

/// Returns true if a symlink may be a directory for one of the rsyncs.
pub fn follows_links(words: &[Vec<u8>]) -> bool {
    let long = "copy-links copy-dirlinks copy-unsafe-links keep-dirlinks";
    have(words, long, b"LkK")
}

/// Returns true if rsync sends no directory of which the list has no file: also not the attributes
/// of an existing one.
pub fn prunes_directories(words: &[Vec<u8>]) -> bool {
    have(words, "prune-empty-dirs", b"m")
}

/// Returns true if rsync excludes the files that CVS ignores. It evaluates these patterns after all
/// others, so after the names of a list.
pub fn ignores_as_cvs(words: &[Vec<u8>]) -> bool {
    have(words, "cvs-exclude", b"C")
}

/// The symlinks to directories in the source that rsync sends as directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentAsDirectories {
    /// None.
    None,
    /// Those that lead out of the source.
    Unsafe,
    /// All.
    All,
}

/// Returns this from the options.
pub fn sent_as_directories(words: &[Vec<u8>]) -> SentAsDirectories {
    if have(words, "copy-links copy-dirlinks", b"Lk") {
        SentAsDirectories::All
    } else if have(words, "copy-unsafe-links", b"") {
        SentAsDirectories::Unsafe
    } else {
        SentAsDirectories::None
    }
}

fn have(words: &[Vec<u8>], long: &str, short: &[u8]) -> bool {
    rsync_syntax::parse(words).any(|(arg, _)| match arg {
        RsyncArg::Long { name, value: None } => listed(long, name),
        RsyncArg::Letters { flags, .. } => flags.iter().any(|letter| short.contains(letter)),
        _ => false,
    })
}

/// Letters that affect how files are sent, or what is printed. `a` is among them: with
/// `--files-from` it does not imply `-r`.
const LETTERS: &[u8] = b"aAcDEghHiIJKlnNoOpPqsStuUvWXyzZ468";

fn short(flags: &[u8], last: Option<(u8, Option<&[u8]>)>) -> ListSupport {
    let support = flags.iter().map(|letter| match letter {
        // Backups are protected from the classic deletion only.
        b'b' => ListSupport::ClassicToDelete,
        letter if LETTERS.contains(letter) => ListSupport::Any,
        // r R d: another form of list. C F: filters. k L: symlinks become directories. x: stops at
        // other file systems only when recursing. m, 0, V.
        _ => ListSupport::Classic,
    });
    let of_value = last.map(|last| match last {
        (b'f', _) | (_, None) => ListSupport::Classic,
        // An option for the remote side.
        (b'M', Some(option)) => list_support(&[option.to_vec()]),
        _ => ListSupport::Any,
    });
    support.chain(of_value).max().unwrap_or(ListSupport::Any)
}

/// Long options without value that have the same effect in both calls.
const FLAGS: &str = "\
    8-bit-output acls append append-verify archive atimes blocking-io checksum compress \
    copy-devices crtimes delay-updates devices dry-run executability fake-super force \
    fsync fuzzy group hard-links human-readable i-r ignore-errors ignore-times \
    inc-recursive inplace ipv4 ipv6 itemize-changes keep-dirlinks links mkpath motd \
    munge-links new-compress numeric-ids old-args old-compress omit-dir-times \
    omit-link-times open-noatime owner partial perms preallocate progress protect-args \
    quiet remove-source-files safe-links secluded-args size-only sparse specials stats \
    super times trust-sender update verbose whole-file write-devices xattrs";

/// Options with a value that only the classic call honours; every other one of the form
/// `--name=value`, known or not, has the same effect in both.
const CLASSIC_WITH_VALUE: &str = "\
    exclude exclude-from files-from filter iconv include include-from max-delete \
    only-write-batch protocol read-batch write-batch";

fn long(name: &[u8], value: Option<&[u8]>) -> ListSupport {
    match (name, value) {
        (b"remote-option", Some(option)) => list_support(&[option.to_vec()]),
        (b"backup", None) | (b"backup-dir", Some(_)) => ListSupport::ClassicToDelete,
        (_, Some(_)) if listed(CLASSIC_WITH_VALUE, name) => ListSupport::Classic,
        (_, Some(_)) => ListSupport::Any,
        (_, None) if listed(FLAGS, name) || is_harmless_negation(name) => ListSupport::Any,
        (_, None) => ListSupport::Classic,
    }
}

/// Returns true for a negation (`--no-perms`, `--no-p`) with the same effect in both calls. The two
/// options that deletion itself needs are excluded.
fn is_harmless_negation(name: &[u8]) -> bool {
    match name.strip_prefix(b"no-") {
        None | Some(b"force" | b"ignore-errors") => false,
        Some([letter]) => LETTERS.contains(letter),
        Some(name) => listed(FLAGS, name),
    }
}

fn listed(names: &str, name: &[u8]) -> bool {
    names
        .split_ascii_whitespace()
        .any(|listed| listed.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(line: &str) -> ListSupport {
        let words: Vec<Vec<u8>> = line.split(' ').map(Into::into).collect();
        list_support(&words)
    }

    #[test]
    fn options_about_how_to_send_are_free() {
        for line in [
            "-ltsgoDp",
            "-ltsgoDp -a --bwlimit=200 --info=progress2 --temp-dir=/x --port=3",
            "-lts --rsync-path=sudo\u{a0}rsync --chmod=u+rw,go-w",
            "-e ssh -lts",
            "-lte ssh",
            "-T /tmp -B 700 --rsh ssh",
            "-M--fake-super -M --log-file=x --remote-option=--super",
            "--no-perms --no-o --no-whole-file --unknown=value",
            "-erRdL",
        ] {
            assert_eq!(judge(line), ListSupport::Any, "{line}");
        }
    }

    #[test]
    fn options_about_what_to_send_are_not() {
        for word in [
            "-r",
            "-ltr",
            "-R",
            "-d",
            "-L",
            "-k",
            "-x",
            "-m",
            "-C",
            "-F",
            "-f",
            "-0",
            "-",
            "--",
            "word",
            "--recursive",
            "--relative",
            "--dirs",
            "--delete",
            "--del",
            "--delete-after",
            "--max-delete=3",
            "--include=a",
            "--exclude=a",
            "--exclude",
            "--filter=-\u{a0}x",
            "--files-from=x",
            "--from0",
            "--existing",
            "--cvs-exclude",
            "--no-implied-dirs",
            "--no-r",
            "--no-force",
            "--ignore-missing-args",
            "--copy-links",
            "--copy-unsafe-links",
            "--one-file-system",
            "--prune-empty-dirs",
            "--iconv=a",
            "-M--delete",
            "-M --exclude=x",
            "-e",
            "-M",
            "--unknown",
            "-\u{e9}",
        ] {
            assert_eq!(judge(word), ListSupport::Classic, "{word}");
        }
    }

    #[test]
    fn options_that_follow_links_are_known() {
        let follows = |line: &str| {
            let words: Vec<Vec<u8>> = line.split(' ').map(Into::into).collect();
            follows_links(&words)
        };
        for line in [
            "-L",
            "-ltk",
            "-aK",
            "-lts --copy-links",
            "--copy-unsafe-links -r",
        ] {
            assert!(follows(line), "{line}");
        }
        for line in [
            "-lts",
            "-ekL",
            "-T/L",
            "--links",
            "--copy-links=x",
            "copy-links",
            "-l --safe-links",
        ] {
            assert!(!follows(line), "{line}");
        }
    }

    #[test]
    fn options_of_the_way_are_no_essential_ones() {
        for (words, kept) in [
            ("-lts --bwlimit=5", "-lts"),
            ("-ltsvz -q --timeout=5 --append", "-lts --append"),
            ("--bwlimit 5 -e ssh -zessh", "-e ssh -essh"),
            (
                "--compress-level=9 --chmod=D755 --info=stats2",
                "--chmod=D755",
            ),
            ("- x", "- x"),
        ] {
            let words: Vec<Vec<u8>> = words.split(' ').map(|word| word.into()).collect();
            let kept: Vec<Vec<u8>> = kept.split(' ').map(|word| word.into()).collect();
            assert_eq!(essential(&words), kept);
        }
    }

    #[test]
    fn backups_forbid_the_new_deletion_only() {
        assert_eq!(judge("-ltb"), ListSupport::ClassicToDelete);
        assert_eq!(
            judge("--backup-dir=x --suffix=y"),
            ListSupport::ClassicToDelete
        );
        assert_eq!(judge("-b --delete"), ListSupport::Classic);
    }
}
