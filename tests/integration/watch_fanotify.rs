//! The watcher with fanotify, which a process may use only with privileges.

use std::process::Command;

use crate::support::dir::skip;
use crate::watch_rig::Rig;

/// The tests of the watcher in this program decide by an environment variable what they use.
#[test]
fn the_tests_of_the_watcher_pass_with_fanotify() {
    if !Rig::has_watches() {
        return; // They run that way anyway.
    }
    if let Err(why) = Rig::fanotify() {
        return skip(&why);
    }
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests.args(["watch_", "--skip", "watch_fanotify"]);
    let result = tests.env("LSYNCD_TEST_WATCH", "fanotify").output().unwrap();
    let text = String::from_utf8_lossy(&result.stdout);
    assert!(result.status.success(), "{text}");
}
