//! `guard = { maxDelete = … }`: a transfer that would delete more than the limit does not start.

use std::fs;

use crate::guard::{MIRROR, with};
use crate::support::daemon::Daemon;
use crate::support::dir::Dir;
use crate::support::script::SSH;

#[test]
fn too_much_would_be_deleted_at_once() {
    too_much_at_once(&with("{ maxDelete = 5 }"));
}

#[test]
fn too_much_would_be_deleted_without_rsync() {
    too_much_at_once(&direct("{ maxDelete = 5 }"));
}

fn direct(guard: &str) -> String {
    let rsync = "default.rsync, source = \"@SRC@\", target = \"@TRG@\", delay = 0.3, rsync = { archive = true }";
    let direct = format!(
        "default.direct, source = \"@SRC@\", target = \"@TRG@\", delay = 0.3, guard = {guard}"
    );
    MIRROR.replace(rsync, &direct)
}

fn too_much_at_once(config: &str) {
    let dir = Dir::new();
    for n in 0..10 {
        dir.mkdir(format!("d{n}"));
        dir.write(format!("d{n}/f"), "1");
    }
    let mut daemon = Daemon::new(&dir, config).start();
    daemon.wait_equal();
    dir.rm("d0");
    daemon.wait_equal();
    for n in 1..4 {
        fs::rename(dir.src(format!("d{n}")), dir.path(format!("d{n}"))).unwrap();
    }
    daemon.wait_log("6 entries would be deleted on the target, more than 5");
    daemon.wait_for("the status shows it", |_| {
        dir.text("status").contains("Halted: 6 entries")
    });
    assert!(dir.trg("d1/f").exists());
    // The cause is gone.
    for n in 1..4 {
        fs::rename(dir.path(format!("d{n}")), dir.src(format!("d{n}"))).unwrap();
    }
    dir.write("g", "2");
    daemon.wait_equal();
    daemon.wait_log("the deletions are within maxDelete again");
}

#[test]
fn too_much_would_be_deleted_with_options_that_print_nothing() {
    for options in [
        "quiet = true",
        "_extra = { '-q' }",
        "_extra = { '--out-format=%n' }",
        "_extra = { '--no-i' }",
        "_extra = { '--info=del0' }",
    ] {
        let archive = format!("archive = true, {options}");
        too_much_at_once(&with("{ maxDelete = 5 }").replace("archive = true", &archive));
    }
}

/// The file replaces a directory, whose contents are deleted.
#[test]
fn too_much_would_be_deleted_for_a_file() {
    let limit = "{ maxDelete = 5 }";
    let list =
        |list: &str| with(limit).replace("archive = true", &format!("archive = true, {list}"));
    for config in [
        list(""),
        list("list = 'files-from'"),
        list("list = 'filter'"),
        direct(limit),
    ] {
        let dir = Dir::new();
        dir.mkdir("d");
        for number in 0..10 {
            dir.write(format!("d/f{number}"), "1");
        }
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.wait_equal();
        daemon.stop();
        dir.rm("d");
        dir.write("d", "1");
        daemon.cont();
        daemon.wait_log("entries would be deleted on the target, more than 5");
        assert!(dir.trg("d/f9").exists());
    }
}

/// The percentage refers to the current target, not to the one at the start.
#[test]
fn the_percentage_refers_to_the_current_target() {
    for config in [
        with("{ maxDelete = \"50%\" }"),
        direct("{ maxDelete = \"50%\" }"),
    ] {
        let dir = Dir::new();
        dir.write("first", "1");
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.wait_equal();
        (0..40).for_each(|number| dir.write(format!("f{number}"), "1"));
        daemon.wait_equal();
        (0..10).for_each(|number| dir.rm(format!("f{number}")));
        daemon.wait_equal();
        assert!(
            !daemon.log().contains("would be deleted"),
            "{}",
            daemon.log()
        );
        // The remaining target is smaller than the remembered count: two of three files are too
        // many.
        daemon.stop();
        (10..38).for_each(|number| dir.rm(format!("f{number}")));
        daemon.cont();
        daemon.wait_log("28 entries would be deleted on the target, more than 50% of 31");
        (14..38).for_each(|number| dir.write(format!("f{number}"), "1"));
        daemon.wait_equal();
        daemon.stop();
        (14..39).for_each(|number| dir.rm(format!("f{number}")));
        daemon.cont();
        daemon.wait_log("25 entries would be deleted on the target, more than 50% of 27");
    }
}

#[test]
fn a_release_during_the_dry_run_starts_the_transfer() {
    let dir = Dir::new();
    dir.script(
        "bin/wrapped",
        "case \"$*\" in *--dry-run*)
             touch @DIR@/counts; while test -e @DIR@/holds; do sleep 0.1; done;; esac
             exec rsync \"$@\"\n",
    );
    let config = with("{ maxDelete = 3 }").replace(
        "archive = true",
        "archive = true, binary = '@DIR@/bin/wrapped'",
    );
    let config = format!("settings{{ controlSocket = '@DIR@/sock' }} {config}");
    (0..8).for_each(|number| dir.write(format!("f{number}"), "1"));
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_equal();
    daemon.settle();
    (0..8).for_each(|number| dir.rm(format!("f{number}")));
    daemon.wait_log("would be deleted");
    dir.put("holds", "");
    fs::remove_file(dir.path("counts")).unwrap();
    daemon.wait_for("the next dry run runs", |_| dir.path("counts").exists());
    assert!(dir.ctl(&["release"]).status().unwrap().success());
    fs::remove_file(dir.path("holds")).unwrap();
    daemon.wait_equal();
    daemon.settle();
    let status = dir.ctl(&["status"]).output().unwrap();
    assert!(status.status.success(), "{status:?}");
}

#[test]
fn part_of_the_target_would_be_deleted_at_startup() {
    for config in [
        with("{ maxDelete = \"50%\" }"),
        direct("{ maxDelete = \"50%\" }"),
    ] {
        part_at_startup(&config);
    }
}

fn part_at_startup(config: &str) {
    let dir = Dir::new();
    for n in 0..6 {
        fs::write(dir.trg(format!("f{n}")), "1").unwrap();
    }
    dir.write("f0", "1");
    let mut daemon = Daemon::new(&dir, config).start();
    daemon.wait_log("5 entries would be deleted on the target, more than 50% of");
    for n in 1..6 {
        assert!(dir.trg(format!("f{n}")).exists());
        dir.write(format!("f{n}"), "1");
    }
    daemon.wait_equal();
}

/// No comparison has counted the target, so it is counted before a list deletes.
#[test]
fn part_of_the_target_would_be_deleted_by_a_list() {
    for list in ["auto", "filter"] {
        let dir = Dir::new();
        for n in 0..10 {
            dir.write(format!("f{n}"), "1");
        }
        let config = format!(
            r#"sync{{
                default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3, delete = "running",
                guard = {{ maxDelete = "50%" }}, rsync = {{ archive = true, list = "{list}" }},
            }}"#
        );
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.wait_equal();
        daemon.wait_log("finished.");
        daemon.stop();
        for n in 0..8 {
            dir.rm(format!("f{n}"));
        }
        daemon.cont();
        daemon.wait_log("8 entries would be deleted on the target, more than 50% of 10");
        assert!(dir.trg("f0").exists());
        for n in 0..5 {
            dir.write(format!("f{n}"), "1");
        }
        daemon.wait_equal();
    }
}

/// The transfer does not start for any exit code of the dry run, and for any table of exit codes.
/// The dry run has read the source, and the transfer has not.
#[test]
fn deletions_after_the_dry_run_are_limited() {
    for (list, limit) in [("auto", "5"), ("filter", "5"), ("auto", "'25%'")] {
        let dir = Dir::new();
        let wait = "echo >> @DIR@/calls
            while [ -e @DIR@/held$(wc -l < @DIR@/calls) ]; do sleep 0.05; done\n";
        dir.script("bin/ssh", &(dir.expand(wait) + SSH));
        for n in 0..20 {
            dir.write(format!("f{n}"), "1");
        }
        let options = format!("archive = true, rsh = '@DIR@/bin/ssh', list = '{list}'");
        let config = with(&format!("{{ maxDelete = {limit} }}"))
            .replace("archive = true", &options)
            .replace("\"@TRG@\"", "\"host:@TRG@\"")
            .replace("settings{", "settings{ controlSocket = '@DIR@/sock',");
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.wait_equal();
        daemon.settle();
        let calls = || dir.text("calls").lines().count();
        let transfer = calls() + 2;
        let held = format!("held{transfer}");
        dir.put(&held, "");
        assert!(dir.ctl(&["resync"]).status().unwrap().success());
        daemon.wait_for("the transfer has begun", |_| calls() == transfer);
        for n in 0..18 {
            fs::remove_file(dir.src(format!("f{n}"))).unwrap();
        }
        fs::remove_file(dir.path(&held)).unwrap();
        daemon.wait_log("it has stopped deleting");
        daemon.wait_log("13 entries would be deleted on the target, more than");
        let left = fs::read_dir(dir.trg("")).unwrap().count();
        assert_eq!(left, 15, "{list} {limit}");
        assert!(dir.ctl(&["release"]).status().unwrap().success());
        daemon.wait_equal();
    }
}

#[test]
fn a_failed_dry_run_starts_no_transfer() {
    for (failure, more) in [
        ("exit 12", ""),
        ("exit 1", ""),
        ("exit 12", ", exitcodes = { [0] = 'ok', [12] = 'ok' }"),
        ("kill -9 $$", ""),
    ] {
        let dir = Dir::new();
        dir.script(
            "bin/wrapped",
            &format!(
                "case \"$*\" in *--dry-run*) test -e @DIR@/fails && {failure};; esac\n\
                 echo \"$*\" >> @DIR@/calls\nexec rsync \"$@\"\n"
            ),
        );
        let config = format!(
            "settings{{ insist = true }}
            sync{{ default.rsync, source = '@SRC@', target = '@TRG@', delay = 0.2,
            guard = {{ maxDelete = 100 }}, rsync = {{ archive = true, binary = '@DIR@/bin/wrapped' }}
            {more} }}"
        );
        dir.put("fails", "");
        fs::write(dir.trg("old"), "x").unwrap();
        dir.write("new", "1");
        let mut daemon = Daemon::new(&dir, &config).start();
        let told = "the dry run for maxDelete failed, nothing is sent";
        if failure == "exit 1" {
            // Neither does the transfer start after an error that ends a sync.
            daemon.wait_log(told);
        } else {
            daemon.wait_for("it is retried", |daemon| {
                daemon.log().matches(told).count() > 1
            });
        }
        assert!(!dir.path("calls").exists() && dir.trg("old").exists());
        if failure == "exit 1" {
            continue;
        }
        fs::remove_file(dir.path("fails")).unwrap();
        daemon.wait_equal();
        assert!(!dir.trg("old").exists());
    }
}
