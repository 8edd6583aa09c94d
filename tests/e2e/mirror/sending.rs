//! When and what is sent: delay and limits, excludes and filters, deletions, several syncs.

use std::fs;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;
use crate::support::fake::Fake;

/// Returns a sync of the real rsync with these lines.
fn config(lines: &str) -> String {
    format!(
        r#"sync{{ default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3, {lines}
            rsync = {{ archive = true }} }}"#
    )
}

/// Returns a sync of the recording stand-in with these lines.
fn recorded(lines: &str) -> String {
    format!(
        r#"sync{{ default.rsync, source = "@SRC@", target = "@TRG@", {lines}
            rsync = {{ binary = "@RSYNC@" }} }}"#
    )
}

/// Makes a change and waits until it has arrived: earlier changes have been processed then.
fn wait_sign(dir: &Dir, daemon: &mut Running<'_>, name: &str) {
    dir.write(name, "sign");
    daemon.wait_for("the sign arrives", |_| dir.trg(name).exists());
}

fn put_in_target(dir: &Dir, name: &str) {
    let path = dir.trg(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "only at the target").unwrap();
}

#[test]
fn changes_within_the_delay_are_one_batch() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &recorded("delay = 1,")).start_and_settle();
    daemon.stop();
    for n in 0..10 {
        dir.write("f", n.to_string());
        dir.write(format!("g{n}"), "");
    }
    daemon.cont();
    daemon.wait_for("a batch ended", |_| fake.ended() >= 2);
    let batch = &fake.calls()[1];
    assert!(batch.lists("/f") && batch.lists("/g0") && batch.lists("/g9"));
    daemon.wait_log("Finished a list after exitcode: 0");
    assert_eq!(daemon.terminate(), Some(143));
    assert_eq!(fake.calls().len(), 2);
}

#[test]
fn max_delays_ends_the_delay() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let config = recorded("delay = 86400, maxDelays = 5,");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    for n in 0..10 {
        dir.write(format!("f{n}"), "");
    }
    daemon.wait_for("a batch ended", |_| fake.ended() >= 2);
}

#[test]
fn one_transfer_at_a_time_by_default() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &recorded("delay = 0,")).start_and_settle();
    for n in 0..30 {
        dir.write(format!("f{n}"), "");
    }
    daemon.wait_for("all were listed", |_| {
        let calls = fake.calls();
        (0..30).all(|n| calls.iter().any(|call| call.lists(&format!("/f{n}"))))
    });
    assert!(fake.calls().iter().all(|call| call.concurrent == 1));
}

#[test]
fn max_processes_permits_several_transfers_of_one_sync() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let config = recorded("delay = 0, maxProcesses = 2,");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    fake.hold();
    dir.mkdir("a");
    daemon.wait_for("first runs", |_| fake.calls().len() >= 2);
    dir.mkdir("b");
    daemon.wait_for("second runs as well", |_| fake.calls().len() >= 3);
    fake.release();
    // If the first one outlasts the second one, their common directory is sent again.
    daemon.wait_for("both ended", |_| fake.ended() >= 3);
    let calls = fake.calls();
    assert_eq!(calls[2].concurrent, 2);
    assert!(calls[1].lists("/a/") && calls[2].lists("/b/"));
    let again = &calls[3..];
    assert!(
        again
            .iter()
            .all(|call| !call.lists("/a/") && !call.lists("/b/"))
    );
}

/// No file is sent twice at the same time, and none is lost.
#[test]
fn six_files_with_three_processes() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let config = recorded("delay = 0, maxProcesses = 3,");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    for n in 0..6 {
        dir.write(format!("f{n}"), n.to_string());
    }
    daemon.wait_same("src", "trg", false);
    dir.write("f0", "changed");
    daemon.wait_same("src", "trg", false);
    assert!(fake.calls().iter().all(|call| call.concurrent <= 3));
}

#[test]
fn process_limit_of_all_syncs_together() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let two = "settings{ maxProcesses = 1 }\n".to_owned()
        + &two_syncs(r#"rsync = { binary = "@RSYNC@" }, delay = 0,"#);
    prepare_two(&dir);
    let mut daemon = Daemon::new(&dir, &two).start();
    for n in 0..10 {
        fs::write(dir.path(format!("a/f{n}")), "1").unwrap();
        fs::write(dir.path(format!("b/f{n}")), "1").unwrap();
    }
    daemon.wait_same("a", "ta", false);
    daemon.wait_same("b", "tb", false);
    assert!(fake.calls().iter().all(|call| call.concurrent == 1));
}

fn two_syncs(lines: &str) -> String {
    ["a", "b"]
        .map(|name| {
            format!(
                r#"sync{{ default.rsync, source = "@DIR@/{name}", target = "@DIR@/t{name}", {lines} }}
                "#
            )
        })
        .concat()
}

fn prepare_two(dir: &Dir) {
    for name in ["a", "b", "ta", "tb"] {
        fs::create_dir(dir.path(name)).unwrap();
    }
}

#[test]
fn two_syncs_side_by_side() {
    let dir = Dir::new();
    prepare_two(&dir);
    fs::write(dir.path("a/f"), "in a").unwrap();
    let mut daemon = Daemon::new(&dir, &two_syncs("delay = 0.3")).start();
    daemon.wait_log("Startup of @DIR@/a/ -> @DIR@/ta/ finished.");
    daemon.wait_log("Startup of @DIR@/b/ -> @DIR@/tb/ finished.");
    fs::write(dir.path("b/g"), "in b").unwrap();
    fs::rename(dir.path("a/f"), dir.path("b/f")).unwrap();
    daemon.wait_same("a", "ta", false);
    daemon.wait_same("b", "tb", false);
}

#[test]
fn a_hanging_sync_does_not_hold_up_another() {
    let dir = Dir::new();
    prepare_two(&dir);
    let fake = Fake::new(&dir);
    fake.hold();
    let config = r#"
sync{ default.rsync, source = "@DIR@/a", target = "@DIR@/ta", delay = 0.3, rsync = { binary = "@RSYNC@" } }
sync{ default.rsync, source = "@DIR@/b", target = "@DIR@/tb", delay = 0.3 }
"#;
    let mut daemon = Daemon::new(&dir, config).start();
    daemon.wait_for("the first hangs", |_| !fake.calls().is_empty());
    fs::write(dir.path("b/f"), "1").unwrap();
    daemon.wait_same("b", "tb", false);
    fs::write(dir.path("b/f"), "22").unwrap();
    daemon.wait_same("b", "tb", false);
    fake.release();
}

#[test]
fn one_source_to_two_targets() {
    let dir = Dir::new();
    prepare_two(&dir);
    let config = r#"
sync{ default.rsync, source = "@SRC@", target = "@DIR@/ta", delay = 0.2 }
sync{ default.rsync, source = "@SRC@", target = "@DIR@/tb", delay = 0.4 }
"#;
    let mut daemon = Daemon::new(&dir, config).start();
    daemon.wait_log("-> @DIR@/ta/ finished.");
    daemon.wait_log("-> @DIR@/tb/ finished.");
    dir.mkdir("d/e");
    dir.write("d/e/f", "1");
    daemon.wait_same("src", "ta", false);
    daemon.wait_same("src", "tb", false);
    dir.rm("d/e");
    daemon.wait_same("src", "ta", false);
    daemon.wait_same("src", "tb", false);
}

#[test]
fn a_source_inside_another() {
    let dir = Dir::new();
    prepare_two(&dir);
    dir.mkdir("in/deep");
    let config = r#"
sync{ default.rsync, source = "@SRC@", target = "@DIR@/ta", delay = 0.2 }
sync{ default.rsync, source = "@SRC@/in", target = "@DIR@/tb", delay = 0.2 }
"#;
    let mut daemon = Daemon::new(&dir, config).start();
    daemon.wait_log("-> @DIR@/ta/ finished.");
    daemon.wait_log("-> @DIR@/tb/ finished.");
    dir.write("in/deep/f", "1");
    dir.write("out", "2");
    daemon.wait_same("src", "ta", false);
    daemon.wait_same("src/in", "tb", false);
    dir.mv("out", "in/moved-in");
    dir.mv("in/deep", "deep");
    daemon.wait_same("src", "ta", false);
    daemon.wait_same("src/in", "tb", false);
}

#[test]
fn no_startup_transfer_with_init_false() {
    let dir = Dir::new();
    dir.write("old", "1");
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &recorded("delay = 0, init = false,")).start();
    daemon.wait_log("--- Startup ---");
    // A change that is sent shows that the watches are set.
    daemon.wait_for("a change is sent", |_| {
        dir.write("new", "1");
        fake.ended() >= 1
    });
    let first = &fake.calls()[0];
    assert!(
        first.lists("/new") && !first.lists("/old"),
        "{:?}",
        first.argv
    );
}

#[test]
fn only_the_top_directory_with_subdirs_false() {
    let dir = Dir::new();
    dir.mkdir("d");
    let fake = Fake::new(&dir);
    let config = recorded("delay = 0.3, subdirs = false, checkgauge = { subdirs = true },");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    dir.write("d/ignored", "1");
    dir.write("seen", "1");
    daemon.wait_for("the change at the top is sent", |_| {
        fake.calls().iter().any(|call| call.lists("/seen"))
    });
    assert!(fake.calls().iter().all(|call| !call.lists("/d/ignored")));
}

// ---- what is left out

#[test]
fn excluded_is_neither_sent_nor_deleted() {
    let dir = Dir::new();
    for name in ["keep", "a.bak", "d/b.bak", "cache/f", "d/cache/f"] {
        dir.mkdir(name.rsplit_once('/').map_or("", |(parent, _)| parent));
        dir.write(name, "1");
    }
    put_in_target(&dir, "their.bak");
    put_in_target(&dir, "cache/theirs");
    let config = config(r#"exclude = { "*.bak", "/cache/" },"#);
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    dir.append("a.bak", "2");
    dir.write("d/new.bak", "1");
    dir.write("cache/new", "1");
    dir.mkdir("x/cache");
    dir.write("x/cache/f", "sent, the pattern begins at the top");
    wait_sign(&dir, &mut daemon, "x/sign");
    for name in ["keep", "d/cache/f", "their.bak", "cache/theirs"] {
        assert!(dir.trg(name).exists(), "{name} is missing");
    }
    daemon.wait_for("x/cache/f arrives", |_| dir.trg("x/cache/f").exists());
    for name in ["a.bak", "d/b.bak", "d/new.bak", "cache/f", "cache/new"] {
        assert!(!dir.trg(name).exists(), "{name} was sent");
    }
}

#[test]
fn moves_into_and_out_of_excluded_directories() {
    let dir = Dir::new();
    dir.write("f", "1");
    dir.write("g.tmp", "2");
    let config = config(r#"exclude = "*.tmp","#);
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    dir.mv("f", "f.tmp");
    dir.mv("g.tmp", "g");
    daemon.wait_for("g is there and f is gone", |_| {
        dir.trg("g").exists() && !dir.trg("f").exists()
    });
    wait_sign(&dir, &mut daemon, "sign");
    assert!(!dir.trg("f.tmp").exists());
}

#[test]
fn exclude_from_a_file() {
    let dir = Dir::new();
    dir.put(
        "list",
        "# comment\n\n*.o\n- /secret\n  - spaced\n+ not-taken\n",
    );
    for name in ["a.o", "secret", "spaced", "kept", "not-taken"] {
        dir.write(name, "1");
    }
    let config = config(r#"excludeFrom = "@DIR@/list","#);
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    dir.write("b.o", "1");
    dir.append("secret", "2");
    wait_sign(&dir, &mut daemon, "sign");
    assert!(dir.trg("kept").exists() && dir.trg("not-taken").exists());
    for name in ["a.o", "b.o", "secret", "spaced"] {
        assert!(!dir.trg(name).exists(), "{name} was sent");
    }
}

#[test]
fn filter_first_match_decides() {
    let dir = Dir::new();
    for name in ["a.log", "keep.log", "f"] {
        dir.write(name, "1");
    }
    let config = config(r#"filter = { "+ keep.log", "- *.log" },"#);
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    dir.mkdir("d");
    dir.write("d/b.log", "1");
    dir.write("d/keep.log", "1");
    dir.append("keep.log", "2");
    wait_sign(&dir, &mut daemon, "sign");
    daemon.wait_for("the backup arrives", |_| {
        dir.trg("d/keep.log").exists() && fs::read(dir.trg("keep.log")).unwrap() == b"12"
    });
    assert!(dir.trg("f").exists());
    for name in ["a.log", "d/b.log"] {
        assert!(!dir.trg(name).exists(), "{name} was sent");
    }
}

#[test]
fn filter_from_a_file() {
    let dir = Dir::new();
    dir.put("list", "# comment\n\n+ *.txt\n- f*\n");
    for name in ["f.txt", "f.bin", "g"] {
        dir.write(name, "1");
    }
    let config = config(r#"filterFrom = "@DIR@/list","#);
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    dir.write("f2.bin", "1");
    dir.write("f2.txt", "1");
    wait_sign(&dir, &mut daemon, "sign");
    daemon.wait_for("f2.txt arrives", |_| dir.trg("f2.txt").exists());
    assert!(dir.trg("f.txt").exists() && dir.trg("g").exists());
    assert!(!dir.trg("f.bin").exists() && !dir.trg("f2.bin").exists());
}

// ---- what deletes

/// Returns if the startup deletes files that only the target has, and if later deletions are sent.
fn deletes(setting: &str) -> (bool, bool) {
    let dir = Dir::new();
    dir.write("f", "1");
    dir.mkdir("d");
    dir.write("d/g", "1");
    put_in_target(&dir, "stale");
    let config = config(&format!("delete = {setting},"));
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    daemon.wait_for("startup transfer", |_| dir.trg("d/g").exists());
    let at_start = !dir.trg("stale").exists();
    dir.rm("f");
    dir.rm("d/g");
    wait_sign(&dir, &mut daemon, "sign");
    let gone = [dir.trg("f"), dir.trg("d/g")].map(|path| !path.exists());
    assert_eq!(gone[0], gone[1]);
    (at_start, gone[0])
}

#[test]
fn delete_true_deletes_always() {
    assert_eq!(deletes("true"), (true, true));
}

#[test]
fn delete_false_deletes_never() {
    assert_eq!(deletes("false"), (false, false));
}

#[test]
fn delete_startup_deletes_at_the_startup_only() {
    assert_eq!(deletes(r#""startup""#), (true, false));
}

#[test]
fn delete_running_deletes_after_the_startup_only() {
    assert_eq!(deletes(r#""running""#), (false, true));
}

/// A change in a directory does not affect the other files of the directory on the target.
#[test]
fn a_batch_does_not_delete_what_did_not_change() {
    let dir = Dir::new();
    dir.mkdir("d/e");
    let mut daemon = Daemon::new(&dir, &config("")).start_and_settle();
    for name in ["theirs", "d/theirs", "d/e/theirs"] {
        put_in_target(&dir, name);
    }
    dir.write("d/e/f", "1");
    dir.write("d/f", "1");
    daemon.wait_for("both arrive", |_| {
        dir.trg("d/e/f").exists() && dir.trg("d/f").exists()
    });
    wait_sign(&dir, &mut daemon, "sign");
    for name in ["theirs", "d/theirs", "d/e/theirs"] {
        assert!(dir.trg(name).exists(), "{name} was deleted");
    }
}

/// The action neither starts a process nor discards the event. It is called less often than an
/// alarm of a tenth of a second.
#[test]
fn action_that_leaves_its_event_is_asked_again_later() {
    for instead in [
        "",
        "inlet.createBlanketEvent()",
        "spawn(inlet.createFullEvent('/g'), 'true')",
    ] {
        let config = r#"
        local asked, ticks = 0, 0
        local function tick()
            ticks = ticks + 1
            log("Normal", "ticks: ", ticks, ", asked: ", asked)
            alarm(now() + 0.1, tick)
        end
        sync{ source = "@SRC@", delay = 0, init = false, action = function(inlet)
            local event = inlet.getEvent()
            if asked == 0 then alarm(now(), tick) end
            asked = asked + 1
            if asked == 3 then
                log("Normal", "third time")
                inlet.discardEvent(event)
            elseif asked < 3 then
                INSTEAD
            end
        end }"#;
        let dir = Dir::new();
        let mut daemon = Daemon::new(&dir, &config.replace("INSTEAD", instead)).start();
        daemon.wait_log("--- Startup ---");
        daemon.wait_for("the event is there", |daemon| {
            dir.write("f", "1");
            daemon.log().contains("ticks: ")
        });
        daemon.wait_log("third time");
        daemon.wait_log("ticks: 4");
        for ticks in ["ticks: 1,", "ticks: 2,"] {
            let often = format!("{ticks} asked: 3");
            assert!(!daemon.log().contains(&often), "{}", daemon.log());
        }
    }
}
