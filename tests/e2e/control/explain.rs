//! `lsyncdctl explain`.

use super::*;

/// Returns the explanation of a path of the source.
fn explain(dir: &Dir, path: &str) -> String {
    let output = ctl(dir, &["explain", &format!("@SRC@/{path}")]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    text(&output)
}

#[test]
fn a_path_is_explained_from_pending_to_sent() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let config = one(r#"exclude = { "*.tmp" },"#).replace("delay = 1", "delay = 500");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    let said = explain(&dir, "f");
    assert!(said.contains("one: mirrored to "), "{said}");
    assert!(said.contains("    sync     current"), "{said}");

    dir.write("f", "x");
    daemon.wait_for("it is pending", |_| status(&dir).syncs[0].pending == 1);
    let said = explain(&dir, "f");
    assert!(said.contains("    pending  Create, due in "), "{said}");
    fake.hold();
    done(&dir, &["flush"]);
    wait_state(&dir, &mut daemon, State::Sending);
    let said = explain(&dir, "f");
    assert!(said.contains("    sending  Create\n"), "{said}");
    let other = explain(&dir, "g");
    assert!(!other.contains("\n    sending "), "{other}");

    fake.release();
    wait_state(&dir, &mut daemon, State::Current);
    let said = explain(&dir, "f");
    assert!(said.contains("\none: last sent "), "{said}");
    let said = explain(&dir, "f.tmp");
    assert!(said.contains("one: left out; the rule is "), "{said}");
    // The full comparison at the start has left it out as well.
    assert!(!said.contains("one: last "), "{said}");
    for word in ["f.tmp", "new"] {
        let output = ctl(&dir, &["log", "one", word]);
        assert_eq!(
            text(&output).contains("compared"),
            word == "new",
            "{}",
            text(&output)
        );
    }
}

#[test]
fn the_comparison_of_a_directory_is_explained() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    dir.mkdir("d");
    dir.write("d/f", "x");
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    fake.hold();
    done(&dir, &["resync", "one", "d"]);
    wait_state(&dir, &mut daemon, State::Sending);
    for (path, what) in [("d", "Delete"), ("d/f", "Delete of /d/")] {
        let expected = format!("    sending  {what} (a comparison, if the directory exists)");
        let said = explain(&dir, path);
        assert!(said.contains(&expected), "{said}");
    }
    fake.release();
    wait_state(&dir, &mut daemon, State::Current);
}

#[test]
fn a_failed_path_is_explained_with_the_reason() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    fake.exits(&[0, 23]);
    dir.mkdir("d");
    dir.write("d/f", "x");
    daemon.wait_for("it is left", |_| status(&dir).syncs[0].failed > 0);
    let said = explain(&dir, "d/f");
    assert!(said.contains("    failed   not transferred"), "{said}");
    let outside = ctl(&dir, &["explain", "/elsewhere"]);
    assert!(
        text(&outside).contains("not in this sync"),
        "{}",
        text(&outside)
    );
    assert_eq!(code(&ctl(&dir, &["explain"])), 4);
}

/// Syncs that do not contain the path are not listed.
#[test]
fn one_sync_of_several_is_explained_with_the_remedy() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fs::create_dir(dir.path("other")).unwrap();
    let other = r#"
sync{ default.rsync, name = "other", source = "@DIR@/other", target = "@DIR@/trg2",
      rsync = { binary = "@RSYNC@" } }"#;
    let config = format!("{}{other}", one(""));
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    daemon.wait_for("both are started", |_| fake.ended() >= 2);
    fake.exits(&[0, 0, 11]);
    let words = "rsync: write failed on \"f\": No space left on device (28)\n";
    dir.put("fake/say.3", words);
    dir.write("f", "x");
    wait_state(&dir, &mut daemon, State::Retrying);
    let said = explain(&dir, "f");
    assert!(said.contains("No space left"), "{said}");
    assert!(
        said.contains("    remedy   free space on the target"),
        "{said}"
    );
    assert!(!said.contains("other: "), "{said}");
    let outside = text(&ctl(&dir, &["explain", "/elsewhere"]));
    assert!(
        outside.contains("one: not ") && outside.contains("other: not "),
        "{outside}"
    );
}
