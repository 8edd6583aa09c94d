//! Targets join and leave when the configuration is read again.

use std::fs;

use nix::sys::signal::Signal;

use super::{calls, config, list, site, wait_current};
use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;

fn reload(dir: &Dir, daemon: &mut Running<'_>, text: &str, report: &str) {
    dir.put("config.lua", dir.expand(text));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log(report);
}

#[test]
fn targets_join_and_leave_without_disturbing_the_others() {
    let dir = site(4);
    dir.write("before", "1");
    let mut daemon = Daemon::new(&dir, &config(&list(1..=3), "")).start();
    wait_current(&mut daemon, 1..=3);
    dir.put("t2.held", "");
    dir.write("while", "1");
    daemon.wait_for("a transfer runs", |_| calls(&dir, 2) == 2);
    wait_current(&mut daemon, [1, 3]);
    dir.write("later", "1");
    wait_current(&mut daemon, [1, 3]);
    let before = [calls(&dir, 2), calls(&dir, 3)];

    // The first target, whose filter took in the events, is removed.
    let text = config(&list([2, 3, 4]), "");
    reload(
        &dir,
        &mut daemon,
        &text,
        "2 untouched, 0 changed, 1 new, 1 removed",
    );
    wait_current(&mut daemon, [4]);
    assert_eq!([calls(&dir, 2), calls(&dir, 3)], before);
    let gone = calls(&dir, 1);
    dir.write("after", "1");
    wait_current(&mut daemon, [3, 4]);
    fs::remove_file(dir.path("t2.held")).unwrap();
    wait_current(&mut daemon, [2]);
    assert_eq!(calls(&dir, 1), gone);
    let said = dir.text("t2.calls");
    assert_eq!(
        said.lines()
            .filter(|call| !call.contains("--from0"))
            .count(),
        1
    );

    // A broken configuration changes nothing.
    reload(
        &dir,
        &mut daemon,
        "sync{",
        "previous configuration stays in force",
    );
    let text = config(&list([1, 2, 3, 4]), "") + "\nsync{ default.rsync }";
    reload(&dir, &mut daemon, &text, "needs \"target\" configured");
    dir.write("still", "1");
    wait_current(&mut daemon, 2..=4);

    // A changed sync takes over the pending changes.
    dir.put("t3.held", "");
    dir.write("once more", "1");
    wait_current(&mut daemon, [2, 4]);
    dir.write("and more", "1");
    wait_current(&mut daemon, [2, 4]);
    let text = config(&list([2, 3, 4]), "maxDelays = 5,");
    reload(
        &dir,
        &mut daemon,
        &text,
        "0 untouched, 3 changed, 0 new, 0 removed",
    );
    fs::remove_file(dir.path("t3.held")).unwrap();
    wait_current(&mut daemon, 2..=4);
    dir.write("end", "1");
    wait_current(&mut daemon, 2..=4);
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn targets_of_a_file_and_of_a_function() {
    let dir = site(4);
    dir.write("before", "1");
    dir.put(
        "hosts",
        dir.expand("# web servers\n@DIR@/t1\n\n  @DIR@/t2  \n"),
    );
    let sync = |name: &str, targets: &str| {
        let whole = config("nil", targets).replace("\"web\"", name);
        whole
            .lines()
            .skip(2)
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    let text = [
        "settings{ hup = 'changed', insist = true, stopTimeout = 1, controlSocket = '@DIR@/sock' }\n",
        "local function others() return { '@DIR@/t4' } end\n",
        &sync("'one'", "targetsFrom = '@DIR@/hosts',"),
        &sync("'two'", "targets = others,"),
    ]
    .concat();
    let mut daemon = Daemon::new(&dir, &text).start();
    wait_current(&mut daemon, [1, 2, 4]);
    let before = calls(&dir, 1);
    dir.put("hosts", dir.expand("@DIR@/t1\n@DIR@/t3\n"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("2 untouched, 0 changed, 1 new, 1 removed");
    wait_current(&mut daemon, [3]);
    assert_eq!(calls(&dir, 1), before);
    dir.write("after", "1");
    wait_current(&mut daemon, [1, 3, 4]);
    assert!(!dir.path("t2/after").exists());
    assert_eq!(daemon.terminate(), Some(143));
}
