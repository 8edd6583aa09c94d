//! Random changes under rules that include and exclude: the target equals the result of `rsync -r
//! --delete` with the same rules, including protected files on the target.
//!
//! `LSYNCD_TEST_SEED=N` replays the changes, `LSYNCD_TEST_ROUNDS` is the number of rounds.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::churn::{Changes, Links, Sizes, change};
use crate::support::daemon::Daemon;
use crate::support::dir::Dir;
use crate::support::random::{number, seed};
use crate::support::script::SSH;
use crate::support::tree;

/// Rules for the names that [`change`] uses. Only the target has `prot`.
const RULES: &[&[&str]] = &[
    &["- prot", "+ */", "+ a", "+ [[:alpha:]]", "- *"],
    &["- prot", "+ /a/***", "+ */", "- /b/*", "- -f"],
    &["- prot", "- /c/a", "- *e/", "- g/**"],
    &["- prot", "+ */", "- /b/b", "+ **/g", "- a/*/b", "- /***"],
];

/// Makes `oracle` the result of rsync with these rules on a copy of the target. Returns false if
/// protected files prevent that.
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

/// Creates protected files in directories of the target.
fn protect(dir: &Dir, random: &mut Changes) {
    let tree = tree::read(&dir.path("trg"));
    for (path, node) in tree {
        if node.kind == tree::Kind::Dir && random.below(3) == 0 {
            fs::write(dir.trg(path).join("prot"), "protected").unwrap();
        }
    }
}

/// Removes the protected files and the directories that were kept for them.
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

/// `sync` has the keys besides source, filter and delay. `moves` is true if renames are executed on
/// the target, which also moves protected files.
fn follow(sync: &str, moves: bool) {
    let random = &mut Changes::new(seed(), Links::None, Sizes::Many);

    for rules in RULES {
        let dir = Dir::new();
        dir.script("ssh", SSH);
        dir.script("wrapper", "rsync \"$@\"\ncode=$?\nexit $code\n");
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
fn rules_with_a_list_of_files() {
    follow(
        "default.rsync, target = '@TRG@', rsync = { archive = true }",
        false,
    );
}

#[test]
fn rules_with_an_include_list() {
    follow(
        "default.rsync, target = '@TRG@', rsync = { archive = true, list = 'filter' }",
        false,
    );
}

#[test]
fn rules_with_a_wrapper() {
    follow(
        "default.rsync, target = '@TRG@', rsync = { archive = true, binary = '@DIR@/wrapper' }",
        false,
    );
}

#[test]
fn rules_on_another_host() {
    follow(
        "default.rsync, target = 'host:@TRG@', rsync = { archive = true, rsh = '@DIR@/ssh' }",
        false,
    );
}

#[test]
fn rules_with_moves_on_the_target() {
    follow(
        "default.rsyncssh, host = 'host', targetdir = '@TRG@', \
         ssh = { binary = '@DIR@/ssh' }, rsync = { archive = true, rsh = '@DIR@/ssh' }",
        true,
    );
}

/// One batch has more new directories than rsync's arguments may have rules.
#[test]
fn rules_with_hundreds_of_new_directories() {
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
