//! `-check` and `-explain`: reports about a configuration without starting it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, skip};
use crate::support::script::write_script;

const CONFIG: &str = r#"
settings { logfile = "@DIR@/log", statusFile = "@DIR@/status", pidfile = "@DIR@/pid" }
sync {
    default.rsync, name = "web", source = "@SRC@", target = "@TRG@", delay = 5,
    exclude = { "*.tmp", "/cache/" }, filter = { "+ /cache/keep/", "- *.o" },
}
sync { default.rsyncssh, source = "@DIR@/other", host = "h", targetdir = "/t", delete = false }
sync { source = "@DIR@/other", onCreate = "echo ^pathname", rsync = nil }
"#;

pub(super) fn dir() -> Dir {
    let dir = Dir::new();
    fs::create_dir(dir.path("other")).unwrap();
    dir.put("config.lua", dir.expand(CONFIG));
    dir
}

#[test]
fn check_lists_syncs_and_changes_nothing() {
    let dir = dir();
    dir.put("src/a", "1");
    let ended = Daemon::bare(&dir)
        .args(&["-check", "@DIR@/config.lua"])
        .run();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let expected = dir.expand(
        "web: rsync\n    source   @SRC@/\n    target   @TRG@/\n    delay    5 s\n    \
         delete   always\n    filter   + /cache/keep/\n    filter   - *.o\n    \
         exclude  *.tmp\n    exclude  /cache/\n\
         Sync2: rsyncssh\n    source   @DIR@/other/\n    target   h:/t/\n    delay    15 s\n    \
         delete   never\n\
         Sync3: user\n    source   @DIR@/other/\n    target   (what its functions do)\n    \
         delay    0 s\n    delete   never\n\
         The configuration is fine: 3 syncs.\n",
    );
    assert_eq!(ended.stdout, expected);
    for name in ["log", "status", "pid", "trg/a"] {
        assert!(!dir.path(name).exists(), "{name} was written");
    }
}

#[test]
fn check_has_an_exit_code_and_json() {
    let dir = dir();
    let ended = Daemon::bare(&dir)
        .args(&["@DIR@/config.lua", "--check", "--json"])
        .run();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let web = dir.expand(
        r#"{"name":"web","kind":"rsync","source":"@SRC@/","target":"@TRG@/","delay":5.0,"delete":"always","filters":["+ /cache/keep/","- *.o"],"excludes":["*.tmp","/cache/"],"maxProcesses":1,"problems":[]}"#,
    );
    assert!(ended.stdout.starts_with(r#"{"ok":true,"settings":{"#));
    assert!(ended.stdout.contains(&web), "{}", ended.stdout);

    dir.put("config.lua", "sync { default.rsync, source = '/' }");
    let ended = Daemon::bare(&dir)
        .args(&["-check", "-json", "@DIR@/config.lua"])
        .run();
    assert_eq!(ended.status.code(), Some(255));
    assert!(
        ended.stdout.starts_with(r#"{"ok":false,"errors":["#),
        "{}",
        ended.stdout
    );
}

#[test]
fn check_finds_failures_of_a_start() {
    let refused = |config: &str, part: &str| {
        let dir = Dir::new();
        dir.put("config.lua", dir.expand(config));
        let ended = Daemon::bare(&dir)
            .args(&["-check", "@DIR@/config.lua"])
            .run();
        assert_eq!(ended.status.code(), Some(255), "{config}");
        assert!(ended.stderr.contains(part), "{config}: {}", ended.stderr);
        assert_eq!(ended.stdout, "");
    };
    refused("", "Nothing to watch!");
    refused(
        "\nsync = { default.rsync, source = '@SRC@', target = '@TRG@' }",
        "Nothing to watch! Please write sync{ ... } instead of sync = { ... } (without the equal sign)",
    );
    refused("sync = { }", "config.lua:1: sync)");
    refused(
        "sync { default.rsyn, source = '@SRC@', target = '@TRG@' }",
        "rsyn",
    );
    refused("settings { foo = 1 }", "setting \"foo\" unknown");
    refused(
        "sync { default.rsync, source = '@DIR@/none', target = '@TRG@' }",
        "@DIR@/none".trim_start_matches("@DIR@"),
    );
}

#[test]
fn a_missing_program_is_a_warning() {
    let dir = Dir::new();
    dir.put(
        "config.lua",
        dir.expand("sync { default.rsync, source = '@SRC@', target = '@TRG@', rsync = { binary = '/no/rsync' } }"),
    );
    let ended = Daemon::bare(&dir)
        .args(&["-check", "@DIR@/config.lua"])
        .run();
    assert_eq!(ended.status.code(), Some(0));
    assert!(
        ended
            .stdout
            .contains("WARNING  /no/rsync cannot be executed"),
        "{}",
        ended.stdout
    );
    let last = ended.stdout.lines().last();
    assert_eq!(last, Some("The configuration is fine: 1 sync, 1 warning."));
}

/// Returns the output of `-check` for a valid configuration, on both streams.
fn said_of(dir: &Dir, config: &str) -> String {
    dir.put("config.lua", dir.expand(config));
    let ended = Daemon::bare(dir)
        .args(&["-check", "@DIR@/config.lua"])
        .run();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    ended.stdout + &ended.stderr
}

#[test]
fn files_that_cannot_be_written_are_warnings() {
    let sync = "sync { default.direct, source = '@SRC@', target = '@TRG@' }";
    for key in [
        "logfile",
        "statusFile",
        "pidfile",
        "metricsFile",
        "controlSocket",
        "stateDir",
    ] {
        for path in ["none/f", "@DIR@/none/f", "config.lua/f"] {
            let dir = Dir::new();
            let said = said_of(&dir, &format!("settings {{ {key} = '{path}' }} {sync}"));
            let warning = format!("    WARNING  {key} ");
            assert_eq!(said.matches(&warning).count(), 1, "{path}: {said}");
            assert!(said.contains("fine: 1 sync, 1 warning."), "{path}: {said}");
        }
        let dir = Dir::new();
        let said = said_of(&dir, &format!("settings {{ {key} = 'new' }} {sync}"));
        assert!(said.contains("fine: 1 sync.\n"), "{said}");
        assert!(!dir.path("new").exists(), "{key} was made");
    }
    // In the foreground there is no pid file.
    let dir = Dir::new();
    let settings = "settings { pidfile = '@DIR@/none/f', nodaemon = true }";
    let said = said_of(&dir, &format!("{settings} {sync}"));
    assert!(!said.contains("WARNING"), "{said}");
}

#[test]
fn files_without_write_permission_are_warnings() {
    if nix::unistd::geteuid().is_root() {
        return skip("root may write everywhere");
    }
    let dir = Dir::new();
    fs::create_dir(dir.path("closed")).unwrap();
    dir.put("closed/log", "");
    for name in ["closed/log", "closed"] {
        let mode = fs::Permissions::from_mode(0o555);
        fs::set_permissions(dir.path(name), mode).unwrap();
    }
    let sync = "sync { default.direct, source = '@SRC@', target = '@TRG@' }";
    for key in ["logfile", "statusFile", "pidfile"] {
        for name in ["closed/log", "closed/new"] {
            let said = said_of(
                &dir,
                &format!("settings {{ {key} = '@DIR@/{name}' }} {sync}"),
            );
            assert!(said.contains("Permission denied"), "{key} {name}: {said}");
        }
    }
}

#[test]
fn all_missing_programs_are_warnings() {
    let with = |keys: &str| {
        let dir = Dir::new();
        dir.script("bin/here", "");
        said_of(
            &dir,
            &format!("settings {{ nodaemon = true }} sync {{ source = '@SRC@', {keys} }}"),
        )
    };
    let rsync = "default.rsync, target = '@TRG@'";
    for keys in [
        format!("{rsync}, rsync = {{ binary = '/no/prog' }}"),
        format!("{rsync}, onSynced = {{ '/no/prog', 'x' }}"),
        format!("{rsync}, onFailed = {{ '/no/prog' }}"),
        format!("{rsync}, onRecovered = {{ '/no/prog' }}"),
        format!("{rsync}, check = {{ command = {{ '/no/prog', '^pathname' }} }}"),
        "default.direct, target = '@TRG@', onSynced = { '/no/prog' }".to_owned(),
        "default.rsync, target = 'h:/t', rsync = { rsh = '/no/prog -4' }".to_owned(),
        "default.rsyncssh, host = 'h', targetdir = '/t', ssh = { binary = '/no/prog' }".to_owned(),
        "default.rsyncssh, host = 'h', targetdir = '/t', rsync = { binary = '/no/prog' }"
            .to_owned(),
        "default.rclone, target = 'r:', rclone = { binary = '/no/prog' }".to_owned(),
        "target = '@TRG@', onCreate = '/no/prog ^source'".to_owned(),
        "target = '@TRG@', onCreate = '^/no/prog ^source; true'".to_owned(),
        "default.rsync, target = 'h:/t', rsync = { _extra = { '-e', '/no/prog -4' } }".to_owned(),
        format!("{rsync}, tunnel = tunnel{{ command = {{ '/no/prog', '-N' }} }}"),
        format!("{rsync}, tunnel = tunnel{{ command = '/no/prog -N' }}"),
    ] {
        let said = with(&keys);
        let warning = "    WARNING  /no/prog cannot be executed";
        assert_eq!(said.matches(warning).count(), 1, "{keys}: {said}");
        assert!(said.contains("fine: 1 sync, 1 warning."), "{keys}: {said}");
    }
    for keys in [
        format!("{rsync}, onSynced = {{ 'bin/here' }}"),
        "target = '@TRG@', onCreate = 'echo ^source; no-prog'".to_owned(),
        "target = '@TRG@', onCreate = '[ -e ^sourcePath ] && no-prog'".to_owned(),
    ] {
        assert!(with(&keys).contains("fine: 1 sync.\n"), "{keys}");
    }
    let dir = Dir::new();
    dir.put(
        "config.lua",
        dir.expand("sync { default.rsync, source = '@SRC@', target = 'h:/t' }"),
    );
    let ended = Daemon::bare(&dir)
        .env("RSYNC_RSH", "/no/prog -p 5")
        .args(&["-check", "@DIR@/config.lua"])
        .run();
    let (said, warning) = (ended.stdout, "WARNING  /no/prog cannot be executed");
    assert!(said.contains(warning), "{said}{}", ended.stderr);
    // A detached daemon changes its working directory.
    let dir = Dir::new();
    let said = said_of(
        &dir,
        &format!("sync {{ {rsync}, source = '@SRC@', onSynced = {{ 'bin/here' }} }}"),
    );
    let part = "bin/here cannot be executed; the daemon looks for it in /";
    assert!(said.contains(part), "{said}");
}

#[test]
fn warnings_in_the_log_are_counted() {
    let dir = Dir::new();
    let said = said_of(
        &dir,
        "sync { default.direct, source = '@SRC@', target = '@TRG@', exclude = { '@SRC@/x', './y' } }
         sync { source = '@SRC@' }",
    );
    assert!(said.contains("fine: 2 syncs, 3 warnings."), "{said}");
    let ended = Daemon::bare(&dir)
        .args(&["-check", "-json", "@DIR@/config.lua"])
        .run();
    assert!(
        ended.stdout.contains(r#""problems":[],"warnings":3"#),
        "{}",
        ended.stdout
    );
}

/// Values that are accepted and mean something else than their author thought.
#[test]
fn values_that_mislead_are_warnings() {
    let cases = [
        (
            "default.rsync, target = '@TRG@', rsync = { archive = 'no' }",
            r#"archive is true for the text "no"; write archive = false"#,
        ),
        (
            "default.rsync, target = '@TRG@', rsync = { compress = 'off' }",
            r#"compress is true for the text "off"; write compress = false"#,
        ),
        (
            "default.rsync, target = '@TRG@', delete = false, rsync = { delete_excluded = true }",
            "full comparisons delete everything that is not in the source",
        ),
        (
            "default.rsyncssh, host = 'h/srv', targetdir = '/t'",
            r#"host = "h/srv" is not the name of a host; write the directory in targetdir"#,
        ),
        (
            "default.direct, target = 'host:/t'",
            "default.direct copies on this host only, so host:/t/ is a directory of this host",
        ),
    ];
    for (keys, warning) in cases {
        let dir = Dir::new();
        let said = said_of(&dir, &format!("sync {{ source = '@SRC@', {keys} }}"));
        assert!(said.contains(warning), "{keys}: {said}");
    }
}

#[test]
fn json_goes_with_check() {
    let dir = dir();
    let ended = Daemon::bare(&dir)
        .args(&["-json", "@DIR@/config.lua"])
        .run();
    ended.assert_refused();
    assert!(
        ended
            .stderr
            .contains("-json goes with -check and -preview only.")
    );
}

/// Returns a file of the project, in which all directories are replaced by an existing one.
fn shipped(dir: &Dir, path: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let text = fs::read_to_string(format!("{root}{path}")).unwrap();
    dir.put("password", "secret\n");
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(dir.path("password"), mode).unwrap();
    let mut text = text.replace("/etc/lsyncd/web2.password", "@DIR@/password");
    text = text.replace("/root/.ssh/lsyncd", "/dev/null");
    text = text.replace("/mnt/backup/data", "@TRG@");
    text = text.replace("/var/log/lsyncd/", "@DIR@/");
    for name in ["/var/www", "/srv/www", "/srv/data", "/srv/incoming"] {
        text = text.replace(&format!("= \"{name}\""), "= \"@SRC@\"");
    }
    dir.expand(&text)
}

fn is_right(dir: &Dir, what: &str, config: &str) {
    dir.put("config.lua", config);
    let ended = Daemon::bare(dir)
        .args(&["-check", "@DIR@/config.lua"])
        .run();
    assert_eq!(ended.code(), Some(0), "{what}: {}", ended.stderr);
    assert!(
        !ended.stdout.contains("WARNING"),
        "{what}: {}",
        ended.stdout
    );
}

#[test]
fn configurations_in_documents_are_valid() {
    let dir = Dir::new();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/examples");
    for entry in fs::read_dir(examples).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        is_right(
            &dir,
            &name,
            &shipped(&dir, &format!("packaging/examples/{name}")),
        );
    }
    for name in ["docs/security.md", "README.md"] {
        let text = shipped(&dir, name);
        let mut blocks = text.split("\n```lua\n").skip(1).peekable();
        assert!(blocks.peek().is_some(), "{name} has no configuration");
        for block in blocks {
            let config = block.split("\n```").next().unwrap();
            let config = config.replace("= \"/data/www\"", &dir.expand("= \"@SRC@\""));
            is_right(&dir, name, &config);
        }
    }
}

#[test]
fn the_starter_has_only_comments_and_they_are_valid() {
    let dir = Dir::new();
    let starter = shipped(&dir, "packaging/lsyncd.conf.lua");
    let lines: Vec<&str> = starter.lines().collect();
    assert!(lines.iter().all(|line| line.starts_with("--")));
    let code: Vec<&str> = lines
        .iter()
        .map(|line| line.trim_start_matches("-- ").trim_start_matches("--"))
        .skip_while(|line| !line.starts_with("settings"))
        .filter(|line| line.is_empty() || line.starts_with([' ', '}', 's']))
        .filter(|line| !line.starts_with("The ") && !line.starts_with("To "))
        .collect();
    is_right(&dir, "the starter", &code.join("\n"));
}

/// The previews of large sources take long. Only a daemon holds signals back.
#[test]
fn a_preview_is_ended_by_a_signal() {
    let dir = Dir::new();
    let config = r#"sync { default.rsync, source = "@SRC@", target = "@TRG@",
                           rsync = { binary = "@DIR@/rsync" } }"#;
    dir.put("config.lua", dir.expand(config));
    write_script(&dir.path("rsync"), "kill -TERM $PPID; exec sleep 10");
    let ended = Daemon::bare(&dir)
        .args(&["-preview", "@DIR@/config.lua"])
        .run();
    assert_eq!(ended.status.signal(), Some(15), "{}", ended.stderr);
}
