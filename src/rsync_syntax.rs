//! The syntax of rsync's command line: options with their values.

/// Long options with a value, which is the next argument where the word itself has none (rsync(1)).
const WITH_VALUE: &[&str] = &[
    "address",
    "backup-dir",
    "block-size",
    "bwlimit",
    "cc",
    "checksum-choice",
    "checksum-seed",
    "chmod",
    "chown",
    "compare-dest",
    "compress-choice",
    "compress-level",
    "compress-threads",
    "contimeout",
    "copy-as",
    "copy-dest",
    "debug",
    "early-input",
    "exclude",
    "exclude-from",
    "files-from",
    "filter",
    "groupmap",
    "iconv",
    "include",
    "include-from",
    "info",
    "link-dest",
    "log-file",
    "log-file-format",
    "log-format",
    "max-alloc",
    "max-delete",
    "max-size",
    "min-size",
    "modify-window",
    "only-write-batch",
    "out-format",
    "outbuf",
    "partial-dir",
    "password-file",
    "port",
    "protocol",
    "read-batch",
    "remote-option",
    "rsh",
    "rsync-path",
    "skip-compress",
    "sockopts",
    "stderr",
    "stop-after",
    "stop-at",
    "suffix",
    "temp-dir",
    "time-limit",
    "timeout",
    "usermap",
    "write-batch",
    "zc",
    "zl",
    "zt",
];

/// Letters with a value, which is the rest of the argument, or the next one.
const LETTERS_WITH_VALUE: &[u8] = b"@BMTef";

/// One option with its value, which may be the next argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsyncArg<'w> {
    /// `--name`, `--name=value`, or `--name` and its value.
    Long {
        /// Without the hyphens.
        name: &'w [u8],
        /// `None` if the option has none, or if it is missing.
        value: Option<&'w [u8]>,
    },
    /// `-flags`, of which the last may have a value.
    Letters {
        /// Those without a value.
        flags: &'w [u8],
        /// The letter with a value; `None` in place of the value if it is missing.
        last: Option<(u8, Option<&'w [u8]>)>,
    },
    /// Not an option.
    Operand(&'w [u8]),
}

/// Returns each argument with the one or two words that it consists of.
pub fn parse(words: &[Vec<u8>]) -> impl Iterator<Item = (RsyncArg<'_>, &[Vec<u8>])> {
    let mut rest = words;
    std::iter::from_fn(move || {
        let (arg, length) = first(rest)?;
        let (own, others) = rest.split_at(length);
        rest = others;
        Some((arg, own))
    })
}

/// Returns the first argument and the number of its words.
fn first(words: &[Vec<u8>]) -> Option<(RsyncArg<'_>, usize)> {
    let next = words.get(1).map(Vec::as_slice);
    let with_next = 1 + usize::from(next.is_some());
    Some(match words.first()?.as_slice() {
        [b'-', b'-', long @ ..] => match long.iter().position(|&byte| byte == b'=') {
            Some(at) => {
                let (name, value) = (&long[..at], Some(&long[at + 1..]));
                (RsyncArg::Long { name, value }, 1)
            }
            None if is_in(WITH_VALUE, long) => {
                let (name, value) = (long, next);
                (RsyncArg::Long { name, value }, with_next)
            }
            None => {
                let (name, value) = (long, None);
                (RsyncArg::Long { name, value }, 1)
            }
        },
        [b'-', letters @ ..] if !letters.is_empty() => {
            let has_value = |letter: &u8| LETTERS_WITH_VALUE.contains(letter);
            let at = letters.iter().position(has_value);
            let (flags, rest) = letters.split_at(at.unwrap_or(letters.len()));
            let (last, length) = match rest {
                [] => (None, 1),
                [letter] => (Some((*letter, next)), with_next),
                [letter, value @ ..] => (Some((*letter, Some(value))), 1),
            };
            (RsyncArg::Letters { flags, last }, length)
        }
        word => (RsyncArg::Operand(word), 1),
    })
}

/// Returns true if the name is one of these.
pub fn is_in(names: &[&str], name: &[u8]) -> bool {
    names.iter().any(|known| known.as_bytes() == name)
}

/// Returns true if the arguments have one of these long options or letters.
pub fn has(words: &[Vec<u8>], options: &[&str], letters: &[u8]) -> bool {
    parse(words).any(|(arg, _)| match arg {
        RsyncArg::Long { name, .. } => is_in(options, name),
        RsyncArg::Letters { flags, last } => {
            let last = last.map(|(letter, _)| letter);
            let mut own = flags.iter().copied().chain(last);
            own.any(|letter| letters.contains(&letter))
        }
        RsyncArg::Operand(_) => false,
    })
}

/// A part of an argument that is kept or left out, with its value if it has one.
#[derive(Clone, Copy, Debug)]
pub enum ArgPart<'w> {
    /// A long option, without its hyphens.
    Long(&'w [u8]),
    /// One letter.
    Letter(u8),
    /// Not an option.
    Operand,
}

/// Returns the arguments with only the parts that are kept. `-P` means `--partial --progress`: where
/// the letter is left out, `--partial` stays if that is kept.
pub fn filtered(words: &[Vec<u8>], is_kept: impl Fn(ArgPart<'_>) -> bool) -> Vec<Vec<u8>> {
    let is_letter = |letter| is_kept(ArgPart::Letter(letter));
    let mut kept = Vec::new();
    for (arg, own) in parse(words) {
        match arg {
            RsyncArg::Letters { flags, last } => {
                let is_split = flags.contains(&b'P') && !is_letter(b'P');
                if is_split && is_kept(ArgPart::Long(b"partial")) {
                    kept.push(b"--partial".to_vec());
                }
                let flags_kept = flags.iter().copied().filter(|&flag| is_letter(flag));
                let mut word: Vec<u8> = [b'-'].into_iter().chain(flags_kept).collect();
                let keeps_last = last.is_some_and(|(letter, _)| is_letter(letter));
                if keeps_last {
                    word.extend(&own[0][1 + flags.len()..]);
                }
                kept.extend(Some(word).filter(|word| word.len() > 1));
                kept.extend(own.get(1).filter(|_| keeps_last).cloned());
            }
            RsyncArg::Long { name, .. } if !is_kept(ArgPart::Long(name)) => {}
            RsyncArg::Operand(_) if !is_kept(ArgPart::Operand) => {}
            _ => kept.extend_from_slice(own),
        }
    }
    kept
}

/// Returns the arguments without these long options, with their values, and these letters.
pub fn without(words: &[Vec<u8>], options: &[&str], letters: &[u8]) -> Vec<Vec<u8>> {
    filtered(words, |part| match part {
        ArgPart::Long(name) => !is_in(options, name),
        ArgPart::Letter(letter) => !letters.contains(&letter),
        ArgPart::Operand => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<u8>> {
        text.split(' ').map(Into::into).collect()
    }

    #[test]
    fn an_option_is_found_among_others_but_not_in_a_value() {
        let has_backup = |text: &str| has(&words(text), &["backup", "suffix"], b"b");
        for text in [
            "-b",
            "-abv",
            "-vbe ssh",
            "--backup",
            "--suffix=~",
            "--suffix ~",
        ] {
            assert!(has_backup(text), "{text}");
        }
        for text in [
            "-a",
            "-esb",
            "-e -b",
            "--exclude --backup",
            "--no-backup",
            "backup",
            "b",
        ] {
            assert!(!has_backup(text), "{text}");
        }
        assert!(has(&words("-av -e ssh"), &[], b"e"));
    }

    #[test]
    fn values_are_in_the_same_word_or_the_next() {
        let long = |name, value: Option<&'static str>| RsyncArg::Long {
            name: str::as_bytes(name),
            value: value.map(str::as_bytes),
        };
        let short = |flags, last: Option<(u8, Option<&'static str>)>| RsyncArg::Letters {
            flags: str::as_bytes(flags),
            last: last.map(|(letter, value)| (letter, value.map(str::as_bytes))),
        };
        for (text, args) in [
            (
                "--delete --bwlimit=5",
                &[long("delete", None), long("bwlimit", Some("5"))][..],
            ),
            (
                "--rsh --x --rsh=",
                &[long("rsh", Some("--x")), long("rsh", Some(""))],
            ),
            ("--rsh", &[long("rsh", None)]),
            ("-lts", &[short("lts", None)]),
            (
                "-lte ssh -e",
                &[
                    short("lt", Some((b'e', Some("ssh")))),
                    short("", Some((b'e', None))),
                ],
            ),
            (
                "-M--x -",
                &[
                    short("", Some((b'M', Some("--x")))),
                    RsyncArg::Operand(b"-"),
                ],
            ),
            (
                "--unknown a",
                &[long("unknown", None), RsyncArg::Operand(b"a")],
            ),
        ] {
            let words = words(text);
            let found: Vec<_> = parse(&words).collect();
            let alone: Vec<_> = found.iter().map(|(arg, _)| *arg).collect();
            assert_eq!(alone, args, "{text}");
            let own: Vec<_> = found
                .iter()
                .flat_map(|(_, own)| own.iter().cloned())
                .collect();
            assert_eq!(own, words, "{text}");
        }
    }

    #[test]
    fn options_are_left_out_with_their_values() {
        for (given, kept) in [
            ("--info stats -lv -e ssh --delete", "-l -e ssh --delete"),
            ("-v -vev --info=x --infox", "-ev --infox"),
            ("-aPe ssh", "--partial -ae ssh"),
            ("- -- x", "- -- x"),
        ] {
            assert_eq!(
                without(&words(given), &["info"], b"vP"),
                words(kept),
                "{given}"
            );
        }
    }
}
