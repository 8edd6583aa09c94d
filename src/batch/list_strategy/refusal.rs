//! Detects in the output of rsync that this rsync or the one on the target does not accept an
//! option.
//!
//! A server prints it to its standard error or sends it to the client, which then exits with the
//! code of the first thing it noticed: that the other side hung up.

use crate::rsync_syntax;

/// Options that are added to the user's, with the letter by which they may be refused. Some
/// represent options that `--files-from` implies.
const OURS: [(&str, u8); 8] = [
    ("checksum", b'c'),
    ("delete-missing-args", 0),
    ("dirs", b'd'),
    ("force", 0),
    ("ignore-errors", 0),
    ("ignore-missing-args", 0),
    ("ignore-times", b'I'),
    ("relative", b'R'),
];

/// Returns the long name of the option that the line refuses, if it is one of ours.
pub fn refused(line: &[u8]) -> Option<&'static str> {
    let line = String::from_utf8_lossy(line);
    let line = line.trim_end();
    let word = if let Some(before) = line.strip_suffix(": unknown option") {
        before.rsplit(' ').next()?
    } else if let Some((_, after)) = line.split_once("configured to refuse ") {
        after.split(' ').next()?
    } else {
        // rrsync, a filter in front of rsync.
        let before = line.strip_suffix(" has been disabled on this server.")?;
        before.rsplit_once("option ")?.1
    };
    let name = word.trim_start_matches('-');
    let one = |(long, letter): &&(&str, u8)| match name.as_bytes() {
        [short] => short == letter,
        _ => name == *long,
    };
    Some(OURS.iter().find(one)?.0)
}

/// Returns true if the user's own options contain the option.
pub fn is_own(words: &[Vec<u8>], name: &str) -> bool {
    let ours = OURS.iter().find(|(long, _)| *long == name);
    let letter = ours.map_or(0, |(_, letter)| *letter);
    rsync_syntax::has(words, &[name], &[letter])
}

/// The cause that the output of a failed call names.
#[derive(Default)]
pub(super) struct OptionBlame {
    /// One of our options.
    pub(super) refused: Option<&'static str>,
    /// The sync's filter rules.
    pub(super) rules: bool,
    /// Names that are missing.
    pub(super) other: bool,
}

impl OptionBlame {
    /// Evaluates a line of error output.
    pub(super) fn read(&mut self, line: &[u8]) {
        let has = |text: &str| line.windows(text.len()).any(|part| part == text.as_bytes());
        self.refused = self.refused.or_else(|| refused(line));
        self.rules |= has("rejecting excluded file-list name") || has("filter rule");
        self.other |= has("invalid file mode")
            || has("ABORTING due to")
            || has("rejecting unrequested file-list name")
            // rrsync does not name the option.
            || has("invalid rsync-command syntax or options");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_all_versions_are_known() {
        for (line, expected) in [
            // The local rsync, 3.0.9.
            (
                "rsync: --ignore-missing-args: unknown option",
                Some("ignore-missing-args"),
            ),
            // A server of 3.0.9.
            (
                "rsync: on remote machine: --delete-missing-args: unknown option",
                Some("delete-missing-args"),
            ),
            // A daemon with "refuse options", 3.0.9 and 3.2.0 to 3.5.0. Version 3.1 prints nothing.
            (
                "rsync: The server is configured to refuse --delete-missing-args",
                Some("delete-missing-args"),
            ),
            (
                "rsync: The server is configured to refuse --force",
                Some("force"),
            ),
            (
                "rsync: The server is configured to refuse --ignore-errors\r",
                Some("ignore-errors"),
            ),
            (
                "rsync: The server is configured to refuse --relative (-R)",
                Some("relative"),
            ),
            (
                "rsync: The server is configured to refuse --dirs (-d)",
                Some("dirs"),
            ),
            (
                "rsync: The server is configured to refuse --checksum (-c)",
                Some("checksum"),
            ),
            (
                "rsync: The server is configured to refuse --ignore-times (-I)",
                Some("ignore-times"),
            ),
            // rrsync as a script for perl and for python.
            (
                "/usr/bin/rrsync: option --force has been disabled on this server.",
                Some("force"),
            ),
            (
                "/usr/bin/rrsync error: option -I has been disabled on this server.",
                Some("ignore-times"),
            ),
            // The user's own option, and lines that are no refusal.
            ("rsync: --bogus: unknown option", None),
            ("rsync: on remote machine: -@-1: unknown option", None),
            ("rsync: The server is configured to refuse --delete", None),
            (
                "rsync: The server is configured to refuse --protect-args (-s)",
                None,
            ),
            (
                "rsync error: syntax or usage error (code 1) at main.c(1497) [server=3.0.9]",
                None,
            ),
            ("--force", None),
            ("", None),
        ] {
            assert_eq!(refused(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn own_options_are_the_users() {
        let words = |line: &str| -> Vec<Vec<u8>> { line.split(' ').map(Into::into).collect() };
        assert!(is_own(&words("-lts --force"), "force"));
        assert!(is_own(&words("-ltcs"), "checksum"));
        assert!(is_own(&words("-I"), "ignore-times"));
        for line in ["-lts", "--forced", "force", "--rsync-path=--force", ""] {
            assert!(!is_own(&words(line), "force"), "{line}");
            assert!(!is_own(&words(line), "checksum"), "{line}");
        }
    }
}
