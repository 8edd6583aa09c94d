//! Detaching, the pid file, and signals.

use std::fs;
use std::io::Write;
use std::process::Command;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::daemon::{Daemon, MIRROR, Running, binary};
use crate::support::dir::{Dir, poll};
use crate::support::fake::{Fake, RECORDED};

const DETACHED: &str = r#"
settings{ logfile = "@DIR@/log", pidfile = "@DIR@/pid" }
sync{ default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3, rsync = { archive = true } }
"#;

fn detached<'d>(dir: &'d Dir, config: &str) -> Running<'d> {
    let mut daemon = Daemon::detaching(dir, config).start();
    assert_eq!(daemon.wait_detached("pid").code(), Some(0));
    daemon
}

fn wait_gone(daemon: &mut Running<'_>) {
    assert!(poll(|| daemon.has_ended()), "still runs\n{}", daemon.log());
}

#[test]
fn detached_daemon_mirrors_and_removes_its_pid_file_at_the_end() {
    let dir = Dir::new();
    let mut daemon = detached(&dir, DETACHED);
    dir.write("f", "1");
    daemon.wait_equal();
    dir.append("f", "2");
    daemon.wait_equal();
    daemon.signal(Signal::SIGTERM);
    wait_gone(&mut daemon);
    assert!(!dir.path("pid").exists());
    assert!(daemon.log().contains("--- TERM signal, fading ---"));
}

#[test]
fn detached_daemon_has_its_own_session_the_root_as_directory_and_no_terminal() {
    let dir = Dir::new();
    let daemon = detached(&dir, DETACHED);
    let pid = daemon.pid();
    assert_eq!(nix::unistd::getsid(Some(pid)), Ok(pid));
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
    assert!(poll(|| link("cwd").as_os_str() == "/"));
    for fd in ["fd/0", "fd/1", "fd/2"] {
        assert!(
            poll(|| link(fd).as_os_str() == "/dev/null"),
            "{:?}",
            link(fd)
        );
    }
}

/// Init scripts find the daemon by this name.
#[test]
fn process_is_named_lsyncd() {
    let dir = Dir::new();
    let daemon = detached(&dir, DETACHED);
    let name = fs::read_to_string(format!("/proc/{}/comm", daemon.pid())).unwrap();
    assert_eq!(name, "lsyncd\n");
}

#[test]
fn pid_file_of_the_command_line_wins_and_old_content_is_replaced() {
    let dir = Dir::new();
    dir.put("pid", "123456789\n");
    let config = DETACHED.replace("@DIR@/pid", "@DIR@/other");
    let mut daemon = Daemon::detaching(&dir, &config)
        .args(&["-pidfile", "@DIR@/pid"])
        .start();
    daemon.wait_end();
    let replaced = poll(|| dir.text("pid") != "123456789\n");
    assert!(replaced, "{}", daemon.log());
    daemon.wait_detached("pid");
    assert_eq!(dir.text("pid"), format!("{}\n", daemon.pid()));
    assert!(!dir.path("other").exists());
}

#[test]
fn second_daemon_with_the_same_pid_file_is_refused() {
    let dir = Dir::new();
    let mut first = detached(&dir, DETACHED);
    let pid = dir.text("pid");
    let mut second = Daemon::detaching(&dir, DETACHED).named("second").start();
    second.wait_end();
    first.wait_for("the second was refused", |_| {
        ["log", "second.out", "second.err"]
            .iter()
            .any(|name| dir.text(name).contains("Cannot lock pidfile"))
    });
    assert_eq!(dir.text("pid"), pid);
    dir.write("f", "1");
    first.wait_equal();
    assert!(!first.has_ended());
}

#[test]
fn a_pid_file_that_cannot_be_made_is_an_error() {
    let dir = Dir::new();
    let config = DETACHED.replace("@DIR@/pid", "@DIR@/no/pid");
    let mut daemon = Daemon::detaching(&dir, &config).start();
    daemon.wait_end();
    assert!(
        poll(|| daemon.log().contains("Cannot create pidfile")),
        "{}",
        daemon.log()
    );
}

#[test]
fn foreground_writes_no_pid_file_and_leaves_one_that_is_there() {
    let dir = Dir::new();
    dir.put("pid", "1\n");
    let mut daemon = Daemon::new(&dir, DETACHED).start_and_settle();
    assert_eq!(daemon.terminate(), Some(143));
    assert_eq!(dir.text("pid"), "1\n");
}

#[test]
fn output_of_children_goes_into_the_log_file() {
    let dir = Dir::new();
    let config = DETACHED.replace("archive = true", "archive = true, verbose = true");
    let mut daemon = detached(&dir, &config);
    dir.write("a-name-to-be-found", "1");
    daemon.wait_for("rsync's line is in the log file", |_| {
        let log = dir.text("log");
        log.lines()
            .any(|line| line.ends_with("a-name-to-be-found") && !line.contains("/a-name"))
    });
}

#[test]
fn int_ends_with_exit_code_130() {
    let dir = Dir::new();
    Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    daemon.signal(Signal::SIGINT);
    assert_eq!(daemon.wait_end().code(), Some(130));
    assert!(daemon.log().contains("--- INT signal, fading ---"));
}

#[test]
fn term_waits_for_children() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    fake.hold_a_transfer(&mut daemon);
    dir.write("g", "1");
    daemon.signal(Signal::SIGTERM);
    daemon.wait_log("--- TERM signal, fading ---");
    daemon.wait_log("waiting for 1 more child processes.");
    assert!(!daemon.has_ended());
    fake.release();
    assert_eq!(daemon.wait_end().code(), Some(143));
    assert_eq!((fake.calls().len(), fake.ended()), (2, 2));
}

#[test]
fn term_during_the_startup_transfer_waits_for_it() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.hold();
    let mut daemon = Daemon::new(&dir, RECORDED).start();
    daemon.wait_for("the transfer runs", |_| !fake.calls().is_empty());
    daemon.signal(Signal::SIGTERM);
    daemon.wait_log("waiting for 1 more child processes.");
    fake.release();
    assert_eq!(daemon.wait_end().code(), Some(143));
    assert_eq!(fake.ended(), 1);
}

/// The program blocks in its first log line, because the pipe is full.
#[test]
fn signals_before_the_start_end_the_daemon() {
    for (config, words) in [(DETACHED, &[][..]), (MIRROR, &["-nodaemon"])] {
        for signal in [Signal::SIGTERM, Signal::SIGHUP] {
            let dir = Dir::new();
            let config = dir.put("config.lua", dir.expand(config));
            let (mut reader, mut writer) = std::io::pipe().unwrap();
            fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
            while writer.write(&[b'\n'; 4096]).is_ok() {}
            let mut daemon = Command::new(binary())
                .args(["-runner", "none", "-logfile"])
                .args([&dir.path("log"), &config])
                .args(words)
                .current_dir(dir.root())
                .stdout(writer.try_clone().unwrap())
                .stderr(writer)
                .spawn()
                .unwrap();
            let pid = Pid::from_raw(daemon.id() as i32);
            // It sleeps nowhere else for so long.
            let mut times = 0;
            assert!(poll(|| {
                let status = fs::read_to_string(format!("/proc/{pid}/status"));
                let sleeps = status.is_ok_and(|text| {
                    text.starts_with("Name:\tlsyncd\n") && text.contains("State:\tS")
                });
                times = if sleeps { times + 1 } else { 0 };
                times == 5
            }));
            kill(pid, signal).unwrap();
            let drain =
                std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
            let has = |text: &str| assert!(poll(|| dir.text("log").contains(text)), "{text}");
            if signal == Signal::SIGHUP {
                has("--- HUP signal, resetting ---");
                let written = dir.text("pid").trim().parse().map(Pid::from_raw);
                kill(written.unwrap_or(pid), Signal::SIGTERM).unwrap();
            }
            has("--- TERM signal, fading ---");
            let code = if words.is_empty() { 0 } else { 143 };
            assert_eq!(daemon.wait().unwrap().code(), Some(code));
            assert!(poll(|| !dir.path("pid").exists()));
            // The daemon has ended when the other end of the pipe is closed.
            drain.join().unwrap().unwrap();
        }
    }
}

#[test]
fn second_term_ends_children() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    fake.hold_a_transfer(&mut daemon);
    daemon.signal(Signal::SIGTERM);
    daemon.wait_log("waiting for 1 more child processes.");
    assert!(!daemon.has_ended());
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_end().code(), Some(143));
    assert_eq!(fake.ended(), 1, "the second was not let go");
}

#[test]
fn hup_reads_the_configuration_again() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    dir.put("real.lua", dir.expand(RECORDED));
    let mut daemon = Daemon::new(&dir, r#"dofile("@DIR@/real.lua")"#).start_and_settle();
    let changed = RECORDED.replace("delay = 0.3", "delay = 0.2, delete = false");
    dir.put("real.lua", dir.expand(&changed));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("--- HUP signal, resetting ---");
    daemon.wait_for("a second startup transfer", |_| fake.ended() >= 2);
    let calls = fake.calls();
    assert!(calls[0].has("--delete") && !calls[1].has("--delete"));
    dir.write("f", "1");
    daemon.wait_for("a change is sent", |_| fake.ended() >= 3);
    assert!(fake.calls()[2].lists("/f"));
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn hup_waits_for_children() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    fake.hold_a_transfer(&mut daemon);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("waiting for 1 more child processes.");
    assert_eq!(fake.calls().len(), 2);
    fake.release();
    daemon.wait_for("a second startup transfer", |_| fake.ended() >= 3);
    assert_eq!(fake.calls()[2].concurrent, 1);
}

/// Process and pid file stay the same, and relative sources keep their meaning.
#[test]
fn hup_of_a_detached_daemon_keeps_process_and_pid_file() {
    let dir = Dir::new();
    let config = DETACHED.replace("@SRC@", "src");
    let mut daemon = detached(&dir, &config);
    dir.write("f", "1");
    daemon.wait_equal();
    let pid = dir.text("pid");
    daemon.signal(Signal::SIGHUP);
    // The first message is about the detaching.
    daemon.wait_log("--- Startup ---");
    dir.write("g", "1");
    daemon.wait_equal();
    assert_eq!(dir.text("pid"), pid);
    daemon.signal(Signal::SIGTERM);
    wait_gone(&mut daemon);
    assert!(!dir.path("pid").exists());
}

/// After HUP, `insist` is on: a running daemon must not end because a host is down.
#[test]
fn hup_forces_insist() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, 12, 0]);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("the startup was retried", |_| fake.ended() >= 3);
}
