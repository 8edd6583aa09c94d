//! Mistakes in a configuration: each is refused with 255 and one line that names the position and
//! the key.

use crate::support::daemon::{Daemon, Ended};
use crate::support::dir::Dir;
use crate::support::fake::Fake;

/// Runs a configuration with this text on line 3.
fn run(dir: &Dir, line: &str) -> Ended {
    Fake::new(dir);
    let ended = Daemon::new(dir, &format!("-- a comment\n\n{line}\n")).run();
    ended.assert_refused();
    let text = format!("{}{}", ended.stdout, ended.stderr);
    for word in ["panic", "PANIC", "RUST_BACKTRACE", "core dumped"] {
        assert!(!text.contains(word), "{text}");
    }
    assert!(
        std::fs::read_dir(dir.root())
            .unwrap()
            .flatten()
            .all(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"core")),
        "left a core"
    );
    ended
}

/// Asserts that one line of the errors contains the position and all of these texts.
fn refused(line: &str, texts: &[&str]) {
    let dir = Dir::new();
    let ended = run(&dir, line);
    let place = "config.lua:3:";
    let clear = ended.stderr.lines().any(|said| {
        said.starts_with("Error: ")
            && said.contains(place)
            && texts.iter().all(|text| said.contains(&dir.expand(text)))
    });
    assert!(
        clear,
        "no line with {place:?} and {texts:?}:\n{}",
        ended.stderr
    );
}

/// Returns a sync of default.rsync with these keys.
fn sync(more: &str) -> String {
    format!(
        r#"sync{{ default.rsync, source = "@SRC@", target = "@TRG@", {more}, rsync = {{ binary = "@RSYNC@" }} }}"#
    )
}

#[test]
fn unknown_key() {
    refused(
        &sync("dealy = 5"),
        &[r#"Parameter "dealy" unknown. ( if this is not a typo add it to checkgauge )"#],
    );
}

#[test]
fn unknown_key_of_rsync() {
    let line =
        r#"sync{ default.rsync, source = "@SRC@", target = "/x", rsync = { archiv = true } }"#;
    refused(
        line,
        &[r#"Parameter "rsync.archiv" unknown. ( if this is not a typo add it to checkgauge )"#],
    );
}

#[test]
fn rsync_that_is_not_a_table() {
    let line = r#"sync{ default.rsync, source = "@SRC@", target = "/x", rsync = true }"#;
    refused(line, &[r#"Parameter "rsync" must be a table."#]);
}

#[test]
fn delay_as_text() {
    refused(
        &sync(r#"delay = "x""#),
        &["delay must be a number and >= 0"],
    );
    refused(
        &sync(r#"delay = "5""#),
        &["delay must be a number and >= 0"],
    );
}

#[test]
fn delay_below_zero() {
    refused(&sync("delay = -1"), &["delay must be a number and >= 0"]);
}

#[test]
fn exclude_as_number() {
    refused(
        &sync("exclude = 5"),
        &["type for exclude must be table or string"],
    );
}

#[test]
fn filter_as_number() {
    refused(
        &sync("filter = 5"),
        &["type for filter must be table or string"],
    );
}

#[test]
fn filter_without_a_sign() {
    refused(
        &sync(r#"filter = { "nonsense" }"#),
        &["Unknown filter rule", "nonsense"],
    );
}

#[test]
fn exclude_file_that_is_not_there() {
    refused(
        &sync(r#"excludeFrom = "@DIR@/none""#),
        &[r#"Cannot open exclude file "@DIR@/none": "#],
    );
}

#[test]
fn filter_file_that_is_not_there() {
    refused(
        &sync(r#"filterFrom = "@DIR@/none""#),
        &[r#"Cannot open filter file "@DIR@/none": "#],
    );
}

#[test]
fn limits_as_text() {
    for key in ["maxProcesses", "maxDelays"] {
        refused(&sync(&format!(r#"{key} = "many""#)), &[key]);
    }
}

#[test]
fn source_missing() {
    refused(
        r#"sync{ default.rsync, target = "/x" }"#,
        &["source missing from sync."],
    );
}

#[test]
fn source_that_is_not_there() {
    refused(
        r#"sync{ default.rsync, source = "@DIR@/none", target = "/x" }"#,
        &["Cannot access source directory: @DIR@/none"],
    );
}

#[test]
fn source_that_is_a_file() {
    let dir = Dir::new();
    dir.put("file", "");
    let line = r#"sync{ default.rsync, source = "@DIR@/file", target = "/x" }"#;
    let ended = run(&dir, line);
    let text = dir.expand("Cannot access source directory: @DIR@/file");
    assert!(ended.stderr.contains(&text), "{}", ended.stderr);
}

#[test]
fn source_of_a_wrong_type() {
    refused(
        r#"sync{ default.rsync, source = {}, target = "/x" }"#,
        &["source"],
    );
}

#[test]
fn target_missing() {
    refused(
        r#"sync{ default.rsync, source = "@SRC@" }"#,
        &[r#"default.rsync needs "target" configured"#],
    );
    refused(
        r#"sync{ default.direct, source = "@SRC@" }"#,
        &[r#"needs "target" configured"#],
    );
}

#[test]
fn target_of_a_wrong_type() {
    refused(
        r#"sync{ default.rsync, source = "@SRC@", target = {} }"#,
        &["target"],
    );
}

#[test]
fn host_and_directory_of_rsyncssh_missing() {
    refused(
        r#"sync{ default.rsyncssh, source = "@SRC@", targetdir = "/x" }"#,
        &[r#"default.rsyncssh needs "host" configured"#],
    );
    refused(
        r#"sync{ default.rsyncssh, source = "@SRC@", host = "h" }"#,
        &[r#"default.rsyncssh needs "targetdir" configured"#],
    );
}

#[test]
fn handlers_that_default_rsync_does_not_have() {
    refused(&sync("onCreate = function() end"), &["onCreate"]);
}

#[test]
fn sync_that_does_nothing() {
    refused(
        r#"sync{ source = "@SRC@", action = false }"#,
        &["no actions specified."],
    );
}

#[test]
fn unknown_setting() {
    refused(
        "settings{ statusIntervall = 1 }",
        &[r#"setting "statusIntervall" unknown."#],
    );
    refused(
        r#"settings{ "nodaemn" }"#,
        &[r#"setting "nodaemn" unknown."#],
    );
}

#[test]
fn settings_assigned() {
    let dir = Dir::new();
    let ended = run(&dir, "settings = { nodaemon = true }");
    assert!(
        ended
            .stderr
            .contains("Error: Do not use settings = { ... }")
            && ended
                .stderr
                .contains("please use settings{ ... } (without the equal sign)"),
        "{}",
        ended.stderr
    );
}

#[test]
fn syntax_error() {
    refused(
        "sync{ default.rsync, source = }",
        &["error loading @DIR@/config.lua: "],
    );
}

#[test]
fn runtime_error() {
    refused(
        "local x = nil; x.y = 1",
        &["error preparing @DIR@/config.lua: "],
    );
}

#[test]
fn error_value_that_is_no_text() {
    let dir = Dir::new();
    run(&dir, "error({})");
    let dir = Dir::new();
    run(&dir, "error()");
}

#[test]
fn misspelt_default() {
    refused(
        r#"sync{ defualt.rsync, source = "@SRC@", target = "/x" }"#,
        &["defualt"],
    );
}

#[test]
fn sync_without_a_table() {
    let dir = Dir::new();
    run(&dir, "sync(5)");
    let dir = Dir::new();
    run(&dir, "sync()");
}

#[test]
fn text_that_is_not_lua() {
    let dir = Dir::new();
    run(&dir, "<VirtualHost *:80>");
}

/// A mistake in a later sync prevents the start of the earlier ones.
#[test]
fn no_sync_starts_if_a_later_one_has_a_mistake() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let config = sync("delay = 1") + "\n" + &sync("dealy = 1") + "\n";
    Daemon::new(&dir, &config).run().assert_refused();
    assert!(fake.calls().is_empty());
}
