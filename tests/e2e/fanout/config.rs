//! Keys of targets, and messages about mistakes.

use super::{calls, config, site, wait_current};
use crate::support::daemon::Daemon;

#[test]
fn a_target_may_have_keys_of_its_own() {
    let dir = site(2);
    dir.write("f", "1");
    let targets =
        "{ '@DIR@/t1', { target = '@DIR@/t2', name = 'far', rsync = { bwlimit = 9000 } } }";
    let mut daemon = Daemon::new(&dir, &config(targets, "")).start();
    wait_current(&mut daemon, 1..=2);
    assert!(!dir.text("t1.calls").contains("--bwlimit=9000"));
    assert!(dir.text("t2.calls").contains("--bwlimit=9000"));
    dir.write("g", "1");
    wait_current(&mut daemon, 1..=2);
    assert!(calls(&dir, 1) > 1);
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn mistakes_are_reported() {
    let cases = [
        ("{ }", "", "targets names no target"),
        ("{ 'h::a', 'h::a' }", "", "targets has \"h::a\" twice"),
        ("{ 'h::a', 5 }", "", "neither a text nor a table"),
        (
            "{ 'h::a' }",
            "target = 'h::b',",
            "\"target\" and \"targets\" exclude each other",
        ),
        (
            "{ 'h::a' }",
            "targetsFrom = 'x',",
            "\"targets\" and \"targetsFrom\" exclude",
        ),
        (
            "nil",
            "targetsFrom = '@DIR@/none',",
            "Cannot open targets file",
        ),
        ("5", "", "targets must be a list"),
        (
            "{ { target = 'h::a', tagret = 1 } }",
            "",
            "\"tagret\" unknown",
        ),
    ];
    for (targets, more, text) in cases {
        let dir = site(0);
        let ended = Daemon::new(&dir, &config(targets, more)).run();
        ended.assert_refused();
        let said = ended.stdout + &ended.stderr;
        assert!(said.contains(text), "{targets}: {said}");
        assert!(said.contains("config.lua:"), "{targets}: {said}");
    }
}
