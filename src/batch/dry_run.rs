//! The dry run of a comparison: the arguments that make rsync name each difference and change
//! nothing, and what its output says.

use std::cell::RefCell;
use std::collections::BTreeMap;

use siphasher::sip::SipHasher13;

use super::drift_line::{self, DriftLines, PathDrift};
use super::listing::{self, ListedFile};
use super::output;
use crate::log;
use crate::rsync_syntax;

/// Long options that are left out, with or without a value: they change what is printed, suppress
/// what is found, or write files.
const LEFT_OUT: &[&str] = &[
    "dry-run",
    "ignore-times",
    "info",
    "itemize-changes",
    "log-file",
    "log-file-format",
    "log-format",
    "no-i",
    "no-itemize-changes",
    "no-verbose",
    "only-write-batch",
    "out-format",
    "progress",
    "quiet",
    "remove-source-files",
    "remove-sent-files",
    "stats",
    "verbose",
    "write-batch",
];

/// Letters that are left out for the same reasons.
const LETTERS_LEFT_OUT: &[u8] = b"IPinqv";

/// The maximum number of differences that are kept; more are counted.
pub const MAX_CHANGES: usize = 100_000;

/// The maximum size of the names of a sample in bytes.
const MAX_SAMPLE_BYTES: usize = 256 << 20;

/// The maximum number of lines of error output that are kept.
const MAX_ERRORS: usize = 20;

/// Returns the arguments of the dry run for those of a transfer. `by_content` compares files of
/// equal size and time as well.
pub fn words(transfer: &[Vec<u8>], by_content: bool) -> Vec<Vec<u8>> {
    let format = format!("--out-format={}", drift_line::FORMAT);
    let mut words: Vec<Vec<u8>> = ["--dry-run", "--stats", &format].map(Into::into).into();
    if by_content {
        words.push(b"--checksum".to_vec());
    }
    let limits_nothing = rsync_syntax::without(transfer, &["max-delete"], b"");
    words.extend(printable(&limits_nothing));
    words
}

/// Returns the arguments of a dry run that names and counts the entries that a transfer would delete.
pub fn counting_words(transfer: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = ["--dry-run", "--itemize-changes", "--stats"]
        .map(Into::into)
        .into();
    words.extend(printable(transfer));
    words
}

/// Returns the arguments without those that change what a dry run prints.
fn printable(transfer: &[Vec<u8>]) -> Vec<Vec<u8>> {
    rsync_syntax::without(transfer, LEFT_OUT, LETTERS_LEFT_OUT)
}

/// The option that makes rsync print the checksum algorithm.
pub const TELL_CHECKSUM: &[u8] = b"--debug=nstr";

/// Returns true if an rsync of this version supports [`TELL_CHECKSUM`].
pub fn tells_checksum(version: &[u8]) -> bool {
    let number = version.strip_prefix(b"rsync  version ");
    let mut parts = number.unwrap_or_default().split(|&byte| byte == b'.');
    let mut part = || -> Option<u32> { std::str::from_utf8(parts.next()?).ok()?.parse().ok() };
    (part(), part()) >= (Some(3), Some(2))
}

/// Returns the name in a line such as `Client negotiated checksum: xxh128`.
fn checksum(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"Client ")?;
    let rest = rest.strip_prefix(b"negotiated ").unwrap_or(rest);
    let name = rest.strip_prefix(b"checksum: ")?;
    name.split(|&byte| byte == b' ').next()
}

/// The parsed output of a running dry run.
#[derive(Debug, Default)]
pub struct DryRunOutput(RefCell<Printed>);

/// The differences that a dry run has found.
#[derive(Debug, Default)]
pub struct Printed {
    /// The differences, at most [`MAX_CHANGES`].
    pub changes: Vec<PathDrift>,
    /// The number of further ones.
    pub beyond: u64,
    /// The number of compared entries of the source; `None` without a summary.
    pub entries: Option<u64>,
    /// The bytes of all files of the source; `None` without a summary.
    pub bytes: Option<u64>,
    /// The last lines of the error output.
    pub errors: Vec<Vec<u8>>,
    /// The sampled files, if there is a sample.
    pub sampled: Option<Sampled>,
    /// The requested paths of a listing, with their listed entries.
    pub listed: BTreeMap<Vec<u8>, Option<ListedFile>>,
    /// The checksum that both sides use.
    pub checksum: Option<String>,
    lines: DriftLines,
}

/// The files of one part of a sample. Each file always belongs to the same part.
#[derive(Debug, Default)]
pub struct Sampled {
    part: u32,
    parts: u32,
    /// The number of files.
    pub files: u64,
    /// Their paths, each followed by a zero byte.
    pub names: Vec<u8>,
    /// There are more than fit.
    pub is_cut: bool,
}

impl Sampled {
    /// Returns an empty sample of this part, from 0 on.
    pub fn new(part: u32, parts: u32) -> Sampled {
        Sampled {
            part,
            parts,
            ..Sampled::default()
        }
    }

    fn add(&mut self, path: &[u8]) {
        let hash = SipHasher13::new().hash(path);
        if hash % u64::from(self.parts.max(1)) != u64::from(self.part) {
            return;
        }
        if self.names.len() + path.len() >= MAX_SAMPLE_BYTES {
            self.is_cut = true;
            return;
        }
        self.files += 1;
        self.names.extend_from_slice(path);
        self.names.push(0);
    }
}

impl DryRunOutput {
    /// Returns the output of a dry run that prints all names. Those of a sample are kept.
    pub fn sampling(sampled: Sampled) -> DryRunOutput {
        DryRunOutput(RefCell::new(Printed {
            sampled: Some(sampled),
            ..Printed::default()
        }))
    }

    /// Returns the output of a listing of these paths.
    pub fn listing(paths: impl IntoIterator<Item = Vec<u8>>) -> DryRunOutput {
        DryRunOutput(RefCell::new(Printed {
            listed: paths.into_iter().map(|path| (path, None)).collect(),
            ..Printed::default()
        }))
    }

    /// Takes in a line of standard output, or a piece of one.
    pub fn line(&self, piece: &[u8]) {
        let printed = &mut *self.0.borrow_mut();
        let Some(line) = printed.lines.push(piece) else {
            return;
        };
        if !printed.listed.is_empty()
            && let Some(file) = listing::parse(&line)
            && let Some(place) = printed.listed.get_mut(&file.path)
        {
            *place = Some(file);
            return;
        }
        if let Some(sampled) = &mut printed.sampled
            && let Some(path) = drift_line::common_file(&line)
        {
            sampled.add(&path);
        }
        let count = |label: &[u8]| output::count(line.strip_prefix(label)?);
        if let Some(change) = drift_line::change(&line) {
            if printed.changes.len() < MAX_CHANGES {
                printed.changes.push(change);
            } else {
                printed.beyond += 1;
            }
        } else if let Some(entries) = count(b"Number of files: ") {
            printed.entries = Some(entries);
        } else if let Some(bytes) = count(b"Total file size: ") {
            printed.bytes = Some(bytes);
        } else if let Some(name) = checksum(&line) {
            printed.checksum = Some(log::escape(name).into_owned());
        }
    }

    /// Takes in a line of error output.
    pub fn error(&self, line: &[u8]) {
        let errors = &mut self.0.borrow_mut().errors;
        if errors.len() == MAX_ERRORS {
            errors.remove(0);
        }
        errors.push(line.to_vec());
    }

    /// Returns the number of differences found so far.
    pub fn found(&self) -> usize {
        self.0.borrow().changes.len()
    }

    /// Returns all that was printed.
    pub fn into_printed(self) -> Printed {
        self.0.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dry(line: &str, by_content: bool) -> String {
        let transfer: Vec<Vec<u8>> = line.split(' ').map(Into::into).collect();
        let words = words(&transfer, by_content);
        let text = String::from_utf8(words.join(&b' ')).unwrap();
        let rest = text.strip_prefix("--dry-run --stats --out-format=//%i//%l//%n//");
        rest.unwrap().trim_start().to_owned()
    }

    #[test]
    fn what_hides_differences_is_left_out() {
        for (transfer, expected) in [
            ("-lts -r /s/ /t/", "-lts -r /s/ /t/"),
            ("-vltsI --quiet -r /s/ h:t", "-lts -r /s/ h:t"),
            ("-q -v -aP --delete /s /t", "--partial -a --delete /s /t"),
            ("--max-delete=3 --max-delete 3 --bwlimit 9", "--bwlimit 9"),
            ("--log-file /l --log-file=/l --out-format x", ""),
            (
                "-e ssh\u{a0}-v -T vIn -vTq -B 700",
                "-e ssh\u{a0}-v -T vIn -Tq -B 700",
            ),
            ("-e -v --rsh=ssh\u{a0}-q", "-e -v --rsh=ssh\u{a0}-q"),
            ("--info=name2 --info progress2 -l", "-l"),
            ("-M --quiet -M-v", "-M --quiet -M-v"),
        ] {
            assert_eq!(dry(transfer, false), expected.trim_end(), "{transfer}");
        }
        assert_eq!(dry("-lts /s /t", true), "--checksum -lts /s /t");
    }

    #[test]
    fn the_parts_of_a_sample_cover_each_file_once() {
        let mut all = Vec::new();
        for part in 0..4 {
            let output = DryRunOutput::sampling(Sampled::new(part, 4));
            for number in 0..400 {
                output.line(format!("//.f          //2//f{number}//").as_bytes());
            }
            let sampled = output.into_printed().sampled.unwrap();
            assert!((60..140).contains(&sampled.files), "{}", sampled.files);
            let names = sampled.names.split(|&byte| byte == 0);
            all.extend(names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec));
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 400);
    }

    #[test]
    fn differences_beyond_those_that_are_kept_are_counted() {
        let output = DryRunOutput::default();
        for number in 0..MAX_CHANGES + 3 {
            output.line(format!("//>f+++++++++//2//f{number}//").as_bytes());
        }
        assert_eq!(output.found(), MAX_CHANGES);
        let printed = output.into_printed();
        assert_eq!((printed.changes.len(), printed.beyond), (MAX_CHANGES, 3));
    }

    #[test]
    fn the_checksum_is_told_by_versions_that_can() {
        for (version, expected) in [
            ("rsync  version 3.5.0  protocol version 32", true),
            ("rsync  version 3.2.0  protocol version 31", true),
            ("rsync  version 3.1.3  protocol version 31", false),
            ("rsync  version 10.0.0  protocol version 40", true),
            ("openrsync: protocol version 29", false),
        ] {
            assert_eq!(tells_checksum(version.as_bytes()), expected, "{version}");
        }
        for (line, name) in [
            ("Client negotiated checksum: xxh128", Some("xxh128")),
            ("Client checksum: md5", Some("md5")),
            ("Client compress: zstd (level 3)", None),
            ("checksum: md5", None),
        ] {
            assert_eq!(checksum(line.as_bytes()), name.map(str::as_bytes), "{line}");
        }
    }

    #[test]
    fn a_listing_keeps_what_it_is_about() {
        let output = DryRunOutput::listing(["/a", "/b"].map(|path| path.into()));
        for line in [
            "-rw-r--r--           3 1970/01/01 00:00:09 a",
            "-rw-r--r--           3 1970/01/01 00:00:09 c",
        ] {
            output.line(line.as_bytes());
        }
        let listed = output.into_printed().listed;
        let times = listed
            .values()
            .map(|file| file.as_ref().map(|file| file.time));
        assert_eq!(times.collect::<Vec<_>>(), [Some(9), None]);
    }

    #[test]
    fn differences_and_totals_are_read() {
        let output = DryRunOutput::default();
        for line in [
            "//>f+++++++++//2//a//",
            "Number of files: 1,022 (reg: 1,015, dir: 7)",
            "Total file size: 79 bytes",
        ] {
            output.line(line.as_bytes());
        }
        (0..30).for_each(|number| output.error(format!("{number}").as_bytes()));
        let printed = output.into_printed();
        assert_eq!(printed.changes.len(), 1);
        assert_eq!((printed.entries, printed.bytes), (Some(1022), Some(79)));
        assert_eq!(printed.errors.len(), MAX_ERRORS);
        assert_eq!(printed.errors.last().unwrap(), b"29");
    }
}
