//! A reset, reload or restart while one target is unreachable and another has exceeded
//! `maxPending`: each target keeps its own pending changes.

use std::fs;

use nix::sys::signal::Signal;

use super::{back, calls, config, site, status, wait_current};
use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;

/// The operation on the daemon.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `SIGHUP` without `settings.hup`.
    Reset,
    /// `SIGHUP` with `hup = "changed"` and nothing changed.
    Unchanged,
    /// The same with a change of each target.
    Changed,
    /// It is stopped and started.
    Restart,
}

/// The number of files that change while the first target is unreachable; `maxPending` of the
/// second is lower.
const MANY: usize = 60;

fn text(way: Way, init: bool) -> String {
    let targets =
        "{ '@DIR@/t1', { target = '@DIR@/t2', maxPending = 20 }, '@DIR@/t3', '@DIR@/t4' }";
    let text = config(targets, if init { "" } else { "init = false," });
    match way {
        Way::Reset => text.replace("hup = \"changed\", ", ""),
        _ => text,
    }
}

/// Returns the number of full comparisons of this target after the given number of calls.
fn comparisons(dir: &Dir, target: usize, after: usize) -> usize {
    let said = dir.text(&format!("t{target}.calls"));
    let later = said.lines().skip(after);
    later.filter(|call| !call.contains("--from0")).count()
}

/// Returns the number of pending changes of each target.
fn pending(dir: &Dir) -> Vec<usize> {
    let syncs = status(dir).syncs;
    syncs.iter().map(|sync| sync.pending).collect()
}

/// Waits until changes reach these targets: creates files until each target has one, and removes
/// them, because without a startup transfer nothing else sends the earlier ones.
fn wait_watching(dir: &Dir, daemon: &mut Running<'_>, targets: &[usize], sign: &str) {
    let mut number = 0;
    daemon.wait_for("it watches", |_| {
        number += 1;
        dir.write(format!("{sign}{number}"), "1");
        let has = |target| (1..=number).any(|n| dir.path(format!("t{target}/{sign}{n}")).exists());
        targets.iter().copied().all(has)
    });
    for number in 1..=number {
        fs::remove_file(dir.src(format!("{sign}{number}"))).unwrap();
    }
    wait_current(daemon, targets.iter().copied());
}

fn wait_done(dir: &Dir, daemon: &mut Running<'_>, targets: &[usize]) {
    daemon.wait_for("nothing is pending", |_| {
        let pending = pending(dir);
        pending.len() == 4 && targets.iter().all(|target| pending[target - 1] == 0)
    });
}

fn each_keeps_what_is_its_own(way: Way, init: bool) {
    let dir = site(4);
    let mut daemon = Daemon::new(&dir, &text(way, init)).start();
    wait_watching(&dir, &mut daemon, &[1, 2, 3, 4], "sign");
    dir.write("doomed", "1");
    wait_current(&mut daemon, 1..=4);
    wait_done(&dir, &mut daemon, &[1, 2, 3, 4]);

    dir.put("t1.dead", "");
    dir.put("t2.held", "");
    let asked = [1, 2].map(|target| calls(&dir, target));
    dir.write("first", "1");
    daemon.wait_for("the slow one is at work, the dead one was tried", |_| {
        calls(&dir, 1) > asked[0] && calls(&dir, 2) > asked[1]
    });
    for number in 0..MANY {
        dir.write(format!("many{number}"), "x");
    }
    fs::remove_file(dir.src("doomed")).unwrap();
    wait_current(&mut daemon, 3..=4);
    wait_done(&dir, &mut daemon, &[3, 4]);
    assert!(pending(&dir)[0] > MANY);
    let before = [3, 4].map(|target| calls(&dir, target));
    let asked = [1, 2].map(|target| calls(&dir, target));

    match way {
        Way::Reset => {
            daemon.signal(Signal::SIGHUP);
            daemon.wait_log("resetting");
            // The operation waits for the running transfer.
            fs::remove_file(dir.path("t2.held")).unwrap();
            daemon.wait_for("it begins again", |daemon| {
                daemon.log().matches("--- Startup ---").count() == 2
            });
        }
        Way::Unchanged => {
            daemon.signal(Signal::SIGHUP);
            daemon.wait_log("4 untouched, 0 changed, 0 new, 0 removed");
        }
        Way::Changed => {
            let changed = text(way, init).replace("delay =", "maxDelays = 7, delay =");
            dir.put("config.lua", dir.expand(&changed));
            daemon.signal(Signal::SIGHUP);
            daemon.wait_log("0 untouched, 4 changed, 0 new, 0 removed");
        }
        Way::Restart => {
            assert_eq!(daemon.terminate(), Some(143));
            daemon.wait_all_gone();
            // The first daemon is dropped now, because dropping it ends its processes.
            drop(daemon);
            daemon = Daemon::new(&dir, &text(way, init)).start();
            daemon.wait_for("the slow one is tried again", |_| calls(&dir, 2) > asked[1]);
        }
    }

    // Reachable targets run one comparison if they have a startup transfer.
    let starts = usize::from(init && way != Way::Unchanged);
    daemon.wait_for("the startup", |_| {
        [3, 4].map(|target| calls(&dir, target)) == before.map(|calls| calls + starts)
    });
    wait_done(&dir, &mut daemon, &[3, 4]);
    assert!(pending(&dir)[0] > MANY, "{:?}", pending(&dir));
    for (target, before) in [3, 4].into_iter().zip(before) {
        assert_eq!(calls(&dir, target), before + starts);
        assert_eq!(comparisons(&dir, target, before), starts);
    }
    if way == Way::Restart {
        wait_watching(&dir, &mut daemon, &[3, 4], "again");
    }
    dir.write("after", "1");
    wait_current(&mut daemon, 3..=4);

    // The unreachable target gets its pending changes, the other one a full comparison.
    let tried = calls(&dir, 1);
    let _ = fs::remove_file(dir.path("t2.held"));
    back(&dir, 1);
    wait_current(&mut daemon, 1..=4);
    wait_done(&dir, &mut daemon, &[1, 2, 3, 4]);
    assert_eq!(
        comparisons(&dir, 1, tried),
        starts,
        "{}",
        dir.text("t1.calls")
    );
    assert!(comparisons(&dir, 2, asked[1]) >= 1);
    for (target, before) in [3, 4].into_iter().zip(before) {
        assert_eq!(comparisons(&dir, target, before), starts);
    }
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn after_a_reset() {
    each_keeps_what_is_its_own(Way::Reset, true);
}

#[test]
fn after_a_reset_without_startup() {
    each_keeps_what_is_its_own(Way::Reset, false);
}

#[test]
fn a_target_joins_by_a_reset_while_another_is_away() {
    let dir = site(3);
    dir.write("before", "1");
    let plain = |targets| config(targets, "").replace("hup = \"changed\", ", "");
    let mut daemon = Daemon::new(&dir, &plain("{ '@DIR@/t1', '@DIR@/t2' }")).start();
    wait_current(&mut daemon, 1..=2);
    dir.put("t1.dead", "");
    dir.write("missed", "1");
    wait_current(&mut daemon, [2]);
    let text = plain("{ '@DIR@/t3', '@DIR@/t2', '@DIR@/t1' }");
    dir.put("config.lua", dir.expand(&text));
    daemon.signal(Signal::SIGHUP);
    wait_current(&mut daemon, 2..=3);
    dir.write("after", "1");
    wait_current(&mut daemon, 2..=3);
    assert!(!dir.path("t1/missed").exists());
    back(&dir, 1);
    wait_current(&mut daemon, 1..=3);
    dir.write("end", "1");
    wait_current(&mut daemon, 1..=3);
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn after_a_reload_that_changed_nothing() {
    each_keeps_what_is_its_own(Way::Unchanged, true);
}

#[test]
fn after_a_change_of_all_targets() {
    each_keeps_what_is_its_own(Way::Changed, true);
}

#[test]
fn after_a_change_of_all_targets_without_startup() {
    each_keeps_what_is_its_own(Way::Changed, false);
}

#[test]
fn after_a_restart() {
    each_keeps_what_is_its_own(Way::Restart, true);
}

#[test]
fn after_a_restart_without_startup() {
    each_keeps_what_is_its_own(Way::Restart, false);
}
