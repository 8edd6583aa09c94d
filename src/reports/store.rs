//! The files of the kept reports: `lines`, `head`, and `lock`, since several daemons may share a
//! state directory.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::chain::{self, ChainCheck, ChainHead, ChainLink, CheckedChain};
use super::page::ReportPage;
use crate::history::RingDirectory;
use crate::safe_path::Directory;
use crate::status::atomic_file::{self, ReplaceError};
use crate::status::drift_report::DriftReport;

/// The name of the directory of reports in the state directory.
const DIRECTORY: &str = "reports";
const LINES: &str = "lines";
const HEAD: &str = "head";
const LOCK: &str = "lock";

/// The maximum length of a line in bytes. A report has at most 1000 paths.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// The maximum size of the lines of an answer in bytes.
const MAX_PAGE_BYTES: usize = 32 << 20;

/// The maximum size of the head in bytes.
const MAX_HEAD_BYTES: u64 = 1 << 20;

/// The share of the reports that are removed when there are too many.
const REMOVED_SHARE: u64 = 10;

/// The open files.
pub struct ReportStore {
    directory: Directory,
    /// Locked while it is open.
    _lock: File,
    head: Option<ChainHead>,
}

impl ReportStore {
    /// Opens the directory and waits for other daemons that use it.
    ///
    /// # Errors
    ///
    /// It cannot be opened, or other users can write to it.
    pub fn open(root: &dyn RingDirectory) -> io::Result<ReportStore> {
        let directory = root.open(DIRECTORY, true)?;
        let lock = directory.open_file(OsStr::new(LOCK), OFlags::RDWR | OFlags::CREATE)?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let head = read_head(&directory)?;
        Ok(ReportStore {
            directory,
            _lock: lock,
            head,
        })
    }

    /// Appends a report, and removes the oldest if there are more than `limit`. Returns the number
    /// and the hash of its line.
    ///
    /// # Errors
    ///
    /// The report could not be written.
    pub fn append(&mut self, report: DriftReport, limit: u64) -> io::Result<(u64, String)> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
        let mut file = self.directory.open_file(OsStr::new(LINES), flags)?;
        let (checked, end) = self.check(&file, |_| {})?;
        let mut head = checked.head;
        let is_torn = file.metadata()?.len() > end;
        if is_torn && self.head.is_some() && checked.reaches_end {
            // The last report is incomplete: the system stopped during the write.
            file.set_len(end)?;
        } else if is_torn {
            file.write_all(b"\n")?;
        }
        let mut line = chain::line(&head, report);
        head.last += 1;
        head.hash = chain::hash(&line);
        line.push(b'\n');
        file.write_all(&line)?;
        file.sync_data()?;
        self.write_head(&head)?;
        let result = (head.last, head.hash.clone());
        if head.last - head.first >= limit {
            self.remove_oldest(&file, limit)?;
        }
        Ok(result)
    }

    /// Returns the newest reports, and checks all.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub fn page(&self, count: usize) -> io::Result<ReportPage> {
        let file = match self.directory.open_file(OsStr::new(LINES), OFlags::RDONLY) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut newest = VecDeque::new();
        let mut size = 0;
        let checked = match &file {
            None => ChainCheck::new(self.head.clone()).finish(),
            Some(file) => {
                let (checked, _) = self.check(file, |line| {
                    size += line.len();
                    newest.push_back(line.to_vec());
                    while newest.len() > count || (size > MAX_PAGE_BYTES && newest.len() > 1) {
                        size -= newest.pop_front().map_or(0, |line| line.len());
                    }
                })?;
                checked
            }
        };
        let CheckedChain { head, problems, .. } = checked;
        let texts = problems.into_iter().map(|(_, text)| text);
        let is_empty = head.last < head.first;
        let mut reports: Vec<super::KeptReport> = Vec::new();
        for line in newest {
            // A line that is not a report is among the problems.
            reports.extend(serde_json::from_slice(&line));
        }
        reports.retain(|kept| kept.number >= head.first);
        Ok(ReportPage {
            reports,
            first: if is_empty { 0 } else { head.first },
            last: head.last,
            problems: head.problems.into_iter().chain(texts).collect(),
            hash: head.hash,
            unavailable: None,
        })
    }

    /// Checks the chain and passes each line on. Returns the end of the last complete line, too.
    fn check(
        &self,
        mut file: &File,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<(CheckedChain, u64)> {
        file.seek(SeekFrom::Start(0))?;
        let mut check = ChainCheck::new(self.head.clone());
        let mut reader = BufReader::new(file);
        let (mut line, mut end) = (Vec::new(), 0);
        loop {
            line.clear();
            let length = (&mut reader)
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut line)?;
            let Some(whole) = line.strip_suffix(b"\n") else {
                if length > 0 && self.head.is_none() {
                    check.on_line(&line);
                }
                break;
            };
            end += length as u64;
            check.on_line(whole);
            each(whole);
        }
        Ok((check.finish(), end))
    }

    /// Removes the oldest lines. What is wrong with them is kept in the head. The head is written
    /// first: lines before its first one are ignored.
    fn remove_oldest(&mut self, file: &File, limit: u64) -> io::Result<()> {
        let keep = limit - limit / REMOVED_SHARE;
        let last = self.head.as_ref().map_or(0, |head| head.last);
        let from = (last + 1).saturating_sub(keep);
        let mut first = None;
        let (checked, _) = self.check(file, |line| {
            let link = first.is_none().then(|| ChainLink::of(line)).flatten();
            first = first.take().or(link.filter(|link| link.number >= from));
        })?;
        let Some(first) = first else {
            return Ok(());
        };
        let CheckedChain {
            mut head, problems, ..
        } = checked;
        let removed = problems
            .into_iter()
            .filter(|(number, _)| *number < first.number);
        head.problems.extend(removed.map(|(_, text)| text));
        head.problems.dedup();
        head.first = first.number;
        head.anchor = first.previous;
        self.write_head(&head)?;
        let location = self.directory.location(OsStr::new(LINES))?;
        let written = atomic_file::write_at(&location, &mut |new| {
            let (mut is_kept, mut result) = (false, Ok(()));
            self.check(file, |line| {
                // A line that is not a report is kept with the report before it.
                is_kept |= ChainLink::of(line).is_some_and(|link| link.number >= from);
                if is_kept && result.is_ok() {
                    result = new.write_all(line).and_then(|()| new.write_all(b"\n"));
                }
            })?;
            result
        });
        written.map_err(cause)
    }

    fn write_head(&mut self, head: &ChainHead) -> io::Result<()> {
        let text = serde_json::to_vec(head).unwrap_or_default();
        replace(&self.directory, HEAD, &text)?;
        self.head = Some(head.clone());
        Ok(())
    }
}

fn read_head(directory: &Directory) -> io::Result<Option<ChainHead>> {
    let file = match directory.open_file(OsStr::new(HEAD), OFlags::RDONLY) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(MAX_HEAD_BYTES).read_to_end(&mut text)?;
    // An invalid head counts as a missing one, which is reported.
    Ok(serde_json::from_slice(&text).ok())
}

fn replace(directory: &Directory, name: &str, bytes: &[u8]) -> io::Result<()> {
    let location = directory.location(OsStr::new(name))?;
    let written = atomic_file::write_at(&location, &mut |file| file.write_all(bytes));
    written.map_err(cause)
}

fn cause(error: ReplaceError) -> io::Error {
    match error {
        ReplaceError::Open(error) | ReplaceError::Write(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::safe_path;
    use tempfile::TempDir;

    struct Root<'a>(&'a Path);

    impl RingDirectory for Root<'_> {
        fn open(&self, key: &str, _: bool) -> io::Result<Directory> {
            let root = safe_path::enter(self.0)?;
            root.make(OsStr::new(key))?;
            root.enter(OsStr::new(key))
        }
    }

    fn store(temp: &TempDir) -> ReportStore {
        // The trait object is not sent anywhere.
        ReportStore::open(&Root(temp.path())).unwrap()
    }

    fn append(temp: &TempDir, name: &str, limit: u64) -> u64 {
        let report = DriftReport {
            sync: name.to_owned(),
            ..DriftReport::default()
        };
        store(temp).append(report, limit).unwrap().0
    }

    fn lines(temp: &TempDir) -> String {
        fs::read_to_string(temp.path().join("reports/lines")).unwrap()
    }

    fn set_lines(temp: &TempDir, text: &str) {
        fs::write(temp.path().join("reports/lines"), text).unwrap();
    }

    fn page(temp: &TempDir) -> ReportPage {
        store(temp).page(100).unwrap()
    }

    #[test]
    fn reports_are_kept_in_order() {
        let temp = TempDir::new().unwrap();
        assert_eq!(page(&temp), ReportPage::default());
        for number in 1..=3 {
            assert_eq!(append(&temp, &format!("s{number}"), 100), number);
        }
        let page = store(&temp).page(2).unwrap();
        let names: Vec<_> = page
            .reports
            .iter()
            .map(|kept| kept.report.sync.as_str())
            .collect();
        assert_eq!(names, ["s2", "s3"]);
        assert_eq!((page.first, page.last, page.problems.len()), (1, 3, 0));
        let last = lines(&temp)
            .lines()
            .last()
            .map(|line| chain::hash(line.as_bytes()));
        assert_eq!(Some(page.hash), last);
    }

    #[test]
    fn the_oldest_are_removed_and_the_rest_is_still_checked() {
        let temp = TempDir::new().unwrap();
        for _ in 1..=21 {
            append(&temp, "s", 20);
        }
        let text = lines(&temp);
        assert_eq!(text.lines().count(), 18);
        let kept = page(&temp);
        assert_eq!((kept.first, kept.last, kept.problems.len()), (4, 21, 0));
        let (_, rest) = text.split_once('\n').unwrap();
        set_lines(&temp, rest);
        assert_eq!(page(&temp).problems, ["report 4 is missing"]);
    }

    #[test]
    fn what_was_wrong_with_removed_reports_is_not_forgotten() {
        let temp = TempDir::new().unwrap();
        for _ in 1..=4 {
            append(&temp, "s", 4);
        }
        set_lines(
            &temp,
            &lines(&temp).replacen("\"sync\":\"s", "\"sync\":\"x", 1),
        );
        for number in 5..=9 {
            assert_eq!(append(&temp, "s", 4), number);
        }
        let page = page(&temp);
        assert_eq!((page.first, page.last), (6, 9));
        assert_eq!(page.problems, ["report 1 or 2 is altered"]);
    }

    #[test]
    fn a_torn_line_is_removed_and_a_cut_end_shows() {
        let temp = TempDir::new().unwrap();
        for _ in 1..=3 {
            append(&temp, "s", 100);
        }
        let whole = lines(&temp);
        set_lines(&temp, &format!("{whole}{{\"number\":4,"));
        assert_eq!(append(&temp, "s", 100), 4);
        assert_eq!(page(&temp).problems, Vec::<String>::new());
        // The end is cut within the last line but one.
        let end = whole.len() - 5;
        set_lines(&temp, &whole[..end]);
        assert_eq!(append(&temp, "s", 100), 5);
        let problems = page(&temp).problems;
        assert_eq!(
            problems,
            ["line 3 is not a report", "reports 3 to 4 are missing"]
        );
    }

    #[test]
    fn a_head_that_is_gone_shows_and_numbers_go_on() {
        let temp = TempDir::new().unwrap();
        for _ in 1..=2 {
            append(&temp, "s", 100);
        }
        fs::remove_file(temp.path().join("reports/head")).unwrap();
        assert!(page(&temp).problems[0].contains("\"head\" is missing"));
        assert_eq!(append(&temp, "s", 100), 3);
        let page = page(&temp);
        assert_eq!((page.first, page.last, page.problems.len()), (1, 3, 0));
    }
}
