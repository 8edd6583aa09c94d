//! What process 1 has to do besides: take in the end of processes whose parent is gone.
//!
//! In a container the daemon is process 1 of its namespace, and whatever a command of the
//! configuration left running in the background becomes its child (pid_namespaces(7)).

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};

/// Returns true if orphans become children of this process.
pub(super) fn are_ours() -> bool {
    std::process::id() == 1
}

/// Reaps every ended child that was not started here.
///
/// The kernel names one ended child after the other; the first that is `known` ends the search,
/// for it will be waited for by whoever started it, and the next look comes with its `SIGCHLD`.
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
