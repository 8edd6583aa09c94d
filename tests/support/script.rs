//! Executable shell scripts.

use std::path::Path;
use std::process::Command;

/// Text of a stand-in for ssh: it runs the command for the host `host` on this machine, through a
/// shell as sshd does.
pub const SSH: &str = "while [ \"$1\" != host ]; do shift; done\nshift\nexec sh -c \"$*\"\n";

/// Writes an executable script. A text without a `#!` line is a script of `/bin/sh`.
///
/// Another process writes the file. If the test did, a child that another thread starts at the same
/// time could inherit the open file, and a file that is open for writing cannot be executed
/// (`ETXTBSY`).
pub fn write_script(path: &Path, text: &str) {
    let first = if text.starts_with("#!") {
        ""
    } else {
        "#!/bin/sh\n"
    };
    let status = Command::new("sh")
        .args([
            "-c",
            r#"printf %s%s "$1" "$2" > "$3" && chmod 755 "$3""#,
            "sh",
        ])
        .args([first, text])
        .arg(path)
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "cannot write {path:?}"
    );
}
