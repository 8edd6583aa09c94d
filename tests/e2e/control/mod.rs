//! The control socket, `lsyncdctl`, metrics and hooks, for a daemon that is starting, busy, without
//! connection, paused or idle.
//!
//! | file | what it is about |
//! |---|---|
//! | status | `lsyncdctl status` in each state of a daemon |
//! | commands | each command of lsyncdctl |
//! | explain | `lsyncdctl explain` |
//! | waiting | `-wait` returns when the target is current, and not before |
//! | drift | drift of each kind, planted at a target |
//! | verify | differences are reported, running changes are not |
//! | verify_targets | each kind of drift at each kind of target |
//! | verify_details | the details of a report, and the progress on a terminal |
//! | reports | the kept reports of `verify` |
//! | small_target | what is said of a file that does not fit at the target |
//! | json | `-json` of each command |
//! | socket | who may connect, and invalid requests |
//! | metrics | metrics, page and report files |
//! | transfer_log | `lsyncdctl log` |
//! | log_random | `lsyncdctl log` after random changes |
//! | hooks | `onSynced` and `onFailed` |

mod commands;
mod drift;
mod explain;
mod hooks;
mod json;
mod log_random;
mod metrics;
mod reports;
mod small_target;
mod socket;
mod status;
mod transfer_log;
mod verify;
mod verify_details;
mod verify_targets;
mod waiting;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{Dir, limit, poll};
use crate::support::fake::Fake;
use crate::support::tree;
use lsyncd::control::protocol::Request;
use lsyncd::control::protocol::Verb;
use lsyncd::status::snapshot::Snapshot;
use lsyncd::status::state::Severity;
use lsyncd::status::state::State;
use nix::sys::signal::Signal;

const SETTINGS: &str = r#"settings{ controlSocket = "@DIR@/sock" }"#;

/// Returns a configuration with one sync `one`, which uses the stand-in.
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
    let words: Vec<String> = words.iter().map(|word| dir.expand(word)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    dir.ctl(&words)
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
    daemon.wait_for("the socket is there", |_| dir.answers());
}

/// Returns a port on which nobody listens now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Returns the head and the body of the answer.
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
