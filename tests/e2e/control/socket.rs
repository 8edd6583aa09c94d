//! The control socket: its path, its permissions, and invalid requests.

use super::*;
use std::os::unix::net::UnixStream;

use crate::support::dir::{program, skip};
use crate::support::random::Random;

#[test]
fn the_socket_is_private_replaces_a_stale_one_and_is_removed_at_the_end() {
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
fn a_file_that_is_no_socket_is_not_replaced() {
    let dir = Dir::new();
    Fake::new(&dir);
    dir.put("sock", "precious");
    let ended = Daemon::new(&dir, &one("")).run();
    assert!(ended.stderr.contains("not a socket"), "{}", ended.stderr);
    assert_eq!(dir.text("sock"), "precious");
}

#[test]
fn the_default_path_is_beside_the_pid_file() {
    let dir = Dir::new();
    Fake::new(&dir);
    let config = one("").replace(
        "controlSocket = \"@DIR@/sock\"",
        "pidfile = \"@DIR@/sync.pid\"",
    );
    let mut daemon = Daemon::new(&dir, &config)
        // This is not the directory of a service.
        .env("RUNTIME_DIRECTORY", "")
        .start_and_settle();
    let answer = UnixStream::connect(dir.path("sync.sock"));
    assert!(answer.is_ok(), "{answer:?}");
    daemon.terminate();
}

#[test]
fn the_directory_of_the_service_is_used_by_one_daemon_only() {
    let dir = Dir::new();
    Fake::new(&dir);
    fs::create_dir(dir.path("run")).unwrap();
    let config = one("").replace(
        "controlSocket = \"@DIR@/sock\"",
        "pidfile = \"@DIR@/sync.pid\"",
    );
    let start = |name: &'static str| {
        Daemon::new(&dir, &config)
            .env("RUNTIME_DIRECTORY", "@DIR@/run:/nowhere")
            .named(name)
            .start_and_settle()
    };
    let mut first = start("first");
    let ask = || {
        let answer = Command::new(env!("CARGO_BIN_EXE_lsyncdctl"))
            .arg("status")
            .env("RUNTIME_DIRECTORY", dir.path("run"))
            .env_remove("LSYNCD_SOCKET")
            .output()
            .unwrap();
        (code(&answer), text(&answer))
    };
    assert_eq!(ask().0, 0, "{}", ask().1);
    assert!(!dir.path("sync.sock").exists());

    let mut second = start("second");
    second.wait_log("no control socket @DIR@/run/lsyncd.sock: another daemon listens on it");
    second.terminate();
    assert_eq!(ask().0, 0, "it is the first one's still");
    first.terminate();
    // Another daemon of this host may answer at a default path.
    assert!(!dir.path("run/lsyncd.sock").exists());
}

/// A file of another user at a default path is skipped; at a configured path it is an error that
/// names the owner. The file is not changed.
#[test]
fn a_file_of_another_user_is_reported_with_its_owner() {
    if !nix::unistd::geteuid().is_root() {
        return crate::support::dir::skip("takes root to be another user");
    }
    let plant: [&dyn Fn(&std::path::Path); 3] = [
        &|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        &|path| fs::write(path, "").unwrap(),
        &|path| std::os::unix::fs::symlink("elsewhere", path).unwrap(),
    ];
    for (plant, told) in plant.into_iter().zip(["nobody", "nobody", "another user"]) {
        let dir = Dir::new();
        Fake::new(&dir);
        for name in ["sock", "sync.sock"] {
            plant(&dir.path(name));
            std::os::unix::fs::lchown(dir.path(name), Some(65534), None).unwrap();
        }
        let ended = Daemon::new(&dir, &one("")).run();
        assert_ne!(ended.code(), Some(0));
        assert!(ended.stderr.contains(told), "{}", ended.stderr);

        let config = one("").replace(
            "controlSocket = \"@DIR@/sock\"",
            "pidfile = \"@DIR@/sync.pid\"",
        );
        let mut daemon = Daemon::new(&dir, &config)
            .env("RUNTIME_DIRECTORY", "")
            .start_and_settle();
        daemon.wait_log("Warn: no control socket @DIR@/sync.sock: ");
        daemon.terminate();
        for name in ["sock", "sync.sock"] {
            assert!(fs::symlink_metadata(dir.path(name)).is_ok(), "{name}");
        }
    }
}

fn pseudo_random(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..length).map(|_| random.number() as u8).collect()
}

/// Writes the bytes as far as the other side takes them, and reads its answers until it closes the
/// connection or sends nothing.
fn shout(stream: &mut (impl Read + Write), bytes: &[u8]) {
    let _ = stream.write_all(bytes);
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer), Ok(1..)) {}
}

#[test]
fn invalid_and_stalled_requests_change_nothing() {
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
    daemon.wait_for("it mirrors", |_| fake.ended() >= 2);
    assert!(!daemon.has_ended());
}

/// After su(1), a user has no runtime directory, or the one of root.
#[test]
fn a_daemon_without_a_directory_for_its_socket_logs_the_reason() {
    let dir = Dir::new();
    Fake::new(&dir);
    let is_root = nix::unistd::geteuid().is_root();
    // A user without a session, who has no directory below /run/user.
    let wrapper = [
        "setpriv",
        "--reuid=54321",
        "--regid=54321",
        "--clear-groups",
    ];
    let user = if is_root {
        54321
    } else {
        nix::unistd::geteuid().as_raw()
    };
    let own = format!("/run/user/{user}");
    if PathBuf::from(&own).exists() || (is_root && program("setpriv").is_none()) {
        return skip("the user has a runtime directory, or setpriv is not installed");
    }
    for file in ["", "src", "trg"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(dir.path(file), mode).unwrap();
    }
    for runtime in ["", "/proc"] {
        let config = one("").replace(SETTINGS, "");
        let daemon = Daemon::new(&dir, &config)
            .env("RUNTIME_DIRECTORY", "")
            .env("XDG_RUNTIME_DIR", runtime);
        let daemon = if is_root {
            daemon.wrapped(&wrapper)
        } else {
            daemon
        };
        let mut daemon = daemon.start();
        daemon.wait_log("Warn: lsyncdctl cannot reach this daemon: it has no control socket");
        let log = daemon.log();
        assert!(log.contains(&format!("{own}/lsyncd.sock: ")), "{log}");
        assert!(log.contains("controlSocket = PATH"), "{log}");
        assert_eq!(
            log.contains("/proc/lsyncd.sock: "),
            runtime == "/proc",
            "{log}"
        );
        daemon.terminate();
    }
}
