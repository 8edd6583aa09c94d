//! Links to directories that rsync follows: their contents are sent and deleted with them.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, poll};
use crate::support::tree;

const CONFIG: &str = r#"
sync{
    default.rsync, source = "@SRC@", delay = 0.1, filter = { RULES },
    target = TARGET, rsync = { times = true, OPTIONS },
}
"#;

/// Rules that exclude one type of file, and rules that include directories and one type.
const RULES: [&[&str]; 2] = [&["- *.tmp"], &["+ */", "- *.tmp", "+ [fg]*", "- *"]];

/// Makes the target of a full comparison.
fn oracle(dir: &Dir, option: &str, rules: &[&str]) {
    let rules = rules.iter().map(|rule| format!("--filter={rule}"));
    let status = Command::new("rsync")
        .args(["-rlt", "--delete", option])
        .args(rules)
        .args([dir.src(""), dir.path("oracle/")])
        .status();
    assert!(status.unwrap().success());
}

fn holds(option: &str, options: &str, target: &str) {
    for rules in RULES {
        holds_with(rules, option, options, target);
    }
}

fn holds_with(rules: &[&str], option: &str, options: &str, target: &str) {
    let dir = Dir::new();
    dir.script("ssh", "shift\nexec \"$@\"\n");
    dir.script("wrapped", "exec rsync \"$@\"\n");
    for place in ["one/sub", "two"] {
        fs::create_dir_all(dir.path(place)).unwrap();
    }
    for file in ["one/sub/f", "one/x.tmp", "two/g", "two/sub"] {
        dir.put(file, file);
    }
    dir.write("f", "1");
    dir.mkdir("d");
    symlink(dir.path("one"), dir.src("old")).unwrap();
    fs::create_dir(dir.path("oracle")).unwrap();
    let filter: Vec<String> = rules.iter().map(|rule| format!("{rule:?}")).collect();
    let config = CONFIG
        .replace("TARGET", target)
        .replace("OPTIONS", options)
        .replace("RULES", &filter.join(", "));
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    let mut check = |what: &str| {
        oracle(&dir, option, rules);
        let read = |name: &str| tree::without_attributes(tree::read(&dir.path(name)));
        let mut difference = String::new();
        poll(|| {
            difference = tree::difference(&read("oracle"), &read("trg"));
            difference.is_empty() || daemon.has_ended()
        });
        assert!(
            difference.is_empty(),
            "{option} {options} {rules:?}: {what}\n{difference}\n{}",
            daemon.log()
        );
    };
    check("startup");
    symlink(dir.path("one"), dir.src("new")).unwrap();
    symlink(dir.path("two"), dir.src("d/deep")).unwrap();
    check("links are made");
    dir.mv("new", "d/renamed");
    check("a link is renamed");
    symlink(dir.path("two"), dir.src("t")).unwrap();
    dir.mv("t", "old");
    check("a link leads elsewhere");
    dir.rm("old");
    dir.write("old", "file");
    check("a file in place of a link");
    dir.rm("d/deep");
    // This is what the option does: rsync writes through the link on the target.
    if option != "--keep-dirlinks" {
        dir.mkdir("d/deep");
        dir.write("d/deep/own", "1");
        check("a directory in place of a link");
        dir.rm("d/deep");
    }
    symlink(dir.path("one"), dir.src("d/deep")).unwrap();
    check("a link in place of a directory");
    dir.rm("d/renamed");
    dir.rm("d/deep");
    check("links are removed");
    symlink(dir.path("one"), dir.src("last")).unwrap();
    dir.mv("d", "e");
    check("a directory beside a link is renamed");
}

#[test]
fn contents_of_followed_links_are_sent_and_deleted() {
    for (option, key) in [
        ("--copy-links", "copy_links"),
        ("--copy-dirlinks", "copy_dirlinks"),
        ("--copy-unsafe-links", "copy_unsafe_links"),
        ("--keep-dirlinks", "keep_dirlinks"),
    ] {
        for list in ["auto", "filter", "files-from"] {
            holds(
                option,
                &format!("{key} = true, list = \"{list}\""),
                "\"@TRG@\"",
            );
        }
        holds(
            option,
            &format!("{key} = true, rsh = \"@DIR@/ssh\""),
            "\"h:@TRG@\"",
        );
    }
    holds("-L", r#"_extra = { "-L" }"#, "\"@TRG@\"");
}

/// A dangling link is not retried, and everything else is sent.
#[test]
fn a_dangling_followed_link_is_reported_and_not_retried() {
    for (option, list, referent) in [
        ("copy_links", "auto", "none"),
        ("copy_links", "filter", "loop"),
        ("copy_unsafe_links", "filter", "/none"),
    ] {
        let dir = Dir::new();
        symlink(referent, dir.src("early")).unwrap();
        let config = CONFIG
            .replace("TARGET", "\"@TRG@\"")
            .replace("OPTIONS", &format!("{option} = true, list = \"{list}\""))
            .replace("RULES", "");
        let config =
            format!("settings{{ insist = true, controlSocket = \"@DIR@/sock\" }} {config}");
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.wait_log("links without a referent: 1;");
        if referent == "loop" {
            symlink("loop", dir.src("loop")).unwrap();
        }
        symlink(referent, dir.src("late")).unwrap();
        dir.write("f", "1");
        daemon.settle();
        assert!(dir.trg("f").exists() && !dir.trg("late").exists());
        assert!(!daemon.log().contains("retrying"), "{}", daemon.log());
        // An event of the link sends its new contents.
        dir.rm("late");
        symlink("f", dir.src("late")).unwrap();
        daemon.settle();
        assert!(dir.trg("late").exists(), "{}", daemon.log());
    }
}

#[test]
fn a_wrapper_gets_the_contents_of_followed_links() {
    for (option, key) in [
        ("--copy-links", "copy_links"),
        ("--copy-dirlinks", "copy_dirlinks"),
    ] {
        holds(
            option,
            &format!("{key} = true, binary = \"@DIR@/wrapped\""),
            "\"@TRG@\"",
        );
    }
}
