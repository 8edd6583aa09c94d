//! Under a service manager: notifications and messages in the journal.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;
use crate::support::fake::Fake;

const CONFIG: &str = r#"
settings { controlSocket = "@DIR@/sock" }
sync { default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3,
       rsync = { binary = "@RSYNC@" } }
"#;

/// The manager's end of the notification socket.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new(dir: &Dir) -> Manager {
        let socket = UnixDatagram::bind(dir.path("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        let heard = Vec::new();
        Manager { socket, heard }
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.heard.push(text);
        }
    }

    /// Waits until a message begins like this, and drops those before it.
    fn wait(&mut self, daemon: &mut Running<'_>, start: &str) -> String {
        let mut found = None;
        daemon.wait_for(start, |_| {
            self.listen();
            let at = self.heard.iter().position(|text| text.starts_with(start));
            found = at.map(|at| self.heard.drain(..=at).next_back().unwrap_or_default());
            found.is_some()
        });
        found.unwrap_or_default()
    }
}

#[test]
fn the_manager_is_notified_of_ready_reload_and_stop() {
    let dir = Dir::new();
    let mut manager = Manager::new(&dir);
    Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, CONFIG)
        .env("NOTIFY_SOCKET", "@DIR@/notify")
        .env("WATCHDOG_USEC", "500000")
        .start();
    manager.wait(&mut daemon, "READY=1");
    assert!(
        dir.text("daemon.out").contains("recursive full rsync"),
        "ready before the startup transfer is under way"
    );
    manager.wait(&mut daemon, "WATCHDOG=1");
    manager.wait(&mut daemon, "WATCHDOG=1");
    manager.wait(
        &mut daemon,
        "STATUS=Watching 1 directory, 0 delayed, 0 processes",
    );

    daemon.signal(Signal::SIGHUP);
    let text = manager.wait(&mut daemon, "RELOADING=1");
    assert!(text.contains("\nMONOTONIC_USEC="), "{text}");
    manager.wait(&mut daemon, "READY=1");

    // A reload by the control socket, without new watches.
    let asked = Command::new(env!("CARGO_BIN_EXE_lsyncdctl"))
        .args(["-socket", &dir.expand("@DIR@/sock"), "reload"])
        .output();
    assert!(asked.is_ok_and(|asked| asked.status.success()));
    manager.wait(&mut daemon, "RELOADING=1");
    manager.wait(&mut daemon, "READY=1");
    assert_eq!(dir.text("daemon.out").matches("--- Startup ---").count(), 2);

    daemon.signal(Signal::SIGTERM);
    daemon.wait_end();
    manager.listen();
    let heard = manager.heard.iter().any(|text| text == "STOPPING=1");
    assert!(heard, "{:?}", manager.heard);
}

#[test]
fn the_manager_is_told_why_the_daemon_fails() {
    let dir = Dir::new();
    let mut manager = Manager::new(&dir);
    let fails_with = |manager: &mut Manager, config: &str| {
        let daemon = Daemon::new(&dir, config).env("NOTIFY_SOCKET", "@DIR@/notify");
        assert_eq!(daemon.run().status.code(), Some(255));
        manager.listen();
        manager.heard.pop().unwrap_or_default()
    };
    let last = fails_with(&mut manager, "sync { default.rsync, dealy = 1 }");
    assert!(last.starts_with("STATUS=Failed: "), "{last}");
    assert!(last.contains("\"dealy\" unknown"), "{last}");

    let fake = Fake::new(&dir);
    fake.exits(&[255]);
    let last = fails_with(&mut manager, CONFIG);
    assert!(
        last.contains("Terminating since \"insist\" is not set"),
        "{last}"
    );
}

#[test]
fn the_journal_gets_levels_and_no_times() {
    let dir = Dir::new();
    Fake::new(&dir);
    let stream = fs::metadata(dir.put("daemon.out", "")).unwrap();
    let name = format!("{}:{}", stream.dev(), stream.ino());
    let mut daemon = Daemon::new(&dir, CONFIG)
        .env("JOURNAL_STREAM", &name)
        .start_and_settle();
    daemon.terminate();
    let out = dir.text("daemon.out");
    assert!(out.starts_with("<5>Normal: --- Startup ---\n"), "{out}");
    assert!(out.lines().all(|line| line.starts_with('<')), "{out}");
}

#[test]
fn repeated_warnings_are_one_line_and_a_count() {
    let dir = Dir::new();
    let config = r#"
        sync { source = "@SRC@", action = function() end, init = function(event)
            for _ = 1, 5 do log("Warn", "again and again") end
            for _ = 1, 2 do log("Normal", "as it is") end
            terminate(3)
        end }
    "#;
    let ended = Daemon::new(&dir, config).run();
    let count = |text: &str| ended.stdout.matches(text).count();
    assert_eq!(count("Warn: again and again"), 1, "{}", ended.stdout);
    assert_eq!(count("Warn: the line above was repeated 4 times"), 1);
    assert_eq!(count("Normal: as it is"), 2);
}
