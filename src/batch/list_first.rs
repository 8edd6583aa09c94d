//! Decides if a full comparison lists the whole source first (`--no-inc-recursive`), and if it
//! reports its progress.
//!
//! rsync's incremental recursion sends the file list in parts of about 1,000 names, so that a
//! comparison over a network takes a round trip for every 1,000 names. Without it, rsync compares
//! at the speed of the disks, but sends nothing before the whole source is listed, and holds the
//! list in memory.

use std::fs;

use super::is_remote;
use crate::watch::TreeSize;

/// The number of directories up to which a tree is compared incrementally. Such a comparison takes
/// few round trips.
const MAX_INCREMENTAL: usize = 1000;

/// The memory of rsync for one entry of its list, in bytes. 83 were measured with short names.
const BYTES_PER_ENTRY: u64 = 128;

/// The inputs of the decision.
pub struct WholeComparison<'a> {
    /// `rsync = { inc_recursive = … }`.
    pub inc_recursive: Option<bool>,
    /// The options of the call.
    pub words: &'a [Vec<u8>],
    /// The destination.
    pub target: &'a [u8],
    /// The size of the source.
    pub source: TreeSize,
    /// Returns the memory that processes of this host may still use, in bytes; `None` if unknown.
    /// Only a big source with a remote target needs to know.
    pub memory: fn() -> Option<u64>,
}

impl WholeComparison<'_> {
    /// Returns true if rsync is to list the whole source first. The list takes at most half of the
    /// available memory. An option of the user's own for or against incremental recursion decides
    /// before everything else, then `inc_recursive`.
    pub fn lists_first(&self) -> bool {
        if self.words.iter().any(|word| decides(word)) {
            return false;
        }
        match self.inc_recursive {
            Some(incremental) => !incremental,
            None => {
                let list = self.source.entries as u64 * BYTES_PER_ENTRY;
                is_remote(self.target)
                    && self.source.directories > MAX_INCREMENTAL
                    && (self.memory)().is_some_and(|memory| list <= memory / 2)
            }
        }
    }

    /// Returns true if the comparison may take so long that rsync is to report its progress. An
    /// option of the user's own about progress or output decides before.
    pub fn reports_progress(&self) -> bool {
        self.source.directories > MAX_INCREMENTAL && !self.words.iter().any(|word| is_told(word))
    }
}

/// Returns true for options that say what rsync reports.
fn is_told(word: &[u8]) -> bool {
    let long: [&[u8]; 5] = [
        b"--info",
        b"--progress",
        b"--no-progress",
        b"--quiet",
        b"--out-format",
    ];
    let is_short = word.starts_with(b"-") && !word.starts_with(b"--");
    long.iter().any(|start| word.starts_with(start))
        || (is_short && word.iter().any(|letter| b"Pqvi".contains(letter)))
}

/// Returns true for the options that switch incremental recursion on or off.
fn decides(word: &[u8]) -> bool {
    let names: [&[u8]; 4] = [
        b"--inc-recursive",
        b"--i-r",
        b"--no-inc-recursive",
        b"--no-i-r",
    ];
    names.contains(&word)
}

/// Returns the memory that processes of this host may still use, in bytes, from proc(5) and the
/// memory limit of the control group.
pub fn available_memory() -> Option<u64> {
    let host = fs::read_to_string("/proc/meminfo").ok();
    let host = host.as_deref().and_then(mem_available);
    let group = fs::read_to_string("/proc/self/cgroup").ok();
    let group = group.as_deref().and_then(unified_group).and_then(|group| {
        let read = |file: &str| fs::read_to_string(format!("/sys/fs/cgroup{group}/{file}")).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        Some(number("memory.max")?.saturating_sub(number("memory.current")?))
    });
    host.into_iter().chain(group).min()
}

/// Returns `MemAvailable` of the text of `/proc/meminfo`, in bytes.
fn mem_available(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes = line.trim().strip_suffix("kB")?.trim().parse::<u64>();
    Some(kilobytes.ok()?.saturating_mul(1024))
}

/// Returns the path of the process in the unified hierarchy of control groups.
fn unified_group(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists_first(change: impl FnOnce(&mut WholeComparison<'_>)) -> bool {
        let mut comparison = WholeComparison {
            inc_recursive: None,
            words: &[],
            target: b"host:/trg/",
            source: TreeSize {
                directories: MAX_INCREMENTAL + 1,
                entries: 1_000_000,
            },
            memory: || Some(256_000_000),
        };
        change(&mut comparison);
        comparison.lists_first()
    }

    #[test]
    fn a_big_source_far_away_is_listed_first() {
        assert!(lists_first(|_| {}));
        assert!(lists_first(|c| c.target = b"rsync://host/module/"));
        assert!(!lists_first(|c| c.target = b"/local/"));
        assert!(!lists_first(|c| c.source.directories = MAX_INCREMENTAL));
    }

    #[test]
    fn the_list_must_fit_into_half_of_the_memory() {
        assert!(!lists_first(|c| c.source.entries += 1));
        assert!(!lists_first(|c| c.memory = || None));
    }

    #[test]
    fn the_user_decides() {
        assert!(!lists_first(|c| c.inc_recursive = Some(true)));
        assert!(lists_first(|c| {
            c.inc_recursive = Some(false);
            c.target = b"/local/";
            c.source = TreeSize::default();
            c.memory = || None;
        }));
        for word in ["--inc-recursive", "--i-r", "--no-inc-recursive", "--no-i-r"] {
            let words = [b"-lts".to_vec(), word.into()];
            let comparison = WholeComparison {
                inc_recursive: Some(false),
                words: &words,
                target: b"host:/trg/",
                source: TreeSize::default(),
                memory: || None,
            };
            assert!(!comparison.lists_first(), "{word}");
        }
    }

    #[test]
    fn memory_is_read_from_the_texts_of_the_kernel() {
        let text = "MemTotal:  9 kB\nMemAvailable:   1234 kB\nBuffers: 1 kB\n";
        assert_eq!(mem_available(text), Some(1234 * 1024));
        assert_eq!(mem_available("MemTotal:  9 kB\n"), None);
        assert_eq!(unified_group("1:cpu:/x\n0::/a/b\n"), Some("/a/b"));
        assert!(available_memory().is_some_and(|bytes| bytes > 0));
    }
}
