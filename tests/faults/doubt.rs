//! A daemon that was killed may have missed changes, so the next one's comparison of everything
//! is an exact one, however often it takes to come to an end.

use nix::sys::signal::Signal;

use crate::daemon::{Daemon, Running};
use crate::fake::Fake;
use crate::util::Dir;

const CONFIG: &str = r#"
settings{ hup = "changed", stateDir = "@DIR@/state", insist = true, stopTimeout = 1 }
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3,
    rsync = { binary = "@RSYNC@", archive = true },
}
"#;

const EXACT: &str = "--modify-window=-1";

/// Kills a daemon and starts another, whose startup (the second call) is held and will fail.
fn doubtful<'d>(dir: &'d Dir, fake: &Fake<'d>) -> Running<'d> {
    fake.exits(&[0, 255, 0]);
    let mut daemon = Daemon::new(dir, CONFIG).start_and_settle();
    assert!(!fake.calls()[0].has(EXACT));
    daemon.signal(Signal::SIGKILL);
    daemon.wait_all_gone();
    drop(daemon);
    fake.hold();
    let mut daemon = Daemon::new(dir, CONFIG).start();
    daemon.wait_for("startup began", |_| fake.calls().len() == 2);
    assert!(fake.calls()[1].has(EXACT));
    daemon
}

fn is_exact_at_last(daemon: &mut Running<'_>, fake: &Fake<'_>) {
    daemon.wait_for("it is tried again", |_| fake.calls().len() == 3);
    assert!(fake.calls()[2].has(EXACT), "{:?}", fake.calls()[2].argv);
}

#[test]
fn outlives_a_failure() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let mut daemon = doubtful(&dir, &fake);
    fake.release();
    is_exact_at_last(&mut daemon, &fake);
}

#[test]
fn outlives_a_changed_configuration() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let mut daemon = doubtful(&dir, &fake);
    let changed = CONFIG.replace("archive = true", "archive = true, inplace = true");
    dir.put("config.lua", dir.expand(&changed));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("0 untouched, 1 changed, 0 new, 0 removed");
    fake.release();
    is_exact_at_last(&mut daemon, &fake);
    assert!(fake.calls()[2].has("--inplace"));
}

#[test]
fn outlives_a_stop() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let mut daemon = doubtful(&dir, &fake);
    daemon.terminate();
    drop(daemon);
    fake.release();
    let mut daemon = Daemon::new(&dir, CONFIG).start();
    is_exact_at_last(&mut daemon, &fake);
}
