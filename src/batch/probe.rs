//! Resolves a sync's `rsync.binary`, and tests if that rsync deletes missing names and stays below
//! the source.
//!
//! `--delete-missing-args` works in some versions only: it is unknown before 3.1; up to 3.2.3 it
//! creates entries that it should delete, or fails for names below missing directories; the
//! receiver of 3.4.3, and of distributions with its security fixes, refuses it. Version numbers do
//! not distinguish these cases; a test run of about 50 ms does.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::process::program;
use crate::safe_path::ScratchDir;

/// The maximum time of a test run. One that takes longer counts as failed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The results for binaries that have been tested.
type Tried = Mutex<Vec<(Binary, bool)>>;
static DELETES_MISSING: Tried = Mutex::new(Vec::new());
static IS_CONFINED: Tried = Mutex::new(Vec::new());
static REPORTS_PROGRESS: Tried = Mutex::new(Vec::new());

/// The files that have been examined, with their states at that time.
static EXAMINED: Mutex<Vec<(PathBuf, FileStamp, Option<Binary>)>> = Mutex::new(Vec::new());

/// The identity and state of a file, which changes when the file is replaced, written or renamed.
#[derive(PartialEq)]
struct FileStamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    fn of(path: &Path) -> Option<FileStamp> {
        let data = fs::metadata(path).ok()?;
        Some(FileStamp {
            device: data.dev(),
            inode: data.ino(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

/// A plain rsync: an executable in ELF format whose name begins with "rsync".
///
/// Anything else is a wrapper, which may read the list or the arguments itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    path: PathBuf,
    modified: SystemTime,
}

impl Binary {
    /// Resolves `name` like execvp(3). Returns `None` if it is not plain rsync. The search of
    /// `PATH` is repeated each time; a file is read only once, as long as it does not change.
    pub fn plain(name: &[u8]) -> Option<Binary> {
        let path = program::find(name)?;
        let stamp = FileStamp::of(&path)?;
        let mut examined = EXAMINED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., binary)) = examined
            .iter()
            .find(|(known, then, _)| *known == path && *then == stamp)
        {
            return binary.clone();
        }
        let binary = Binary::examine(&path);
        examined.retain(|(known, ..)| *known != path);
        examined.push((path, stamp, binary.clone()));
        binary
    }

    fn examine(path: &Path) -> Option<Binary> {
        // A link named rsync may lead to something else.
        let real = fs::canonicalize(path).ok()?;
        if ![path, &real].into_iter().all(is_named_rsync) {
            return None;
        }
        let mut magic = [0; 4];
        File::open(&real).ok()?.read_exact(&mut magic).ok()?;
        if magic != *b"\x7fELF" {
            return None;
        }
        let modified = fs::metadata(&real).ok()?.modified().ok()?;
        Some(Binary {
            path: real,
            modified,
        })
    }

    /// Returns true if this rsync, as sender and receiver, deletes missing names and nothing else.
    ///
    /// A binary is tested once in the life of the process; an upgraded one is tested again. The
    /// test takes about 50 ms, 5 seconds at most.
    pub fn deletes_missing(&self) -> bool {
        self.answer(
            &DELETES_MISSING,
            "deletes missing names",
            Binary::try_missing,
        )
    }

    /// Returns true if this rsync, as sender, reads nothing outside of the source when a directory
    /// is replaced by a symlink during the transfer.
    ///
    /// Version 3.5 added this together with an option to disable it. The option is tested: an
    /// ordinary user cannot test an attack.
    pub fn is_confined(&self) -> bool {
        self.answer(&IS_CONFINED, "is confined to the source", |binary| {
            let mut command = Command::new(&binary.path);
            command.args(["--insecure-links", "--version"]);
            Ok(outcome(command, b"")? == Some(0))
        })
    }

    /// Returns true if this rsync reports the progress of all files together: from version 3.1 on.
    pub fn reports_progress(&self) -> bool {
        self.answer(&REPORTS_PROGRESS, "reports its progress", |binary| {
            let mut command = Command::new(&binary.path);
            command.arg("--info=help");
            Ok(outcome(command, b"")? == Some(0))
        })
    }

    /// Runs all tests that have not been run yet.
    pub fn probe(&self) {
        self.deletes_missing();
        self.is_confined();
        self.reports_progress();
    }

    /// Returns true if all tests have been run, so that the results are available at once.
    pub fn is_probed(&self) -> bool {
        [&DELETES_MISSING, &IS_CONFINED, &REPORTS_PROGRESS]
            .into_iter()
            .all(|tried| self.known(tried).is_some())
    }

    fn known(&self, tried: &Tried) -> Option<bool> {
        let tried = tried.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tried.iter().find(|(binary, _)| binary == self);
        known.map(|(_, answer)| *answer)
    }

    /// Returns the result of a test, which runs once in the life of the process.
    fn answer(
        &self,
        tried: &Tried,
        what: &str,
        ask: impl FnOnce(&Binary) -> io::Result<bool>,
    ) -> bool {
        if let Some(answer) = self.known(tried) {
            return answer;
        }
        let answer = ask(self).unwrap_or_else(|error| {
            log::debug!("cannot try {}: {error}", self.path.display());
            false
        });
        log::debug!("{} {what}: {answer}", self.path.display());
        let mut tried = tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.retain(|(binary, _)| binary.path != self.path);
        tried.push((self.clone(), answer));
        answer
    }

    fn try_missing(&self) -> io::Result<bool> {
        let scratch = ScratchDir::create(&std::env::temp_dir(), "lsyncd-rsync-")?;
        let path = scratch.path();
        let (source, target) = (path.join("source"), path.join("target"));
        fs::create_dir_all(source.join("here"))?;
        fs::write(source.join("here/new"), "")?;
        for directory in ["here/sub", "gone/sub", "other"] {
            fs::create_dir_all(target.join(directory))?;
        }
        for file in ["here/gone", "here/sub/f", "here/kept", "gone/sub/f", "kept"] {
            fs::write(target.join(file), "")?;
        }

        let list = b"/gone\0/here/gone\0/here/new\0/here/sub\0/never/was\0/other/f";
        let code = self.run(&path, list)?;
        let right = ["here/new", "here/kept", "kept"];
        let wrong = ["gone", "here/gone", "here/sub", "never", "other/f"];
        // Exit code 24: sources have vanished.
        Ok(matches!(code, Some(0 | 24))
            && right.iter().all(|name| target.join(name).is_file())
            && !wrong.iter().any(|name| target.join(name).exists()))
    }

    /// Transfers the listed files of `source/` in this directory to `target/`.
    fn run(&self, directory: &Path, list: &[u8]) -> io::Result<Option<i32>> {
        let mut command = Command::new(&self.path);
        command
            .current_dir(directory)
            .args(["-lt", "--delete-missing-args", "--force", "--ignore-errors"])
            .args(["--from0", "--files-from=-"])
            .args(["source/", "target/"]);
        outcome(command, list)
    }
}

/// Runs a command that reads `input`. Returns its exit code, or `None` if it had to be killed.
fn outcome(mut command: Command, input: &[u8]) -> io::Result<Option<i32>> {
    // What user code has opened is not marked.
    crate::sys::close_all_on_exec();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // If it has ended already, its exit code gives the reason.
        let _ = stdin.write_all(input);
    }
    let ended = match child.stdout.take() {
        Some(stdout) => closes(stdout, PROBE_TIMEOUT)?,
        None => true,
    };
    if !ended {
        child.kill()?;
    }
    Ok(child.wait()?.code())
}

/// Returns true if all writers of `output` have closed it before the timeout.
fn closes(mut output: impl AsFd + Read, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    let mut buffer = [0; 512];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return Ok(false),
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) if output.read(&mut buffer)? == 0 => return Ok(true),
            Ok(_) => {}
        }
    }
}

fn is_named_rsync(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_bytes().starts_with(b"rsync"))
}

#[cfg(test)]
#[path = "../../tests/support/script.rs"]
#[allow(dead_code, reason = "these tests use one of its two items")]
mod script;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::script::write_script;
    use super::*;

    #[test]
    fn scripts_and_other_names_are_wrappers() {
        let scratch = tempfile::tempdir().unwrap();
        let script = scratch.path().join("rsync");
        fs::write(&script, "#!/bin/sh\nexec rsync \"$@\"\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let link = scratch.path().join("rsync-link");
        std::os::unix::fs::symlink("/bin/sh", &link).unwrap();

        for path in [
            script.as_path(),
            &link,
            Path::new("/bin/sh"),
            Path::new("/none/rsync"),
        ] {
            assert_eq!(Binary::plain(path.as_os_str().as_bytes()), None, "{path:?}");
        }
        assert_eq!(Binary::plain(b"no-such-program"), None);
        assert_eq!(Binary::plain(b""), None);
    }

    #[test]
    fn an_exchanged_binary_is_probed_again() {
        let Some(installed) = Binary::plain(b"rsync") else {
            return;
        };
        // A copy, as other tests probe the installed one at the same time.
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("rsync");
        fs::copy(&installed.path, &copy).unwrap();
        let binary = Binary::plain(copy.as_os_str().as_bytes()).unwrap();
        let exchanged = Binary {
            modified: SystemTime::UNIX_EPOCH,
            ..binary.clone()
        };
        assert!(!exchanged.is_probed());
        exchanged.probe();
        assert!(exchanged.is_probed());
        binary.probe();
        assert!(binary.is_probed() && !exchanged.is_probed());
    }

    /// A wrapper in its place gets no lists.
    #[test]
    fn a_binary_that_is_replaced_is_examined_again() {
        let Some(installed) = Binary::plain(b"rsync") else {
            return;
        };
        assert!(installed.reports_progress());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rsync");
        let plain = || Binary::plain(path.as_os_str().as_bytes()).is_some();
        for _ in 0..2 {
            let copied = Command::new("cp").arg(&installed.path).arg(&path).status();
            assert!(copied.unwrap().success());
            assert!(plain() && plain());
            fs::remove_file(&path).unwrap();
            write_script(&path, "#!/bin/sh\n");
            assert!(!plain() && !plain());
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn only_a_program_that_deletes_missing_names_and_nothing_else_passes() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("idle", "true"),
            ("eager", "rm -r target/*"),
            ("lazy", "touch target/here/new"),
            (
                "failing",
                "rm -r target/gone target/here/gone target/here/sub; touch target/here/new; exit 1",
            ),
        ] {
            let path = directory.path().join(name);
            write_script(&path, &format!("cat >/dev/null\n{text}\n"));
            let modified = SystemTime::UNIX_EPOCH;
            assert!(!Binary { path, modified }.try_missing().unwrap(), "{name}");
        }
    }

    #[test]
    fn a_wedged_program_is_given_up() {
        let (reader, writer) = io::pipe().unwrap();
        assert!(!closes(reader, Duration::from_millis(1)).unwrap());
        drop(writer);
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        assert!(closes(reader, PROBE_TIMEOUT).unwrap());
    }
}
