//! Tells which of the user's own options the files-from call supports.
//!
//! The options are those of rsync(1). An option is in a list here if it is known to have the same
//! effect in both calls; an unknown one makes the batch a classic one.

/// The calls that the options permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListSupport {
    /// Both calls have the same effect.
    Any,
    /// Only the classic call deletes the same files.
    ClassicToDelete,
    /// Only the classic call does what the user asked for.
    Classic,
}

/// Returns the calls that the options permit.
pub fn list_support(words: &[Vec<u8>]) -> ListSupport {
    let mut words = words.iter();
    let mut least = ListSupport::Any;
    while let Some(word) = words.next() {
        let (freedom, rest) = match word.as_slice() {
            [b'-', b'-', name @ ..] => long(name),
            [b'-', letters @ ..] if !letters.is_empty() => short(letters),
            // Another source, or an option that is not understood.
            _ => (ListSupport::Classic, OptionRest::Nothing),
        };
        least = least.max(freedom);
        let value = match rest {
            OptionRest::Nothing => continue,
            OptionRest::Value => words.next().map(|_| ListSupport::Any),
            OptionRest::Option => words
                .next()
                .map(|word| self::list_support(std::slice::from_ref(word))),
        };
        least = least.max(value.unwrap_or(ListSupport::Classic));
    }
    least
}

/// Long options that change how data is sent and what is printed, but not what the target gets.
const HOW: &str = "\
bwlimit compress compress-choice compress-level contimeout debug human-readable info ipv4 ipv6 \
new-compress no-compress old-compress partial-dir progress quiet skip-compress stats temp-dir \
timeout verbose whole-file no-whole-file zc zl";

/// The letters of such options.
const HOW_LETTERS: &[u8] = b"46hqvWz";

/// Returns the words without options that only change how data is sent. The value of an option is
/// part of its word, or is kept.
pub fn essential(words: &[Vec<u8>]) -> Vec<Vec<u8>> {
    words
        .iter()
        .filter_map(|word| essential_word(word))
        .collect()
}

fn essential_word(word: &[u8]) -> Option<Vec<u8>> {
    match word {
        [b'-', b'-', name @ ..] => {
            let name = name.split(|&byte| byte == b'=').next().unwrap_or_default();
            let is_how = HOW.split(' ').any(|how| how.as_bytes() == name);
            (!is_how).then(|| word.to_vec())
        }
        [b'-', letters @ ..] if letters.iter().all(|letter| LETTERS.contains(letter)) => {
            let is_kept = |letter: &&u8| !HOW_LETTERS.contains(letter);
            let kept: Vec<u8> = letters.iter().filter(is_kept).copied().collect();
            let is_left = !kept.is_empty() || letters.is_empty();
            is_left.then(|| [b"-", &kept[..]].concat())
        }
        _ => Some(word.to_vec()),
    }
}

/// Returns true if a symlink may be a directory for one of the rsyncs.
pub fn follows_links(words: &[Vec<u8>]) -> bool {
    let long = "copy-links copy-dirlinks copy-unsafe-links keep-dirlinks";
    have(words, long, b"LkK")
}

/// Which symlinks to directories in the source rsync sends as directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentAsDirectories {
    /// None.
    None,
    /// Those that lead out of the source.
    Unsafe,
    /// All.
    All,
}

/// Reads the words for it.
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
    words.iter().any(|word| match word.as_slice() {
        [b'-', b'-', name @ ..] => std::str::from_utf8(name).is_ok_and(|name| listed(long, name)),
        [b'-', letters @ ..] => {
            // The rest behind a letter with a value is the value.
            let value = letters.iter().position(|letter| b"BeTM@".contains(letter));
            let letters = &letters[..value.unwrap_or(letters.len())];
            letters.iter().any(|letter| short.contains(letter))
        }
        _ => false,
    })
}

/// The part of an option in the next argument.
enum OptionRest {
    Nothing,
    Value,
    /// An option for the remote side (`-M`).
    Option,
}

/// Letters that affect how files are sent, or what is printed. `a` is among them: with
/// `--files-from` it does not imply `-r`.
const LETTERS: &[u8] = b"aAcDEghHiIJKlnNoOpPqsStuUvWXyzZ468";

/// Letters with a value, in the same argument or the next.
const LETTERS_WITH_VALUE: &[u8] = b"BeT@";

fn short(letters: &[u8]) -> (ListSupport, OptionRest) {
    let mut least = ListSupport::Any;
    for (index, letter) in letters.iter().enumerate() {
        let value = &letters[index + 1..];
        match letter {
            b'M' if value.is_empty() => return (least, OptionRest::Option),
            b'M' => {
                return (
                    least.max(list_support(&[value.to_vec()])),
                    OptionRest::Nothing,
                );
            }
            _ if LETTERS_WITH_VALUE.contains(letter) && value.is_empty() => {
                return (least, OptionRest::Value);
            }
            _ if LETTERS_WITH_VALUE.contains(letter) => return (least, OptionRest::Nothing),
            _ if LETTERS.contains(letter) => {}
            // Backups are protected from the classic deletion only.
            b'b' => least = least.max(ListSupport::ClassicToDelete),
            // r R d: another form of list. C f F: filters. k L: symlinks become directories. x:
            // stops at other file systems only when recursing. m, 0, V.
            _ => return (ListSupport::Classic, OptionRest::Nothing),
        }
    }
    (least, OptionRest::Nothing)
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

/// Long options whose value may be the next argument.
const WITH_VALUE: &str = "\
    address block-size bwlimit cc checksum-choice checksum-seed chmod chown compare-dest \
    compress-choice compress-level compress-threads contimeout copy-as copy-dest debug \
    early-input groupmap info link-dest log-file log-file-format log-format max-alloc \
    max-size min-size modify-window out-format outbuf partial-dir password-file port rsh \
    rsync-path skip-compress sockopts stderr stop-after stop-at suffix temp-dir \
    time-limit timeout usermap zc zl zt";

/// Options with a value that only the classic call honours; every other one of the form
/// `--name=value`, known or not, has the same effect in both.
const CLASSIC_WITH_VALUE: &str = "\
    exclude exclude-from files-from filter iconv include include-from max-delete \
    only-write-batch protocol read-batch write-batch";

fn long(name: &[u8]) -> (ListSupport, OptionRest) {
    let end = name.iter().position(|&byte| byte == b'=');
    let value = end.map(|end| &name[end + 1..]);
    let Ok(name) = std::str::from_utf8(&name[..end.unwrap_or(name.len())]) else {
        return (ListSupport::Classic, OptionRest::Nothing);
    };
    match (name, value) {
        ("remote-option", None) => (ListSupport::Any, OptionRest::Option),
        ("remote-option", Some(word)) => (list_support(&[word.to_vec()]), OptionRest::Nothing),
        ("backup", None) => (ListSupport::ClassicToDelete, OptionRest::Nothing),
        ("backup-dir", Some(_)) => (ListSupport::ClassicToDelete, OptionRest::Nothing),
        ("backup-dir", None) => (ListSupport::ClassicToDelete, OptionRest::Value),
        (_, Some(_)) if listed(CLASSIC_WITH_VALUE, name) => {
            (ListSupport::Classic, OptionRest::Nothing)
        }
        (_, Some(_)) => (ListSupport::Any, OptionRest::Nothing),
        (_, None) if listed(WITH_VALUE, name) => (ListSupport::Any, OptionRest::Value),
        (_, None) if listed(FLAGS, name) || is_harmless_negation(name) => {
            (ListSupport::Any, OptionRest::Nothing)
        }
        _ => (ListSupport::Classic, OptionRest::Nothing),
    }
}

/// Returns true for a negation (`--no-perms`, `--no-p`) with the same effect in both calls. The two
/// options that deletion itself needs are excluded.
fn is_harmless_negation(name: &str) -> bool {
    let Some(name) = name.strip_prefix("no-") else {
        return false;
    };
    match name.as_bytes() {
        [letter] => LETTERS.contains(letter),
        _ => listed(FLAGS, name) && !["force", "ignore-errors"].contains(&name),
    }
}

fn listed(names: &str, name: &str) -> bool {
    names.split_ascii_whitespace().any(|listed| listed == name)
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
            ("--bwlimit 5 -e ssh -essh", "5 -e ssh -essh"),
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
