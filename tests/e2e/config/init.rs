//! `-init` writes a working configuration from arguments or answers, and overwrites no file.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::daemon::{Daemon, binary};
use crate::support::dir::Dir;

/// Runs the command on this machine like sshd, and records the options.
const SSH: &str = "printf '%s\\n' \"$@\" >> '@DIR@/words'\n\
    while [ \"$1\" != h ]; do shift; done\nshift\nexec sh -c \"$*\"\n";

/// Returns a work directory whose ssh is this script.
fn world(ssh: &str) -> Dir {
    let dir = Dir::new();
    dir.write("f", "1");
    dir.script("bin/ssh", ssh);
    dir
}

struct Said {
    code: Option<i32>,
    text: String,
}

/// Runs `lsyncd -init` with these arguments and answers.
fn init(dir: &Dir, words: &[&[u8]], answers: &str) -> Said {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new(binary())
        .arg("-init")
        .args(words.iter().map(|word| OsStr::from_bytes(word)))
        .env("PATH", format!("{}/bin:{path}", dir.root().display()))
        .env("HOME", dir.root())
        .env_remove("RSYNC_RSH")
        .current_dir(dir.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // The program may end before it has read all answers.
    let _ = input.write_all(dir.expand(answers).as_bytes());
    drop(input);
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    Said {
        code: output.status.code(),
        text: String::from_utf8_lossy(&text).into_owned(),
    }
}

fn assert_parts(said: &Said, code: i32, parts: &[&str]) {
    assert_eq!(said.code, Some(code), "{}", said.text);
    for part in parts {
        assert!(said.text.contains(part), "{part}: {}", said.text);
    }
}

/// Asserts that a daemon with the written file mirrors the source.
fn assert_mirrors(dir: &Dir) {
    let mut daemon = Daemon::bare(dir)
        .fake_first()
        .args(&["-nodaemon", "-delay", "0.2", "@DIR@/new.lua"])
        .start();
    daemon.wait_equal();
    dir.write("later", "2");
    daemon.wait_equal();
}

#[test]
fn two_directories_become_a_configuration_that_mirrors() {
    let dir = world(SSH);
    let said = init(&dir, &[b"src", b"trg", b"new.lua", b"-delay", b"2.5"], "");
    let parts = [
        "trg/ can be written",
        "The configuration is fine: 1 sync.",
        "new.lua is written. Next:",
        "lsyncd -preview ",
    ];
    assert_parts(&said, 0, &parts);
    let text = dir.text("new.lua");
    for line in [
        dir.expand("source = \"@SRC@\","),
        "delay = 2.5,".into(),
        "delete = false,".into(),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    assert_mirrors(&dir);
}

#[test]
fn names_are_quoted_in_the_configuration() {
    let name = b"a\"]]\n--[[ \\n'\t\xff\xc3\xa9 os.exit(7)";
    let dir = world(SSH);
    fs::rename(dir.path("src"), dir.path([b"src ", &name[..]].concat())).unwrap();
    fs::rename(dir.path("trg"), dir.path([b"trg ", &name[..]].concat())).unwrap();
    let words = [
        &[b"src ", &name[..]].concat(),
        &[b"trg ", &name[..]].concat(),
        &b"new.lua"[..],
        b"-logfile",
        name,
        b"-delete",
    ];
    assert_parts(&init(&dir, &words, ""), 0, &["fine: 1 sync."]);
    symlink(dir.path([b"src ", &name[..]].concat()), dir.path("src")).unwrap();
    symlink(dir.path([b"trg ", &name[..]].concat()), dir.path("trg")).unwrap();
    let mut daemon = Daemon::bare(&dir)
        .args(&["-nodaemon", "-delay", "0.2", "@DIR@/new.lua"])
        .start();
    daemon.wait_equal();
    fs::remove_file(dir.src("f")).unwrap();
    daemon.wait_equal();
    assert!(dir.path(name).exists(), "no log file");
}

#[test]
fn questions_are_repeated_until_the_answer_is_valid() {
    let dir = world(SSH);
    let answers = "@DIR@/nothing\n@SRC@\nu@h:\nu@h:@TRG@\nmaybe\ny\n-p 2222 -i '/a key'\n\
         @DIR@/words\nnew.lua\n";
    dir.put("words", "return 1");
    let said = init(&dir, &[], answers);
    let parts = [
        "Directory to mirror: ",
        "nothing: No such file or directory",
        "the directory after the colon is missing",
        "    y or n",
        "Options for ssh",
        "words exists, and is not overwritten",
        "logged in at u@h",
        "rsync works on both sides",
    ];
    assert_parts(&said, 0, &parts);
    let text = dir.text("new.lua");
    for line in [
        "default.rsyncssh,",
        "host = \"u@h\",",
        "delete = true,",
        "_extra = { \"-p\", \"2222\", \"-i\", \"/a key\" }",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let words = dir.text("words");
    assert!(words.contains("-p\n2222\n-i\n/a key\n"), "{words}");
    assert_mirrors(&dir);
    let said = init(&dir, &[], "@SRC@\n");
    assert_parts(
        &said,
        255,
        &["no answer to 'Target", "lsyncd -init SRC TRG"],
    );
}

#[test]
fn an_unusable_target_is_written_after_a_confirmation_only() {
    let ssh = "echo 'u@h: Permission denied (publickey).' >&2; exit 255\n";
    let dir = world(ssh);
    let target = dir.expand("u@h:@TRG@");
    let said = init(&dir, &[b"src", target.as_bytes(), b"new.lua"], "y\n");
    assert_parts(
        &said,
        255,
        &["Permission denied", "ssh-copy-id", "new.lua is not written"],
    );
    assert!(!dir.path("new.lua").exists());
    let answers = "@SRC@\nu@h:@TRG@\n\n\nnew.lua\n";
    let said = init(&dir, &[], &format!("{answers}n\n"));
    assert_parts(&said, 255, &["nevertheless?", "new.lua is not written"]);
    assert!(!dir.path("new.lua").exists());
    let said = init(&dir, &[], &format!("{answers}y\n"));
    assert_parts(&said, 255, &["new.lua is written"]);
    assert!(dir.path("new.lua").exists());
}

#[test]
fn a_file_is_never_overwritten_and_comments_are_kept() {
    let dir = world(SSH);
    let words: [&[u8]; 3] = [b"src", b"trg", b"new.lua"];
    for text in [
        "settings{ }",
        "-- c\nsync{ }",
        "--[[ c ]] x = 1",
        "#!/bin/x\n",
    ] {
        dir.put("new.lua", text);
        assert_parts(
            &init(&dir, &words, ""),
            255,
            &["exists, and is not overwritten"],
        );
        assert_eq!(dir.text("new.lua"), text);
    }
    // A comment that is not closed would contain the configuration.
    dir.put("new.lua", "--[[ open");
    let said = init(&dir, &words, "");
    assert_eq!(said.code, Some(255), "{}", said.text);
    assert_eq!(dir.text("new.lua"), "--[[ open");
    let starter = fs::read_to_string("packaging/lsyncd.conf.lua").unwrap();
    for before in [&starter, "-- no end of line", ""] {
        dir.put("new.lua", before);
        assert_parts(&init(&dir, &words, ""), 0, &["new.lua is written"]);
        assert!(dir.text("new.lua").starts_with(before));
    }
    dir.put("new.lua", starter);
    assert_parts(&init(&dir, &words, ""), 0, &[]);
    assert_mirrors(&dir);
    for place in ["src", "no/directory/new.lua"] {
        let said = init(&dir, &[b"src", b"trg", place.as_bytes()], "");
        assert_eq!(said.code, Some(255), "{}", said.text);
    }
    assert!(!dir.path("no").exists());
}

#[test]
fn mistakes_are_reported_before_a_file_is_written() {
    let dir = world(SSH);
    let refused = |words: &[&[u8]], part: &str| {
        assert_parts(&init(&dir, words, ""), 255, &[part]);
        assert!(!dir.path("new.lua").exists());
    };
    refused(&[b"src", b"-oProxyCommand=x:/t"], "-init needs SRC and TRG");
    refused(
        &[b"nothing", b"trg", b"new.lua"],
        "nothing: No such file or directory",
    );
    refused(&[b"src/f", b"trg", b"new.lua"], "src/f is not a directory");
    refused(
        &[b"src", b":/t", b"new.lua"],
        "the host before the colon is missing",
    );
    refused(
        &[b"src", b"trg", b"new.lua", b"-delay", b"x"],
        "-delay needs a number",
    );
    // The messages are those of `-check`, with the name of the file.
    refused(&[b"src", b"src", b"new.lua"], "new.lua:");
}

/// Only a daemon holds signals back.
#[test]
fn the_questions_are_ended_by_a_signal() {
    let dir = Dir::new();
    let mut child = Command::new(binary())
        .arg("-init")
        .current_dir(dir.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = child.stdin.take().unwrap();
    let question = &mut [0];
    let output = child.stdout.as_mut().unwrap();
    output.read_exact(question).unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    drop(input);
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}
