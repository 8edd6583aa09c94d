//! `lsyncdctl status -wait` returns when all is there, and never before.

use super::*;
use std::os::unix::net::UnixStream;

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

/// A wait that is given up names the syncs that it has waited for and why.
#[test]
fn a_wait_that_is_given_up_tells_what_it_has_waited_for() {
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
