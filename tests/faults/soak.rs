//! Minutes of continuous changes: memory and descriptors do not grow.
//!
//! Runs with `tests/run.sh --long` only. `LSYNCD_TEST_SOAK` is the duration in seconds (120).

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;

/// Returns the resident memory in KiB (proc(5): VmRSS) and the number of open descriptors.
fn taken(daemon: &Running<'_>) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory = line
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let descriptors = fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
        .unwrap()
        .count();
    (memory, descriptors)
}

#[test]
#[ignore = "takes minutes"]
fn memory_and_descriptors_stay() {
    let dir = Dir::new();
    let config = r#"
        settings{ statusFile = "@DIR@/status", statusInterval = 1 }
        sync{ default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.2, rsync = { archive = true } }
    "#;
    let mut daemon = Daemon::new(&dir, config).start_and_settle();
    let seconds = std::env::var("LSYNCD_TEST_SOAK")
        .ok()
        .and_then(|text| text.parse().ok());
    let span = Duration::from_secs(seconds.unwrap_or(120));
    let begun = Instant::now();
    let mut round = 0u32;
    let mut early = None;
    while begun.elapsed() < span {
        round += 1;
        for n in 0..300 {
            let top = format!("d{}", n % 20);
            dir.mkdir(format!("{top}/r{round}/{n}"));
            dir.write(format!("{top}/r{round}/{n}/f"), "1");
        }
        daemon.wait_same("src", "trg", false);
        for n in 0..20 {
            dir.mv(format!("d{n}"), format!("e{n}"));
            dir.rm(format!("e{n}"));
        }
        if round.is_multiple_of(10) {
            daemon.signal(Signal::SIGHUP);
        }
        daemon.wait_same("src", "trg", false);
        // At this time all buffers have their largest size.
        if early.is_none() && begun.elapsed() > span / 3 {
            early = Some(taken(&daemon));
        }
    }
    let (early, late) = (early.expect("more than one round"), taken(&daemon));
    println!("{round} rounds: {early:?} then {late:?} (KiB, descriptors)");
    assert!(late.0 <= early.0 + early.0 / 5 + 1024, "{early:?} {late:?}");
    assert!(late.1 <= early.1, "{early:?} {late:?}");
}
