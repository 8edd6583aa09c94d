//! The status file in lsyncd's format, for people and scripts.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::log::escape;
use crate::log::reason;
use crate::status::atomic_file;
use crate::status::atomic_file::ReplaceError;
use crate::sys;

/// The bytes of a name or path.
pub type Name<'a> = Cow<'a, [u8]>;

/// The contents of a status file, in order.
pub struct StatusReport<'a> {
    /// The time in seconds since the epoch.
    pub time: i64,
    /// The syncs.
    pub syncs: Vec<SyncStatus<'a>>,
    /// The tunnels.
    pub tunnels: Vec<TunnelStatus<'a>>,
    /// The watched directories. There may be a million, so they are not collected.
    pub watches: &'a dyn WatchList,
}

/// One sync.
#[derive(Clone, Debug, Default)]
pub struct SyncStatus<'a> {
    /// The name: `Sync1`, or as configured.
    pub name: Name<'a>,
    /// The source; absolute, ends with `/`.
    pub source: Name<'a>,
    /// Problems, one line each; empty for a healthy sync.
    pub notes: Vec<Cow<'a, str>>,
    /// The queue, oldest first.
    pub delays: Vec<DelayStatus<'a>>,
    /// Filter rules in order, with their sign: `+ /a`, `- b`.
    pub filters: Vec<Name<'a>>,
    /// Exclude patterns without a sign; they are listed as `- PATTERN`.
    pub excludes: Vec<Name<'a>>,
}

/// One delay.
#[derive(Clone, Debug)]
pub struct DelayStatus<'a> {
    /// `active`, `wait` or `block`.
    pub status: &'a str,
    /// `Create`, `Move` …
    pub etype: &'a str,
    /// The path relative to the source, beginning with `/`; empty for the whole sync.
    pub path: Name<'a>,
    /// The destination of a Move.
    pub path2: Option<Name<'a>>,
}

/// One tunnel.
#[derive(Clone, Debug)]
pub struct TunnelStatus<'a> {
    /// The name: `Tunnel1`, or as configured.
    pub name: Name<'a>,
    /// The status: `UP`, `DOWN` …
    pub status: &'a str,
    /// The processes of the tunnel.
    pub processes: Vec<TunnelProcessStatus>,
}

/// A process of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct TunnelProcessStatus {
    /// The process id.
    pub pid: u32,
    /// The kind, as lsyncd numbers them.
    pub kind: i32,
    /// The start time in seconds since the epoch.
    pub started: f64,
}

/// The watched directories.
pub trait WatchList {
    /// Returns the number of watched directories.
    fn count(&self) -> usize;

    /// Calls `show` with the watch descriptor and the absolute path, ending with `/`, of each one.
    fn each(&self, show: &mut dyn FnMut(i32, &[u8]));
}

impl WatchList for Vec<(i32, Vec<u8>)> {
    fn count(&self) -> usize {
        self.len()
    }

    fn each(&self, show: &mut dyn FnMut(i32, &[u8])) {
        self.iter().for_each(|(number, path)| show(*number, path));
    }
}

/// The error that the status file could not be written; its text is lsyncd's.
#[derive(Debug)]
pub struct StatusError {
    what: &'static str,
    path: PathBuf,
    cause: ReplaceError,
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, error) = match &self.cause {
            ReplaceError::Open(e) => ("open", e),
            ReplaceError::Write(e) => ("write", e),
        };
        let what = self.what;
        let path = escape(self.path.as_os_str().as_encoded_bytes());
        write!(f, "Cannot {verb} {what} file \"{path}\" :{}", reason(error))
    }
}

impl std::error::Error for StatusError {}

impl StatusError {
    /// Returns the error that a file of kind `what` could not be replaced.
    pub fn of(what: &'static str, path: &Path, cause: ReplaceError) -> StatusError {
        StatusError {
            what,
            path: path.to_owned(),
            cause,
        }
    }
}

impl StatusReport<'_> {
    /// Replaces the file; a reader finds the old one or the new one, complete.
    ///
    /// # Errors
    /// The file cannot be opened or written.
    pub fn save(&self, path: &Path) -> Result<(), StatusError> {
        atomic_file::write(path, &mut |mut out| self.write(&mut out))
            .map_err(|cause| StatusError::of("status", path, cause))
    }

    /// Writes the text.
    ///
    /// # Errors
    /// Returns the errors of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let time = sys::local_time(self.time, c"%a %b %e %H:%M:%S %Y");
        write!(out, "Lsyncd status report at {time}\n\n")?;
        for sync in &self.syncs {
            sync.write(out)?;
        }
        for tunnel in &self.tunnels {
            tunnel.write(out)?;
        }
        let count = self.watches.count();
        writeln!(out, "Inotify watching {count} directories")?;
        let mut result = Ok(());
        self.watches.each(&mut |number, path| {
            if result.is_ok() {
                result = writeln!(out, "  {number}: {}", escape(path));
            }
        });
        result
    }
}

impl SyncStatus<'_> {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{} source={}",
            escape(&self.name),
            escape(&self.source)
        )?;
        for note in &self.notes {
            writeln!(out, "{note}")?;
        }
        writeln!(out, "There are {} delays", self.delays.len())?;
        for delay in &self.delays {
            delay.write(out)?;
        }
        writeln!(out, "Filtering:")?;
        for rule in &self.filters {
            writeln!(out, "{}", escape(rule))?;
        }
        for pattern in &self.excludes {
            writeln!(out, "- {}", escape(pattern))?;
        }
        if self.filters.is_empty() && self.excludes.is_empty() {
            writeln!(out, "  nothing.")?;
        }
        write!(out, "\n\n")
    }
}

impl DelayStatus<'_> {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let path = escape(&self.path);
        write!(out, "{:<7}{} {path}", self.status, self.etype)?;
        match &self.path2 {
            Some(path2) => writeln!(out, " -> {}", escape(path2)),
            None => writeln!(out),
        }
    }
}

impl TunnelStatus<'_> {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let name = escape(&self.name);
        writeln!(out, "Tunnel: name={name} status={}", self.status)?;
        writeln!(out, "Running processes: {}", self.processes.len())?;
        for TunnelProcessStatus { pid, kind, started } in &self.processes {
            writeln!(out, "  pid={pid} type={kind} started={started:.6}")?;
        }
        write!(out, "\n\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name<'_> {
        Cow::Borrowed(text.as_bytes())
    }

    fn delay<'a>(status: &'a str, etype: &'a str, path: &'a str) -> DelayStatus<'a> {
        DelayStatus {
            status,
            etype,
            path: name(path),
            path2: None,
        }
    }

    fn body(report: &StatusReport<'_>) -> String {
        let mut text = Vec::new();
        report.write(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let (head, body) = text.split_once('\n').unwrap();
        assert!(
            head.starts_with("Lsyncd status report at Mon Nov 15 "),
            "{head}"
        );
        assert!(head.ends_with(" 2021"), "{head}");
        body.to_owned()
    }

    #[test]
    fn two_syncs_and_a_tunnel() {
        let busy = SyncStatus {
            name: name("Sync1"),
            source: name("/data/a/"),
            delays: vec![
                delay("active", "Create", "/w"),
                DelayStatus {
                    path2: Some(name("/g")),
                    ..delay("wait", "Move", "/f")
                },
                delay("block", "Modify", "/n/x"),
                delay("active", "Init", ""),
            ],
            ..SyncStatus::default()
        };
        let idle = SyncStatus {
            name: name("Sync2"),
            source: name("/data/b/"),
            filters: vec![name("- /a"), name("+ b")],
            excludes: vec![name("*.o")],
            ..SyncStatus::default()
        };
        let tunnel = TunnelStatus {
            name: name("Tunnel1"),
            status: "UP",
            processes: vec![TunnelProcessStatus {
                pid: 23717,
                kind: 1,
                started: 1_718_437_482.0,
            }],
        };
        let report = StatusReport {
            time: 1_636_977_600,
            syncs: vec![busy, idle],
            tunnels: vec![tunnel],
            watches: &vec![(1, b"/data/a/".to_vec()), (2, b"/data/b/".to_vec())],
        };
        let expected = "
Sync1 source=/data/a/
There are 4 delays
active Create /w
wait   Move /f -> /g
block  Modify /n/x
active Init \nFiltering:
  nothing.


Sync2 source=/data/b/
There are 0 delays
Filtering:
- /a
+ b
- *.o


Tunnel: name=Tunnel1 status=UP
Running processes: 1
  pid=23717 type=1 started=1718437482.000000


Inotify watching 2 directories
  1: /data/a/
  2: /data/b/
";
        assert_eq!(body(&report), expected);
    }

    #[test]
    fn names_forge_no_lines() {
        let sync = SyncStatus {
            name: name("S"),
            source: name("/s/"),
            notes: vec!["State: source lost".into()],
            delays: vec![delay("wait", "Create", "/a\nThere are 0 delays")],
            ..SyncStatus::default()
        };
        let report = StatusReport {
            time: 1_636_977_600,
            syncs: vec![sync],
            tunnels: Vec::new(),
            watches: &vec![(7, b"/s/\xff/".to_vec())],
        };
        let text = body(&report);
        assert!(text.starts_with("\nS source=/s/\nState: source lost\nThere are 1 delays\n"));
        assert!(text.contains("wait   Create /a\\012There are 0 delays\n"));
        assert!(text.ends_with("Inotify watching 1 directories\n  7: /s/\\377/\n"));
    }

    #[test]
    fn where_it_cannot_be_written() {
        let report = StatusReport {
            time: 0,
            syncs: Vec::new(),
            tunnels: Vec::new(),
            watches: &Vec::new(),
        };
        let error = report.save(Path::new("/proc/none/status")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Cannot open status file \"/proc/none/status\" :No such file or directory"
        );
    }
}
