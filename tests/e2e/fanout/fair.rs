//! `settings{ maxProcesses }` is shared by all targets: each gets its turn, however much is pending
//! for others.

use std::fs;

use super::{calls, config, list, site, status, wait_current};
use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;

const TARGETS: usize = 5;

/// Returns a configuration with two processes for all targets and no delay. Without a guard, a
/// target on a mount does not lose its turn if its file system does not answer within 20 ms.
fn limited(more: &str) -> String {
    let more = format!("guard = false, {more}");
    let text = config(&list(1..=TARGETS), &more).replace("delay = 0.3", "delay = 0");
    text.replace("settings{", "settings{ maxProcesses = 2,")
}

/// Returns the targets in the order of their transfers.
fn order(dir: &Dir) -> Vec<usize> {
    let text = dir.text("order");
    text.lines()
        .map(|name| name[1..].parse().unwrap())
        .collect()
}

/// Waits until this number of transfers has begun, and asserts that both processes are used.
fn wait_begun(dir: &Dir, daemon: &mut Running<'_>, count: usize) {
    daemon.wait_for(&format!("{count} transfers have begun"), |_| {
        order(dir).len() >= count
    });
    let running: usize = status(dir)
        .syncs
        .iter()
        .map(|sync| sync.sending.len())
        .sum();
    assert!(running <= 2, "{running} processes");
}

/// Waits until these targets have nothing pending.
fn wait_done(dir: &Dir, daemon: &mut Running<'_>, targets: impl IntoIterator<Item = usize>) {
    for target in targets {
        daemon.wait_for("nothing is pending", |_| {
            let syncs = status(dir).syncs;
            syncs.get(target - 1).is_some_and(|sync| sync.pending == 0)
        });
    }
}

fn order_done(dir: &Dir, what: &str) {
    assert!(dir.ctl(&[what]).output().unwrap().status.success());
}

/// Makes a change that is pending for every target.
fn change(dir: &Dir, daemon: &mut Running<'_>, number: usize) {
    let events = |dir: &Dir| -> Vec<usize> {
        let syncs = status(dir).syncs;
        syncs.iter().map(|sync| sync.pending).collect()
    };
    let before = events(dir);
    dir.write(format!("change{number}"), "x");
    daemon.wait_for("all have it pending", |_| {
        events(dir)
            .iter()
            .zip(&before)
            .all(|(now, then)| now > then)
    });
}

#[test]
fn no_target_gets_a_second_turn_while_another_waits() {
    let dir = site(TARGETS);
    dir.write("before", "1");
    let text = limited("maxProcesses = 1,");
    let mut daemon = Daemon::new(&dir, &text).start();
    wait_current(&mut daemon, 1..=TARGETS);
    wait_done(&dir, &mut daemon, 1..=TARGETS);
    for target in 1..=TARGETS {
        dir.put(&format!("t{target}.held"), "");
    }
    let first = order(&dir).len();
    change(&dir, &mut daemon, 0);
    let mut begun = first + 2;
    wait_begun(&dir, &mut daemon, begun);
    // Changes are pending for all five targets whenever a process ends.
    for number in 1..=4 * TARGETS {
        change(&dir, &mut daemon, number);
        let oldest = order(&dir)[begun - 2];
        let held = format!("t{oldest}.held");
        fs::remove_file(dir.path(&held)).unwrap();
        begun += 1;
        wait_begun(&dir, &mut daemon, begun);
        dir.put(&held, "");
    }
    // The first two started at the same time, so their order is undefined.
    let order = order(&dir).split_off(first + 2);
    for turns in order.windows(TARGETS) {
        let mut seen = turns.to_vec();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3, 4, 5], "{order:?}");
    }
    for target in 1..=TARGETS {
        fs::remove_file(dir.path(format!("t{target}.held"))).unwrap();
    }
    wait_current(&mut daemon, 1..=TARGETS);
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn backlogs_of_some_do_not_keep_another_waiting() {
    let dir = site(TARGETS);
    dir.write("before", "1");
    let mut daemon = Daemon::new(&dir, &limited("")).start();
    wait_current(&mut daemon, 1..=TARGETS);
    // Four targets have a backlog, which could occupy both processes for long.
    for target in 1..TARGETS {
        dir.put(&format!("t{target}.dead"), "");
    }
    for number in 0..300 {
        dir.write(format!("many{number}"), "x");
    }
    wait_current(&mut daemon, [TARGETS]);
    wait_done(&dir, &mut daemon, [TARGETS]);
    order_done(&dir, "pause");
    daemon.wait_for("nothing runs", |_| {
        let syncs = status(&dir).syncs;
        syncs.len() == TARGETS && syncs.iter().all(|sync| sync.sending.is_empty())
    });
    for target in 1..TARGETS {
        dir.put(&format!("t{target}.held"), "");
        fs::remove_file(dir.path(format!("t{target}.dead"))).unwrap();
    }
    let first = order(&dir).len();
    order_done(&dir, "resume");
    order_done(&dir, "retry");
    wait_begun(&dir, &mut daemon, first + 2);
    let before = calls(&dir, TARGETS);
    change(&dir, &mut daemon, 0);
    // The target without a backlog must get one of the next four processes.
    let mut begun = first + 2;
    while calls(&dir, TARGETS) == before {
        assert!(begun <= first + TARGETS, "{:?}", order(&dir));
        let next = order(&dir)[begun - 2];
        fs::remove_file(dir.path(format!("t{next}.held"))).unwrap();
        begun += 1;
        wait_begun(&dir, &mut daemon, begun);
        dir.put(&format!("t{next}.held"), "");
    }
    for target in 1..TARGETS {
        fs::remove_file(dir.path(format!("t{target}.held"))).unwrap();
    }
    wait_current(&mut daemon, 1..=TARGETS);
    assert_eq!(daemon.terminate(), Some(143));
}
