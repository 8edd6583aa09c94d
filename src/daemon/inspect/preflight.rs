//! Checks for problems of a start, without starting or writing anything: files and directories that
//! are not writable, programs that do not exist.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat};

use crate::config::{ControlSocket, Settings};
use crate::log;
use crate::log::escape;
use crate::process::program;
use crate::safe_path::{self, Location};

/// The kernel reads so much of a script's first line.
const MAX_INTERPRETER: u64 = 256;

/// The longest name of a socket, that of `sun_path` with its end.
const MAX_SOCKET_NAME: usize = 107;

/// The way in which a file is written.
#[derive(Clone, Copy, PartialEq)]
enum How {
    /// Appended to.
    Append,
    /// Replaced by rename, or overwritten where the directory is not writable.
    Replace,
    /// Created.
    Make,
}

/// Returns the problems of the files in the settings, one line each.
pub fn of_settings(settings: &Settings) -> Vec<String> {
    let socket = match &settings.control_socket {
        ControlSocket::At(path) => Some(path),
        ControlSocket::Default | ControlSocket::None => None,
    };
    let pid_file = settings.pid_file.as_ref().filter(|_| !settings.nodaemon);
    let files = [
        ("logfile", settings.log_file.as_ref(), How::Append),
        ("pidfile", pid_file, How::Replace),
        ("statusFile", settings.status_file.as_ref(), How::Replace),
        ("metricsFile", settings.metrics_file.as_ref(), How::Replace),
        ("controlSocket", socket, How::Make),
    ];
    let mut problems: Vec<String> = files
        .into_iter()
        .filter_map(|(key, path, how)| problem(key, path?, writable(path?, how)))
        .collect();
    if let Some(path) = socket.filter(|path| path.as_os_str().len() > MAX_SOCKET_NAME) {
        let shown = escape(path.as_os_str().as_bytes());
        problems.push(format!(
            "controlSocket {shown} is too long: a socket has a name of {MAX_SOCKET_NAME} bytes at \
             most"
        ));
    }
    if let Some(path) = &settings.state_dir {
        problems.extend(problem("stateDir", path, usable_directory(path)));
    }
    problems
}

fn problem(key: &str, path: &Path, found: io::Result<()>) -> Option<String> {
    let reason = log::reason(&found.err()?);
    let path = escape(path.as_os_str().as_bytes());
    Some(format!("{key} {path} cannot be written: {reason}"))
}

fn writable(path: &Path, how: How) -> io::Result<()> {
    let location = safe_path::locate(path)?;
    let directory = || may_write(&location, ".");
    let Some(found) = location.found() else {
        return directory();
    };
    let file = || match safe_path::kind(found) {
        rustix::fs::FileType::Directory => Err(rustix::io::Errno::ISDIR.into()),
        rustix::fs::FileType::RegularFile => {
            // Opening writes nothing and reveals read-only file systems and missing permissions.
            let flags = OFlags::WRONLY | OFlags::APPEND;
            location.open(flags, Mode::empty()).map(drop)
        }
        _ => may_write(&location, location.name()),
    };
    match how {
        How::Append => file(),
        How::Replace if location.is_replaceable() => directory().or_else(|_| file()),
        How::Replace => file(),
        // A socket that was left behind is removed; any other file is kept.
        How::Make if safe_path::kind(found) == rustix::fs::FileType::Socket => directory(),
        How::Make => Err(rustix::io::Errno::EXIST.into()),
    }
}

fn usable_directory(path: &Path) -> io::Result<()> {
    let location = safe_path::locate(path)?;
    match location.found() {
        None => may_write(&location, "."),
        Some(found) if safe_path::kind(found) != rustix::fs::FileType::Directory => {
            Err(rustix::io::Errno::NOTDIR.into())
        }
        Some(_) => may_write(&location, location.name()),
    }
}

/// Returns an error if this user may not write to `name` in the directory of a location.
fn may_write(location: &Location, name: impl AsRef<OsStr>) -> io::Result<()> {
    let rights = if name.as_ref() == "." {
        Access::WRITE_OK | Access::EXEC_OK
    } else {
        Access::WRITE_OK
    };
    let name = name.as_ref();
    let flags = AtFlags::EACCESS;
    Ok(accessat(location.directory(), name, rights, flags)?)
}

/// Returns what is wrong with the files that the options of rsync and ssh name, and with a local
/// target; `ssh` holds the words of the remote shell.
pub fn of_transfers(rsync: &[Vec<u8>], ssh: &[Vec<u8>], target: Option<&[u8]>) -> Vec<String> {
    let mut problems = Vec::new();
    let last = |option: &[u8]| {
        let mut values = rsync.iter().filter_map(|word| word.strip_prefix(option));
        values.next_back()
    };
    problems.extend(last(b"--password-file=").and_then(password_problem));
    for file in values(ssh, b'i') {
        problems.extend(unreadable("the key", file));
    }
    let temporary = last(b"--temp-dir=").zip(target);
    problems.extend(temporary.and_then(|(dir, target)| temporary_problem(dir, target)));
    let is_made = rsync.iter().any(|word| word == b"--mkpath");
    problems.extend(target.filter(|_| !is_made).and_then(target_problem));
    problems
}

/// rsync does not create the directory, which it looks for in the target.
fn temporary_problem(dir: &[u8], target: &[u8]) -> Option<String> {
    let shown = escape(dir);
    match path_of(target).join(path_of(dir)).metadata() {
        Ok(found) if found.is_dir() => None,
        Ok(_) => Some(format!("temp_dir {shown} is not a directory")),
        Err(_) if dir.starts_with(b"/") => {
            Some(format!("temp_dir {shown} does not exist; create it"))
        }
        Err(_) => Some(format!(
            "temp_dir {shown} does not exist in the target; create it"
        )),
    }
}

/// rsync refuses a file that others may read.
fn password_problem(file: &[u8]) -> Option<String> {
    if file == b"-" {
        return None;
    }
    let shown = escape(file);
    let problem = unreadable("password_file", file);
    problem.or_else(|| {
        let mode = path_of(file).metadata().ok()?.mode();
        (mode & 0o006 != 0).then(|| {
            format!("password_file {shown} can be read by others, which rsync refuses; chmod 600")
        })
    })
}

fn unreadable(what: &str, file: &[u8]) -> Option<String> {
    // ssh expands `~` and `%`.
    if file.starts_with(b"~") || file.contains(&b'%') || file.contains(&b'$') {
        return None;
    }
    let found = accessat(CWD, path_of(file), Access::READ_OK, AtFlags::EACCESS);
    let reason = log::reason(&found.err()?.into());
    Some(format!("{what} {} cannot be read: {reason}", escape(file)))
}

/// rsync makes the last directory of a target only.
fn target_problem(target: &[u8]) -> Option<String> {
    let slashes = target
        .iter()
        .rev()
        .take_while(|&&byte| byte == b'/')
        .count();
    let path = path_of(&target[..target.len() - slashes]);
    let shown = escape(target);
    if let Ok(found) = path.symlink_metadata().and_then(|_| path.metadata()) {
        return (!found.is_dir()).then(|| format!("the target {shown} is not a directory"));
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())?;
    let is_missing = matches!(parent.metadata(), Err(error) if error.kind() == ErrorKind::NotFound);
    is_missing.then(|| {
        let parent = escape(parent.as_os_str().as_bytes()).into_owned();
        format!("the target {shown} cannot be created: {parent} does not exist")
    })
}

fn path_of(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

/// The values of an option of one letter, in the same word or the next.
fn values(words: &[Vec<u8>], letter: u8) -> impl Iterator<Item = &[u8]> {
    let option = [b'-', letter];
    words
        .iter()
        .enumerate()
        .filter_map(move |(index, word)| match word.strip_prefix(&option)? {
            b"" => words.get(index + 1).map(Vec::as_slice),
            value => Some(value),
        })
}

/// The lookup of programs as by execvp(3).
pub struct Programs {
    /// The directory relative names refer to.
    directory: PathBuf,
}

impl Programs {
    /// Returns the lookup for the daemon of these settings. In the background its working directory
    /// is `/`.
    pub fn new(settings: &Settings) -> Programs {
        let here = || std::env::current_dir().unwrap_or_else(|_| "/".into());
        Programs {
            directory: if settings.nodaemon {
                here()
            } else {
                "/".into()
            },
        }
    }

    /// Returns the problem of a program, if there is one.
    pub fn problem(&self, program: &[u8]) -> Option<String> {
        if self.is_executable(program) {
            return None;
        }
        let shown = escape(program);
        let relative = program.contains(&b'/') && !program.starts_with(b"/");
        Some(if relative {
            format!(
                "{shown} cannot be executed; the daemon looks for it in {}",
                self.directory.display()
            )
        } else {
            format!("{shown} cannot be executed")
        })
    }

    fn is_executable(&self, program: &[u8]) -> bool {
        let is_here = |place: &PathBuf| is_executable(&self.directory.join(place));
        program::candidates(program).is_none_or(|places| places.iter().any(is_here))
    }
}

fn is_executable(path: &Path) -> bool {
    let may = nix::unistd::eaccess(path, nix::unistd::AccessFlags::X_OK);
    may.is_ok() && path.is_file() && has_interpreter(path)
}

/// Returns false for a script whose first line names an interpreter that is not there.
fn has_interpreter(path: &Path) -> bool {
    let mut line = Vec::new();
    let file = std::fs::File::open(path).map(|file| file.take(MAX_INTERPRETER));
    if file
        .and_then(|mut file| file.read_to_end(&mut line))
        .is_err()
    {
        return true;
    }
    let Some(line) = line.strip_prefix(b"#!") else {
        return true;
    };
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let name = line
        .trim_ascii()
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .next();
    name.is_none_or(|name| name.is_empty() || path_of(name).exists())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn files_that_can_be_written_are_distinguished_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "kept").unwrap();
        fs::create_dir(path("dir")).unwrap();
        symlink(path("none/f"), path("dangling")).unwrap();
        symlink(path("file"), path("link")).unwrap();
        let good = ["new", "file", "link"];
        let bad = ["none/f", "file/f", "dangling", "dir"];
        for how in [How::Append, How::Replace] {
            for name in good {
                assert!(writable(&path(name), how).is_ok(), "{name}");
            }
            for name in bad {
                assert!(writable(&path(name), how).is_err(), "{name}");
            }
        }
        assert!(writable(&path("sock"), How::Make).is_ok());
        assert!(writable(&path("none/sock"), How::Make).is_err());
        for (name, usable) in [
            ("dir", true),
            ("new", true),
            ("file", false),
            ("none/d", false),
        ] {
            assert_eq!(usable_directory(&path(name)).is_ok(), usable, "{name}");
        }
        assert_eq!(fs::read(path("file")).unwrap(), b"kept");
        assert!(!path("new").exists() && !path("sock").exists());
    }

    #[test]
    fn files_of_transfers_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| format!("{}/{name}", dir.path().display());
        let words = |words: &[&str]| -> Vec<Vec<u8>> {
            words.iter().map(|word| word.as_bytes().to_vec()).collect()
        };
        let said = |rsync: &[&str], ssh: &[&str], target: &str| {
            of_transfers(&words(rsync), &words(ssh), Some(target.as_bytes())).join(";")
        };
        fs::write(path("file"), "x").unwrap();
        fs::set_permissions(path("file"), fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(path("private"), "x").unwrap();
        fs::set_permissions(path("private"), fs::Permissions::from_mode(0o600)).unwrap();
        let (here, option) = (path(""), |name: &str| {
            format!("--password-file={}", path(name))
        });
        assert_eq!(
            said(&[&option("private")], &["ssh", "-i", &path("file")], &here),
            ""
        );
        assert!(said(&[&option("file")], &[], &here).contains("chmod 600"));
        assert!(said(&[&option("none")], &[], &here).contains("none cannot be read"));
        let temporary = |name: &str| said(&[&format!("--temp-dir={name}")], &[], &here);
        assert_eq!(temporary(&here), "");
        assert!(temporary("/no/such").contains("does not exist; create it"));
        assert!(temporary("none").contains("none does not exist in the target"));
        assert!(temporary("file").contains("is not a directory"));
        for ssh in [
            &["ssh", "-i", "/no/key"][..],
            &["ssh", "-p", "5", "-i/no/key"],
        ] {
            assert!(said(&[], ssh, &here).contains("the key /no/key cannot be read"));
        }
        assert_eq!(
            said(&[], &["ssh", "-i", "~/key", "-i", "%d/key"], &here),
            ""
        );
        assert!(said(&[], &[], &path("file/")).contains("not a directory"));
        assert!(said(&[], &[], &path("no/dir/")).contains("does not exist"));
        assert_eq!(said(&["--mkpath"], &[], &path("no/dir/")), "");
        assert_eq!(said(&[], &[], &path("new/")), "");
        assert_eq!(said(&[], &[], "new/"), "");
    }

    #[test]
    fn a_script_needs_its_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let programs = Programs {
            directory: dir.path().into(),
        };
        for (line, is_good) in [
            ("#!/bin/sh\n", true),
            ("#! /bin/sh -e\n", true),
            ("#!/no/sh\nx", false),
            ("x", true),
            ("", true),
        ] {
            let path = dir.path().join("script");
            fs::write(&path, line).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!(programs.problem(b"./script").is_none(), is_good, "{line}");
        }
    }

    #[test]
    fn programs_are_found_as_the_daemon_would() {
        let here = std::env::current_dir().unwrap();
        let programs = Programs {
            directory: "/".into(),
        };
        assert_eq!(programs.problem(b"sh"), None);
        assert_eq!(programs.problem(b"/bin/sh"), None);
        assert_eq!(programs.problem(b"bin/sh"), None);
        assert!(
            programs
                .problem(b"/no/such")
                .unwrap()
                .contains("/no/such cannot be executed")
        );
        assert!(programs.problem(b"no-such-program").is_some());
        // A directory, and a file without execute permission.
        assert!(programs.problem(b"/bin").is_some());
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().as_os_str().as_bytes();
        assert!(programs.problem(path).is_some());
        let programs = Programs { directory: here };
        let problem = programs.problem(b"bin/sh").unwrap();
        assert!(problem.contains("the daemon looks for it in "), "{problem}");
    }
}
