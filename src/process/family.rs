//! The processes that children started in turn: a shell's rsync, rsync's ssh.

use std::fs;

use nix::sys::signal::{self, Signal};

use super::Pid;

/// A process below a child, known by when it was started: the number alone may soon be that of
/// another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descendant {
    pid: u32,
    started: u64,
}

/// All processes below these, at this moment.
pub fn below(roots: impl IntoIterator<Item = Pid>) -> Vec<Descendant> {
    Processes::now().below(roots)
}

/// The processes of this host at one moment, and who started each: for whoever asks about
/// several, as reading them all costs more than anything that is asked.
pub struct Processes(Vec<(u32, Descendant)>);

impl Processes {
    /// Those of this moment.
    pub fn now() -> Processes {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let looked = all.filter_map(|entry| look(entry.file_name().to_str()?.parse().ok()?));
        Processes(looked.collect())
    }

    /// All processes below these.
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

    /// What a process and those below it have done so far: a figure that grows with all they
    /// compute, read and write. `None` while one of them works, waits for a disk or is stopped,
    /// and where the kernel does not tell (proc_pid_io(5)).
    pub fn effort(&self, root: Pid) -> Option<u64> {
        let below = self.below([root]).into_iter().map(|each| each.pid);
        std::iter::once(root.0).chain(below).map(effort_of).sum()
    }
}

impl Descendant {
    /// Its number.
    pub fn pid(self) -> Pid {
        Pid(self.pid)
    }

    /// Sends a signal, if the process is still there.
    pub fn kill(self, signal: Signal) {
        let same = look(self.pid).is_some_and(|(_, now)| now == self);
        if let (true, Ok(pid)) = (same, i32::try_from(self.pid)) {
            // It may have ended meanwhile, which is all that is wanted.
            let _ = signal::kill(nix::unistd::Pid::from_raw(pid), signal);
        }
    }
}

/// Whether a process runs this program, not a script of that name.
pub fn runs(pid: Pid, program: &str) -> bool {
    let found = fs::read_link(format!("/proc/{pid}/exe"));
    found.is_ok_and(|path| path.file_name().is_some_and(|name| name == program))
}

fn effort_of(pid: u32) -> Option<u64> {
    let stat = stat_of(pid)?;
    let mut fields = stat.split_ascii_whitespace();
    if fields.next()? != "S" {
        return None;
    }
    // utime and stime, fields 14 and 15.
    let times = fields.skip(10).take(2).map(str::parse::<u64>);
    let times: u64 = times.sum::<Result<_, _>>().ok()?;
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let counts = io.lines().take(4).map(|line| {
        let (_, count) = line.split_once(": ")?;
        count.parse::<u64>().ok()
    });
    Some(times + counts.sum::<Option<u64>>()?)
}

/// Parent and start of a process (proc(5): `stat`, fields 4 and 22).
fn look(pid: u32) -> Option<(u32, Descendant)> {
    let stat = stat_of(pid)?;
    let mut fields = stat.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some((parent, Descendant { pid, started }))
}

/// The fields of `stat` behind the name, from the third on (proc(5)).
fn stat_of(pid: u32) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, blanks and brackets included.
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
    fn who_sleeps_does_nothing_and_who_computes_does() {
        let start = |command: &str| Command::new("sh").args(["-c", command]).spawn().unwrap();
        let effort = |child: &std::process::Child| Processes::now().effort(Pid(child.id()));
        let effort_after = |child: &std::process::Child, before: Option<u64>| {
            // Until it has come to rest, or never: then the limit ends it.
            let mut last = before;
            for _ in 0..200 {
                std::thread::sleep(std::time::Duration::from_millis(10));
                let now = effort(child);
                if now.is_some() && now == last {
                    return now;
                }
                last = now;
            }
            None
        };
        let mut sleeper = start("sleep 1000; true");
        let rest = effort_after(&sleeper, None);
        assert!(rest.is_some());
        assert_eq!(effort(&sleeper), rest);
        assert!(!runs(Pid(sleeper.id()), "rsync"));
        below([Pid(sleeper.id())])[0].kill(Signal::SIGKILL);
        sleeper.wait().unwrap();

        let mut worker = start("while :; do :; done");
        assert_eq!(effort_after(&worker, None), None);
        worker.kill().unwrap();
        worker.wait().unwrap();
    }

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
