//! Observes a child and its descendants: CPU time and I/O, and if one of them waits in opening a
//! FIFO.

use std::fs;

use super::Pid;
use super::process_tree::{self, Processes};

/// The kernel's function that waits for the other end of a FIFO, and its caller. They have no other
/// purpose (fs/pipe.c), so a thread that waits there is opening a FIFO.
const FIFO_FUNCTIONS: [&str; 2] = ["wait_for_partner", "fifo_open"];

/// System calls that open a file.
const OPEN_CALLS: [libc::c_long; 2] = [libc::SYS_openat, libc::SYS_openat2];

/// A program whose I/O does not count, because it passes keep-alive messages (ssh_config(5),
/// ServerAliveInterval) while a transfer is stalled.
const CARRIER: &str = "ssh";

/// The growth of a counter that the keep-alive messages of rsync (`--timeout`) may cause between
/// two observations. They are sent while a transfer is stalled.
pub const KEEP_ALIVE: u64 = 64;

/// The weight of a tick of CPU time in a counter: it is more than a keep-alive message.
const TICK_WEIGHT: u64 = KEEP_ALIVE + 1;

/// A system call of a thread that waits for the other end of a FIFO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FifoWait {
    /// The thread id.
    pub thread: u32,
    /// Number and arguments of the system call, if the kernel reports them.
    pub call: Vec<u8>,
    /// The number of context switches of the thread; equal in two observations if it has not run
    /// between them.
    pub switches: u64,
}

/// The observed state of one child and its descendants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// A counter for each process that grows with its CPU time and I/O. `None` if one of them runs
    /// at this moment, or if the kernel does not report it.
    pub activity: Option<Vec<(u32, u64)>>,
    /// The calls that wait for the other end of a FIFO. Empty if some process might open that other
    /// end.
    pub fifo_waits: Vec<FifoWait>,
}

/// One observation of the processes of this host. The table of all processes is read at most once,
/// and only if the kernel does not list the children of a process (proc_pid_task_tid_children(5)).
#[derive(Default)]
pub struct ProcessObserver {
    all: Option<Processes>,
}

/// A process at the moment of the observation.
struct Process {
    pid: u32,
    parent: Option<usize>,
    name: String,
    state: u8,
    ticks: u64,
}

impl ProcessObserver {
    /// Returns the state of a child and its descendants. If the kernel does not list children, a
    /// child that is not `local` is observed without descendants.
    pub fn observe(&mut self, root: Pid, local: bool) -> Observation {
        let mut found: Vec<Process> = Vec::new();
        let mut next = vec![(root.0, None)];
        while let Some((pid, parent)) = next.pop() {
            // A process that has ended is missing in the counters, which thereby differ.
            let Some(process) = process(pid, parent) else {
                continue;
            };
            found.push(process);
            let parent = Some(found.len() - 1);
            let children = self.children(pid, local);
            next.extend(children.into_iter().map(|child| (child, parent)));
        }
        Observation {
            activity: activity(&found),
            fifo_waits: fifo_waits(&found),
        }
    }

    fn children(&mut self, pid: u32, local: bool) -> Vec<u32> {
        if let Some(children) = listed_children(pid) {
            return children;
        }
        if !local {
            return Vec::new();
        }
        let all = self.all.get_or_insert_with(Processes::now);
        all.children(pid)
    }
}

/// Returns the children of a process from the kernel's list; `None` if there is no such list.
fn listed_children(pid: u32) -> Option<Vec<u32>> {
    let mut children = Vec::new();
    for thread in threads(pid) {
        let listed = fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).ok()?;
        children.extend(
            listed
                .split_ascii_whitespace()
                .filter_map(|each| each.parse::<u32>().ok()),
        );
    }
    Some(children)
}

fn threads(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let numbers = threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok());
    numbers.collect()
}

fn process(pid: u32, parent: Option<usize>) -> Option<Process> {
    let stat = process_tree::stat_of(pid)?;
    let mut fields = stat.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // utime and stime, fields 14 and 15.
    let times = fields.skip(10).take(2).map(str::parse::<u64>);
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(Process {
        pid,
        parent,
        name: String::from_utf8_lossy(name.trim_ascii_end()).into_owned(),
        state,
        ticks: times.sum::<Result<_, _>>().ok()?,
    })
}

/// Returns the counters of all processes except ssh.
fn activity(found: &[Process]) -> Option<Vec<(u32, u64)>> {
    let counted = found.iter().filter(|process| process.name != CARRIER);
    let figure = |process: &Process| match process.state {
        b'R' => None,
        b'Z' => Some((process.pid, process.ticks * TICK_WEIGHT)),
        _ => Some((
            process.pid,
            process.ticks * TICK_WEIGHT + transferred(process.pid)?,
        )),
    };
    let mut figures = counted.map(figure).collect::<Option<Vec<_>>>()?;
    figures.sort_unstable();
    (!figures.is_empty()).then_some(figures)
}

/// Returns bytes and calls of reading and writing (proc_pid_io(5)).
fn transferred(pid: u32) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let counts = io.lines().take(4).map(|line| {
        let (_, count) = line.split_once(": ")?;
        count.parse::<u64>().ok()
    });
    counts.sum()
}

/// Returns the calls that wait in opening a FIFO. Returns none if one of the processes might open
/// the other end: one that runs, or another program than rsync that waits for no part of rsync and
/// for no process that waits so.
fn fifo_waits(found: &[Process]) -> Vec<FifoWait> {
    let is_part_of_rsync = |name: &str| name.starts_with("rsync") || name == CARRIER;
    let mut waits = Vec::new();
    let mut is_harmless = vec![false; found.len()];
    for (index, process) in found.iter().enumerate() {
        let threads = threads(process.pid).into_iter();
        let own: Vec<_> = threads
            .filter_map(|thread| fifo_wait(process.pid, thread))
            .collect();
        // A shell around it, here or at the other end of a pipe, waits for it.
        let is_waited_for = !own.is_empty() || is_part_of_rsync(&process.name);
        let mut above = Some(index).filter(|_| is_waited_for);
        while let Some(at) = above {
            is_harmless[at] = true;
            above = found[at].parent;
        }
        waits.extend(own);
    }
    let might_open = |process: &Process, is_harmless: bool| match process.state {
        b'R' => true,
        b'Z' => false,
        _ => !is_harmless,
    };
    let mut all = found.iter().zip(is_harmless);
    if all.any(|(process, is_harmless)| might_open(process, is_harmless)) {
        waits.clear();
    }
    waits
}

/// Returns the call of a thread that waits in opening a FIFO.
fn fifo_wait(pid: u32, thread: u32) -> Option<FifoWait> {
    let read = |name: &str| fs::read(format!("/proc/{pid}/task/{thread}/{name}"));
    let call = read("syscall").unwrap_or_default();
    let function = read("wchan").unwrap_or_default();
    if !is_proven(&function, &call, || read("stack").unwrap_or_default()) {
        return None;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).ok()?;
    let switches = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    Some(FifoWait {
        thread,
        call,
        switches: switches.trim().parse().ok()?,
    })
}

/// Returns true if a thread waits in opening a FIFO, by the function in which it waits
/// (proc_pid_wchan(5)) or, where this is not readable, by its system call and its stack.
fn is_proven(function: &[u8], call: &[u8], stack: impl FnOnce() -> Vec<u8>) -> bool {
    match function {
        // Not every user may read it, and only root may read the stack.
        b"" | b"0" => is_open_call(call) && opens_fifo(&stack()),
        function => is_fifo_function(function),
    }
}

/// Returns true for a name of [`FIFO_FUNCTIONS`], with what compilers append to it.
fn is_fifo_function(name: &[u8]) -> bool {
    FIFO_FUNCTIONS.iter().any(|function| {
        let rest = name.strip_prefix(function.as_bytes());
        rest.is_some_and(|rest| rest.first().is_none_or(|next| b".+ \n".contains(next)))
    })
}

/// Returns true if one of the lines of proc_pid_stack(5), as `[<0>] fifo_open+0x2d9/0x330`, names
/// a function of [`FIFO_FUNCTIONS`].
fn opens_fifo(stack: &[u8]) -> bool {
    let lines = stack.split(|&byte| byte == b'\n');
    let mut functions = lines.filter_map(|line| line.split(|&byte| byte == b' ').nth(1));
    functions.any(is_fifo_function)
}

/// Returns true if the line of proc_pid_syscall(5) is of a call that opens a file.
fn is_open_call(call: &[u8]) -> bool {
    let number = call.split(|&byte| byte == b' ').next().unwrap_or_default();
    let number = std::str::from_utf8(number)
        .ok()
        .and_then(|number| number.parse().ok());
    number.is_some_and(|number: libc::c_long| OPEN_CALLS.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Stdio};

    /// Ends a process and its descendants, however the test ends.
    struct RunningTransfer(Child);

    impl RunningTransfer {
        fn shell(script: &str, argument: &std::path::Path) -> RunningTransfer {
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh"]).arg(argument);
            RunningTransfer(command.spawn().unwrap())
        }

        fn observe(&self) -> Observation {
            ProcessObserver::default().observe(Pid(self.0.id()), true)
        }

        /// Observes until `accept` returns true; gives up after two minutes.
        fn observe_until(&self, accept: impl Fn(&Observation) -> bool) -> Observation {
            for _ in 0..12_000 {
                let seen = self.observe();
                if accept(&seen) {
                    return seen;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            panic!("the processes do not do what is waited for");
        }
    }

    impl Drop for RunningTransfer {
        fn drop(&mut self) {
            for each in process_tree::below([Pid(self.0.id())]) {
                each.kill(nix::sys::signal::Signal::SIGKILL);
            }
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn fifo(directory: &std::path::Path) -> std::path::PathBuf {
        let path = directory.join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path
    }

    /// Returns an observation that is not empty and equals the next one.
    fn at_rest(running: &RunningTransfer) -> Observation {
        running.observe_until(|seen| seen.activity.is_some() && *seen == running.observe())
    }

    #[test]
    fn who_sleeps_shows_the_same_figures_and_who_computes_none() {
        let nowhere = std::path::Path::new("/");
        let sleeper = RunningTransfer::shell("sleep 1000; true", nowhere);
        let seen = at_rest(&sleeper);
        assert_eq!(seen.activity.map(|figures| figures.len()), Some(2));
        assert!(seen.fifo_waits.is_empty());
        let worker = RunningTransfer::shell("while :; do :; done", nowhere);
        worker.observe_until(|seen| seen.activity.is_none());
    }

    #[test]
    fn a_process_that_waits_in_opening_a_fifo_is_found_wherever_it_is() {
        if fs::read("/proc/self/wchan").is_err() {
            return;
        }
        for script in [
            r#"read x < "$1""#,
            r#"exec cat "$1""#,
            r#"sh -c 'exec cat "$1"; true' sh "$1"; true"#,
            r#"echo x > "$1""#,
            // Beside a child that has ended and is not reaped.
            r#"true & exec cat "$1""#,
        ] {
            // Descendants of the previous one may not have ended yet, and still open its FIFO.
            let directory = tempfile::tempdir().unwrap();
            let path = fifo(directory.path());
            let waits = RunningTransfer::shell(script, &path);
            let seen = waits.observe_until(|seen| !seen.fifo_waits.is_empty());
            assert_eq!(seen.fifo_waits.len(), 1, "{script}");
            assert_eq!(waits.observe().fifo_waits, seen.fifo_waits, "{script}");
        }
    }

    /// Another process of the transfer opens the other end later.
    #[test]
    fn a_fifo_whose_other_end_a_process_may_open_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = fifo(directory.path());
        let script = r#"(sleep 1000; echo x > "$1") & cat "$1"; wait"#;
        let waits = RunningTransfer::shell(script, &path);
        let seen = waits.observe_until(|seen| {
            seen.activity
                .as_ref()
                .is_some_and(|figures| figures.len() == 4)
                && *seen == waits.observe()
        });
        assert_eq!(seen.fifo_waits, []);
    }

    /// As an rsync whose remote shell is a script.
    #[test]
    fn a_shell_that_waits_for_rsync_opens_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = fifo(directory.path());
        let script = r#"ln -s "$(command -v sleep)" "$1.d/rsync"
            sh -c '"$1"/rsync 1000; true' sh "$1.d" & cat "$1"; wait"#;
        fs::create_dir(path.with_extension("d")).unwrap();
        let waits = RunningTransfer::shell(script, &path);
        let seen = waits.observe_until(|seen| {
            let figures = seen.activity.as_ref().map(Vec::len);
            figures == Some(4) && *seen == waits.observe() && !seen.fifo_waits.is_empty()
        });
        assert_eq!(seen.fifo_waits.len(), 1);
    }

    /// An rsync that runs may be about to open the other end.
    #[test]
    fn no_wait_counts_while_an_rsync_runs() {
        let directory = tempfile::tempdir().unwrap();
        let path = fifo(directory.path());
        let script = r#"ln -s "$(command -v sh)" "$1.d/rsync"; exec 3<&0
            "$1.d/rsync" -c 'read x <&3; while :; do :; done' & exec cat "$1""#;
        fs::create_dir(path.with_extension("d")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&path);
        let child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut transfer = RunningTransfer(child);
        let waits = |seen: &Observation| seen.fifo_waits.len() == 1;
        transfer.observe_until(|seen| {
            let figures = seen.activity.as_ref().map(Vec::len);
            figures == Some(2) && waits(seen)
        });
        let mut input = transfer.0.stdin.take().unwrap();
        input.write_all(b"\n").unwrap();
        let runs = transfer.observe_until(|seen| seen.activity.is_none());
        assert_eq!(runs.fifo_waits, []);
    }

    fn only_figure(seen: &Observation) -> u64 {
        match seen.activity.as_deref() {
            Some([(_, figure)]) => *figure,
            other => panic!("{other:?}"),
        }
    }

    /// Starts a shell that handles each line of its input and answers with a line. Returns the
    /// growth of its counter by an input.
    fn growth(script: &str, input: &[u8]) -> u64 {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut transfer = RunningTransfer(command.spawn().unwrap());
        let mut stdin = transfer.0.stdin.take().unwrap();
        let mut answers = BufReader::new(transfer.0.stdout.take().unwrap()).lines();
        // After the first answer, the program has started.
        stdin.write_all(b"1\n").unwrap();
        answers.next().unwrap().unwrap();
        let before = only_figure(&at_rest(&transfer));
        stdin.write_all(input).unwrap();
        answers.next().unwrap().unwrap();
        only_figure(&at_rest(&transfer)) - before
    }

    #[test]
    fn both_io_and_cpu_time_count() {
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        let copied = growth("exec cat", &line);
        assert!((2000..TICK_WEIGHT * 1000).contains(&copied), "{copied}");
        let count = r#"while read n; do i=0; while [ $i -lt $n ]; do i=$((i+1)); done; echo; done"#;
        let counted = growth(count, b"1000000\n");
        assert!(counted > 3 * KEEP_ALIVE, "{counted}");
    }

    /// A child that has ended has counters until it is reaped.
    #[test]
    fn a_child_that_is_not_reaped_does_not_hide_the_others() {
        let parent = RunningTransfer::shell("true & exec sleep 1000", std::path::Path::new("/"));
        parent.observe_until(|seen| {
            let figures = seen.activity.as_ref().map(Vec::len);
            figures == Some(2) && *seen == parent.observe()
        });
    }

    /// A FIFO that is open is read and written like a pipe.
    #[test]
    fn reading_an_open_fifo_is_no_wait_for_its_other_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = fifo(directory.path());
        let reader = RunningTransfer::shell(r#"exec 3<> "$1"; read x <&3"#, &path);
        assert_eq!(at_rest(&reader).fifo_waits, []);
    }

    #[test]
    fn names_of_functions_and_calls() {
        for (name, is) in [
            ("wait_for_partner", true),
            ("wait_for_partner.constprop.0", true),
            ("fifo_open+0x2d9/0x330", true),
            ("wait_for_partners", false),
            ("pipe_read", false),
            ("do_wait", false),
            ("", false),
        ] {
            assert_eq!(is_fifo_function(name.as_bytes()), is, "{name}");
        }
        let in_fifo = b"[<0>] wait_for_partner+0x5c/0x100\n[<0>] fifo_open+0x2d9/0x330\n";
        let in_pipe = b"[<0>] pipe_read+0x1/0x2\n[<0>] vfs_read+0xbb/0x360\n";
        assert!(opens_fifo(in_fifo) && !opens_fifo(in_pipe));
        let open = format!("{} 0xffffff9c 0x55680e316910", libc::SYS_openat);
        assert!(is_open_call(open.as_bytes()));
        let close = format!("{} 0x3", libc::SYS_close);
        for other in [close.as_str(), "running", "-1 0x7ffd 0x7f73", ""] {
            assert!(!is_open_call(other.as_bytes()), "{other}");
        }
        for (function, call, stack, is) in [
            ("fifo_open", &close, &in_pipe[..], true),
            ("pipe_read", &open, in_fifo, false),
            ("0", &open, in_fifo, true),
            ("", &open, in_fifo, true),
            ("0", &open, in_pipe, false),
            ("0", &close, in_fifo, false),
        ] {
            let proven = is_proven(function.as_bytes(), call.as_bytes(), || stack.to_vec());
            assert_eq!(proven, is, "{function} {call}");
        }
    }
}
