//! The control socket, `lsyncdctl`, metrics and hooks, used on a daemon that is starting, busy,
//! cut off, paused and idle. Nothing here asserts how long something takes.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]
// The harness is shared with the tests in blackbox/ and has more than is needed here.
#![allow(dead_code)]

#[path = "blackbox/daemon.rs"]
mod daemon;
#[path = "blackbox/fake.rs"]
mod fake;
#[path = "blackbox/tree.rs"]
mod tree;
#[path = "blackbox/util.rs"]
mod util;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use daemon::{Daemon, Running};
use fake::Fake;
use lsyncd::report::control::{Request, Verb};
use lsyncd::report::snapshot::{Severity, Snapshot, State};
use nix::sys::signal::Signal;
use util::{Dir, limit, poll};

const SETTINGS: &str = r#"settings{ controlSocket = "@DIR@/sock" }"#;

/// One sync with the stand-in, called `one`.
fn one(more: &str) -> String {
    format!(
        r#"{SETTINGS}
sync{{
    default.rsync, name = "one", source = "@SRC@", target = "@TRG@", delay = 1,
    rsync = {{ binary = "@RSYNC@" }}, {more}
}}"#
    )
}

fn ctl(dir: &Dir, words: &[&str]) -> Output {
    command(dir, words).output().expect("lsyncdctl")
}

fn command(dir: &Dir, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lsyncdctl"));
    let words = words.iter().map(|word| dir.expand(word));
    command
        .arg("-socket")
        .arg(dir.path("sock"))
        .args(words)
        .stdin(Stdio::null());
    command
}

fn start_ctl(dir: &Dir, words: &[&str]) -> Child {
    command(dir, words)
        .stdout(Stdio::null())
        .spawn()
        .expect("lsyncdctl")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("exit code")
}

fn text(output: &Output) -> String {
    let bytes = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn done(dir: &Dir, words: &[&str]) {
    let output = ctl(dir, words);
    assert_eq!(code(&output), 0, "{words:?}: {}", text(&output));
}

fn status(dir: &Dir) -> Snapshot {
    let output = ctl(dir, &["status", "-json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)))
}

fn wait_state(dir: &Dir, daemon: &mut Running<'_>, state: State) -> Snapshot {
    let mut last = Snapshot::default();
    daemon.wait_for(&format!("the sync is {}", state.name()), |_| {
        last = status(dir);
        last.syncs[0].state == state
    });
    last
}

fn wait_socket(dir: &Dir, daemon: &mut Running<'_>) {
    daemon.wait_for("the socket is there", |_| dir.path("sock").exists());
}

// ---- status

#[test]
fn a_sync_is_starting_current_pending_sending() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.hold();
    let mut daemon = Daemon::new(&dir, &one("")).start();
    wait_socket(&dir, &mut daemon);
    let starting = wait_state(&dir, &mut daemon, State::Starting);
    assert_eq!(starting.severity, Severity::Behind);
    assert_eq!(code(&ctl(&dir, &["status"])), 1);

    fake.release();
    wait_state(&dir, &mut daemon, State::Current);
    let shown = ctl(&dir, &["status", "one"]);
    assert_eq!(code(&shown), 0);
    assert!(text(&shown).starts_with("lsyncd CURRENT: 1 sync, "));

    fake.hold();
    dir.write("f\n1", "x");
    let sending = wait_state(&dir, &mut daemon, State::Sending);
    let child = &sending.syncs[0].sending[0];
    assert_eq!((child.entries, child.full), (1, false));
    assert_eq!(child.paths, ["/f\\0121"]);
    dir.write("g", "x");
    daemon.wait_for("more is pending", |_| status(&dir).syncs[0].pending == 2);
    let entries = &status(&dir).syncs[0].queue;
    assert_eq!(
        (entries[0].status.as_str(), entries[1].path.as_str()),
        ("active", "/g")
    );

    fake.release();
    let current = wait_state(&dir, &mut daemon, State::Current);
    let totals = &current.syncs[0].totals;
    assert!(
        totals.batches >= 3 && totals.entries >= 3 && totals.events >= 2,
        "{totals:?}"
    );
    assert!(current.syncs[0].last_success.is_some());
}

#[test]
fn a_target_that_is_cut_off_is_trouble_until_it_is_back() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    fake.exits(&[0, 12]);
    dir.write("f", "x");
    let cut = wait_state(&dir, &mut daemon, State::Retrying);
    assert_eq!(cut.severity, Severity::Trouble);
    let sync = &cut.syncs[0];
    assert_eq!(sync.totals.failures.get(&12), Some(&1), "{sync:?}");
    assert!(sync.detail.starts_with("retrying in "), "{}", sync.detail);
    assert_eq!(sync.last_error.as_ref().map(|error| error.code), Some(12));
    assert_eq!(code(&ctl(&dir, &["status"])), 2);

    fake.exits(&[0]);
    done(&dir, &["retry"]);
    wait_state(&dir, &mut daemon, State::Current);
    assert_eq!(code(&ctl(&dir, &["status"])), 0);
}

#[test]
fn paths_left_undone_are_named() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    fake.exits(&[0, 23]);
    dir.write("left", "x");
    daemon.wait_for("it is named", |_| {
        status(&dir).syncs[0].failed_paths == ["/left"]
    });
    assert_eq!(status(&dir).severity, Severity::Trouble);
    fake.exits(&[0]);
    done(&dir, &["retry"]);
    wait_state(&dir, &mut daemon, State::Current);
}

#[test]
fn a_source_that_is_gone_is_told() {
    let dir = Dir::new();
    Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    fs::rename(dir.path("src"), dir.path("away")).unwrap();
    let lost = wait_state(&dir, &mut daemon, State::SourceLost);
    assert_eq!(lost.severity, Severity::Trouble);
    assert_eq!(code(&ctl(&dir, &["status"])), 2);
}

#[test]
fn without_a_daemon_the_exit_code_is_3_and_misuse_is_4() {
    let dir = Dir::new();
    assert_eq!(code(&ctl(&dir, &["status"])), 3);
    assert_eq!(code(&ctl(&dir, &["pause"])), 3);
    assert_eq!(code(&ctl(&dir, &["explode"])), 4);
    let help = ctl(&dir, &["-help"]);
    assert!(code(&help) == 0 && text(&help).contains("resync [PATH]"));
}

// ---- orders

#[test]
fn a_paused_sync_queues_and_starts_nothing() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    done(&dir, &["pause", "one"]);
    dir.write("f", "x");
    daemon.wait_for("it is queued", |_| status(&dir).syncs[0].pending == 1);
    done(&dir, &["flush"]);
    let paused = status(&dir);
    assert_eq!(paused.syncs[0].state, State::Paused);
    assert_eq!((paused.severity, fake.ended()), (Severity::Behind, 1));
    done(&dir, &["resume"]);
    wait_state(&dir, &mut daemon, State::Current);
    assert_eq!(fake.ended(), 2);
}

#[test]
fn flush_and_usr1_end_the_delay_of_what_waits() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let config = one("").replace("delay = 1", "delay = 86400");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    for (calls, by_signal) in [(2, false), (3, true)] {
        dir.write(format!("f{calls}"), "x");
        daemon.wait_for("it is queued", |_| status(&dir).syncs[0].pending == 1);
        match by_signal {
            true => daemon.signal(Signal::SIGUSR1),
            false => done(&dir, &["flush", "one"]),
        }
        daemon.wait_for("it is sent", |_| fake.ended() == calls);
    }
}

#[test]
fn resync_compares_everything_or_a_path() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    dir.mkdir("d");
    dir.write("d/a", "x");
    dir.write("b", "x");
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    done(&dir, &["resync", "one"]);
    daemon.wait_for("all is compared", |_| fake.ended() == 2);
    assert!(fake.calls()[1].has("-r"));

    done(&dir, &["resync", "@SRC@/d"]);
    daemon.wait_for("the directory is sent", |_| fake.ended() == 3);
    let call = &fake.calls()[2];
    assert!(call.lists("d/a") || call.lists("/d/a"), "{:?}", call.argv);
    assert!(!call.lists("/b"));

    done(&dir, &["resync", "one", "b"]);
    daemon.wait_for("the file is sent", |_| fake.ended() == 4);
    assert!(fake.calls()[3].lists("/b"));

    for words in [
        &["resync", "/nowhere/f"][..],
        &["resync", "one", "../x"],
        &["resync", "none", "b"],
        &["pause", "none"],
    ] {
        assert_eq!(code(&ctl(&dir, words)), 2, "{words:?}");
    }
}

#[test]
fn reload_reads_the_configuration_again() {
    let dir = Dir::new();
    Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    let renamed = one("").replace("\"one\"", "\"other\"");
    dir.put("config.lua", dir.expand(&renamed));
    done(&dir, &["reload"]);
    daemon.wait_for("the sync has its new name", |_| {
        code(&ctl(&dir, &["status", "other"])) == 0
    });
}

#[test]
fn log_level_takes_the_words_of_the_option() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    done(&dir, &["log-level", "Exec"]);
    dir.write("f", "x");
    daemon.wait_log("Exec: @RSYNC@ ");
    daemon.wait_for("it is sent", |_| fake.ended() == 2);
    assert_eq!(code(&ctl(&dir, &["log-level", "bad"])), 2);
    done(&dir, &["log-level"]);
}

#[test]
fn usr2_dumps_the_state_into_the_log() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    fake.hold();
    dir.write("f", "x");
    wait_state(&dir, &mut daemon, State::Sending);
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_log("--- end of the state dump ---");
    let log = daemon.log();
    assert!(log.contains("state: one: active Create /f\n"), "{log}");
    fake.release();
}

// ---- waiting

/// Lets a stopped daemon go on, with a request to wait that is there before it has read a
/// single event. The answer.
fn continue_with_wait(dir: &Dir, daemon: &Running<'_>) -> String {
    let mut stream = UnixStream::connect(dir.path("sock")).expect("a place in the backlog");
    let request = Request::new(Verb::Wait { sync: None }).line();
    stream.write_all(&request).expect("room for a line");
    daemon.cont();
    let mut answer = String::new();
    let mut stream = BufReader::new(stream);
    stream.read_line(&mut answer).expect("answer");
    answer
}

/// What was written before the call is at the target when it returns, however much the daemon
/// has to catch up with: it is stopped while the files are made.
#[test]
fn wait_returns_when_all_that_was_written_is_there() {
    let dir = Dir::new();
    let config = one("").replace("binary = \"@RSYNC@\"", "archive = true");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    for round in 0..6 {
        daemon.stop();
        for n in 0..60 {
            dir.mkdir(format!("r{round}/d{}/e{n}", n % 7));
            dir.write(
                format!("r{round}/d{}/e{n}/f", n % 7),
                format!("{round} {n}"),
            );
        }
        if round > 0 {
            let (from, to) = (format!("r{}", round - 1), format!("m{}", round - 1));
            dir.mv(from, to);
            dir.write(format!("m{}/d0/e0/f", round - 1), "later");
        }
        if round > 1 {
            dir.rm(format!("m{}", round - 2));
        }
        let answer = continue_with_wait(&dir, &daemon);
        let difference =
            tree::difference(&tree::read(&dir.path("src")), &tree::read(&dir.path("trg")));
        assert!(
            answer.contains("\"ok\":true") && difference.is_empty(),
            "round {round}\n{difference}"
        );
    }
    assert!(!daemon.has_ended());
}

/// What leaves the source is half a rename whose other half never comes; the daemon waits for
/// it a little.
#[test]
fn wait_returns_when_what_was_moved_away_is_gone() {
    let dir = Dir::new();
    let config = one("").replace("binary = \"@RSYNC@\"", "archive = true");
    let config = config.replace("delay = 1", "delay = 0");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    for round in 0..6 {
        dir.write("leaves", "x");
        done(&dir, &["status", "-wait"]);
        assert!(dir.trg("leaves").exists(), "round {round}");
        daemon.stop();
        fs::rename(dir.src("leaves"), dir.path(format!("left{round}"))).expect("mv");
        continue_with_wait(&dir, &daemon);
        assert!(!dir.trg("leaves").exists(), "round {round}");
    }
    assert!(!daemon.has_ended());
}

/// With changes going on all the time, those of before the call arrive and the call returns.
#[test]
fn wait_returns_while_others_go_on_writing() {
    let dir = Dir::new();
    let config = one("").replace("binary = \"@RSYNC@\"", "archive = true");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    let churn = dir.src("churn");
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            let mut n = 0u32;
            while matches!(
                stopped.try_recv(),
                Err(std::sync::mpsc::TryRecvError::Empty)
            ) {
                n += 1;
                fs::write(&churn, n.to_string()).expect("churn");
            }
        });
        for round in 0..3 {
            let name = format!("f{round}");
            dir.write(&name, &name);
            done(&dir, &["status", "-wait"]);
            assert_eq!(fs::read_to_string(dir.trg(&name)).ok(), Some(name));
        }
        drop(stop);
    });
    daemon.wait_equal();
}

#[test]
fn wait_waits_for_transfers_retries_and_the_startup() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    fake.hold();
    dir.write("early", "x");
    let mut daemon = Daemon::new(&dir, &one("")).start();
    wait_socket(&dir, &mut daemon);
    wait_state(&dir, &mut daemon, State::Starting);
    assert_eq!(code(&ctl(&dir, &["status", "-wait", "-timeout", "0.2"])), 1);
    fake.release();
    done(&dir, &["status", "-wait"]);
    assert!(dir.trg("early").exists());

    // It fails twice, and some of it is left undone once.
    fake.exits(&[0, 12, 23, 0]);
    dir.write("f", "x");
    done(&dir, &["status", "-wait"]);
    assert!(dir.trg("f").exists());
    assert!(fake.ended() >= 4);
}

#[test]
fn wait_goes_on_through_a_reload() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    fake.hold();
    dir.write("f", "x");
    wait_state(&dir, &mut daemon, State::Sending);
    let mut waiting = start_ctl(&dir, &["status", "-wait"]);
    done(&dir, &["reload"]);
    assert!(matches!(waiting.try_wait(), Ok(None)));
    fake.release();
    assert!(waiting.wait().expect("lsyncdctl ends").success());
    assert!(dir.trg("f").exists());
}

// ---- the socket

#[test]
fn the_socket_is_private_replaces_a_stale_one_and_goes_with_the_daemon() {
    let dir = Dir::new();
    Fake::new(&dir);
    drop(std::os::unix::net::UnixListener::bind(dir.path("sock")).unwrap());
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    let data = fs::symlink_metadata(dir.path("sock")).unwrap();
    assert!(data.file_type().is_socket());
    assert_eq!(data.mode() & 0o777, 0o600);

    let second = Daemon::bare(&dir)
        .args(&["-nodaemon", "@DIR@/config.lua"])
        .named("second")
        .run();
    assert!(
        second.stderr.contains("another daemon listens"),
        "{}",
        second.stderr
    );
    assert_eq!(code(&ctl(&dir, &["status"])), 0);
    daemon.terminate();
    assert!(!dir.path("sock").exists());
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let dir = Dir::new();
    Fake::new(&dir);
    dir.put("sock", "precious");
    let ended = Daemon::new(&dir, &one("")).run();
    assert!(ended.stderr.contains("no socket"), "{}", ended.stderr);
    assert_eq!(dir.text("sock"), "precious");
}

#[test]
fn beside_the_pid_file_without_being_asked_for() {
    let dir = Dir::new();
    Fake::new(&dir);
    let config = one("").replace(
        "controlSocket = \"@DIR@/sock\"",
        "pidfile = \"@DIR@/sync.pid\"",
    );
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    let answer = UnixStream::connect(dir.path("sync.sock"));
    assert!(answer.is_ok(), "{answer:?}");
    daemon.terminate();
}

fn pseudo_random(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Writes what the other side takes, and reads what it says until it hangs up or is silent.
fn shout(stream: &mut (impl Read + Write), bytes: &[u8]) {
    let _ = stream.write_all(bytes);
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer), Ok(1..)) {}
}

#[test]
fn nonsense_and_stalling_change_nothing() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let port = free_port();
    let listen = format!("controlSocket = \"@DIR@/sock\", metricsListen = \"127.0.0.1:{port}\"");
    let config = one("").replace("controlSocket = \"@DIR@/sock\"", &listen);
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    let brief = Some(Duration::from_millis(20));
    let mut stalled = Vec::new();
    for round in 0..150u64 {
        let mut bytes = pseudo_random(round, 1 << (round % 18));
        if round % 3 == 0 {
            bytes
                .iter_mut()
                .filter(|byte| **byte < 40)
                .for_each(|byte| *byte = b'\n');
        }
        if round % 5 == 0 {
            bytes = b"{\"v\":1,\"do\":\"status\",\"entries\":1000}\n".repeat(400);
        }
        let mut unix = UnixStream::connect(dir.path("sock")).expect("daemon listens");
        unix.set_read_timeout(brief).unwrap();
        unix.set_write_timeout(brief).unwrap();
        let mut tcp = TcpStream::connect(("127.0.0.1", port)).expect("daemon listens");
        tcp.set_read_timeout(brief).unwrap();
        tcp.set_write_timeout(brief).unwrap();
        match round % 4 {
            0 => {
                let _ = unix.write_all(&bytes);
                let _ = tcp.write_all(&bytes);
                stalled.push((unix, tcp));
            }
            1 => drop((unix, tcp)),
            _ => {
                shout(&mut unix, &bytes);
                shout(&mut tcp, &bytes);
            }
        }
    }
    assert_eq!(code(&ctl(&dir, &["status"])), 0);
    assert!(
        get(port, "/metrics")
            .1
            .contains("lsyncd_pending{sync=\"one\"} 0\n")
    );
    dir.write("f", "x");
    daemon.wait_for("it mirrors as ever", |_| fake.ended() == 2);
    assert!(!daemon.has_ended());
}

// ---- metrics and page

/// A port nobody listens on just now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The status line with the head, and the body.
fn get(port: u16, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("daemon listens");
    stream.set_read_timeout(Some(limit())).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(e) if e.kind() != ErrorKind::ConnectionReset => panic!("{e}"),
        _ => {}
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    (head.to_owned(), body.to_owned())
}

#[test]
fn metrics_page_and_health_over_http() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let port = free_port();
    let config = one("").replace(
        "controlSocket = \"@DIR@/sock\"",
        &format!("controlSocket = \"@DIR@/sock\", metricsListen = \"127.0.0.1:{port}\""),
    );
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    done(&dir, &["status", "-wait"]);
    let (head, body) = get(port, "/metrics");
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
    assert!(
        body.contains("lsyncd_batches_total{sync=\"one\"} 1\n"),
        "{body}"
    );
    assert!(
        body.contains("lsyncd_failures_total{sync=\"one\",code=\"12\"} 0\n"),
        "{body}"
    );
    assert!(get(port, "/").1.contains("<!DOCTYPE html>"));
    let json: Snapshot = serde_json::from_str(&get(port, "/status.json").1).unwrap();
    assert_eq!(json.syncs[0].name, "one");
    assert_eq!(get(port, "/healthz").1, "one: current\n");
    assert!(get(port, "/etc/passwd").0.starts_with("HTTP/1.0 404 "));

    fake.exits(&[0, 12]);
    dir.write("f", "x");
    wait_state(&dir, &mut daemon, State::Retrying);
    assert!(get(port, "/healthz").0.starts_with("HTTP/1.0 503 "));
}

#[test]
fn metrics_and_json_status_as_files() {
    let dir = Dir::new();
    Fake::new(&dir);
    let config = one("").replace(
        "controlSocket = \"@DIR@/sock\"",
        r#"metricsFile = "@DIR@/m.prom", statusFile = "@DIR@/status.json", statusInterval = 1"#,
    );
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    daemon.wait_for("both files tell of the startup", |_| {
        let json: Result<Snapshot, _> = serde_json::from_str(&dir.text("status.json"));
        json.is_ok_and(|status| status.syncs[0].totals.batches == 1)
            && dir
                .text("m.prom")
                .contains("lsyncd_batches_total{sync=\"one\"} 1\n")
    });
    // An idle daemon writes on, so that its age tells that it is alive.
    let inode = |name: &str| fs::metadata(dir.path(name)).map(|data| data.ino()).ok();
    let before = (inode("m.prom"), inode("status.json"));
    daemon.wait_for("they are written again", |_| {
        let now = (inode("m.prom"), inode("status.json"));
        now.0 != before.0 && now.1 != before.1
    });
}

// ---- hooks

fn hook_script(dir: &Dir, name: &str) -> String {
    let log: PathBuf = dir.path(name);
    format!(
        r#"{{ "/bin/sh", "-c", [[
            printf '%s %s %s %s ' "$LSYNCD_EVENT" "$LSYNCD_SYNC" "$LSYNCD_EXITCODE" "$LSYNCD_PATHS"
            tr '\0' ' '; echo
        ]] .. ">> {}" }}"#,
        log.display()
    )
    .replace("[[\n            printf", "[[ { printf")
    .replace("echo\n        ]]", "echo; } ]]")
}

#[test]
fn commands_are_told_what_became_of_batches() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let more = format!(
        "onSynced = {}, onFailed = {},",
        hook_script(&dir, "synced"),
        hook_script(&dir, "failed")
    );
    let mut daemon = Daemon::new(&dir, &one(&more)).start_and_settle();
    daemon.wait_for("the startup is told", |_| {
        dir.text("synced") == "synced one 0 0 \n"
    });
    fake.exits(&[0, 12, 12, 0]);
    dir.write("f", "x");
    daemon.wait_for("the failure is told", |_| {
        dir.text("failed") == "failed one 12 1 /f \n"
    });
    done(&dir, &["retry"]);
    daemon.wait_for("success is told", |_| {
        dir.text("synced").ends_with("\nsynced one 0 1 /f \n")
    });
    // The second failure of the row was no news.
    assert_eq!(dir.text("failed"), "failed one 12 1 /f \n");
}

#[test]
fn lua_functions_are_told_and_cannot_hurt() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let more = r#"
    onSynced = function(report)
        log("Normal", "synced " .. report.sync .. " " .. #report.paths)
        if #report.paths == 1 then error("oops") end
        if #report.paths == 2 then while true do end end
    end,"#;
    let mut daemon = Daemon::new(&dir, &one(more)).start_and_settle();
    daemon.wait_log("synced one 0");
    dir.write("f", "x");
    daemon.wait_log("oops");
    done(&dir, &["pause"]);
    dir.write("g", "x");
    dir.write("h", "x");
    daemon.wait_for("both are queued", |_| status(&dir).syncs[0].pending == 2);
    done(&dir, &["resume"]);
    daemon.wait_log("the hook takes too long");
    dir.write("i", "x");
    daemon.wait_for("it mirrors as ever", |_| fake.ended() == 4);
}

#[test]
fn a_hook_that_hangs_holds_nothing_up() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let more = r#"onSynced = { "/bin/sh", "-c", "while [ ! -e @DIR@/go ]; do sleep 0.05; done; echo $LSYNCD_BATCHES >> @DIR@/told" },"#;
    let mut daemon = Daemon::new(&dir, &one(more)).start_and_settle();
    for n in 2..5 {
        dir.write(format!("f{n}"), "x");
        daemon.wait_for("it is sent", |_| fake.ended() == n);
        wait_state(&dir, &mut daemon, State::Current);
    }
    dir.put("go", "");
    let told = poll(|| dir.text("told") == "1\n3\n");
    assert!(told, "{}", dir.text("told"));
}

#[test]
fn hooks_of_the_wrong_type_are_told() {
    let dir = Dir::new();
    Fake::new(&dir);
    let ended = Daemon::new(&dir, &one("onSynced = \"a text\",")).run();
    let expected = "onSynced must be a function or a list";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
}
