//! Hostile names in every kind of sync and every form of an action: they arrive unchanged, run no
//! command, and forge no line of log or status file.

use std::fs;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;
use crate::support::script::SSH;

/// Returns names with a meaning for shells, rsync, Lua, terminals and logs.
fn names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        &b"'"[..],
        b"\"",
        b"'\"'\"'",
        b"'; touch pwned; '",
        b"\"; touch pwned; \"",
        b"$(touch pwned)",
        b"`touch pwned`",
        b"${HOME}",
        b"$1 $@ $$",
        b"; touch pwned",
        b"| touch pwned",
        b"& touch pwned &",
        b"> pwned",
        b"\n09:09:09 Error: forged\n",
        b"a\nb",
        b"\r",
        b"\t",
        b"\x1b[31mred",
        b"\x07\x08\x7f",
        b"-rf",
        b"--delete",
        b"--rsync-path=touch pwned",
        b"-e touch pwned",
        b"*",
        b"?",
        b"[a-z]",
        b"[",
        b"]",
        b"\\",
        b"a\\*b",
        b"\\n",
        b"{a,b}",
        b"~",
        b"~root",
        b"#",
        b"; comment",
        b"- rule",
        b"+ rule",
        b"!",
        b"%s%n",
        b"%",
        b"^path",
        b"^",
        b" ",
        b" a ",
        b"host:path",
        b"::",
        b"...",
        b".f.AbCdEf",
        b"\xff\xfe",
        b"a\xc3",
        b"\xe2\x80\xae",
        b"\x01\x80",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    names.push(vec![b'x'; 255]);
    names.push("\u{1F980}".repeat(63).into_bytes());
    names
}

/// Returns a path of twelve directories of 200 bytes each.
fn deep() -> Vec<u8> {
    [vec![b'd'; 199], b"'".to_vec()]
        .concat()
        .repeat(12)
        .chunks(200)
        .collect::<Vec<_>>()
        .join(&b'/')
}

/// Asserts that the log contains no control bytes, and that no command was run.
fn assert_unharmed(dir: &Dir, daemon: &Running<'_>) {
    let log = daemon.log() + &dir.text("status");
    let control = log
        .lines()
        .find(|line| line.bytes().any(|byte| byte < b' ' || byte == 0x7f));
    assert!(control.is_none(), "{control:?}");
    let lines: Vec<&str> = log.lines().collect();
    let forged = lines
        .windows(2)
        .find(|pair| pair[1].starts_with("09:09:09"));
    assert!(forged.is_none(), "{forged:?}");
    for place in ["", "src", "trg", "bin"] {
        assert!(!dir.path(place).join("pwned").exists(), "in {place}");
    }
}

/// Creates, changes, moves and removes files and directories of these names.
fn mirrors(config: &str) {
    let dir = Dir::new();
    let config = format!("settings{{ statusFile = '@DIR@/status', statusInterval = 0 }}\n{config}");
    dir.script("bin/ssh", SSH);
    dir.write("old", "1");
    let mut daemon = Daemon::new(&dir, &config).args(&["-log", "all"]).start();
    daemon.wait_for("startup is done", |_| dir.trg("old").exists());

    let names = names();
    dir.mkdir("files");
    for name in &names {
        dir.write([b"files/", name.as_slice()].concat(), name);
        dir.mkdir([b"dirs/", name.as_slice(), b"/sub"].concat());
        dir.write([b"dirs/", name.as_slice(), b"/sub/", name].concat(), name);
    }
    dir.mkdir(deep());
    dir.write([deep(), b"/f".to_vec()].concat(), "deep");
    daemon.wait_same("src", "trg", false);

    for (n, name) in names.iter().enumerate() {
        dir.append([b"files/", name.as_slice()].concat(), "more");
        dir.mv([b"dirs/", name.as_slice()].concat(), format!("moved{n}"));
    }
    dir.append([deep(), b"/f".to_vec()].concat(), "more");
    daemon.wait_same("src", "trg", false);

    for (n, name) in names.iter().enumerate() {
        dir.mv(format!("moved{n}"), [b"dirs/", name.as_slice()].concat());
        if n % 2 == 0 {
            dir.rm([b"files/", name.as_slice()].concat());
        }
    }
    daemon.wait_same("src", "trg", false);
    for name in &names {
        dir.rm([b"dirs/", name.as_slice()].concat());
    }
    dir.rm(vec![b'd'; 199]
        .into_iter()
        .chain(*b"'")
        .collect::<Vec<u8>>());
    daemon.wait_same("src", "trg", false);
    assert_unharmed(&dir, &daemon);
}

#[test]
fn hostile_names_in_lists_of_files() {
    mirrors(
        r#"sync{ default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.2,
            rsync = { archive = true, list = "files-from" } }"#,
    );
}

#[test]
fn hostile_names_in_include_lists() {
    mirrors(
        r#"sync{ default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.2,
            rsync = { archive = true, list = "filter" } }"#,
    );
}

#[test]
fn hostile_names_with_direct() {
    mirrors(
        r#"sync{ default.direct, source = "@SRC@", target = "@TRG@", delay = 0, maxProcesses = 4 }"#,
    );
}

#[test]
fn hostile_names_with_rsyncssh() {
    mirrors(
        r#"sync{ default.rsyncssh, source = "@SRC@", host = "host", targetdir = "@TRG@", delay = 0.2,
            ssh = { binary = "@DIR@/bin/ssh" },
            rsync = { archive = true, rsh = "@DIR@/bin/ssh" } }"#,
    );
}

/// Appends the arguments of the call, each followed by a zero byte.
const RECORD: &str = "printf '%s\\0' \"$@\" >>\"${0%/*}/../got\"\n";

/// Creates and moves each name; the action records its arguments.
fn is_told(actions: &str) {
    let dir = Dir::new();
    dir.script("bin/record", RECORD);
    let config = format!(
        "settings{{ statusFile = '@DIR@/status', statusInterval = 0 }}\n\
         sync{{ source = '@SRC@', target = '@TRG@', delay = 0, maxProcesses = 1, {actions} }}"
    );
    let mut daemon = Daemon::new(&dir, &config).args(&["-log", "all"]).start();
    daemon.wait_log("directories in all");
    let got = || -> Vec<Vec<u8>> {
        let bytes = fs::read(dir.path("got")).unwrap_or_default();
        bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect()
    };
    let mut expected = Vec::new();
    for name in names() {
        dir.mkdir(&name);
        let path = [name.as_slice(), b"/"].concat();
        let source = dir.expand("@SRC@").into_bytes();
        expected.push([path.clone(), [source, b"//".to_vec(), path].concat()]);
    }
    daemon.wait_for("all names were reported", |_| {
        let got = got();
        expected
            .iter()
            .all(|words| got.windows(2).any(|pair| pair == words))
    });
    // A Move behind a running Create is reported as two events.
    daemon.wait_for("nothing is pending", |daemon| {
        daemon.log().matches("Normal: Finished Create").count() >= names().len()
            && dir.text("status").contains("There are 0 delays")
    });
    for (n, name) in names().iter().enumerate() {
        dir.mv(name, format!("moved{n}"));
    }
    daemon.wait_for("all moves were reported", |_| {
        let got = got();
        names().iter().enumerate().all(|(n, name)| {
            let words = [
                [name.as_slice(), b"/"].concat(),
                format!("moved{n}/").into_bytes(),
            ];
            got.windows(2).any(|pair| pair == words)
        })
    });
    assert_unharmed(&dir, &daemon);
}

#[test]
fn hostile_names_as_arguments_of_a_program() {
    is_told(
        "onCreate = '@DIR@/bin/record ^path ^sourcePath', onMove = '@DIR@/bin/record ^o.path ^d.path'",
    );
}

#[test]
fn hostile_names_in_a_shell() {
    is_told(
        "onCreate = 'exec @DIR@/bin/record ^path ^sourcePath', \
         onMove = 'x=1; @DIR@/bin/record ^o.path ^d.path'",
    );
}

#[test]
fn hostile_names_in_functions() {
    is_told(
        r#"onCreate = function(event)
            spawn(event, "@DIR@/bin/record", event.path, event.sourcePath)
        end,
        onMove = function(event, to)
            spawnShell(event, '@DIR@/bin/record "$1" "$2"', event.path, to.path)
        end"#,
    );
}
