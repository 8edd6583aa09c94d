//! The options that decide how rsync reaches the target, among those of a transfer.

use super::left_out::split_at_value;

/// Such options with a value.
const WITH_VALUE: &str =
    "address bwlimit contimeout iconv password-file port protocol rsh rsync-path sockopts timeout";

/// Such options without one.
const WITHOUT_VALUE: &str =
    "blocking-io ipv4 ipv6 no-blocking-io old-args protect-args secluded-args";

/// The letters of such options, other than `e`.
const LETTERS: &[u8] = b"46s";

/// Returns the options among the words that decide how rsync reaches the target.
pub fn connection_options(words: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut kept = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_slice() {
            [b'-', b'-', long @ ..] => {
                let end = long.iter().position(|&byte| byte == b'=');
                let name = &long[..end.unwrap_or(long.len())];
                let is_in = |list: &str| list.split(' ').any(|known| known.as_bytes() == name);
                if is_in(WITH_VALUE) {
                    kept.push(word.clone());
                    kept.extend(words.next().filter(|_| end.is_none()).cloned());
                } else if is_in(WITHOUT_VALUE) {
                    kept.push(word.clone());
                }
            }
            [b'-', letters @ ..] => {
                let (flags, rest) = split_at_value(letters);
                let flags = flags.iter().filter(|flag| LETTERS.contains(flag));
                let flags: Vec<u8> = flags.copied().collect();
                if !flags.is_empty() {
                    kept.push([b"-", &flags[..]].concat());
                }
                let next = if rest.len() == 1 { words.next() } else { None };
                if rest.first() == Some(&b'e') {
                    kept.push([b"-", rest].concat());
                    kept.extend(next.cloned());
                }
            }
            _ => {}
        }
    }
    kept
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
