//! `lsyncdctl status -wait` returns when the target is current, and not before.

use super::*;
use std::os::unix::net::UnixStream;

/// Continues a stopped daemon with a request to wait that arrives before the daemon has read any
/// event. Returns the answer.
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

/// The daemon is stopped while the files are made, so it has to catch up.
#[test]
fn wait_returns_when_all_files_have_arrived() {
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

/// A move out of the source is the first half of a rename; the daemon waits for the second half.
#[test]
fn wait_returns_when_a_moved_file_is_deleted() {
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

/// The call returns when the changes from before it have arrived.
#[test]
fn wait_returns_during_continuous_changes() {
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
fn wait_includes_transfers_retries_and_the_startup() {
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

    // Two calls fail, one of them for a part of the paths.
    fake.exits(&[0, 12, 23, 0]);
    dir.write("f", "x");
    done(&dir, &["status", "-wait"]);
    assert!(dir.trg("f").exists());
    assert!(fake.ended() >= 4);
}

#[test]
fn wait_continues_after_a_reload() {
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

#[test]
fn a_wait_that_times_out_names_the_pending_syncs() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    fake.exits(&[0, 12]);
    dir.write("f", "x");
    wait_state(&dir, &mut daemon, State::Retrying);
    let output = ctl(&dir, &["status", "-wait", "-timeout", "0.2"]);
    assert_eq!(code(&output), 1);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("the time has expired; waiting for:\none  retrying in "),
        "{told}"
    );
    assert!(output.stdout.is_empty());
    let output = ctl(&dir, &["status", "-wait", "-json", "-timeout", "0.2"]);
    assert_eq!(code(&output), 1);
    let status: Snapshot = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status.syncs[0].state, State::Retrying);
}
