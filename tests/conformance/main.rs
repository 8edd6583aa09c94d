//! Cases of the behaviour of lsyncd: a configuration, changes, and the exact arguments and input of
//! each started program, log lines, files and exit codes.
//!
//! `cases/` contains those of this project. Facts recorded from lsyncd 2.3.1 are read from the
//! directory in `LSYNCD_GOLDEN`, or from `../shared/golden`; without it, that test is skipped. Both
//! have the same format:
//!
//! | member | |
//! |---|---|
//! | `config` | text of the configuration file; `@DIR@` is the work directory, `@SRC@` and `@TRG@` are `src` and `trg` in it, `@RSYNC@` and `@SSH@` recording stand-ins |
//! | `args` | words of the command line; the configuration is added at the end |
//! | `setup`, `script` | changes before the start, and while the daemon runs (see `World::operate`) |
//! | `expect` | what is compared (see `compare::outcome`) |
//! | `self_exit` | the daemon ends by itself; else it gets TERM |
//! | `daemon` | pid file of one that detaches |
//! | `quirk` | a defect of lsyncd that the case shows |
//!
//! `LSYNCD_CASES` selects cases by parts of their names, separated by blanks.

// clippy.toml allows these in test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod compare;
mod json;
mod world;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use json::Json;
use world::World;

/// Recorded facts that do not apply here, or only in part. A name that ends with `*` is a prefix.
/// `docs/differences.md` has the reasons.
const EXCEPTIONS: &[(&str, Holds, &str)] = &[
    (
        "direct-*",
        Holds::Files,
        "default.direct carries attributes over, and what it calls is its own affair",
    ),
    (
        "cli-direct",
        Holds::Files,
        "default.direct needs no rsync, and no cp",
    ),
    ("err-name-not-allowed", Holds::Not, "a sync may have a name"),
    (
        "err-rsyncssh-settings-maxprocesses",
        Holds::Not,
        "a global maxProcesses does not concern default.rsyncssh",
    ),
    ("ev-combine", Holds::Not, "reaches into inner objects"),
    (
        "exclude-patterns",
        Holds::Not,
        "reaches into inner objects; patterns are rsync's",
    ),
    (
        "exclude-patterns-events",
        Holds::Not,
        "patterns are rsync's, as tests/oracle/filter_rules.rs shows",
    ),
    (
        "ev-mode-both",
        Holds::Not,
        "two equal events that wait are one",
    ),
    (
        "daemon-startup-fails",
        Holds::Not,
        "the pid file goes with the daemon, however it ends",
    ),
];

/// The part of a case that applies.
#[derive(Clone, Copy, PartialEq)]
enum Holds {
    /// Its calls, texts, files and exit code.
    All,
    /// Its files and its exit code.
    Files,
    /// Nothing.
    Not,
}

struct Case {
    name: String,
    json: Json,
    holds: Holds,
}

#[test]
fn recorded_facts() {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/golden");
    let folder = std::env::var_os("LSYNCD_GOLDEN").map_or_else(|| beside.into(), PathBuf::from);
    if !folder.is_dir() {
        return skip("no recorded facts of lsyncd here (LSYNCD_GOLDEN names their directory)");
    }
    let cases = cases(&folder);
    assert!(!cases.is_empty(), "no cases in {}", folder.display());
    play(cases);
}

#[test]
fn own_cases() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/cases");
    play(cases(Path::new(folder)));
}

#[test]
fn exceptions_have_names_of_their_own() {
    for (at, (name, ..)) in EXCEPTIONS.iter().enumerate() {
        let first = EXCEPTIONS
            .iter()
            .position(|(pattern, ..)| is_of(name, pattern));
        assert_eq!(first, Some(at), "{name}");
    }
}

/// Returns the program under test.
pub fn binary() -> PathBuf {
    std::env::var_os("LSYNCD_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_lsyncd").into(), PathBuf::from)
}

/// Returns the time after which a case gives up waiting.
pub fn limit() -> Duration {
    let seconds = std::env::var("LSYNCD_TEST_LIMIT").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(120))
}

/// Returns the selected cases of a directory by name.
fn cases(folder: &Path) -> Vec<Case> {
    let selection = std::env::var("LSYNCD_CASES").unwrap_or_default();
    let selected = |name: &str| {
        let mut parts = selection.split_whitespace().peekable();
        parts.peek().is_none() || parts.any(|part| name.contains(part))
    };
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder).expect("directory of cases").flatten() {
        let path = entry.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.extension().is_none_or(|end| end != "json") || !selected(&name) {
            continue;
        }
        let text = fs::read(&path).expect("case");
        let json = Json::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let holds = holds(&name, &json);
        cases.push(Case { name, json, holds });
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

fn holds(name: &str, json: &Json) -> Holds {
    if json.get("quirk").is_some() {
        return Holds::Not;
    }
    let exception = EXCEPTIONS.iter().find(|(pattern, ..)| is_of(name, pattern));
    exception.map_or(Holds::All, |(_, holds, _)| *holds)
}

fn is_of(name: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    }
}

/// Runs all cases, several at the same time.
///
/// They have the delays of the recording, and changes of one batch may become two on a busy
/// machine. A failed case is therefore tried twice more by itself.
fn play(cases: Vec<Case>) {
    let total = cases.len();
    let (bound, free): (Vec<_>, Vec<_>) =
        cases.into_iter().partition(|case| case.holds != Holds::Not);
    let files = bound
        .iter()
        .filter(|case| case.holds == Holds::Files)
        .count();
    println!(
        "{total} cases, {} of them exceptions, {files} for their files only",
        free.len()
    );

    let queue = Mutex::new(VecDeque::from(bound));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..side_by_side() {
            scope.spawn(|| {
                let next = || queue.lock().unwrap().pop_front();
                while let Some(case) = next() {
                    if !try_case(&case).is_empty() {
                        failed.lock().unwrap().push(case);
                    }
                }
            });
        }
    });
    let mut report = String::new();
    for case in failed.into_inner().unwrap() {
        let wrong = (0..2).map(|_| try_case(&case));
        let wrong = wrong.take_while(|wrong| !wrong.is_empty()).nth(1);
        let outcome = if wrong.is_some() { "failed" } else { "passed" };
        println!(
            "{}: failed among others, was run again alone: {outcome}",
            case.name
        );
        if let Some(wrong) = wrong {
            report += &format!("{}\n    {}\n", case.name, wrong.join("\n    "));
        }
    }
    assert!(report.is_empty(), "not as expected:\n{report}");
}

/// Returns the number of cases at the same time; a case mostly waits.
fn side_by_side() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * processors).clamp(2, 6)
}

/// Returns the differences.
fn try_case(case: &Case) -> Vec<String> {
    let files = case.holds == Holds::Files;
    let outcome = World::new(&case.json, files)
        .map_err(|error| error.to_string())
        .and_then(World::run);
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return vec![error],
    };
    let expect = case.json.get("expect").unwrap_or(&Json::Null);
    let mut wrong = compare::outcome(expect, &outcome, files);
    if !wrong.is_empty() {
        let said = outcome.texts[..3].concat();
        let said = String::from_utf8_lossy(&said).replace('\n', "\n    | ");
        wrong.push(format!("it said\n    | {said}"));
    }
    wrong
}

/// Reports a test as skipped.
fn skip(reason: &str) {
    let line = format!("SKIPPED: conformance: {reason}\n");
    eprint!("{line}");
    if let Some(list) = std::env::var_os("LSYNCD_TEST_SKIPS") {
        let list = File::options().create(true).append(true).open(list);
        list.and_then(|mut list| list.write_all(line.as_bytes()))
            .expect("list of skipped tests");
    }
}
