//! Random changes under rules that include and exclude: whatever happens, the target is what
//! `rsync -r --delete` with the same rules makes of it, protected files at the target included.
//!
//! `LSYNCD_TEST_SEED=N` replays the changes, `LSYNCD_TEST_ROUNDS` says how many rounds a run has.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::churn::{Links, Random, Sizes, change};
use crate::support::daemon::Daemon;
use crate::support::dir::Dir;
use crate::support::tree;

/// Rules over the names that [`change`] uses. `prot` is what only the target has.
const RULES: &[&[&str]] = &[
    &["- prot", "+ */", "+ a", "+ [[:alpha:]]", "- *"],
    &["- prot", "+ /a/***", "+ */", "- /b/*", "- -f"],
    &["- prot", "- /c/a", "- *e/", "- g/**"],
    &["- prot", "+ */", "- /b/b", "+ **/g", "- a/*/b", "- /***"],
];

/// Drops the options and the host and runs the rest here.
const SSH: &str = "#!/bin/sh\n\
    while [ \"$1\" != there ]; do shift; done\nshift\nexec sh -c \"$*\"\n";

fn script(dir: &Dir, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.put(name, text);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Brings a copy of the target to what the rules make of it. False if something that they
/// protect is in the way.
fn ask_rsync(dir: &Dir, rules: &[&str]) -> bool {
    let run = |args: &[&str], from: &str, to: &str, input: String| {
        let mut child = Command::new("rsync")
            .args(args)
            .args([dir.path(from), dir.path(to)])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        child.wait().unwrap().success()
    };
    assert!(run(&["-a", "--delete"], "trg/", "oracle/", String::new()));
    let args = ["--filter=. -", "--delete", "--force", "-a"];
    run(&args, "src/", "oracle/", rules.join("\n"))
}

/// Puts what the rules protect into directories of the target.
fn protect(dir: &Dir, random: &mut Random) {
    let tree = tree::read(&dir.path("trg"));
    for (path, node) in tree {
        if node.kind == tree::Kind::Dir && random.below(3) == 0 {
            fs::write(dir.trg(path).join("prot"), "protected").unwrap();
        }
    }
}

/// Takes the protected files away again, and the directories that were kept for them.
fn unprotect(dir: &Dir, name: &Path) {
    let directory = dir.path("trg").join(name);
    for entry in fs::read_dir(&directory).unwrap().flatten() {
        let below = name.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            unprotect(dir, &below);
        } else if below.ends_with("prot") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let source = fs::symlink_metadata(dir.path("src").join(name));
    if !source.is_ok_and(|source| source.is_dir()) {
        let _ = fs::remove_dir(directory);
    }
}

/// `sync` is what the configuration says beside source, filter and delay. `moves` are carried
/// out at the target, and take along what is protected.
fn follow(sync: &str, moves: bool) {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("LSYNCD_TEST_SEED").unwrap_or(time.subsec_nanos().into());
    eprintln!("LSYNCD_TEST_SEED={seed}");
    let random = &mut Random::new(seed, Links::None, Sizes::Many);

    for rules in RULES {
        let dir = Dir::new();
        script(&dir, "ssh", SSH);
        script(
            &dir,
            "wrapper",
            "#!/bin/sh\nrsync \"$@\"\ncode=$?\nexit $code\n",
        );
        let filter: Vec<String> = rules.iter().map(|rule| format!("{rule:?}")).collect();
        let config = format!(
            "sync{{ {sync}, source = '@SRC@', filter = {{ {} }}, delay = 0.1 }}",
            filter.join(", ")
        );
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.wait_log(" finished");
        for _ in 0..number("LSYNCD_TEST_ROUNDS").unwrap_or(4) {
            if !moves {
                protect(&dir, random);
            }
            daemon.stop();
            for _ in 0..8 + random.below(30) {
                change(&dir, random);
            }
            if !ask_rsync(&dir, rules) {
                unprotect(&dir, Path::new(""));
                assert!(ask_rsync(&dir, rules), "{}", daemon.log());
            }
            daemon.cont();
            daemon.wait_same("oracle", "trg", false);
        }
        assert_eq!(daemon.terminate(), Some(143));
    }
}

#[test]
fn with_a_list_of_files() {
    follow(
        "default.rsync, target = '@TRG@', rsync = { archive = true }",
        false,
    );
}

#[test]
fn with_a_list_of_filters() {
    follow(
        "default.rsync, target = '@TRG@', rsync = { archive = true, list = 'filter' }",
        false,
    );
}

#[test]
fn with_a_wrapper() {
    follow(
        "default.rsync, target = '@TRG@', rsync = { archive = true, binary = '@DIR@/wrapper' }",
        false,
    );
}

#[test]
fn on_another_host() {
    follow(
        "default.rsync, target = 'there:@TRG@', rsync = { archive = true, rsh = '@DIR@/ssh' }",
        false,
    );
}

#[test]
fn with_moves_at_the_target() {
    follow(
        "default.rsyncssh, host = 'there', targetdir = '@TRG@', \
         ssh = { binary = '@DIR@/ssh' }, rsync = { archive = true, rsh = '@DIR@/ssh' }",
        true,
    );
}

/// More renewed directories in one batch than rules may stand among rsync's arguments.
#[test]
fn hundreds_of_renewed_directories() {
    for (list, rules) in [
        ("auto", &["- prot"] as &[&str]),
        ("auto", &["- prot", "+ */", "+ *.jpg", "- *"]),
        ("filter", &["- prot", "+ */", "+ *.jpg", "- *"]),
        ("filter", &[]),
    ] {
        let dir = Dir::new();
        let name = |n: usize, file: &str| format!("d{n:03}/{file}");
        for n in 0..257 {
            dir.mkdir(name(n, ""));
            dir.write(name(n, "old.jpg"), "");
        }
        let filter: Vec<String> = rules.iter().map(|rule| format!("{rule:?}")).collect();
        let filter = match rules {
            [] => String::new(),
            _ => format!("filter = {{ {} }},", filter.join(", ")),
        };
        let config = format!(
            "sync{{ default.rsync, source = '@SRC@', target = '@TRG@', delay = 0.1, {filter} \
             rsync = {{ archive = true, list = '{list}' }} }}"
        );
        let mut daemon = Daemon::new(&dir, &config).start_and_settle();
        daemon.wait_same("src", "trg", false);
        daemon.stop();
        for n in 0..257 {
            if !rules.is_empty() {
                fs::write(dir.trg(name(n, "prot")), "").unwrap();
            }
            dir.rm(name(n, ""));
            dir.mkdir(name(n, ""));
            dir.write(name(n, "new.jpg"), "");
        }
        fs::create_dir(dir.trg("foreign")).unwrap();
        assert!(ask_rsync(&dir, rules));
        fs::create_dir(dir.path("oracle/foreign")).unwrap();
        daemon.cont();
        daemon.wait_same("oracle", "trg", false);
        assert_eq!(daemon.terminate(), Some(143));
    }
}
