//! Descendants of children: a shell's rsync, rsync's ssh.

use std::fs;

use nix::sys::signal::{self, Signal};

use super::pid::Pid;

/// A descendant of a child, identified by its pid and start time: the pid alone may soon be that of
/// another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descendant {
    pid: u32,
    started: u64,
}

/// Returns all present descendants of these processes.
pub fn below(roots: impl IntoIterator<Item = Pid>) -> Vec<Descendant> {
    Processes::now().below(roots)
}

/// All processes of this host at one moment, with their parents. Reading them costs more than any
/// query, so several queries share one.
pub struct Processes(Vec<(u32, Descendant)>);

impl Processes {
    /// Reads the processes of this moment.
    pub fn now() -> Processes {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let looked =
            all.filter_map(|entry| read_process(entry.file_name().to_str()?.parse().ok()?));
        Processes(looked.collect())
    }

    /// Returns all descendants of these processes.
    pub fn below(&self, roots: impl IntoIterator<Item = Pid>) -> Vec<Descendant> {
        let mut parents: Vec<u32> = roots.into_iter().map(|root| root.0).collect();
        let mut found = Vec::new();
        while let Some(parent) = parents.pop() {
            for &(_, child) in self.0.iter().filter(|(of, _)| *of == parent) {
                parents.push(child.pid);
                found.push(child);
            }
        }
        found
    }

    /// Returns the children of a process.
    pub(super) fn children(&self, parent: u32) -> Vec<u32> {
        let children = self.0.iter().filter(|(of, _)| *of == parent);
        children.map(|(_, child)| child.pid).collect()
    }
}

impl Descendant {
    /// Sends a signal if the process still exists.
    pub fn kill(self, signal: Signal) {
        let same = read_process(self.pid).is_some_and(|(_, now)| now == self);
        if let (true, Ok(pid)) = (same, i32::try_from(self.pid)) {
            // It may have ended meanwhile.
            let _ = signal::kill(nix::unistd::Pid::from_raw(pid), signal);
        }
    }
}

/// Returns parent and start time of a process (proc(5): `stat`, fields 4 and 22).
fn read_process(pid: u32) -> Option<(u32, Descendant)> {
    let stat = stat_of(pid)?;
    let mut fields = stat.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some((parent, Descendant { pid, started }))
}

/// Returns the fields of `stat` behind the name, from the third on (proc(5)).
pub(super) fn stat_of(pid: u32) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may contain anything, blanks and brackets included.
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    std::str::from_utf8(&stat[end + 1..])
        .ok()
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    #[test]
    fn a_grandchild_is_found_and_ended() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 1000 & echo $!; wait; echo gone"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let grandchild: u32 = lines.next().unwrap().unwrap().parse().unwrap();
        let found = below([Pid(child.id())]);
        assert_eq!(
            found.iter().map(|d| d.pid).collect::<Vec<_>>(),
            [grandchild]
        );
        assert_eq!(Processes::now().children(child.id()), [grandchild]);
        assert!(Processes::now().children(grandchild).is_empty());
        let another = Descendant {
            started: 1,
            ..found[0]
        };
        another.kill(Signal::SIGKILL);
        assert_eq!(below([Pid(child.id())]), found);
        found[0].kill(Signal::SIGKILL);
        assert_eq!(lines.next().unwrap().unwrap(), "gone");
        child.wait().unwrap();
    }
}
