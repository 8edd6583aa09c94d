//! The entries of the fuzzers: one function for each parser of external input. None may panic or
//! take long for any input.

use std::cell::RefCell;
use std::fmt::Write;
use std::path::PathBuf;
use std::rc::Rc;

use lsyncd::batch::output::{RsyncTotals, progress};
use lsyncd::cli;
use lsyncd::control::protocol::Request;
use lsyncd::cron::Crontab;
use lsyncd::filter::{Filter, parse_exclude_file, parse_filter_file};
use lsyncd::process::Children;
use lsyncd::script::{Environment, Script};
use lsyncd::sync::Clock;

/// Records of inotify(7).
pub fn inotify(bytes: &[u8]) {
    let events = lsyncd::watch::count_records(bytes);
    assert!(events <= bytes.len() / 16);
}

/// Records of fanotify(7).
pub fn fanotify(bytes: &[u8]) {
    let events = lsyncd::watch::count_fanotify_records(bytes);
    assert!(events <= bytes.len() / 24);
}

/// A file of filter rules, then the rules against the file's own lines as paths.
pub fn filter(bytes: &[u8]) {
    let mut filter = Filter::default();
    for rule in parse_filter_file(bytes).unwrap_or_default() {
        // An invalid rule is an error.
        let _ = filter.append_rule(&rule);
    }
    ask(&filter, bytes);
}

/// A file of excludes, then its lines as paths.
pub fn excludes(bytes: &[u8]) {
    let mut filter = Filter::default();
    for pattern in parse_exclude_file(bytes) {
        filter.add_exclude(pattern);
    }
    ask(&filter, bytes);
}

fn ask(filter: &Filter, bytes: &[u8]) {
    for line in bytes.split(|&byte| byte == b'\n' || byte == 0).take(50) {
        let path = [b"/", line].concat();
        filter.excluded(&path);
        filter.excluded(&[path.as_slice(), b"/"].concat());
    }
    filter.rsync_input();
}

/// A rule of a crontab, and its next times.
pub fn crontab(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut crontab = Crontab::new(|_| 0);
    if crontab.add(&text).is_ok() {
        crontab.is_due(1_700_000_000);
        crontab.next();
    }
}

/// A request of the control socket. A valid request is valid again after it was written.
pub fn requests(bytes: &[u8]) {
    if let Ok(verb) = Request::parse(bytes) {
        let line = Request::new(verb.clone()).line();
        assert_eq!(Request::parse(&line), Ok(verb));
    }
}

/// Output of rsync.
pub fn output(bytes: &[u8]) {
    let mut totals = RsyncTotals::default();
    for line in bytes.split(|&byte| byte == b'\n') {
        totals.take(line);
        if let Some(progress) = progress(line) {
            assert!(progress.percent <= 100);
        }
    }
}

/// A configuration. The bytes select keys and values and are not Lua code: a fuzzer would find
/// `os.remove`.
pub fn config(bytes: &[u8]) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("config.lua");
    let text = lua(bytes, &directory.path().display().to_string());
    std::fs::write(&path, text).expect("configuration");
    let Ok(cli::Invocation::Run(options)) = cli::parse([path.into_os_string()]) else {
        panic!("a file's name is a configuration");
    };
    let environment = Environment {
        options: *options,
        directory: PathBuf::from("/"),
    };
    let poll = mio::Poll::new().expect("poll");
    let registry = poll.registry().try_clone().expect("registry");
    let children = Rc::new(RefCell::new(Children::new(registry, 16)));
    if let Ok(script) = Script::load(&environment, &children, Clock::start(), Vec::new()) {
        let _ = script.run();
    }
}

const KEYS: [&str; 32] = [
    "name",
    "delay",
    "delete",
    "exclude",
    "excludeFrom",
    "filter",
    "filterFrom",
    "target",
    "host",
    "targetdir",
    "rsync",
    "ssh",
    "maxProcesses",
    "maxDelays",
    "init",
    "action",
    "collect",
    "onCreate",
    "onMove",
    "onStartup",
    "exitcodes",
    "subdirs",
    "monitor",
    "checkgauge",
    "tunnel",
    "crontab",
    "binary",
    "_extra",
    "archive",
    "chmod",
    "password_file",
    "unknown",
];
const SETTINGS: [&str; 10] = [
    "maxDelays",
    "maxProcesses",
    "statusInterval",
    "stopTimeout",
    "hup",
    "inotifyMode",
    "insist",
    "logfacility",
    "statusFile",
    "pidfile",
];

/// Returns a table of settings and a sync that the bytes select.
fn lua(bytes: &[u8], source: &str) -> String {
    let mut bytes = bytes.iter().copied();
    let kinds = ["rsync", "rsyncssh", "direct"];
    let kind = kinds[usize::from(bytes.next().unwrap_or(0)) % kinds.len()];
    let mut text = String::from("settings{");
    entries(&mut text, &mut bytes, &SETTINGS, 0);
    let _ = write!(text, "}}\nsync{{ default.{kind}, source = \"{source}\",");
    entries(&mut text, &mut bytes, &KEYS, 0);
    text.push('}');
    text
}

fn entries(text: &mut String, bytes: &mut impl Iterator<Item = u8>, keys: &[&str], depth: usize) {
    let count = bytes.next().unwrap_or(0) % 6;
    for _ in 0..count {
        let Some(key) = bytes.next() else { return };
        if key >= 250 {
            let _ = write!(text, "[{key}] = ");
        } else {
            let _ = write!(text, "[\"{}\"] = ", keys[usize::from(key) % keys.len()]);
        }
        value(text, bytes, depth);
        text.push(',');
    }
}

fn value(text: &mut String, bytes: &mut impl Iterator<Item = u8>, depth: usize) {
    match bytes.next().unwrap_or(0) % 10 {
        0 => text.push_str("nil"),
        1 => text.push_str("true"),
        2 => text.push_str("false"),
        3 => drop(write!(text, "{}", bytes.next().unwrap_or(0))),
        4 => text.push_str(
            ["-1", "0.5", "1e300", "0/0", "1/0", "math.mininteger"]
                [usize::from(bytes.next().unwrap_or(0)) % 6],
        ),
        5 => text.push_str("function() end"),
        6 if depth < 3 => {
            text.push('{');
            entries(text, bytes, &KEYS, depth + 1);
            text.push('}');
        }
        _ => {
            text.push('"');
            let length = bytes.next().unwrap_or(0) % 24;
            for byte in bytes.take(length.into()) {
                let _ = write!(text, "\\{byte:03}");
            }
            text.push('"');
        }
    }
}
