//! Parses progress and totals from rsync's output, if its options make rsync write them.
//!
//! For comparisons of large sources the daemon adds an option for progress. Its lines are not
//! logged; those of the user's own options are.

/// The option that makes rsync report its progress.
pub const PROGRESS: &[u8] = b"--info=progress2";

/// A progress line of `--info=progress2` or `--progress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RsyncProgress {
    /// Bytes sent so far: of all files with `progress2`, of this one with `--progress`.
    pub bytes: u64,
    /// 0 to 100.
    pub percent: u8,
    /// The rate in rsync's form: `146.38kB/s`.
    pub rate: String,
    /// The time left, or at the end the time taken, in rsync's form: `0:00:08`.
    pub time: String,
    /// The entries that rsync has listed, if it reports them.
    pub entries: Option<RsyncEntries>,
}

/// The entries of a transfer: `to-chk=169/396`, or `ir-chk=169/396` while more are being listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RsyncEntries {
    /// The compared entries.
    pub compared: u64,
    /// All that have been listed.
    pub listed: u64,
    /// No more will be listed.
    pub is_complete: bool,
    /// The files that have been sent.
    pub sent: u64,
}

/// The totals of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RsyncTotals {
    /// `Total bytes sent`, or `sent … bytes` of `-v`.
    pub bytes: u64,
    /// `Number of regular files transferred`.
    pub files: u64,
}

impl RsyncTotals {
    /// Adds a line of rsync's output, if it belongs to the summary.
    pub fn take(&mut self, line: &[u8]) {
        let Ok(line) = std::str::from_utf8(line) else {
            return;
        };
        for start in [
            "Number of regular files transferred: ",
            "Number of files transferred: ",
        ] {
            if let Some(count) = line.strip_prefix(start).and_then(number) {
                self.files = count;
            }
        }
        if let Some(count) = line.strip_prefix("Total bytes sent: ").and_then(number) {
            self.bytes = count;
        }
        if let Some(rest) = line.strip_prefix("sent ")
            && rest.contains(" bytes  received ")
            && let Some(count) = number(rest)
        {
            self.bytes = count;
        }
    }
}

/// Parses a progress line, for instance
/// `  1,238,099 100%  146.38kB/s    0:00:08  (xfr#5, to-chk=0/9)`.
pub fn progress(line: &[u8]) -> Option<RsyncProgress> {
    // Most lines are not progress lines, which begin with a blank or a digit.
    if !matches!(line.first(), Some(b' ' | b'0'..=b'9')) {
        return None;
    }
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let bytes = words.next()?;
    let percent = words.next()?.strip_suffix('%')?.parse().ok()?;
    let rate = words.next().filter(|rate| rate.ends_with("B/s"))?;
    let time = words.next().filter(|time| time.contains(':'))?;
    (percent <= 100).then_some(RsyncProgress {
        bytes: whole_number(bytes)?,
        percent,
        rate: rate.to_owned(),
        time: time.to_owned(),
        entries: words.next().zip(words.next()).and_then(entries),
    })
}

/// Parses `(xfr#5,` and `to-chk=169/396)`.
fn entries((sent, word): (&str, &str)) -> Option<RsyncEntries> {
    let sent = sent.strip_prefix("(xfr#")?.strip_suffix(',')?;
    let (kind, counts) = word.trim_end_matches(')').split_once('=')?;
    let is_complete = match kind {
        "to-chk" | "to-check" => true,
        "ir-chk" | "ir-check" => false,
        _ => return None,
    };
    let (left, listed) = counts.split_once('/')?;
    let (left, listed): (u64, u64) = (left.parse().ok()?, listed.parse().ok()?);
    Some(RsyncEntries {
        compared: listed.checked_sub(left)?,
        listed,
        is_complete,
        sent: sent.parse().ok()?,
    })
}

/// Returns the number at the start of a text, with rsync's thousands separators.
fn number(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != ',' && c != '.')
        .unwrap_or(text.len());
    whole_number(&text[..end])
}

/// Returns the count at the start of a line's value. With `-h` it may be rounded: `1.24M`.
pub fn count(text: &[u8]) -> Option<u64> {
    let word = std::str::from_utf8(text).ok()?.split(' ').next()?;
    number(word)
        .filter(|_| word.ends_with(|c: char| c.is_ascii_digit()))
        .or_else(|| {
            let digits = word.strip_suffix(['K', 'M', 'G', 'T', 'P'])?;
            let power = "KMGTP".find(&word[digits.len()..])? as i32 + 1;
            let rounded: f64 = digits.replace(',', ".").parse().ok()?;
            Some((rounded * 1000_f64.powi(power)) as u64)
        })
}

/// Parses `1,238,099`, in some locales with points. `-h` writes `1.24M`, which is not exact and is
/// ignored.
fn whole_number(text: &str) -> Option<u64> {
    let groups: Vec<&str> = text.split([',', '.']).collect();
    let (first, rest) = groups.split_first()?;
    let grouped = rest.iter().all(|group| group.len() == 3);
    if !grouped || (!rest.is_empty() && first.len() > 3) {
        return None;
    }
    groups.concat().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines() {
        let line = b"      1,238,099  97%  146.38kB/s    0:00:08 (xfr#5, to-chk=169/396)";
        let expected = RsyncProgress {
            bytes: 1_238_099,
            percent: 97,
            rate: "146.38kB/s".into(),
            time: "0:00:08".into(),
            entries: Some(RsyncEntries {
                compared: 227,
                listed: 396,
                is_complete: true,
                sent: 5,
            }),
        };
        assert_eq!(progress(line), Some(expected));
        for (line, listed) in [
            (
                "1 1% 1.00kB/s 0:00:00 (xfr#5, ir-chk=1000/2300)",
                Some((1300, false)),
            ),
            ("1 1% 1.00kB/s 0:00:00 (xfr#5, to-chk=9/8)", None),
            ("1 1% 1.00kB/s 0:00:00", None),
        ] {
            let entries = progress(line.as_bytes()).unwrap().entries;
            let entries = entries.map(|entries| (entries.compared, entries.is_complete));
            assert_eq!(entries, listed, "{line}");
        }
        for other in [
            &b"   a file 100% kB/s 0:00"[..],
            b"",
            b" ",
            b"12 200% 1kB/s 0:00:00",
            b"1.23M 10% 1.00MB/s 0:00:00",
            b" \xff 10% 1.00MB/s 0:00:00",
            b"sent 12 bytes",
        ] {
            assert_eq!(progress(other), None, "{}", other.escape_ascii());
        }
    }

    #[test]
    fn counts() {
        for (text, expected) in [
            ("1,234 (reg: 1,000, dir: 234)", Some(1234)),
            ("123,456 (reg: 123,455, dir: 1)", Some(123_456)),
            ("1234,567", None),
            ("0", Some(0)),
            ("1.24M (reg: 1.2M)", Some(1_240_000)),
            ("12,35K", Some(12_350)),
            ("files", None),
            ("", None),
        ] {
            assert_eq!(count(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn summaries() {
        let mut totals = RsyncTotals::default();
        for line in [
            "Number of files: 1,234 (reg: 1,000, dir: 234)",
            "Number of regular files transferred: 1,000",
            "Total bytes sent: 12,345,678",
            "sent 12,345,678 bytes  received 99 bytes  24,691,554.00 bytes/sec",
            "sent 5 apples",
            "Total bytes sent: 1.2M",
        ] {
            totals.take(line.as_bytes());
        }
        let expected = RsyncTotals {
            bytes: 12_345_678,
            files: 1000,
        };
        assert_eq!(totals, expected);
    }
}
