//! A stop while the peer of a connection does not answer.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, poll, program, skip};
use crate::support::script::SSH;

/// Returns a listener: the kernel accepts its connections, and no process serves them.
fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Returns a configuration without startup transfer, so the change depends on the stored state, and
/// without a timeout of the stop.
fn config(target: &str, more: &str) -> String {
    format!(
        r#"
settings{{ stateDir = "@DIR@/state", stopTimeout = 100000 }}
sync{{
    default.rsync, source = "@SRC@", target = "{target}", delay = 0, init = false,
    rsync = {{ archive = true, {more} }},
}}"#
    )
}

/// Changes a file, and stops the daemon when the peer has a connection.
fn stop_while_silent(dir: &Dir, config: &str, listener: &TcpListener) {
    let mut daemon = Daemon::new(dir, config).args(&["-log", "Inotify"]).start();
    daemon.wait_log("directories in all");
    dir.write("f", "1");
    let (_connection, _) = listener.accept().unwrap();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_end().code(), Some(143));
    daemon.wait_all_gone();
    let log = daemon.log();
    assert!(log.contains("have had no I/O for 10 s"), "{log}");
}

#[test]
fn an_ssh_that_waits_for_a_greeting_does_not_delay_the_stop() {
    let Some(ssh) = program("ssh") else {
        return skip("ssh is not installed");
    };
    let dir = Dir::new();
    let (listener, port) = silent();
    let connect = format!(
        "exec {} -F none -o BatchMode=yes -p {port} 127.0.0.1 true\n",
        ssh.display()
    );
    dir.script("bin/ssh", &connect);
    let config = config("host:@TRG@", r#"rsh = "@DIR@/bin/ssh""#);
    stop_while_silent(&dir, &config, &listener);
    dir.script("bin/ssh", SSH);
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_equal();
}

/// An rsync daemon that ends with the test.
struct RsyncDaemon(Child);

impl Drop for RsyncDaemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_rsync_daemon_without_a_greeting_does_not_delay_the_stop() {
    let dir = Dir::new();
    let (listener, port) = silent();
    let config = config(&format!("rsync://127.0.0.1:{port}/x"), "");
    stop_while_silent(&dir, &config, &listener);
    drop(listener);
    let ids = if nix::unistd::geteuid().is_root() {
        "uid = 0\ngid = 0\n"
    } else {
        ""
    };
    let module = format!("use chroot = no\n{ids}[x]\npath = @TRG@\nread only = no\n");
    let file = dir.put("rsyncd.conf", dir.expand(&module));
    let rsync = Command::new("rsync")
        .args(["--daemon", "--no-detach", "--address=127.0.0.1"])
        .arg(format!("--port={port}"))
        .arg(format!("--config={}", file.display()))
        .stdin(Stdio::null())
        .spawn();
    let _rsync = RsyncDaemon(rsync.unwrap());
    poll(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_equal();
}
