//! Parses the lines of rsync's error output: which path was not sent or removed, which attribute
//! could not be set, or neither.
//!
//! `error_texts` contains the messages of rsync 3.0.9 to 3.5.0. A message that is not in it is
//! [`ErrorLine::Unknown`], and the reader has to treat the whole transfer as failed.
//!
//! rsync writes a control character, and text that looks like an escape, as `\#ooo`. It does not
//! escape the quotes in a name, so a message may be read in several ways: [`QuotedName::readings`]
//! returns all of them.

use std::borrow::Cow;

use super::error_texts::{Meaning, NEUTRAL, NamePlace, PLAIN, WITH_ERRNO};

/// The meaning of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorLine {
    /// This path was not sent, or not removed.
    Failed(QuotedName, FailureReason),
    /// This path arrived without one of its attributes, because the target does not permit or does
    /// not know it.
    Attribute(QuotedName, Attribute),
    /// This path is longer than rsync or a file system can handle, and cannot be transferred.
    TooLong(QuotedName),
    /// The line does not concern a path to be sent: totals, exit codes, warnings.
    Neutral,
    /// The message is not known.
    Unknown,
}

/// The name in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotedName {
    /// All possible readings, unescaped, in rsync's form: absolute, or relative to the root of the
    /// transfer.
    pub readings: Vec<Vec<u8>>,
    /// True if the message applies to everything in the directory of this name.
    pub with_contents: bool,
    /// True if the message may be about the deletion of something that the source does not have.
    pub may_be_deleted: bool,
}

/// The reason why a path was not sent, as far as it matters for other paths of the transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// The target has no space for it, or takes no file of this size.
    Size(SizeLimit),
    /// A directory of the target is in its place and could not be removed.
    Obstructed,
    /// Anything else.
    Other,
}

/// The limit that a file exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeLimit {
    /// ENOSPC
    Space,
    /// EDQUOT
    Quota,
    /// EFBIG
    FileSize,
}

/// An attribute of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// The owner.
    Owner,
    /// The group.
    Group,
    /// The mode.
    Permissions,
    /// The times.
    Times,
    /// Access control lists.
    Acls,
    /// Extended attributes.
    Xattrs,
}

impl Attribute {
    /// The name in messages, metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Attribute::Owner => "owner",
            Attribute::Group => "group",
            Attribute::Permissions => "permissions",
            Attribute::Times => "times",
            Attribute::Acls => "acls",
            Attribute::Xattrs => "xattrs",
        }
    }
}

/// The message for a path of more than `MAXPATHLEN` bytes, in front of a number and the path.
const OVERFLOWS: &[u8] = b"filename overflows max-path len by ";

/// Parses one line of rsync's error output.
pub fn read(line: &[u8]) -> ErrorLine {
    let begins = |words: &&&str| line.starts_with(words.as_bytes());
    // rsync ends a line of progress before a message, whichever output that goes to.
    if line.is_empty() || NEUTRAL.iter().any(|words| begins(&words)) || is_tried_again(line) {
        return ErrorLine::Neutral;
    }
    if let Some(rest) = line.strip_prefix(OVERFLOWS) {
        let colon = rest.windows(2).position(|pair| pair == b": ");
        return ErrorLine::TooLong(QuotedName {
            readings: vec![unescape(&rest[colon.map_or(0, |at| at + 2)..]).into_owned()],
            with_contents: false,
            may_be_deleted: false,
        });
    }
    let bare = without_program(line);
    if let Some((message, errno)) = with_errno(bare) {
        // The file is sent as if the target had none.
        if message.ends_with(b", continuing") {
            return ErrorLine::Neutral;
        }
        if let Some((name, meaning)) = find(WITH_ERRNO, message) {
            return judged(name, meaning, errno);
        }
    }
    match find(PLAIN, line) {
        Some((name, meaning)) => judged(name, meaning, None),
        None => ErrorLine::Unknown,
    }
}

fn judged(name: QuotedName, meaning: Meaning, errno: Option<i32>) -> ErrorLine {
    if errno == Some(libc::ENAMETOOLONG) || matches!(meaning, Meaning::TooLong) {
        return ErrorLine::TooLong(name);
    }
    if let Meaning::Attribute(attribute) = meaning
        && errno.is_none_or(is_not_permitted)
    {
        return ErrorLine::Attribute(name, attribute);
    }
    let reason = match (errno, meaning) {
        (Some(libc::ENOSPC), _) => FailureReason::Size(SizeLimit::Space),
        (Some(libc::EDQUOT), _) => FailureReason::Size(SizeLimit::Quota),
        (Some(libc::EFBIG), _) => FailureReason::Size(SizeLimit::FileSize),
        (_, Meaning::Obstructed) => FailureReason::Obstructed,
        _ => FailureReason::Other,
    };
    ErrorLine::Failed(name, reason)
}

/// Returns true for errors of a file system that does not permit or support an attribute. Others,
/// such as EIO or EROFS, are transient.
fn is_not_permitted(errno: i32) -> bool {
    matches!(
        errno,
        libc::EPERM | libc::EACCES | libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS
    )
}

/// Returns true for `WARNING: NAME failed verification -- update discarded (will try again).`
fn is_tried_again(line: &[u8]) -> bool {
    line.starts_with(b"WARNING: ") && line.ends_with(b" (will try again).")
}

/// Returns the line without `rsync: ` and, from rsync 3.2 on, `[receiver] `.
fn without_program(line: &[u8]) -> &[u8] {
    let Some(rest) = line.strip_prefix(b"rsync: ") else {
        return line;
    };
    let roles: [&[u8]; 6] = [
        b"[sender] ",
        b"[receiver] ",
        b"[Receiver] ",
        b"[generator] ",
        b"[server] ",
        b"[client] ",
    ];
    let role = roles.iter().find_map(|role| rest.strip_prefix(*role));
    role.unwrap_or(rest)
}

/// Splits `: TEXT (NUMBER)` off the end of a message.
fn with_errno(message: &[u8]) -> Option<(&[u8], Option<i32>)> {
    let inner = message.strip_suffix(b")")?;
    let open = inner.iter().rposition(|&byte| byte == b'(')?;
    let number = std::str::from_utf8(&inner[open + 1..]).ok()?.parse().ok()?;
    let head = inner[..open].strip_suffix(b" ")?;
    let colon = head.windows(2).rposition(|pair| pair == b": ")?;
    Some((&head[..colon], Some(number)))
}

fn find(table: &[(&str, NamePlace, Meaning)], message: &[u8]) -> Option<(QuotedName, Meaning)> {
    table.iter().find_map(|(words, place, meaning)| {
        let rest = message.strip_prefix(words.as_bytes())?;
        let readings = match place {
            NamePlace::Quoted => quoted(rest)?,
            NamePlace::Until("") => vec![unescape(rest).into_owned()],
            NamePlace::Until(end) => {
                let at = rest
                    .windows(end.len())
                    .rposition(|part| part == end.as_bytes())?;
                vec![unescape(&rest[..at]).into_owned()]
            }
        };
        let name = QuotedName {
            readings,
            with_contents: matches!(meaning, Meaning::Contents),
            may_be_deleted: !matches!(meaning, Meaning::Path),
        };
        Some((name, *meaning))
    })
}

/// Returns each text between the first double quote and a later one. The word in front of it, if
/// any, is the name of an attribute.
fn quoted(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let open = text.iter().position(|&byte| byte == b'"')?;
    let inside = &text[open + 1..];
    let quotes = inside.iter().enumerate().filter(|(_, byte)| **byte == b'"');
    let readings: Vec<_> = quotes
        .map(|(at, _)| unescape(&inside[..at]).into_owned())
        .collect();
    (!readings.is_empty()).then_some(readings)
}

/// Decodes the bytes that rsync wrote as `\#ooo`.
pub(super) fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.windows(2).any(|pair| pair == b"\\#") {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        if let [
            b'\\',
            b'#',
            a @ b'0'..=b'3',
            b @ b'0'..=b'7',
            c @ b'0'..=b'7',
            behind @ ..,
        ] = rest
        {
            bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = behind;
            continue;
        }
        bytes.push(byte);
        rest = behind;
    }
    Cow::Owned(bytes)
}

#[cfg(test)]
#[path = "error_lines_tests.rs"]
mod tests;
