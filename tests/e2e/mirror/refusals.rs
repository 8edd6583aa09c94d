//! Receivers that refuse an option that the daemon has added: the option is omitted.

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

/// Writes an `ssh` to a host whose rsync refuses options that match a shell pattern, with this
/// message.
fn refuse(dir: &Dir, pattern: &str, text: &str) {
    let script = format!(
        "shift\nif [ \"$1\" = rsync ]; then for word; do case $word in {pattern})\n\
         echo '{text}' >&2\necho 'rsync error: syntax or usage error (code 1)' >&2\nexit 1;;\n\
         esac; done; fi\nexec \"$@\"\n"
    );
    dir.script("ssh", &script);
}

/// Asserts that everything arrives, and that the omitted option is logged once.
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
fn refused_options_of_every_call_are_omitted() {
    for kind in [RSYNC, RSYNCSSH] {
        for insist in [false, true] {
            for option in ["--ignore-errors", "--force"] {
                arrives(kind, "", insist, option, &refusal(option));
            }
        }
    }
}

#[test]
fn refused_options_of_lists_are_omitted() {
    let unknown = "rsync: on remote machine: --delete-missing-args: unknown option";
    arrives(RSYNC, "", false, "--delete-missing-args", unknown);
    arrives(RSYNCSSH, "", false, "--delete-missing-args", unknown);
    // Short options are in one word, as -logDtprRe.iLsfxCIvu.
    arrives(RSYNC, "", false, "-[!-]*R*e.*", &refusal("--relative (-R)"));
}

#[test]
fn refused_options_against_the_quick_check_are_omitted() {
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

/// Options of the user are not omitted.
#[test]
fn a_refused_option_of_the_user_is_a_failure() {
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
