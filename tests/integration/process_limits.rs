//! Starts of children without free descriptors.

use crate::support::own_process::in_own_process;
use lsyncd::process::{Children, Command, Output, SpawnError, Stdin};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_start_without_descriptors_leaves_none_open() {
    if !in_own_process(
        module_path!(),
        "a_start_without_descriptors_leaves_none_open",
    ) {
        return;
    }
    let poll = mio::Poll::new().unwrap();
    let mut children = Children::new(poll.registry().try_clone().unwrap(), 1);
    let command = Command {
        stdin: Stdin::Bytes(vec![0; 200_000]),
        output: Output::Lines,
        ..Command::new("true")
    };
    let before = open_descriptors();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // From no descriptor for a pipe to none for the start itself.
    let mut started = 0;
    for room in 0..32 {
        setrlimit(Resource::RLIMIT_NOFILE, before as u64 - 1 + room, hard).unwrap();
        let result = children.spawn(command.clone());
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        match result {
            Err(SpawnError::Resources(_)) => {
                assert_eq!(open_descriptors(), before, "descriptors are given back");
                assert_eq!(children.count(), 0);
            }
            Ok(_) => {
                started += 1;
                break;
            }
            Err(SpawnError::NotExecutable(e)) => panic!("{e}"),
        }
    }
    assert_eq!(started, 1);
}
