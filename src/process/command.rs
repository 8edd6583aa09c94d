//! The description of a child, and its start.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use super::priority::Priority;
use super::program;
use crate::log;

/// A program to run, with the daemon's environment and working directory.
#[derive(Clone, Debug)]
pub struct Command {
    /// Its name; without a slash it is searched in `PATH`.
    pub program: Vec<u8>,
    /// The arguments after the name.
    pub args: Vec<Vec<u8>>,
    /// The standard input.
    pub stdin: Stdin,
    /// The destination of standard output and error.
    pub output: Output,
    /// Variables in addition to the daemon's environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The priorities for CPU and disk.
    pub priority: Priority,
}

/// The standard input of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stdin {
    /// The daemon's standard input.
    Inherit,
    /// `/dev/null`.
    Null,
    /// These bytes, then end of file. A child may leave some unread.
    Bytes(Vec<u8>),
}

/// The standard output and error of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The daemon's standard output and error.
    Inherit,
    /// Reported line by line. The child gets `SIGTERM` if the daemon dies without having ended it,
    /// so that it does not write in parallel with the children of the next daemon.
    Lines,
    /// Both appended to this file unchanged. If it cannot be opened they are discarded: a full or
    /// unwritable log partition stops no transfer.
    Append(PathBuf),
    /// `/dev/null`.
    Null,
}

/// The reason why a child did not start.
#[derive(Debug)]
pub enum SpawnError {
    /// The program does not exist or cannot be executed (`ENOENT`, `EACCES`, `ENOEXEC`, `E2BIG` …,
    /// execve(2)): a retry will not help.
    NotExecutable(io::Error),
    /// Processes, descriptors or memory are short (`EAGAIN`, `EMFILE`, `ENFILE`, `ENOMEM`,
    /// `ENOSPC`), or the program is being written (`ETXTBSY`): a retry may help.
    Resources(io::Error),
}

impl Command {
    /// Returns a command without arguments that inherits the daemon's input and output.
    pub fn new(program: impl Into<Vec<u8>>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            stdin: Stdin::Inherit,
            output: Output::Inherit,
            environment: Vec::new(),
            priority: Priority::default(),
        }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotExecutable(e) | Self::Resources(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotExecutable(e) | Self::Resources(e) => Some(e),
        }
    }
}

impl From<io::Error> for SpawnError {
    fn from(e: io::Error) -> Self {
        match e.raw_os_error() {
            Some(
                libc::EAGAIN
                | libc::EMFILE
                | libc::ENFILE
                | libc::ENOMEM
                | libc::ENOSPC
                | libc::ETXTBSY,
            ) => Self::Resources(e),
            _ => Self::NotExecutable(e),
        }
    }
}

/// One of the three standard descriptors of a child.
#[derive(Debug)]
pub(super) enum ChildEnd {
    Inherit,
    Null,
    Open(OwnedFd),
}

impl ChildEnd {
    /// Opens a file for both outputs.
    pub(super) fn append_to(path: &Path) -> (Self, Self) {
        let both = || -> io::Result<(File, File)> {
            let file = log::open_log(path)?;
            // Writes block when there is no room, as the child expects.
            rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::APPEND)?;
            Ok((file.try_clone()?, file))
        };
        match both() {
            Ok((out, err)) => (Self::Open(out.into()), Self::Open(err.into())),
            Err(_) => (Self::Null, Self::Null),
        }
    }

    fn stdio(&self) -> io::Result<Stdio> {
        Ok(match self {
            Self::Inherit => Stdio::inherit(),
            Self::Null => Stdio::null(),
            Self::Open(fd) => fd.try_clone()?.into(),
        })
    }
}

/// Starts a program, with its priority from the start. With `tied` it is ended together with the
/// daemon. A script without `#!` is run by `/bin/sh`, like execvp(3).
pub(super) fn start(
    program: &[u8],
    args: &[Vec<u8>],
    environment: &[(OsString, OsString)],
    ends: &[ChildEnd; 3],
    tied: bool,
    priority: Priority,
) -> io::Result<Child> {
    // Descriptors that user code has opened are not marked.
    crate::sys::close_all_on_exec();
    // A command that does more than start a program is run by execvp(3), which would pass a binary
    // of another machine to the shell.
    let asked = tied || priority != Priority::default();
    let native = asked && program::find(program).is_some_and(|path| is_native(&path));
    let run = |name: &OsStr, script: Option<&Path>| {
        let mut command = std::process::Command::new(name);
        command
            .args(script)
            .args(args.iter().map(|arg| OsStr::from_bytes(arg)))
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdin(ends[0].stdio()?)
            .stdout(ends[1].stdio()?)
            .stderr(ends[2].stdio()?);
        if native && tied {
            crate::sys::end_with_parent(&mut command);
        }
        if native && priority != Priority::default() {
            priority.give_at_start(&mut command);
        }
        command.spawn()
    };
    let name = OsStr::from_bytes(program);
    let failed = match run(name, None) {
        Err(e) if e.raw_os_error() == Some(libc::ENOEXEC) => e,
        other => return other,
    };
    match program::find(program).filter(|path| is_text(path)) {
        Some(script) => run(OsStr::new("/bin/sh"), Some(&script)),
        None => Err(failed),
    }
}

/// Returns false for a binary, maybe for another machine: it has a zero byte early on. Shells apply
/// the same test.
fn is_text(path: &Path) -> bool {
    head(path).is_some_and(|head| !head.contains(&0))
}

/// Returns true for a file with `#!`, or a binary of the same machine as this program (elf(5):
/// class, byte order and machine). The kernel may be configured to execute more.
fn is_native(path: &Path) -> bool {
    let kind = |head: &[u8]| Some([head.get(..6)?, head.get(18..20)?].concat());
    let own = || head(Path::new("/proc/self/exe"));
    head(path).is_some_and(|head| {
        let elf = head.starts_with(b"\x7fELF");
        head.starts_with(b"#!") || (elf && own().is_some_and(|own| kind(&head) == kind(&own)))
    })
}

fn head(path: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(256).read_to_end(&mut head));
    read.is_ok().then_some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell would take a binary of another machine for a script.
    #[test]
    fn programs_of_this_machine_are_distinguished_from_texts_and_others() {
        let directory = tempfile::tempdir().unwrap();
        let own = head(Path::new("/proc/self/exe")).unwrap();
        let mut other = own.clone();
        other[18] ^= 1;
        let cases: [(&str, &[u8], bool, bool); 6] = [
            ("this machine", &own, true, false),
            ("another machine", &other, false, false),
            ("interpreter", b"#!/bin/sh\n", true, true),
            ("text", b"echo\n", false, true),
            ("short", b"\x7fELF", false, true),
            ("empty", b"", false, true),
        ];
        for (name, text, native, is_script) in cases {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            assert_eq!(is_native(&path), native, "{name}");
            assert_eq!(is_text(&path), is_script, "{name}");
        }
        let missing = directory.path().join("missing");
        assert!(!is_native(&missing) && !is_text(&missing));
    }

    #[test]
    fn shortages_are_worth_a_retry() {
        let of = |code| SpawnError::from(io::Error::from_raw_os_error(code));
        for code in [libc::EAGAIN, libc::ENOMEM, libc::ETXTBSY, libc::EMFILE] {
            assert!(matches!(of(code), SpawnError::Resources(_)), "{code}");
        }
        for code in [libc::ENOENT, libc::EACCES, libc::ENOEXEC] {
            assert!(matches!(of(code), SpawnError::NotExecutable(_)), "{code}");
        }
    }
}
