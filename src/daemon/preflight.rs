//! Finds what a start would stumble over, without starting or writing anything: files and
//! directories that cannot be written, programs that are not there.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags, accessat};

use crate::config::{ControlSocket, Settings};
use crate::log;
use crate::log::escape;
use crate::safe_path::{self, Location};

/// How a file is written.
#[derive(Clone, Copy, PartialEq)]
enum How {
    /// Lines are added to it.
    Append,
    /// Another one is put in its place, or it is overwritten where that cannot be.
    Replace,
    /// It is made anew.
    Make,
}

/// What is wrong with the files of the settings, a line each.
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
            // This writes nothing, and tells of read-only file systems and of other users' files.
            let flags = OFlags::WRONLY | OFlags::APPEND;
            location.open(flags, Mode::empty()).map(drop)
        }
        _ => may_write(&location, location.name()),
    };
    match how {
        How::Append => file(),
        How::Replace if location.is_replaceable() => directory().or_else(|_| file()),
        How::Replace => file(),
        How::Make => directory(),
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

/// Returns true if this user may write to a name in the directory of a location; into a directory.
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

/// Finds programs as execvp(3) does, in a process that works in this directory.
pub struct Programs {
    /// Where relative names are meant from.
    directory: PathBuf,
}

impl Programs {
    /// For the daemon of these settings: one in the background works in `/`.
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

    /// What is wrong with this program, if anything.
    pub fn problem(&self, program: &[u8]) -> Option<String> {
        if self.is_executable(Path::new(OsStr::from_bytes(program))) {
            return None;
        }
        let shown = escape(program);
        let relative = program.contains(&b'/') && !program.starts_with(b"/");
        Some(if relative {
            format!(
                "{shown} cannot be executed; it is meant from {}, where the daemon works",
                self.directory.display()
            )
        } else {
            format!("{shown} cannot be executed")
        })
    }

    fn is_executable(&self, program: &Path) -> bool {
        if program.as_os_str().as_bytes().contains(&b'/') {
            return is_executable(&self.directory.join(program));
        }
        std::env::var_os("PATH").is_none_or(|path| {
            let mut directories = std::env::split_paths(&path);
            directories.any(|place| is_executable(&self.directory.join(place).join(program)))
        })
    }
}

fn is_executable(path: &Path) -> bool {
    let may = nix::unistd::eaccess(path, nix::unistd::AccessFlags::X_OK);
    may.is_ok() && path.is_file()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_that_can_be_written_are_told_from_others() {
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
        // A directory, and a file without the right.
        assert!(programs.problem(b"/bin").is_some());
        assert!(programs.problem(b"/etc/passwd").is_some());
        let programs = Programs { directory: here };
        let problem = programs.problem(b"bin/sh").unwrap();
        assert!(problem.contains("it is meant from "), "{problem}");
    }
}
