//! Runs unit tests without the rights of root, which no permission stops.

use std::os::unix::fs::chown;
use std::path::Path;

use rustix::process::{Gid, Uid};

/// The user and the group `nobody`.
pub const NOBODY: u32 = 65534;

/// Runs a test with an empty directory, in a thread that has no rights of root. The directory
/// belongs to the user of the thread.
pub fn without_rights_of_root(test: impl FnOnce(&Path) + Send) {
    let is_root = rustix::process::geteuid().is_root();
    run(test, || {
        if is_root {
            // These change the calling thread only.
            rustix::thread::set_thread_groups(&[]).unwrap();
            let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
            rustix::thread::set_thread_res_gid(None::<Gid>, group, None::<Gid>).unwrap();
            rustix::thread::set_thread_res_uid(None::<Uid>, user, None::<Uid>).unwrap();
        }
    });
}

/// Runs a test with an empty directory, in a thread of root whose files belong to another user, as
/// on a network file system that gives the files of root another owner. Only for root.
pub fn as_another_owner_of_files(test: impl FnOnce(&Path) + Send) {
    if !rustix::process::geteuid().is_root() {
        return crate::test_skip::skip("takes root to have files of another user");
    }
    run(test, || {
        // These change the calling thread only.
        nix::unistd::setfsgid(NOBODY.into());
        nix::unistd::setfsuid(NOBODY.into());
    });
}

fn run(test: impl FnOnce(&Path) + Send, change: impl FnOnce() + Send) {
    let directory = tempfile::tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let steps = || {
        change();
        if std::fs::read_dir(directory.path()).is_err() {
            return crate::test_skip::skip("other users may not enter the temporary directory");
        }
        test(directory.path());
    };
    let ended = std::thread::scope(|scope| {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let thread = std::thread::Builder::new().name(name);
        thread.spawn_scoped(scope, steps).unwrap().join()
    });
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}
