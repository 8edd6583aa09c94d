//! Processes of syncs from their start to their end. The test takes the place of the event loop.

use std::fs;
use std::path::Path;
use std::thread;

use super::*;
use crate::process::Observation;
use crate::queue::Status;
use crate::transfer::test_setup::{ChangedSync, NOW, RSYNC, Rig, begin};

const DIRECT: &str =
    "sync { default.direct, source = '@DIR@/src', target = '@DIR@/trg', delay = 1, init = false }";
const TERM: ExitStatus = ExitStatus::Signal(15);

/// Starts the count after a dry run.
fn start_count(rig: &mut Rig) {
    let dry_run = DryRun::new(rig.request("true", &[]));
    let job = Job::dry_run(dry_run, Rc::clone(&rig.sync.script));
    let waker = Arc::clone(&rig.transfers.waker);
    let status = ExitStatus::Exit(0);
    rig.transfers.counts.start(job, status, waker, NOW);
}

/// Waits for the end of all counts.
fn end_counts(rig: &mut Rig) {
    while rig.transfers.counting().count() > 0 {
        rig.transfers.on_counted(NOW);
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_process_is_counted_from_its_start_to_its_end() {
    let mut rig = Rig::rsync("");
    assert_eq!(rig.running(), (0, 0, 0));
    assert_eq!(rig.transfers.deadline(), None);
    rig.sleep();
    assert_eq!(rig.running(), (1, 1, 1));
    assert_eq!(rig.transfers.last_end(), None);
    assert!(rig.transfers.deadline().is_some());
    rig.transfers.signal_all(Signal::SIGTERM);
    let (pid, status) = rig.reap();
    assert_eq!(status, TERM);
    let job = rig.transfers.remove(pid).unwrap();
    assert!(rig.transfers.remove(pid).is_none());
    assert_eq!(rig.running(), (0, 0, 0));
    assert!(rig.transfers.last_end().is_some());
    rig.transfers.on_ended(pid, job, status, NOW);
    assert_eq!((rig.pending(), rig.failures()), (vec!["/a".into()], 1));
    assert_eq!(rig.transfers.deadline(), None);
}

/// The end of the daemon waits for all of them.
#[test]
fn processes_counts_and_copies_are_unfinished_until_they_have_ended() {
    let mut rig = Rig::rsync("");
    assert!(rig.transfers.are_idle(Duration::ZERO));
    rig.sleep();
    assert_eq!(rig.transfers.unfinished(), 1);
    assert!(rig.transfers.are_idle(Duration::ZERO));
    assert!(!rig.transfers.are_idle(Duration::from_secs(1)));

    let other = Rig::rsync("");
    let job = begin(&other.sync.script, &other.sync.handle, NOW);
    let waker = Arc::clone(&rig.transfers.waker);
    rig.transfers
        .counts
        .start(job, ExitStatus::Exit(0), waker, NOW);
    assert_eq!(rig.transfers.unfinished(), 2);

    let copied = Rig::of(DIRECT);
    rig.transfers.start_copy(copied.copy_request(), NOW);
    assert_eq!(rig.transfers.unfinished(), 3);
    assert_eq!(rig.transfers.all_jobs().count(), 2);
    assert!(!rig.transfers.are_idle(Duration::ZERO));
}

#[test]
fn a_copy_is_done_once_its_thread_has_reported_it() {
    let mut rig = Rig::of(DIRECT);
    let request = rig.copy_request();
    rig.transfers.start_copy(request, NOW);
    let mut actions = Vec::new();
    while rig.transfers.unfinished() > 0 {
        actions.extend(rig.transfers.on_copied(|_| {}, NOW));
        thread::sleep(Duration::from_millis(1));
    }
    assert!(matches!(actions[..], [Action::LogTransfer(..)]));
    assert_eq!(rig.pending(), [""; 0]);
    let copy = rig.sync.directory.path().join("trg/a");
    assert_eq!(fs::read(copy).unwrap(), b"content");
}

/// Returns the transfers with a dry run whose source is being counted.
fn counting() -> Rig {
    let mut rig = Rig::rsync("guard = { maxDelete = '50%' }");
    start_count(&mut rig);
    rig
}

#[test]
fn a_count_is_followed_by_the_transfer() {
    let mut rig = counting();
    assert_eq!((rig.transfers.unfinished(), rig.running().2), (1, 1));
    end_counts(&mut rig);
    assert_eq!((rig.transfers.unfinished(), rig.running().2), (1, 1));
    rig.end();
    assert_eq!(rig.pending(), [""; 0]);
}

/// They are saved for the next daemon.
#[test]
fn a_copy_that_is_stopped_leaves_its_entries_in_the_queue() {
    let mut rig = Rig::of(DIRECT);
    rig.transfers.signal_all(Signal::SIGTERM);
    let request = rig.copy_request();
    rig.transfers.start_copy(request, NOW);
    while rig.transfers.unfinished() > 0 {
        rig.transfers.on_copied(|_| {}, NOW);
        thread::sleep(Duration::from_millis(1));
    }
    assert!(!rig.sync.directory.path().join("trg/a").exists());
    assert_eq!((rig.pending(), rig.failures()), (vec!["/a".into()], 0));
}

#[test]
fn a_count_that_is_stopped_leaves_its_entries_in_the_queue() {
    let mut rig = Rig::rsync("guard = { maxDelete = '50%' }");
    rig.transfers.signal_all(Signal::SIGTERM);
    start_count(&mut rig);
    end_counts(&mut rig);
    assert_eq!(rig.transfers.unfinished(), 0);
    assert_eq!((rig.pending(), rig.failures()), (vec!["/a".into()], 1));
}

/// A process that ignores SIGTERM may outlive the shell that started it.
#[test]
fn descendants_of_signalled_processes_are_killed() {
    let mut rig = Rig::rsync("");
    let file = rig.sync.directory.path().join("pid");
    let stubborn = format!(
        "trap '' TERM; echo $$ > {}; exec sleep 1000",
        file.display()
    );
    let script = format!("sh -c \"{stubborn}\" & wait");
    let request = rig.request("sh", &["-c", &script.replace("$$", "\\$\\$")]);
    rig.transfers.start(request, NOW);
    let pid = loop {
        match fs::read_to_string(&file)
            .unwrap_or_default()
            .trim()
            .parse::<u32>()
        {
            Ok(pid) => break pid,
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    };
    // A zombie waits for its new parent.
    let runs = || {
        let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    rig.transfers.signal_all(Signal::SIGTERM);
    rig.end();
    assert!(runs());
    rig.transfers.kill_descendants();
    while runs() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_end_of_a_transfer_is_evaluated_by_what_ended_it() {
    type Change = fn(&mut Rig, &mut Job);
    let none: Change = |_, _| {};
    let restarted: Change = |_, job| job.is_restarted = true;
    let limited: Change = |_, job| job.has_delete_limit = true;
    let stalled: Change = |rig, _| {
        let start = Instant::now();
        let detector = &mut rig.transfers.stall_detector;
        detector.started(Pid(7), "one".into(), start);
        for count in 1..=5 {
            let observe = |_| Observation {
                activity: Some(vec![(7, 1)]),
                ..Observation::default()
            };
            detector.on_timer(start + 5 * count * Duration::from_secs(1), observe);
        }
    };
    // rsync(1): the exit code after SIGTERM.
    let ended = ExitStatus::Exit(20);
    let done = ExitStatus::Exit(0);
    // The expected numbers of pending entries and of failures, and true if the sync goes on.
    for (change, status, expected) in [
        (none, done, (0, 0, true)),
        (none, ended, (1, 0, false)),
        (none, ExitStatus::Exit(25), (1, 0, false)),
        (restarted, done, (0, 0, true)),
        (restarted, ended, (1, 0, true)),
        (limited, done, (0, 0, true)),
        (limited, ended, (1, 0, false)),
        (limited, EXIT_DELETE_LIMIT, (1, 1, true)),
        (stalled, done, (0, 0, true)),
        (stalled, ended, (1, 1, true)),
    ] {
        let mut rig = Rig::of(&format!(
            "settings {{ stallTimeout = 10 }} {RSYNC} init = false, \
             exitcodes = {{ [0] = 'ok', [20] = 'die', [25] = 'die' }} }}"
        ));
        let mut job = begin(&rig.sync.script, &rig.sync.handle, NOW);
        change(&mut rig, &mut job);
        rig.transfers.on_ended(Pid(7), job, status, NOW);
        let goes_on = !rig.sync.handle.sync.borrow().has_ended();
        assert_eq!(
            (rig.pending().len(), rig.failures(), goes_on),
            expected,
            "{status:?}"
        );
    }
}

#[test]
fn a_dry_run_is_followed_by_its_transfer() {
    let mut rig = Rig::rsync("guard = { maxDelete = 5 }");
    let request = rig.request("true", &["--delete"]);
    assert_eq!(rig.transfers.start(request, NOW), []);
    let is_dry = |rig: &Rig| {
        let jobs = rig.transfers.jobs();
        jobs.map(|(_, job)| job.dry_run.is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(is_dry(&rig), [true]);
    assert_eq!(rig.end(), []);
    assert_eq!((is_dry(&rig), rig.pending().len()), (vec![false], 1));
    rig.end();
    assert_eq!((is_dry(&rig), rig.pending().len()), (vec![], 0));
}

/// The table of exit codes is that of the transfer.
#[test]
fn nothing_is_sent_after_a_dry_run_that_failed_or_was_not_started() {
    for program in ["false", "/nowhere/program"] {
        let codes = "exitcodes = { [0] = 'ok', [1] = 'ok', [255] = 'ok' }";
        let mut rig = Rig::rsync(&format!("guard = {{ maxDelete = 5 }}, {codes}"));
        let request = rig.request(program, &["--delete"]);
        rig.transfers.start(request, NOW);
        if program == "false" {
            rig.end();
        }
        assert_eq!(rig.running(), (0, 0, 0));
        assert_eq!((rig.pending(), rig.failures()), (vec!["/a".into()], 1));
    }
}

/// The transfer would find another source than the dry run.
#[test]
fn a_dry_run_is_repeated_if_the_source_is_not_accepted_at_its_end() {
    let changes: [fn(&ChangedSync); 3] = [
        |sync| assert!(sync.handle.sync.borrow_mut().source_lost("gone")),
        |sync| assert!(sync.handle.sync.borrow_mut().halt("another".into())),
        |sync| {
            sync.handle.sync.borrow_mut().accept_source();
            fs::rename(&sync.source, sync.directory.path().join("old")).unwrap();
            fs::create_dir(&sync.source).unwrap();
        },
    ];
    for change in changes {
        let mut rig = Rig::rsync("guard = { maxDelete = 5 }");
        let request = rig.request("true", &["--delete"]);
        rig.transfers.start(request, NOW);
        change(&rig.sync);
        rig.end();
        assert_eq!(rig.running(), (0, 0, 0));
        assert_eq!((rig.pending(), rig.failures()), (vec!["/a".into()], 0));
        let sync = rig.sync.handle.sync.borrow();
        assert!(
            sync.queue
                .iter()
                .all(|delay| delay.status() == Status::Wait)
        );
    }
}

#[test]
fn a_program_that_cannot_be_started_is_a_failure() {
    let mut rig = Rig::rsync("");
    let request = rig.request("/nowhere/program", &[]);
    rig.transfers.start(request, NOW);
    assert_eq!(rig.running(), (0, 0, 0));
    assert_eq!((rig.pending(), rig.failures()), (vec!["/a".into()], 1));
}

#[test]
fn transfers_that_run_at_a_reload_are_those_of_the_new_configuration() {
    let mut rig = Rig::rsync("");
    rig.sleep();
    let new = Rig::of(&format!(
        "settings {{ stallTimeout = 10 }} {RSYNC} init = false }}"
    ));
    let syncs = [Rc::clone(&new.sync.handle)];
    rig.transfers.on_reload(&new.sync.script, &syncs);
    assert_eq!(new.sync.script.context.running.get(), 1);
    let start = Instant::now();
    let mut actions = Vec::new();
    for count in 1..=4 {
        let observe = |_| Observation {
            activity: Some(vec![(7, 1)]),
            ..Observation::default()
        };
        let now = start + 6 * count * Duration::from_secs(1);
        actions.extend(rig.transfers.stall_detector.on_timer(now, observe));
    }
    let is_end = |action: &Action| matches!(action, Action::SignalTree(..));
    assert_eq!(actions.iter().filter(|action| is_end(action)).count(), 1);
}

#[test]
fn the_limits_of_running_transfers_are_compared_once_for_each_time() {
    let limits = "rsync = { bwlimit = { { at = '0 0 0 * * *', limit = 100 }, restart = true } }";
    let mut rig = Rig::rsync(limits);
    assert_eq!(rig.transfers.wall_deadline(0), None);
    rig.sleep();
    assert_eq!(rig.transfers.wall_deadline(0), None);
    let limit = |rig: &mut Rig, limit: &[u8]| {
        let mut jobs = rig.transfers.jobs_mut();
        let job = jobs.next().unwrap();
        job.limit = Some(limit.to_vec());
        job.is_restarted = false;
    };
    limit(&mut rig, b"100");
    let next = rig.transfers.wall_deadline(0).unwrap();
    assert!(next > 0 && next <= 24 * 3600);
    assert_eq!(rig.transfers.on_wall_time(next), []);
    limit(&mut rig, b"200");
    assert_eq!(rig.transfers.on_wall_time(next), []);
    let ended = rig.transfers.on_wall_time(next + 1);
    assert!(matches!(
        ended[..],
        [_, Action::SignalTree(_, Signal::SIGTERM)]
    ));
    assert_eq!(rig.transfers.on_wall_time(next + 2), []);
}

#[test]
fn a_running_transfer_of_a_changed_source_is_ended() {
    let mut rig = Rig::rsync("");
    rig.sleep();
    assert_eq!(rig.transfers.end_outdated(), []);
    rig.sync.handle.sync.borrow_mut().outdate_transfers();
    assert_eq!(rig.transfers.end_outdated().len(), 2);
}

#[test]
fn the_hook_is_called_once_failures_are_resolved() {
    let hook = "function() local f = io.open('@DIR@/told', 'a') f:write('x') f:close() end";
    let mut rig = Rig::rsync(&format!("onRecovered = {hook}"));
    let told = rig.sync.directory.path().join("told");
    for (program, code) in [("false", "1"), ("true", "0")] {
        let mut request = rig.request(program, &[]);
        request.captured = true;
        rig.transfers.start(request, NOW);
        let (pid, _) = rig.reap();
        let job = rig.transfers.remove(pid).unwrap();
        let status = ExitStatus::Exit(if code == "1" { 12 } else { 0 });
        rig.transfers.on_ended(pid, job, status, 0);
        rig.transfers.tell_recovered();
        assert_eq!(told.exists(), code == "0");
    }
    rig.transfers.tell_recovered();
    assert_eq!(fs::read(told).unwrap(), b"x");
}

#[test]
fn the_next_call_of_a_hook_follows_the_end_of_the_last_one() {
    let hook = "{ 'sh', '-c', 'echo $LSYNCD_PATHS >> @DIR@/told' }";
    let mut rig = Rig::rsync(&format!("onSynced = {hook}"));
    let handle = Rc::clone(&rig.sync.handle);
    let report = |paths: &[u8]| HookReport {
        event: crate::script::HookEvent::Synced,
        status: ExitStatus::Exit(0),
        text: Vec::new(),
        paths: paths.to_vec(),
        truncated: false,
        batches: 1,
    };
    rig.transfers.call_hook(&handle, report(b"/a\0"));
    rig.transfers.call_hook(&handle, report(b"/a\0/b\0"));
    for _ in 0..2 {
        assert_eq!(rig.transfers.children().borrow().count(), 1);
        let (pid, status) = rig.reap();
        rig.transfers.on_other_ended(pid, status);
    }
    assert_eq!(rig.transfers.children().borrow().count(), 0);
    let told = rig.sync.directory.path().join("told");
    assert_eq!(fs::read(told).unwrap(), b"1\n2\n");
}

#[test]
fn each_end_of_a_transfer_has_an_entry_in_the_log_if_there_is_one() {
    for (size, entries) in [(1, 1), (0, 0)] {
        for status in [ExitStatus::Exit(0), ExitStatus::Exit(12)] {
            let mut rig = Rig::of(&format!(
                "settings {{ transferLogSize = {size} }} {RSYNC} init = false }}"
            ));
            let job = begin(&rig.sync.script, &rig.sync.handle, NOW);
            let actions = rig.transfers.on_ended(Pid(7), job, status, NOW);
            let is_entry = |action: &&Action| matches!(action, Action::LogTransfer(..));
            assert_eq!(actions.iter().filter(is_entry).count(), entries);
        }
    }
}
