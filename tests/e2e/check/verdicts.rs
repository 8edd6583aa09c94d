//! What happens to rejected files, and how they are reported.

use std::fs;

use super::{COMMAND, Daemon, arrives, assert_clean, sentinel, site, start};

#[test]
fn delete_target_deletes_on_the_target() {
    let dir = site();
    dir.write("f", "good");
    dir.write("g", "EVIL");
    fs::write(dir.trg("g"), "older").unwrap();
    let mut daemon = start(&dir, &format!("{COMMAND}, onReject = \"delete-target\""));
    daemon.wait_log("finished.");
    assert!(!dir.trg("g").exists());
    arrives(&dir, &mut daemon, "f", "good");
    dir.write("f", "EVIL");
    daemon.wait_for("it is deleted", |_| !dir.trg("f").exists());
    assert!(dir.src("f").exists());
}

/// Too many filter rules would be needed, so nothing is deleted.
#[test]
fn too_many_rejected_files_suspend_deletions() {
    let dir = site();
    for number in 0..1001 {
        dir.write(format!("evil{number}"), "EVIL");
    }
    for name in ["evil0", "evil1000", "stale"] {
        fs::write(dir.trg(name), "older").unwrap();
    }
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    sentinel(&dir, &mut daemon, "s");
    for name in ["evil0", "evil1000", "stale"] {
        assert_eq!(fs::read(dir.trg(name)).unwrap(), b"older", "{name}");
    }
    assert_clean(&dir);
}

#[test]
fn quarantine_moves_rejected_files() {
    let dir = site();
    fs::create_dir(dir.path("jail")).unwrap();
    dir.put("jail/f", "one of before");
    dir.write("f", "good");
    let words = r#"onReject = "quarantine", quarantine = "@DIR@/jail""#;
    let mut daemon = start(&dir, &format!("{COMMAND}, {words}"));
    daemon.wait_log("finished.");
    dir.write("f", "EVIL");
    daemon.wait_log("/f was moved to");
    daemon.wait_for("the source loses it", |_| !dir.src("f").exists());
    assert_eq!(fs::read(dir.path("jail/f.1")).unwrap(), b"EVIL");
    daemon.wait_for("the target loses it", |_| !dir.trg("f").exists());
    sentinel(&dir, &mut daemon, "s");
    assert_clean(&dir);
}

#[test]
fn on_reject_calls_functions_and_commands() {
    let function = r#"onReject = function(path, reason)
      local file = io.open("@DIR@/told", "a") file:write(path, " ", reason, "\n") file:close() end"#;
    // A command that fails does not prevent those of the next files.
    let command = r#"onReject = { "sh", "-c",
      '[ "$LSYNCD_SYNC $LSYNCD_SOURCE" = "Sync1 @SRC@/" ] && echo "$1 $2" >> @DIR@/told; exit 1',
      "sh" }"#;
    for hook in [function, command] {
        let dir = site();
        dir.write("evil", "EVIL");
        dir.write("evil2", "EVIL");
        let mut daemon = start(&dir, &format!("{COMMAND}, {hook}"));
        daemon.wait_log("finished.");
        dir.write("evil3", "EVIL");
        let line = |name| dir.expand(&format!("@SRC@/{name} Evil.Test FOUND"));
        let expected = ["evil", "evil2", "evil3"].map(line);
        let told = || {
            let told = fs::read_to_string(dir.path("told")).unwrap_or_default();
            let mut lines: Vec<_> = told.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        daemon.wait_for("the hooks", |_| told() == expected);
        sentinel(&dir, &mut daemon, "s");
        assert_eq!(told(), expected);
    }
}

#[test]
fn status_and_metrics_count_rejected_and_held_files() {
    let dir = site();
    dir.write("evil", "EVIL");
    dir.write("good", "good");
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("/evil was rejected: Evil.Test FOUND");
    daemon.wait_log("finished.");
    daemon.wait_for("the status file", |_| {
        dir.text("status")
            .contains("Rejected: /evil: Evil.Test FOUND")
    });
    let ctl = |words: &[&str]| {
        let output = dir.ctl(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shown = ctl(&["status"]);
    assert!(shown.contains("1 file rejected"), "{shown}");
    let json = ctl(&["status", "--json"]);
    assert!(json.contains("\"reason\": \"Evil.Test FOUND\""), "{json}");
    daemon.wait_for("the metrics", |_| {
        fs::read_to_string(dir.path("metrics"))
            .is_ok_and(|text| text.contains("lsyncd_rejected_files{sync=\"Sync1\"} 1"))
    });
}

#[test]
fn impossible_combinations_with_check_are_refused() {
    let dir = site();
    let cases = [
        (
            "default.direct, check = { command = { 'x' } }",
            "check is for default.rsync only",
        ),
        (
            "default.rsync, check = { command = { 'x' } }, rsync = { copy_links = true }",
            "rsync.copy_links cannot be combined with check",
        ),
        (
            "default.rsync, check = { command = { 'x' } }, action = function() end",
            "check is for default.rsync only",
        ),
        (
            "default.rsync, check = { command = { 'x' } }, rsync = { append_verify = true }",
            "rsync.append_verify cannot be combined with check",
        ),
        (
            "default.rsync, check = { command = { 'x' } }, rsync = { _extra = { '--append' } }",
            "\"--append\" in rsync._extra cannot be combined with check",
        ),
        (
            "default.rsync, check = { command = { 'x' }, staging = '@DIR@' }",
            "check.staging must not contain the source",
        ),
        (
            "default.rsync, check = { command = { 'x' }, staging = '@TRG@/s' }",
            "check.staging and the target must not contain each other",
        ),
        (
            "default.rsync, check = { command = { 'x' }, onReject = 'quarantine',
               staging = '@DIR@/s', quarantine = '@DIR@/s/tree' }",
            "check.quarantine must not be inside check.staging",
        ),
        (
            "default.rsync, check = { comand = { 'x' } }",
            "Did you mean \"check.command\"?",
        ),
    ];
    for (words, expected) in cases {
        let text = format!("sync{{ {words}, source = \"@SRC@\", target = \"@TRG@\" }}");
        let mut daemon = Daemon::new(&dir, &text).start();
        assert!(!daemon.wait_end().success());
        assert!(daemon.log().contains(expected), "{words}: {}", daemon.log());
    }
}

#[test]
fn a_reload_during_a_check_loses_nothing() {
    let dir = site();
    dir.write("f", "good");
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    dir.put("hang", "");
    dir.write("g", "good");
    dir.write("evil", "EVIL");
    daemon.wait_for("the scanner runs", |_| super::asked(&dir).len() > 1);
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    fs::remove_file(dir.path("hang")).unwrap();
    arrives(&dir, &mut daemon, "g", "good");
    sentinel(&dir, &mut daemon, "s");
    assert_clean(&dir);
}

/// A function that user code changed in the table of the kind is not used to send checked files.
#[test]
fn a_changed_behaviour_sends_nothing() {
    let dir = site();
    let changed = r#"default.rsync.init = function(event)
        spawn(event, "/usr/bin/rsync", "-r", event.config.source, event.config.target) end
    "#;
    dir.write("evil", "EVIL");
    let mut daemon = Daemon::new(&dir, &(changed.to_owned() + &super::config(COMMAND))).start();
    assert!(!daemon.wait_end().success());
    assert!(daemon.log().contains("with check"), "{}", daemon.log());
    assert_clean(&dir);
}

/// Returns the type of a path and the names in it.
fn names(path: &std::path::Path) -> Option<(fs::FileType, Vec<std::ffi::OsString>)> {
    let kind = path.symlink_metadata().ok()?.file_type();
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    Some((kind, if kind.is_dir() { names } else { Vec::new() }))
}

/// When the directory of a rejected file is replaced, its older version on the target is no longer
/// protected.
#[test]
fn rejected_files_of_a_directory_that_was_replaced_are_forgotten() {
    type Replace = fn(&std::path::Path);
    let replacements: [(&str, Replace); 4] = [
        ("link", |path| {
            std::os::unix::fs::symlink("h", path).unwrap()
        }),
        ("file", |path| fs::write(path, "harmless").unwrap()),
        ("empty directory", |path| fs::create_dir(path).unwrap()),
        ("full directory", |path| {
            fs::create_dir_all(path.join("s")).unwrap();
            fs::write(path.join("s/other"), "harmless").unwrap();
        }),
    ];
    for (name, replace) in replacements {
        for replaced in ["z", "z/s"] {
            let dir = site();
            for file in ["z/w", "z/s/w", "z/s/v", "y/w", "h/f"] {
                fs::create_dir_all(dir.src(file).parent().unwrap()).unwrap();
                dir.write(file, "good");
            }
            let mut daemon = start(&dir, COMMAND);
            arrives(&dir, &mut daemon, "z/s/w", "good");
            for file in ["z/w", "z/s/w", "y/w"] {
                dir.write(file, "EVIL");
            }
            daemon.wait_log("y/w");
            sentinel(&dir, &mut daemon, "s1");
            daemon.stop();
            fs::rename(dir.src(replaced), dir.path("old")).unwrap();
            replace(&dir.src(replaced));
            daemon.cont();
            let wanted = names(&dir.src(replaced));
            daemon.wait_for(&format!("{replaced} is a {name}"), |_| {
                names(&dir.trg(replaced)) == wanted
            });
            sentinel(&dir, &mut daemon, "s2");
            // The other rejected files are still protected.
            assert_eq!(fs::read(dir.trg("y/w")).unwrap(), b"good");
            let left = if replaced == "z" { 1.0 } else { 2.0 };
            daemon.wait_for("the metrics", |_| {
                let text = fs::read_to_string(dir.path("metrics")).unwrap_or_default();
                let value = text
                    .lines()
                    .find(|line| line.starts_with("lsyncd_rejected_files{"));
                value.and_then(|line| line.rsplit(' ').next()?.parse().ok()) == Some(left)
            });
            assert_clean(&dir);
        }
    }
}
