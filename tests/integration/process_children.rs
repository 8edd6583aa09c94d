//! Child processes in a small event loop.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use lsyncd::daemon::os::signals::{Signal, Signals};
use lsyncd::process::{
    Children, Command, ExitStatus, MAX_LINE, Output, Pid, SpawnError, Stdin, Stream,
};
use mio::{Events, Poll, Token};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal as Kernel;

/// The output in order.
#[derive(Debug, Default)]
struct Record {
    lines: Vec<(Pid, Stream, Vec<u8>)>,
    /// Each end of a child, and the number of lines before it.
    ended: Vec<(Pid, ExitStatus, usize)>,
}

struct Loop {
    poll: Poll,
    events: Events,
    signals: Signals,
    children: Children,
    record: Record,
}

impl Loop {
    fn new() -> Self {
        let poll = Poll::new().unwrap();
        let signals = Signals::new(poll.registry(), Token(0)).unwrap();
        let children = Children::new(poll.registry().try_clone().unwrap(), 1000);
        Self {
            poll,
            events: Events::with_capacity(64),
            signals,
            children,
            record: Record::default(),
        }
    }

    fn turn(&mut self) {
        let wait = if self.children.pending() {
            Duration::ZERO
        } else {
            Duration::from_secs(120)
        };
        if let Err(e) = self.poll.poll(&mut self.events, Some(wait)) {
            assert_eq!(e.kind(), std::io::ErrorKind::Interrupted);
            return;
        }
        let said = &mut self.record.lines;
        let mut lines = |pid, stream, line: &[u8]| said.push((pid, stream, line.to_vec()));
        let resume = self.children.pending();
        let mut reap = false;
        for event in &self.events {
            self.children.ready(event, &mut lines);
            reap |= self.signals.pending().any(|s| s == Signal::Child);
        }
        if resume {
            self.children.resume(&mut lines);
        }
        if reap {
            let ended = self.children.reap(&mut lines);
            for each in ended {
                let lines = self.record.lines.len();
                self.record.ended.push((each.pid, each.end, lines));
            }
        }
    }

    fn until(&mut self, done: impl Fn(&Record) -> bool) {
        while !done(&self.record) {
            self.turn();
        }
    }

    fn run(&mut self, command: Command) -> (Pid, ExitStatus) {
        let pid = self.children.spawn(command).unwrap();
        self.until(|record| !record.ended.is_empty());
        let (ended, end, _) = self.record.ended[0];
        assert_eq!(ended, pid);
        assert_eq!(self.children.count(), 0);
        (pid, end)
    }

    fn said(&self, stream: Stream) -> Vec<&[u8]> {
        let of = |l: &&(Pid, Stream, Vec<u8>)| l.1 == stream;
        self.record
            .lines
            .iter()
            .filter(of)
            .map(|l| &l.2[..])
            .collect()
    }
}

fn shell(script: &str) -> Command {
    Command {
        args: vec![b"-c".to_vec(), script.as_bytes().to_vec()],
        stdin: Stdin::Null,
        output: Output::Lines,
        ..Command::new("sh")
    }
}

fn program(path: &Path, text: &[u8], mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn state(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{}/stat", pid.0)).unwrap()
}

/// Retries while the program is busy: a child of another test may have inherited its descriptor.
fn spawn_written(children: &mut Children, command: &Command) -> Result<Pid, SpawnError> {
    loop {
        match children.spawn(command.clone()) {
            Err(SpawnError::Resources(e)) if e.raw_os_error() == Some(libc::ETXTBSY) => {}
            result => return result,
        }
    }
}

#[test]
fn output_and_exit_code() {
    let mut l = Loop::new();
    let (_, end) = l.run(shell("echo one; echo two >&2; printf three; exit 23"));
    assert_eq!(end, ExitStatus::Exit(23));
    assert_eq!(l.said(Stream::Stdout), [b"one".as_slice(), b"three"]);
    assert_eq!(l.said(Stream::Stderr), [b"two"]);
    assert_eq!(l.record.ended[0].2, 3, "all lines come before the end");
}

#[test]
fn reaping_reads_the_remaining_output() {
    let mut l = Loop::new();
    let pid = l
        .children
        .spawn(shell(
            "head -c 50000 /dev/zero | tr '\\0' x; printf end >&2",
        ))
        .unwrap();
    while !state(pid).contains(") Z ") {
        std::thread::yield_now();
    }
    let mut said = [0; 2];
    let ended = l.children.reap(&mut |from, stream, line| {
        assert_eq!(from, pid);
        said[stream as usize] += line.len();
    });
    assert_eq!(ended.len(), 1);
    assert_eq!(said, [50_000, 3]);
}

#[test]
fn ten_megabytes_of_input_and_output_are_complete() {
    let mut text = Vec::new();
    let mut count = 0;
    while text.len() < 10_000_000 {
        text.extend_from_slice(format!("/dir/file number {count}\n").as_bytes());
        count += 1;
    }
    let mut l = Loop::new();
    let (_, end) = l.run(Command {
        stdin: Stdin::Bytes(text.clone()),
        output: Output::Lines,
        ..Command::new("cat")
    });
    assert_eq!(end, ExitStatus::Exit(0));
    let said = l.said(Stream::Stdout);
    assert_eq!(said.len(), count);
    assert_eq!(said.join(&b'\n'), text[..text.len() - 1]);
}

#[test]
fn a_small_input_is_complete_and_ends() {
    let mut l = Loop::new();
    l.run(Command {
        stdin: Stdin::Bytes(b"/a\0/b\n\0".to_vec()),
        ..Command {
            args: vec![b"-An".to_vec(), b"-tx1".to_vec()],
            output: Output::Lines,
            ..Command::new("od")
        }
    });
    let bytes = l.said(Stream::Stdout).concat();
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text.trim(), "2f 61 00 2f 62 0a 00");
}

#[test]
fn an_empty_input_ends_at_once() {
    let mut l = Loop::new();
    let command = Command {
        stdin: Stdin::Bytes(Vec::new()),
        ..shell("wc -c")
    };
    assert_eq!(l.run(command).1, ExitStatus::Exit(0));
    assert_eq!(l.said(Stream::Stdout).concat().trim_ascii(), b"0");
}

#[test]
fn a_child_may_ignore_its_input() {
    let mut l = Loop::new();
    let (_, end) = l.run(Command {
        stdin: Stdin::Bytes(vec![b'x'; 5_000_000]),
        ..shell("echo done; exit 0")
    });
    assert_eq!(end, ExitStatus::Exit(0));
    assert_eq!(l.said(Stream::Stdout), [b"done"]);
}

#[test]
fn a_signal_is_reported_as_such() {
    let mut l = Loop::new();
    let (_, end) = l.run(shell("kill -KILL $$"));
    assert_eq!(end, ExitStatus::Signal(9));
    assert_eq!(end.code(), 137);
}

#[test]
fn a_broken_pipe_ends_a_child_as_usual() {
    let mut l = Loop::new();
    let (_, end) = l.run(shell("kill -PIPE $$; echo still here"));
    assert_eq!(
        end,
        ExitStatus::Signal(13),
        "the daemon ignores SIGPIPE, its children do not"
    );
}

#[test]
fn kill_reaches_only_own_children() {
    let mut l = Loop::new();
    let pid = l
        .children
        .spawn(shell("echo up; read x < /dev/zero; sleep 1000"))
        .unwrap();
    l.until(|r| !r.lines.is_empty());
    assert_eq!(l.children.pids().collect::<Vec<_>>(), [pid]);
    assert!(l.children.kill(Pid(pid.0 + 1), Kernel::SIGTERM).is_err());
    assert!(l.children.kill(Pid(0), Kernel::SIGTERM).is_err());
    l.children.kill(pid, Kernel::SIGTERM).unwrap();
    l.until(|r| !r.ended.is_empty());
    assert_eq!(l.record.ended[0].1, ExitStatus::Signal(15));
    assert!(l.children.kill(pid, Kernel::SIGTERM).is_err());
}

#[test]
fn a_stopped_child_has_not_ended() {
    let mut l = Loop::new();
    let stopped = Command {
        stdin: Stdin::Bytes(vec![b'x'; 300_000]),
        ..shell("kill -STOP $$; wc -c")
    };
    let pid = l.children.spawn(stopped).unwrap();
    while !state(pid).contains(") T ") {
        std::thread::yield_now();
    }
    let other = l.children.spawn(shell("true")).unwrap();
    l.until(|r| !r.ended.is_empty());
    assert_eq!(l.record.ended[0].0, other);
    assert_eq!(l.children.count(), 1);

    l.children.kill(pid, Kernel::SIGCONT).unwrap();
    l.until(|r| r.ended.len() == 2);
    assert_eq!(l.record.ended[1].1, ExitStatus::Exit(0));
    assert_eq!(l.said(Stream::Stdout).concat().trim_ascii(), b"300000");
}

#[test]
fn a_child_in_another_session_is_reaped() {
    let mut l = Loop::new();
    let mut command = shell("");
    command.program = b"setsid".to_vec();
    command.args = ["sh", "-c", "echo away; exit 7"]
        .map(|s| s.as_bytes().to_vec())
        .to_vec();
    // setsid(1) forks only if it leads a process group, which this child does not.
    assert_eq!(l.run(command).1, ExitStatus::Exit(7));
    assert_eq!(l.said(Stream::Stdout), [b"away"]);
}

#[test]
fn a_grandchild_does_not_delay_the_end_and_its_output_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&go)
            .status()
            .unwrap()
            .success()
    );
    let mut l = Loop::new();
    let script = format!(
        "(read x < '{}'; echo late; printf last) & printf early",
        go.display()
    );
    let (pid, end) = l.run(shell(&script));
    assert_eq!(end, ExitStatus::Exit(0));
    assert_eq!(l.said(Stream::Stdout), [b"early"]);

    fs::write(&go, "now\n").unwrap();
    l.until(|r| r.lines.len() == 3);
    assert_eq!(l.record.lines[1], (pid, Stream::Stdout, b"late".to_vec()));
    assert_eq!(l.record.lines[2], (pid, Stream::Stdout, b"last".to_vec()));
}

#[test]
fn endless_output_of_one_child_does_not_delay_others() {
    let mut l = Loop::new();
    let flood = l.children.spawn(shell("yes | tr -d '\\n'")).unwrap();
    let quiet = l.children.spawn(shell("echo here")).unwrap();
    l.until(|r| r.ended.iter().any(|e| e.0 == quiet));
    l.until(|r| r.lines.len() > 500);
    let before = l.record.lines.len();
    l.turn();
    let one = l.record.lines.len() - before;
    assert!(one * MAX_LINE <= 2 * 1024 * 1024, "{one} lines in one turn");
    assert!(l.record.lines.iter().all(|line| line.2.len() <= MAX_LINE));
    l.children.kill(flood, Kernel::SIGKILL).unwrap();
    l.until(|r| r.ended.len() == 2);
}

#[test]
fn programs_that_cannot_be_executed_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let mut children = Loop::new().children;
    let path = |name: &str| dir.path().join(name);
    program(&path("plain"), b"#!/bin/sh\n", 0o644);
    program(&path("binary"), b"\x7fNOT\0\0\0", 0o755);
    program(&path("lost"), b"#!/no/such/interpreter\n", 0o755);
    fs::create_dir(path("folder")).unwrap();
    for name in ["plain", "binary", "lost", "folder", "missing"] {
        let file = path(name).into_os_string().into_encoded_bytes();
        let result = spawn_written(
            &mut children,
            &Command {
                stdin: Stdin::Bytes(vec![0; 100_000]),
                output: Output::Lines,
                ..Command::new(file)
            },
        );
        assert!(
            matches!(result, Err(SpawnError::NotExecutable(_))),
            "{name}: {result:?}"
        );
    }
    for name in ["no-such-program-anywhere", "", "nul\0byte"] {
        let result = children.spawn(Command::new(name));
        assert!(
            matches!(result, Err(SpawnError::NotExecutable(_))),
            "{name}: {result:?}"
        );
    }
    assert_eq!(children.count(), 0);
}

#[test]
fn a_script_without_interpreter_line_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrapper");
    program(&file, b"echo \"$0 $1\"\n", 0o755);
    let mut l = Loop::new();
    let command = Command {
        args: vec![b"a b".to_vec()],
        output: Output::Lines,
        ..Command::new(file.clone().into_os_string().into_encoded_bytes())
    };
    spawn_written(&mut l.children, &command).unwrap();
    l.until(|r| !r.ended.is_empty());
    let expected = format!("{} a b", file.display());
    assert_eq!(l.said(Stream::Stdout), [expected.as_bytes()]);
}

#[test]
fn output_is_appended_to_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(&log, "before\n").unwrap();
    let mut l = Loop::new();
    let mut command = shell("echo out; echo err >&2");
    command.output = Output::Append(log.clone());
    l.run(command);
    assert_eq!(fs::read_to_string(&log).unwrap(), "before\nout\nerr\n");

    let mut l = Loop::new();
    let mut command = shell("echo lost");
    command.output = Output::Append(dir.path().join("none/log"));
    assert_eq!(
        l.run(command).1,
        ExitStatus::Exit(0),
        "a log that cannot be opened stops nothing"
    );
}

#[test]
fn names_are_bytes() {
    let mut l = Loop::new();
    let mut command = shell("printf '%s\\n' \"$1\"");
    command
        .args
        .extend([b"sh".to_vec(), b"a\xff b'\"$x".to_vec()]);
    l.run(command);
    assert_eq!(l.said(Stream::Stdout), [b"a\xff b'\"$x"]);
}

#[test]
fn no_descriptor_leaks_into_a_child() {
    let list = "ls /proc/self/fd | wc -l";
    let plain = std::process::Command::new("sh")
        .args(["-c", list])
        .output()
        .unwrap();
    let mut l = Loop::new();
    let other = l.children.spawn(shell("read x < /dev/zero")).unwrap();
    l.children
        .spawn(Command {
            stdin: Stdin::Bytes(b"x".to_vec()),
            ..shell(list)
        })
        .unwrap();
    l.until(|r| !r.ended.is_empty());
    assert_eq!(l.said(Stream::Stdout).concat(), plain.stdout.trim_ascii());
    l.children.kill(other, Kernel::SIGKILL).unwrap();
    l.until(|r| r.ended.len() == 2);
}

#[test]
fn five_hundred_children_at_once() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(soft.max(4096)), hard).unwrap();
    let mut l = Loop::new();
    let mut expected = HashMap::new();
    for n in 0..500 {
        let command = Command {
            stdin: Stdin::Bytes(format!("list {n}\n").into_bytes()),
            ..shell(&format!("cat; exit {}", n % 256))
        };
        expected.insert(l.children.spawn(command).unwrap(), n);
    }
    l.until(|r| r.ended.len() == 500);
    for (pid, end, _) in &l.record.ended {
        assert_eq!(end.code(), expected[pid] % 256);
    }
    for (pid, _, line) in &l.record.lines {
        assert_eq!(*line, format!("list {}", expected[pid]).into_bytes());
    }
    assert_eq!(l.record.lines.len(), 500);
}
