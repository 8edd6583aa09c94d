//! Leaves options out of rsync's arguments.

/// Long options whose value may be the next argument, among those that are left out anywhere.
const WITH_VALUE: &[&str] = &[
    "info",
    "log-file",
    "log-file-format",
    "log-format",
    "max-delete",
    "only-write-batch",
    "out-format",
    "write-batch",
];

/// Letters whose value is the rest of the argument, or the next one.
const LETTERS_WITH_VALUE: &[u8] = b"@BMTef";

/// Splits the letters of an argument in front of the first one that has a value. The value is the
/// rest behind that letter, or the next argument.
pub(super) fn split_at_value(letters: &[u8]) -> (&[u8], &[u8]) {
    let value = letters.iter().position(|b| LETTERS_WITH_VALUE.contains(b));
    letters.split_at(value.unwrap_or(letters.len()))
}

/// Returns the arguments without these long options, with or without a value, and these letters.
/// Of `P` only the display of progress is left out.
pub fn leave_out(args: &[Vec<u8>], options: &[&str], left_out: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut args = args.iter();
    while let Some(word) = args.next() {
        match word.as_slice() {
            [b'-', b'-', name @ ..] => {
                let end = name.iter().position(|&byte| byte == b'=');
                let listed = |names: &[&str]| {
                    let name = &name[..end.unwrap_or(name.len())];
                    names.iter().any(|other| other.as_bytes() == name)
                };
                if !listed(options) {
                    words.push(word.clone());
                } else if end.is_none() && listed(WITH_VALUE) {
                    args.next();
                }
            }
            [b'-', letters @ ..] if !letters.is_empty() => {
                let (flags, rest) = split_at_value(letters);
                let kept = flags.iter().filter(|byte| !left_out.contains(byte));
                let kept: Vec<u8> = kept.chain(rest).copied().collect();
                if flags.contains(&b'P') && left_out.contains(&b'P') {
                    words.push(b"--partial".to_vec());
                }
                if !kept.is_empty() {
                    words.push([b"-", &kept[..]].concat());
                }
                if rest.len() == 1 {
                    words.extend(args.next().cloned());
                }
            }
            _ => words.push(word.clone()),
        }
    }
    words
}
