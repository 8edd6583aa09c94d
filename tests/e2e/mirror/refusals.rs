//! Receivers that do not take an option that is not the user's: it is done without.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::daemon::Daemon;
use crate::support::dir::Dir;

const CONFIG: &str = r#"
settings{ insist = INSIST }
sync{
    KIND, delay = 0.1,
    rsync = { rsh = "@DIR@/ssh", protect_args = false, times = true, archive = true, OPTIONS },
}
"#;

const RSYNC: &str = r#"default.rsync, source = "@SRC@", target = "h:@TRG@""#;
const RSYNCSSH: &str = r#"
    default.rsyncssh, source = "@SRC@", host = "h", targetdir = "@TRG@",
    ssh = { binary = "@DIR@/ssh" }"#;

/// An `ssh` to a host whose rsync refuses options that match a shell pattern, in such words.
fn refuse(dir: &Dir, pattern: &str, text: &str) {
    let script = format!(
        "#!/bin/sh\nshift\nif [ \"$1\" = rsync ]; then for word; do case $word in {pattern})\n\
         echo '{text}' >&2\necho 'rsync error: syntax or usage error (code 1)' >&2\nexit 1;;\n\
         esac; done; fi\nexec \"$@\"\n"
    );
    let path = dir.put("ssh", script);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Everything arrives, and it is told once what is done without.
fn arrives(kind: &str, options: &str, insist: bool, pattern: &str, text: &str) {
    let dir = Dir::new();
    refuse(&dir, pattern, text);
    dir.mkdir("d/e");
    for name in ["d/f", "d/e/f", "gone", "kind"] {
        dir.write(name, "1");
    }
    let config = CONFIG
        .replace("KIND", kind)
        .replace("OPTIONS", options)
        .replace("INSIST", if insist { "true" } else { "false" });
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_equal();
    dir.write("d/f", "2");
    daemon.wait_equal();
    dir.rm("gone");
    dir.write("new", "1");
    daemon.wait_equal();
    dir.rm("d/e");
    dir.rm("kind");
    dir.mkdir("kind/sub");
    daemon.wait_equal();
    dir.rm("kind");
    dir.write("kind", "file");
    daemon.wait_equal();
    let log = daemon.log();
    let told = log.matches("from now on").count();
    assert!(told <= 1, "{log}");
    daemon.terminate();
}

fn refusal(option: &str) -> String {
    format!("rsync: The server is configured to refuse {option}")
}

#[test]
fn of_options_of_every_call() {
    for kind in [RSYNC, RSYNCSSH] {
        for insist in [false, true] {
            for option in ["--ignore-errors", "--force"] {
                arrives(kind, "", insist, option, &refusal(option));
            }
        }
    }
}

#[test]
fn of_options_of_lists() {
    let unknown = "rsync: on remote machine: --delete-missing-args: unknown option";
    arrives(RSYNC, "", false, "--delete-missing-args", unknown);
    arrives(RSYNCSSH, "", false, "--delete-missing-args", unknown);
    // Short ones are in one word, as -logDtprRe.iLsfxCIvu.
    arrives(RSYNC, "", false, "-[!-]*R*e.*", &refusal("--relative (-R)"));
}

#[test]
fn of_options_against_the_quick_check() {
    for options in ["", r#"list = "filter""#] {
        arrives(
            RSYNC,
            options,
            false,
            "-[!-]*I*e.*",
            &refusal("--ignore-times (-I)"),
        );
    }
}

/// What the user asks for is not left out.
#[test]
fn of_an_option_of_the_user_is_a_failure() {
    let dir = Dir::new();
    refuse(&dir, "--force", &refusal("--force"));
    dir.write("f", "1");
    let config = CONFIG
        .replace("KIND", RSYNC)
        .replace("OPTIONS", r#"_extra = { "--force" }"#)
        .replace("INSIST", "false");
    let ended = Daemon::new(&dir, &config).run();
    assert!(!ended.status.success());
    assert!(!ended.stdout.contains("from now on"), "{}", ended.stdout);
}
