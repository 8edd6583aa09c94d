//! The transfer log after random changes, compared with the calls of a recording rsync: each path
//! of a call is in the log of its batch, once, with its operation.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;

use super::*;
use crate::support::fake::Call;
use crate::support::random::{Random, seed};
use lsyncd::history::LogEntry;
use lsyncd::log::unescape;

/// Names with characters that logs, JSON or shells treat specially. None is a pattern of rsync.
const NAMES: [&[u8]; 8] = [
    b"a\nb",
    b"\xff\xfe",
    b"say \"q\", 'r'",
    b"-x",
    b"\x1b(31m\x7f",
    "\u{202e}\u{e9}".as_bytes(),
    b" ",
    b"plain",
];

const ROUNDS: usize = 10;

/// The changes of one round.
struct Changes<'d> {
    dir: &'d Dir,
    random: Random,
    /// The files that were written in this round.
    written: BTreeSet<Vec<u8>>,
}

impl Changes<'_> {
    /// Returns a path relative to the source, at the top or in a directory.
    fn any_path(&mut self) -> Vec<u8> {
        let name = self.random.pick(&NAMES).to_vec();
        match self.random.below(3) {
            0 => name,
            below => [format!("d{below}/").as_bytes(), &name].concat(),
        }
    }

    /// Makes some changes that do not depend on each other.
    fn burst(&mut self) {
        self.written.clear();
        let mut used = BTreeSet::new();
        for _ in 0..=self.random.below(8) {
            let (path, other) = (self.any_path(), self.any_path());
            if path == other || used.contains(&path) || used.contains(&other) {
                continue;
            }
            let (from, to) = (self.dir.src(&path), self.dir.src(&other));
            match self.random.below(6) {
                0 => drop(fs::remove_file(from)),
                1 => drop(fs::rename(from, to)),
                2 => {
                    let mode = 0o600 + self.random.below(8) as u32;
                    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
                    drop(fs::set_permissions(from, mode));
                }
                _ => {
                    fs::write(from, self.random.number().to_string()).unwrap();
                    self.written.insert([b"/", &path[..]].concat());
                }
            }
            used.extend([path, other]);
        }
    }
}

/// Returns the entries of the whole log, by batch.
fn batches(dir: &Dir) -> Vec<Vec<LogEntry>> {
    let output = ctl(dir, &["log", "-json"]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let entries = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut batches: Vec<Vec<LogEntry>> = Vec::new();
    for entry in entries {
        let entry: LogEntry = entry;
        match batches.last_mut() {
            Some(batch) if batch[0].time == entry.time => batch.push(entry),
            _ => batches.push(vec![entry]),
        }
    }
    batches
}

/// Returns the names of files in the list of a call, with one leading slash. The directories that
/// contain them may be listed as well.
fn listed(call: &Call) -> Vec<Vec<u8>> {
    let names = call.stdin.split(|&byte| byte == 0);
    let names = names.map(|name| match name.strip_prefix(b"/./") {
        Some(rest) => [b"/", rest].concat(),
        None => name.to_vec(),
    });
    let is_directory = |name: &[u8]| name.ends_with(b"/") || matches!(name, b"/d1" | b"/d2");
    let files = names.filter(|name| !name.is_empty() && !is_directory(name));
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

/// Returns a name as rsync prints it in a message.
fn in_message(name: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for &byte in name {
        match byte {
            0..=0x1f | 0x7f.. => text.extend(format!("\\#{byte:03o}").bytes()),
            _ => text.push(byte),
        }
    }
    text
}

/// Makes the next call fail at these paths, and later ones succeed.
fn fail_next(dir: &Dir, fake: &Fake<'_>, paths: &BTreeSet<Vec<u8>>) {
    let next = fake.calls().len() + 1;
    let mut lines = Vec::new();
    for path in paths {
        let whole = [dir.path("trg").as_os_str().as_bytes(), path].concat();
        let name = in_message(&whole);
        lines.extend([&b"rsync: [receiver] open \""[..], &name, b"\" failed: "].concat());
        lines.extend(b"Permission denied (13)\n");
    }
    lines.extend(b"rsync error: some files/attrs were not transferred (see previous errors) ");
    lines.extend(b"(code 23) at main.c(1338) [sender=3.2.7]\n");
    dir.put(&format!("fake/say.{next}"), lines);
    let mut codes = vec![0; next - 1];
    codes.extend([23, 0]);
    fake.exits(&codes);
}

/// Asserts that the log of a batch is what its call was told to do.
fn assert_batch(dir: &Dir, call: &Call, batch: &[LogEntry], failing: &BTreeSet<Vec<u8>>) {
    let mut told: Vec<_> = batch.iter().map(|entry| unescape(&entry.path)).collect();
    told.sort();
    assert_eq!(told, listed(call), "{batch:?}");
    for entry in batch {
        let path = unescape(&entry.path);
        let exists = fs::symlink_metadata(dir.src(&path[1..])).is_ok();
        match entry.operation.as_str() {
            "failed" => {
                assert!(failing.contains(&path), "{entry:?}");
                let reason = entry.reason.as_deref().unwrap_or_default();
                assert!(reason.contains("Permission denied (13)"), "{entry:?}");
                assert_eq!(entry.code, 23);
            }
            "deleted" => assert!(!exists, "{entry:?}"),
            "sent" | "attributes" => assert!(exists && !failing.contains(&path), "{entry:?}"),
            other => panic!("{other}: {entry:?}"),
        }
        assert_eq!(entry.to, None);
    }
}

/// The argument shows which kind of list the calls read.
fn random_changes_are_logged(list: &str, argument: &str) {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    for directory in ["d1", "d2"] {
        dir.mkdir(directory);
    }
    let config = format!(
        r#"{SETTINGS}
sync{{
    default.rsync, name = "one", source = "@SRC@", target = "@TRG@", delay = 0.2,
    rsync = {{ {list} }},
}}"#
    );
    let mut daemon = Daemon::new(&dir, &config).fake_first().start_and_settle();
    daemon.wait_for("the startup ends", |_| fake.ended() >= 1);
    let mut changes = Changes {
        dir: &dir,
        random: Random::new(seed()),
        written: BTreeSet::new(),
    };
    let (mut seen, mut operations) = (1, BTreeMap::new());
    for _ in 0..ROUNDS {
        // All changes of a round are one batch.
        daemon.stop();
        changes.burst();
        let failing: BTreeSet<_> = changes.written.iter().take(2).cloned().collect();
        if !failing.is_empty() && changes.random.below(2) == 0 {
            fail_next(&dir, &fake, &failing);
        }
        daemon.cont();
        done(&dir, &["status", "-wait"]);
        wait_state(&dir, &mut daemon, State::Current);

        let (calls, batches) = (fake.calls(), batches(&dir));
        assert_eq!(batches.len(), calls.len(), "{}", daemon.log());
        for (call, batch) in calls.iter().zip(&batches).skip(seen) {
            assert!(call.has(argument), "{:?}", call.argv);
            let code = batch[0].code;
            let empty = BTreeSet::new();
            let failing = if code == 0 { &empty } else { &failing };
            assert_batch(&dir, call, batch, failing);
            for entry in batch {
                *operations.entry(entry.operation.clone()).or_insert(0) += 1;
            }
        }
        seen = calls.len();
    }
    eprintln!("{operations:?}");
    // The numbers are consecutive.
    let numbers = batches(&dir).concat().into_iter().map(|entry| entry.number);
    let numbers: Vec<u64> = numbers.collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    daemon.terminate();
}

#[test]
fn random_changes_are_logged_as_a_list_of_files_says() {
    random_changes_are_logged("list = \"files-from\"", "--files-from=-");
}

#[test]
fn random_changes_are_logged_as_an_include_list_says() {
    random_changes_are_logged("list = \"filter\"", "--include-from=-");
}
