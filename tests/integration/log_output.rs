//! The output of the log: this program runs itself with `SCENE` set, and the test reads its
//! standard output, standard error and log file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::own_process::child;
use lsyncd::log::Channels;
use lsyncd::log::Facility;
use lsyncd::log::Selection;
use lsyncd::log::Syslog;
use lsyncd::log::enabled;
use lsyncd::log::error;
use lsyncd::log::install;
use lsyncd::log::normal;
use lsyncd::log::open;
use lsyncd::log::say;
use lsyncd::log::warn;

fn command(scene: &str, dir: &Path) -> Command {
    let mut command = child(module_path!(), "actor");
    command
        .current_dir(dir)
        .env_remove("RUST_LOG")
        .env("SCENE", scene)
        .env("TZ", "UTC");
    command
}

fn play(scene: &str, dir: &Path) -> Output {
    let output = command(scene, dir).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    output
}

/// Returns the output without the lines of the test harness.
fn stdout(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let ours = text.trim_start_matches("\nrunning 1 test\n");
    ours.trim_start_matches("test log_output::actor ... ")
        .to_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
#[ignore = "one of the processes the tests start"]
fn actor() {
    let Ok(scene) = std::env::var("SCENE") else {
        return;
    };
    match scene.as_str() {
        "before" => before(),
        "console" => console(),
        "modules" => modules(),
        "daemon" => daemon(),
        "rotated" => rotated(),
        "trouble" => trouble(),
        "full" => full(),
        "gone" => gone(),
        "threads" => threads(),
        "unopenable" => unopenable(),
        "syslog" => syslog(),
        _ => unreachable!(),
    }
    std::process::exit(0);
}

fn selection(words: &[&str]) -> Selection {
    let mut selection = Selection::default();
    words.iter().for_each(|word| selection.add(word).unwrap());
    selection
}

fn to_file(console: bool) -> Channels {
    Channels {
        console,
        file: Some(PathBuf::from("log")),
        syslog: None,
        json: false,
    }
}

fn before() {
    install(selection(&["Exec"]), None);
    normal("hello");
    say("Exec", "a command");
    say("Inotify", "hidden");
    error(format_args!("two {}", "lines\nhere"));
}

#[test]
fn before_the_start_messages_go_to_stderr() {
    let dir = tempfile::tempdir().unwrap();
    let output = play("before", dir.path());
    assert_eq!(stdout(&output), "");
    assert_eq!(
        stderr(&output),
        "Normal: hello\nExec: a command\nError: two lines\nhere\n"
    );
}

fn console() {
    install(selection(&["scarce"]), None);
    open(Channels {
        console: true,
        ..Channels::default()
    })
    .unwrap();
    normal("hidden");
    warn("careful");
    error("wrong");
    install(selection(&[]), None);
    assert!(enabled("Normal") && !enabled("Exec"));
    normal("shown\nwith two lines");
    install(selection(&["all"]), None);
    say("traceback", "shown as well");
}

#[test]
fn console_lines() {
    let dir = tempfile::tempdir().unwrap();
    let output = play("console", dir.path());
    let (out, err) = (stdout(&output), stderr(&output));
    let texts: Vec<_> = out.lines().map(|l| l.get(9..).unwrap_or(l)).collect();
    assert_eq!(texts[0], "Warn: careful");
    assert_eq!(texts[1], "Normal: shown");
    assert!(out.contains("Normal: shown\nwith two lines\n"));
    assert_eq!(texts[3], "traceback: shown as well");
    let clock = out.split(' ').next().unwrap();
    let shape: String = clock.replace(|c: char| c.is_ascii_digit(), "0");
    assert_eq!(shape, "00:00:00");
    assert_eq!(&err[8..], " Error: wrong\n");
}

fn modules() {
    install(selection(&[]), std::env::var("RUST_LOG").ok().as_deref());
    log::error!("of a module");
    log::debug!(target: "deep::down", "detail");
    normal("ours");
}

#[test]
fn records_of_modules_need_rust_log() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(stderr(&play("modules", dir.path())), "Normal: ours\n");

    let output = command("modules", dir.path())
        .env("RUST_LOG", "deep=debug")
        .output()
        .unwrap();
    assert_eq!(stderr(&output), "Debug: deep::down: detail\nNormal: ours\n");

    let output = command("modules", dir.path())
        .env("RUST_LOG", "error")
        .output()
        .unwrap();
    assert_eq!(
        stderr(&output),
        "Debug: integration::log_output: of a module\nNormal: ours\n"
    );
}

fn daemon() {
    install(selection(&[]), None);
    open(to_file(true)).unwrap();
    normal("--- Startup, daemonizing ---");
    std::env::set_current_dir("/").unwrap();
    open(to_file(false)).unwrap();
    normal("later");
    error("wrong");
}

#[test]
fn a_daemon_closes_the_console_and_keeps_its_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("log"), "old\n").unwrap();
    let output = play("daemon", dir.path());
    assert_eq!(
        &stdout(&output)[8..],
        " Normal: --- Startup, daemonizing ---\n"
    );
    assert_eq!(stderr(&output), "");
    let text = fs::read_to_string(dir.path().join("log")).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "old");
    assert_eq!(&lines[1][24..], " Normal: --- Startup, daemonizing ---");
    assert_eq!(&lines[2][24..], " Normal: later");
    assert_eq!(&lines[3][24..], " Error: wrong");
    assert_eq!(&lines[1][19..20], " ");
    assert!(
        lines[1][20..24].bytes().all(|b| b.is_ascii_digit()),
        "{}",
        lines[1]
    );
}

fn rotated() {
    install(selection(&[]), None);
    open(to_file(false)).unwrap();
    normal("one");
    fs::rename("log", "log.1").unwrap();
    normal("two");
    fs::remove_file("log").unwrap();
    normal("three");
    fs::write("log", "").unwrap();
    normal("four");
}

#[test]
fn a_file_may_be_rotated_removed_and_emptied() {
    let dir = tempfile::tempdir().unwrap();
    play("rotated", dir.path());
    let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(text("log.1").ends_with(" Normal: one\n"));
    assert!(text("log").ends_with(" Normal: four\n"));
    assert_eq!(text("log").lines().count(), 1);
}

fn trouble() {
    install(selection(&[]), None);
    fs::create_dir("d").unwrap();
    let file = Some(PathBuf::from("d/log"));
    open(Channels {
        file,
        ..Channels::default()
    })
    .unwrap();
    fs::rename("d", "e").unwrap();
    normal("one");
    normal("two");
    fs::create_dir("d").unwrap();
    normal("three");
    fs::rename("d", "f").unwrap();
    normal("four");
}

#[test]
fn a_log_that_cannot_be_written_is_reported_once() {
    let dir = tempfile::tempdir().unwrap();
    let output = play("trouble", dir.path());
    let path = dir.path().canonicalize().unwrap().join("d/log");
    let told = format!(
        "Error: Cannot write logfile [{}]: No such file or directory\n",
        path.display()
    );
    assert_eq!(stderr(&output), told.repeat(2));
    let texts = |name: &str| -> Vec<_> {
        let text = fs::read_to_string(dir.path().join(name)).unwrap();
        text.lines().map(|line| line[24..].to_owned()).collect()
    };
    assert_eq!(texts("e/log"), [" Normal: one", " Normal: two"]);
    assert_eq!(texts("f/log"), [" Normal: three", " Normal: four"]);
}

/// A full file and a pipe that nobody reads.
fn full() {
    install(selection(&[]), None);
    let file = Some(PathBuf::from("/dev/full"));
    open(Channels {
        file,
        ..Channels::default()
    })
    .unwrap();
    normal("one");
    normal("two");

    let (_reader, writer) = std::io::pipe().unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&writer);
    let file = Some(PathBuf::from(format!("/proc/self/fd/{fd}")));
    open(Channels {
        file,
        ..Channels::default()
    })
    .unwrap();
    let long = "x".repeat(3000);
    (0..100).for_each(|_| normal(&long));
    error("still here");
}

#[test]
fn a_full_log_file_does_not_block() {
    let dir = tempfile::tempdir().unwrap();
    let output = play("full", dir.path());
    let err = stderr(&output);
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(lines.len(), 2, "{err}");
    assert_eq!(
        lines[0],
        "Error: Cannot write logfile [/dev/full]: No space left on device"
    );
    assert!(
        lines[1].starts_with("Error: Cannot write logfile [/proc/self/fd/"),
        "{err}"
    );
}

fn threads() {
    install(selection(&[]), None);
    open(to_file(false)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || (0..200).for_each(|n| normal(format_args!("{thread} {n}"))));
        }
    });
}

#[test]
fn lines_of_several_threads_are_not_mixed() {
    let dir = tempfile::tempdir().unwrap();
    play("threads", dir.path());
    let text = fs::read_to_string(dir.path().join("log")).unwrap();
    let mut next = [0; 8];
    for line in text.lines() {
        let (thread, n) = line[24..]
            .strip_prefix(" Normal: ")
            .unwrap()
            .split_once(' ')
            .unwrap();
        let thread: usize = thread.parse().unwrap();
        assert_eq!(n.parse(), Ok(next[thread]));
        next[thread] += 1;
    }
    assert_eq!(next, [200; 8]);
}

fn unopenable() {
    install(selection(&[]), None);
    let file = Some(PathBuf::from("none/log"));
    let failed = open(Channels {
        file,
        ..Channels::default()
    })
    .unwrap_err();
    error(failed);
}

#[test]
fn a_log_file_that_cannot_be_opened_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let output = play("unopenable", dir.path());
    assert_eq!(stderr(&output), "Error: Cannot open logfile [none/log]!\n");
}

fn syslog() {
    install(selection(&[]), None);
    let syslog = Some(Syslog {
        ident: "lsyncd".to_owned(),
        facility: Facility::from_name("local3").unwrap(),
    });
    open(Channels {
        syslog,
        ..Channels::default()
    })
    .unwrap();
    normal("100 %s");
}

#[test]
fn with_syslog_alone_nothing_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let output = play("syslog", dir.path());
    assert_eq!(
        (stdout(&output), stderr(&output)),
        (String::new(), String::new())
    );
}

/// Both outputs are closed pipes.
fn gone() {
    install(selection(&[]), None);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    nix::unistd::dup2_stdout(&writer).unwrap();
    nix::unistd::dup2_stderr(&writer).unwrap();
    error("before the start");
    open(to_file(true)).unwrap();
    normal("one");
    error("two");
}

#[test]
fn a_closed_console_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    play("gone", dir.path());
    let text = fs::read_to_string(dir.path().join("log")).unwrap();
    let lines: Vec<_> = text.lines().map(|line| &line[24..]).collect();
    assert_eq!(lines, [" Normal: one", " Error: two"]);
}
