//! `-check -connect`: each target is tested as the sync will use it, and nothing is left on it.

use std::fs;
use std::os::unix::fs::symlink;

use crate::mirror::ssh::{Sshd, account, rsync_daemon};
use crate::support::daemon::{Daemon, Ended};
use crate::support::dir::{Dir, program};
use crate::support::tree;

/// Runs the command on this machine like sshd, and records the options.
const SSH: &str = r#"printf '%s\n' "$@" >> '@DIR@/words'
while [ "$1" != h ]; do shift; done
shift
"#;

fn world(ssh: &str) -> Dir {
    let dir = Dir::new();
    dir.write("f", "1");
    dir.script("bin/ssh", &[SSH, ssh].concat());
    dir
}

fn check(dir: &Dir, config: &str, words: &[&str]) -> Ended {
    dir.put("config.lua", dir.expand(config));
    dir.put("words", "");
    let targets = || tree::read(&dir.path("trg"));
    let before = targets();
    let ended = Daemon::bare(dir)
        .fake_first()
        .env("RSYNC_CONNECT_PROG", "rsync --daemon --config=@DIR@/rsyncd")
        .args(&["-check", "-connect", "@DIR@/config.lua"])
        .args(words)
        .run();
    assert_eq!(tree::difference(&before, &targets()), "");
    assert!(!dir.path("new").exists());
    ended
}

fn assert_parts(ended: &Ended, code: i32, parts: &[&str]) {
    let text = format!("{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
}

const OVER_SSH: &str = "sync { default.rsyncssh, source = '@SRC@', host = 'u@h', targetdir = 'TRG',
    ssh = { port = 2222 } }";

fn over_ssh(target: &str) -> String {
    OVER_SSH.replace("TRG", target)
}

#[test]
fn a_host_is_tested_by_a_login_with_the_options_of_the_sync() {
    let dir = world("exec sh -c \"$*\"\n");
    let ended = check(&dir, &over_ssh("@TRG@"), &[]);
    let facts = [
        "connect  logged in at u@h",
        "connect  rsync  version ",
        "/trg/ can be written",
        "connect  rsync works on both sides",
        "The configuration is fine: 1 sync.",
    ];
    assert_parts(&ended, 0, &facts);
    let words = dir.text("words");
    for word in ["-p\n2222\n", "-o\nBatchMode=yes\n", "-l\nu\nh\n"] {
        assert!(words.contains(word), "{word}: {words}");
    }
    let ended = check(&dir, &over_ssh("@DIR@/new"), &[]);
    assert_parts(&ended, 0, &["/new/ will be created"]);
}

#[test]
fn each_failure_of_a_host_has_a_remedy() {
    let refused = |ssh: &str, target: &str, parts: &[&str]| {
        let dir = world(ssh);
        let ended = check(&dir, &over_ssh(target), &[]);
        assert_parts(&ended, 255, parts);
        assert_parts(&ended, 255, &["but 1 target cannot be used."]);
    };
    refused(
        "echo 'u@h: Permission denied (publickey).' >&2; exit 255\n",
        "@TRG@",
        &[
            "ERROR    u@h: Permission denied",
            "remedy   ",
            "ssh-copy-id",
        ],
    );
    refused(
        "exec sh -c \"$*\"\n",
        "@DIR@/no/dir",
        &["/no/dir/: No such file or directory", "--mkpath"],
    );
    refused(
        "mkdir '@DIR@/tools'\n\
         printf '#!/bin/sh\necho Read-only file system >&2\n' > '@DIR@/tools/rmdir'\n\
         chmod +x '@DIR@/tools/rmdir'\nPATH='@DIR@/tools':$PATH exec sh -c \"$*\"\n",
        "@TRG@",
        &["/trg/: Read-only file system", "read-write"],
    );
    // A host without rsync.
    let dir = world("PATH='@DIR@/tools'; export PATH; exec sh -c \"$*\"\n");
    fs::create_dir(dir.path("tools")).unwrap();
    for name in ["sh", "sed", "rmdir", "dirname"] {
        let found = program(name).unwrap();
        symlink(found, dir.path(format!("tools/{name}"))).unwrap();
    }
    let ended = check(&dir, &over_ssh("@TRG@"), &[]);
    assert_parts(&ended, 255, &["not found", "install rsync on the target"]);
}

#[test]
fn a_login_that_permits_rsync_only_is_tested_by_rsync() {
    let dir = world(
        "case $* in rsync*--server*) exec sh -c \"$*\";; esac\necho 'rsync only' >&2; exit 1\n",
    );
    let ended = check(&dir, &over_ssh("@TRG@"), &[]);
    assert_parts(
        &ended,
        0,
        &["permits no commands", "rsync works on both sides"],
    );
}

#[test]
fn a_module_of_an_rsync_daemon_is_tested() {
    let dir = world("exit 255\n");
    let daemon = "use chroot = false\n[web]\npath = @TRG@\nread only = false\n\
                  [locked]\npath = @TRG@\nread only = true\n";
    dir.put("rsyncd", dir.expand(daemon));
    let to = |target: &str, options: &str| {
        let config = "sync { default.rsync, source = '@SRC@', target = 'TRG' OPTIONS }";
        let config = config.replace("TRG", target).replace("OPTIONS", options);
        check(&dir, &config, &[])
    };
    for target in ["h::web/", "rsync://h/web/"] {
        let parts = ["has the module web", "module web accepts transfers"];
        assert_parts(&to(target, ""), 0, &parts);
    }
    let parts = ["lists web, locked", "Unknown module", "rsyncd.conf"];
    assert_parts(&to("h::other/", ""), 255, &parts);
    let parts = ["module is read only", "\"read only = false\""];
    assert_parts(&to("h::locked/", ""), 255, &parts);
}

#[test]
fn local_targets_and_programs_that_prompt_are_tested() {
    let dir = world("exit 255\n");
    let config = "sync { default.rsync, source = '@SRC@', targets = { '@TRG@', '@DIR@/no/dir' } }
        sync { default.direct, source = '@SRC@', target = '@DIR@/new' }
        sync { source = '@SRC@', onCreate = 'true' }";
    let ended = check(&dir, config, &["-json"]);
    assert_eq!(ended.status.code(), Some(255), "{}", ended.stderr);
    let answer: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(answer["ok"], false);
    let ok = |number: usize| answer["syncs"][number]["connection"]["ok"].as_bool();
    let oks = [ok(0), ok(1), ok(2), ok(3)];
    assert_eq!(oks, [Some(true), Some(false), Some(true), Some(true)]);

    let ended = Daemon::bare(&dir)
        .args(&["-connect", "@DIR@/config.lua"])
        .run();
    ended.assert_refused();
    assert!(ended.stderr.contains("-connect goes with -check only."));
}

/// The test of a silent peer ends after a timeout, and the next target is tested.
#[test]
fn a_peer_that_says_nothing_is_a_failure() {
    let dir = world("sleep 1000; true\n");
    let config = format!(
        "{}\nsync {{ default.rsync, source = '@SRC@', target = '@TRG@' }}",
        over_ssh("@TRG@")
    );
    let ended = check(&dir, &config, &[]);
    assert_parts(
        &ended,
        255,
        &["no answer in 45 s", "but 1 target cannot be used."],
    );
}

#[test]
fn failures_of_a_real_host_have_a_remedy() {
    let dir = Dir::new();
    dir.write("f", "1");
    let Some(sshd) = Sshd::start(&dir) else {
        return;
    };
    let checked = |rsh: &str, target: &str, more: &str| {
        let config = format!(
            "sync {{ default.rsync, source = '@SRC@', target = '{}@127.0.0.1:{target}',
             rsync = {{ rsh = \"{rsh}\", {more} }} }}",
            account().name
        );
        dir.put("config.lua", dir.expand(&config));
        let args = ["-check", "-connect", "@DIR@/config.lua"];
        Daemon::bare(&dir).args(&args).run()
    };
    let ended = checked(&sshd.rsh, "@TRG@", "");
    assert_parts(
        &ended,
        0,
        &[
            "logged in at",
            "can be written",
            "rsync works on both sides",
        ],
    );
    let unknown = sshd.rsh.replace("known_hosts", "no_hosts");
    let ended = checked(&unknown, "@TRG@", "");
    assert_parts(
        &ended,
        255,
        &["Host key verification failed", "compare the fingerprint"],
    );
    let other_key = sshd.rsh.replace("/ssh/id", "/ssh/host_key");
    let ended = checked(&other_key, "@TRG@", "");
    assert_parts(
        &ended,
        255,
        &["Permission denied (publickey", "ssh-copy-id"],
    );
    let ended = checked(&sshd.rsh, "@TRG@", "rsync_path = '/no/rsync'");
    assert_parts(&ended, 255, &["/no/rsync", "remedy   "]);
    let ended = checked(&sshd.rsh, "/proc/no/dir", "");
    assert_parts(&ended, 255, &["ERROR    ", "/proc/no/dir"]);

    let Some((_daemon, port)) = rsync_daemon(&dir) else {
        return;
    };
    let module = |name: &str| {
        let config = format!(
            "sync {{ default.rsync, source = '@SRC@', target = 'rsync://127.0.0.1:{port}/{name}' }}"
        );
        dir.put("config.lua", dir.expand(&config));
        let args = ["-check", "-connect", "@DIR@/config.lua"];
        Daemon::bare(&dir).args(&args).run()
    };
    assert_parts(&module("x"), 0, &["The configuration is fine"]);
    let ended = module("nonsense");
    assert_parts(&ended, 255, &["Unknown module", "remedy   ", "lists them"]);
}
