//! Tests that run in a process of their own.

use std::process::Command;

/// Is set in the process of such a test.
const MARK: &str = "LSYNCD_TEST_OWN_PROCESS";

/// Runs the calling test in a separate process, for tests that change properties of the whole
/// process, such as limits. Returns true in that process. In the process of all tests, returns
/// false when it has passed.
///
/// `module` is the caller's `module_path!()`.
pub fn in_own_process(module: &str, test: &str) -> bool {
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let output = child(module, test).env(MARK, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
    false
}

/// Returns a call of this program that runs one test only, even an ignored one.
pub fn child(module: &str, test: &str) -> Command {
    let (_, module) = module.split_once("::").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("{module}::{test}")]);
    command.args(["--include-ignored", "--nocapture", "--test-threads=1"]);
    command
}
