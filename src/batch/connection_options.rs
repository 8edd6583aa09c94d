//! The options that decide how rsync reaches the target, among those of a transfer.

use crate::rsync_syntax::{self, ArgPart};

const OPTIONS: &[&str] = &[
    "address",
    "blocking-io",
    "bwlimit",
    "contimeout",
    "iconv",
    "ipv4",
    "ipv6",
    "no-blocking-io",
    "old-args",
    "password-file",
    "port",
    "protect-args",
    "protocol",
    "rsh",
    "rsync-path",
    "secluded-args",
    "sockopts",
    "timeout",
];

/// The letters of such options.
const LETTERS: &[u8] = b"46es";

/// Returns the options among the words that decide how rsync reaches the target.
pub fn connection_options(words: &[Vec<u8>]) -> Vec<Vec<u8>> {
    rsync_syntax::filtered(words, |part| match part {
        ArgPart::Long(name) => rsync_syntax::is_in(OPTIONS, name),
        ArgPart::Letter(letter) => LETTERS.contains(&letter),
        ArgPart::Operand => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<u8>> {
        text.split(' ').map(Into::into).collect()
    }

    #[test]
    fn only_options_of_the_connection_are_kept() {
        for (given, kept) in [
            (
                "-ltsz4 --rsh=ssh --delete -e ssh --exclude=x /src/ h:trg",
                "-s4 --rsh=ssh -e ssh",
            ),
            (
                "--timeout 5 --backup --chmod=D755 -essh",
                "--timeout 5 -essh",
            ),
            ("-lte ssh -f -s --ipv4 -M--old -B -6", "-e ssh --ipv4"),
        ] {
            assert_eq!(connection_options(&words(given)), words(kept), "{given}");
        }
    }
}
