//! `lsyncdctl log`, compared with the calls of a recording rsync.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::*;
use lsyncd::history::LogEntry;
use lsyncd::log::unescape;

/// Returns the entries that `lsyncdctl log -json` prints.
fn entries(dir: &Dir, words: &[&str]) -> Vec<LogEntry> {
    let output = ctl(dir, &[&["log", "-json"], words].concat());
    assert_eq!(code(&output), 0, "{}", text(&output));
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let entry = |line| serde_json::from_str(line).expect("one object a line");
    text.lines().map(entry).collect()
}

/// Returns operation and path of each entry. A new file can be sent twice, as it is created and as
/// it is closed; this is one here.
fn told(dir: &Dir, words: &[&str]) -> Vec<(String, String)> {
    let entries = entries(dir, words).into_iter();
    let mut told: Vec<_> = entries.map(|entry| (entry.operation, entry.path)).collect();
    told.dedup();
    told
}

fn pair(operation: &str, path: &str) -> (String, String) {
    (operation.into(), path.into())
}

fn flushed(dir: &Dir, daemon: &mut Running<'_>) {
    done(dir, &["flush"]);
    done(dir, &["status", "-wait"]);
    wait_state(dir, daemon, State::Current);
}

/// Names that are not UTF-8, contain newlines, or look like escapes, options or JSON.
const HOSTILE: [&[u8]; 6] = [
    b"a\nb",
    b"\xff\xfe",
    b"\\101",
    b"-x \"q\"",
    b"\x1bc",
    "\u{202e}".as_bytes(),
];

#[test]
fn the_log_names_what_a_recording_rsync_saw() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    dir.write("old", "x");
    dir.write("from", "x");
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    for name in HOSTILE {
        fs::write(dir.path("src").join(OsStr::from_bytes(name)), "x").unwrap();
    }
    fs::remove_file(dir.path("src/old")).unwrap();
    flushed(&dir, &mut daemon);
    fs::rename(dir.path("src/from"), dir.path("src/to")).unwrap();
    flushed(&dir, &mut daemon);

    let listed = fake.calls().into_iter().flat_map(|call| {
        let names = call.stdin.split(|&byte| byte == 0).map(<[u8]>::to_vec);
        names.collect::<Vec<_>>()
    });
    // The list contains the parent directories as well.
    let listed: BTreeSet<Vec<u8>> = listed
        .filter(|name| !name.is_empty() && !name.ends_with(b"/"))
        .collect();
    let all = entries(&dir, &[]);
    let named = all.iter().map(|entry| unescape(&entry.path));
    let named: BTreeSet<Vec<u8>> = named.filter(|path| !path.is_empty()).collect();
    assert_eq!(named, listed);

    let told = told(&dir, &[]);
    assert_eq!(told[0], pair("compared", ""));
    for expected in [
        pair("deleted", "/old"),
        pair("deleted", "/from"),
        pair("sent", "/to"),
    ] {
        assert!(told.contains(&expected), "{expected:?} {told:?}");
    }
    let numbers: Vec<u64> = all.iter().map(|entry| entry.number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert!(
        all.iter()
            .all(|entry| entry.sync == "one" && entry.code == 0)
    );
    assert!(all.iter().all(|entry| entry.target == dir.expand("@TRG@/")));

    // The text has one line for each entry and each name.
    let output = ctl(&dir, &["log"]);
    assert_eq!(
        output.stdout.iter().filter(|&&byte| byte == b'\n').count(),
        all.len()
    );
    assert!(!output.stdout.contains(&0x1b));
    assert!(entries(&dir, &["-since", "2100-01-01"]).is_empty());
}

#[test]
fn the_history_of_a_path_contains_transfers_and_failures() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    dir.write("f", "1");
    dir.write("other", "1");
    flushed(&dir, &mut daemon);
    fake.exits(&[12]);
    dir.write("f", "2");
    done(&dir, &["flush"]);
    wait_state(&dir, &mut daemon, State::Retrying);
    let expected = [
        pair("compared", ""),
        pair("sent", "/f"),
        pair("failed", "/f"),
    ];
    assert_eq!(told(&dir, &["one", "f"]), expected);
    assert_eq!(told(&dir, &["@SRC@/f"]), expected);
    assert_eq!(entries(&dir, &["one", "f"])[2].code, 12);
    let output = ctl(&dir, &["log", "one", "f"]);
    assert!(text(&output).contains("failed /f: "), "{}", text(&output));
    assert_eq!(code(&ctl(&dir, &["log", "/nowhere/f"])), 2);
}

#[test]
fn the_log_survives_a_kill_without_its_incomplete_record() {
    let dir = Dir::new();
    Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    dir.write("a", "1");
    flushed(&dir, &mut daemon);
    let before = entries(&dir, &[]);
    daemon.signal(Signal::SIGKILL);
    daemon.wait_end();
    let rings = glob(&dir, "log");
    assert_eq!(rings.len(), 1);
    assert_eq!(fs::metadata(&rings[0]).unwrap().mode() & 0o777, 0o600);
    let whole = fs::read(&rings[0]).unwrap();
    let mark = whole.windows(4).rposition(|part| part == b"\xffLR1");
    let torn = &whole[mark.unwrap()..whole.len() - 1];
    fs::write(&rings[0], [&whole, torn].concat()).unwrap();

    let mut daemon = Daemon::new(&dir, &one("")).start();
    wait_socket(&dir, &mut daemon);
    wait_state(&dir, &mut daemon, State::Current);
    dir.write("b", "1");
    flushed(&dir, &mut daemon);
    let after = entries(&dir, &[]);
    assert_eq!(after[..before.len()], before[..]);
    assert!(after.iter().any(|entry| entry.path == "/b"));
    // The numbers continue after the last complete record.
    assert!(after.windows(2).all(|pair| pair[0].number < pair[1].number));
}

/// Returns the files of this name in the state directories.
fn glob(dir: &Dir, name: &str) -> Vec<PathBuf> {
    let found = fs::read_dir(dir.path("state")).into_iter().flatten();
    let found = found.map(|entry| entry.unwrap().path().join(name));
    found.filter(|path| path.exists()).collect()
}

#[test]
fn the_log_is_limited_and_can_be_disabled() {
    let dir = Dir::new();
    Fake::new(&dir);
    let with = |settings: &str| one("").replace("settings{", &format!("settings{{ {settings},"));
    let small = with("transferLogSize = 4096 / 1048576");
    let mut daemon = Daemon::new(&dir, &small).start_and_settle();
    for round in 0..6 {
        for number in 0..10 {
            dir.write(format!("{round}-{number}-{}", "x".repeat(60)), "");
        }
        flushed(&dir, &mut daemon);
    }
    // The files are complete after a query: their thread may write after the transfer has ended.
    let kept = entries(&dir, &[]);
    let files = [glob(&dir, "log"), glob(&dir, "log.old")].concat();
    assert_eq!(files.len(), 2);
    for file in &files {
        assert!(fs::metadata(file).unwrap().len() <= 2048);
    }
    assert!(!kept.iter().any(|entry| entry.path.starts_with("/0-")));
    // A file can be sent twice, as it is created and as it is closed.
    let paths = kept.iter().map(|entry| &entry.path);
    let last: BTreeSet<_> = paths.filter(|path| path.starts_with("/5-")).collect();
    assert_eq!(last.len(), 10);

    dir.put("config.lua", dir.expand(&with("transferLogSize = 0")));
    done(&dir, &["reload"]);
    dir.write("unlogged", "");
    flushed(&dir, &mut daemon);
    assert_eq!(entries(&dir, &[]), kept);
}

#[test]
fn without_a_state_directory_the_log_is_in_memory() {
    let dir = Dir::new();
    Fake::new(&dir);
    let config = one("").replace("settings{", "settings{ stateDir = \"/proc/none\",");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    dir.write("f", "1");
    flushed(&dir, &mut daemon);
    assert_eq!(
        told(&dir, &["one", "f"]),
        [pair("compared", ""), pair("sent", "/f")]
    );
    assert!(!dir.path("state").exists());
}

#[test]
fn follow_prints_new_entries() {
    let dir = Dir::new();
    Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    let mut follower = command(&dir, &["log", "-follow", "-json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap());
    // The first line shows that the client follows; files sent before may be listed or not.
    let mut line = String::new();
    let mut number = 0;
    while !line.contains("/now") {
        dir.write(format!("now{number}"), "1");
        number += 1;
        flushed(&dir, &mut daemon);
        if number > 1 {
            line.clear();
            lines.read_line(&mut line).unwrap();
        }
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn copies_of_the_daemon_itself_are_logged_with_moves_and_failures() {
    let dir = Dir::new();
    dir.write("a", "1");
    let config = format!(
        r#"{SETTINGS} sync{{ default.direct, name = "one", source = "@SRC@", target = "@TRG@", delay = 1 }}"#
    );
    let mut daemon = Daemon::new(&dir, &config).start();
    wait_socket(&dir, &mut daemon);
    wait_state(&dir, &mut daemon, State::Current);
    fs::rename(dir.path("src/a"), dir.path("src/b")).unwrap();
    flushed(&dir, &mut daemon);
    fs::remove_file(dir.path("src/b")).unwrap();
    flushed(&dir, &mut daemon);
    let expected = [
        pair("compared", ""),
        pair("moved", "/a"),
        pair("deleted", "/b"),
    ];
    assert_eq!(told(&dir, &[]), expected);
    assert_eq!(entries(&dir, &[])[1].to.as_deref(), Some("/b"));
}
