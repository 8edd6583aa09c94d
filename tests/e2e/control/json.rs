//! `-json` of each command prints JSON, also for errors.

use super::*;

use serde_json::Value;

/// Each command of the help text with complete arguments, and keys of its answer.
const LINES: [(&str, &[&str]); 14] = [
    ("status", &["severity", "syncs"]),
    ("explain @SRC@/f", &["ok", "text", "last"]),
    ("log", &["sync", "path"]),
    ("pause", &["ok", "text"]),
    ("resume", &["ok", "text"]),
    ("release", &["ok", "text"]),
    ("flush", &["ok", "text"]),
    ("resync one", &["ok", "text"]),
    ("verify", &["sync", "verdict"]),
    ("reports", &["reports", "problems"]),
    ("retry", &["ok", "text"]),
    ("reload", &["ok", "text"]),
    ("log-level", &["ok", "text"]),
    ("top", &["ok", "text"]),
];

/// Returns the objects on standard output.
fn objects(output: &Output) -> Vec<Value> {
    let values = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    let values: Result<Vec<Value>, _> = values.collect();
    let values = values.unwrap_or_else(|e| panic!("{e}: {}", text(output)));
    assert!(values.iter().all(Value::is_object), "{values:?}");
    values
}

/// Asserts that standard output is one error object, whose text is also on standard error.
fn assert_refused(output: &Output, exit: i32) {
    let objects = objects(output);
    assert_eq!((code(output), objects.len()), (exit, 1), "{}", text(output));
    assert_eq!(objects[0]["ok"], false);
    let told = objects[0]["text"].as_str().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!told.is_empty() && errors.contains(told), "{errors}");
}

#[test]
fn each_command_answers_in_json() {
    let help = ctl(&Dir::new(), &["-help"]);
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    dir.write("f", "1");
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    daemon.wait_for("the startup ends", |_| fake.ended() >= 1);
    done(&dir, &["status", "-wait"]);
    for (line, keys) in LINES {
        let words: Vec<&str> = line.split(' ').chain(["-json"]).collect();
        let output = ctl(&dir, &words);
        if line == "top" {
            assert_refused(&output, 4);
            continue;
        }
        let objects = objects(&output);
        let first = objects.first().unwrap_or_else(|| panic!("{line}"));
        for key in keys {
            assert!(first.get(key).is_some(), "{line}: {key} in {first}");
        }
        // A sync or a path that does not exist.
        let words: Vec<&str> = match line.split(' ').next().unwrap() {
            "explain" => continue,
            "reports" | "reload" => vec![words[0], "nonsense", "-json"],
            "log-level" => vec!["log-level", "nonsense", "-json"],
            verb => vec![verb, "nonsense", "-json"],
        };
        let exit = if matches!(words[0], "reports" | "reload") {
            4
        } else {
            2
        };
        assert_refused(&ctl(&dir, &words), exit);
    }
    for (words, exit) in [
        (&["-json", "nonsense"][..], 4),
        (&["--json", "status", "-nonsense"], 4),
        (&["-json", "status", "-socket", "/nowhere"], 3),
        (&["explain", "-json"], 4),
    ] {
        assert_refused(&ctl(&dir, words), exit);
    }
    done(&dir, &["pause"]);
    dir.write("f", "2");
    daemon.wait_for("it is pending", |_| status(&dir).syncs[0].pending > 0);
    let waited = ctl(&dir, &["status", "-wait", "-timeout", "0.2", "-json"]);
    assert_eq!((code(&waited), objects(&waited).len()), (1, 1));
    // LINES contains each command of the help text.
    let help = text(&help);
    let commands = help.lines().filter_map(|line| line.strip_prefix("  "));
    let commands =
        commands.filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()));
    let commands: Vec<_> = commands.filter_map(|line| line.split(' ').next()).collect();
    let mut tested: Vec<_> = LINES
        .iter()
        .filter_map(|(line, _)| line.split(' ').next())
        .collect();
    tested.sort_unstable();
    let mut commands = commands;
    commands.sort_unstable();
    assert_eq!(tested, commands);
}
