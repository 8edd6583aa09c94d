//! Reaps orphans if the daemon is process 1.
//!
//! In a container the daemon may be process 1 of its namespace, and every process that a command
//! left in the background becomes its child (pid_namespaces(7)).

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};

/// Returns true if orphans become children of this process.
pub(super) fn are_ours() -> bool {
    std::process::id() == 1
}

/// Reaps every ended child that was not started here.
///
/// The kernel names one ended child after the other. The first that is `known` ends the search: its
/// owner will wait for it, and its `SIGCHLD` starts the next search.
pub(super) fn reap(known: impl Fn(i32) -> bool) {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(status) = waitid(Id::All, look) {
        let Some(pid) = ended(status).filter(|pid| !known(pid.as_raw())) else {
            return;
        };
        if waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_err() {
            return;
        }
    }
}

fn ended(status: WaitStatus) -> Option<nix::unistd::Pid> {
    match status {
        WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) => Some(pid),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::errno::Errno;
    use nix::unistd::Pid;

    use super::*;

    /// Other tests have children, too, of which each waits for its own.
    #[test]
    #[expect(clippy::zombie_processes, reason = "the function under test reaps it")]
    fn every_ended_child_is_reaped_that_is_not_known() {
        for script in ["exit 3", "kill -9 $$"] {
            let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            let is_there = || {
                let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
                waitid(Id::Pid(Pid::from_raw(pid)), look) != Err(Errno::ECHILD)
            };
            let until = Instant::now() + Duration::from_secs(60);
            reap(|_| true);
            assert!(is_there());
            while is_there() && Instant::now() < until {
                reap(|ended| ended != pid);
                thread::sleep(Duration::from_millis(1));
            }
            assert!(!is_there(), "{script}");
        }
    }
}
