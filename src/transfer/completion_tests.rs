//! What the end of a transfer means for its entries. The configuration, the call of rsync and the
//! verdict on an exit code are real; rsync is not started.

use std::path::Path;
use std::sync::Arc;

use nix::sys::signal::Signal;

use super::*;
use crate::local::{CopyControl, StopCheck};
use crate::process::Pid;
use crate::sync::IndexState;
use crate::transfer::recall;
use crate::transfer::test_setup::{ChangedSync, NOW, OPENED, SUMMARY, Transfer, begin, pending};
use crate::watch::Event;

fn opened(name: &str) -> String {
    OPENED.replace("NAME", name)
}

#[test]
fn a_success_removes_all_entries() {
    let transfer = Transfer::of("", &["a", "b"]);
    assert_eq!(transfer.pending(), ["/a", "/b"]);
    let evaluation = transfer.end(&[], 0);
    assert!(!evaluation.is_critical);
    assert_eq!(transfer.pending(), [""; 0]);
    assert!(transfer.handle.sync.borrow().failed_paths().is_idle());
}

/// What the error output names is retried, and nothing else.
#[test]
fn the_retry_of_a_partial_transfer_is_what_failed() {
    let table: [(&[&str], i32, &[&str]); 7] = [
        (&[], 23, &["/a", "/b", "/c"]),
        (
            &[&opened("b"), "a wrapper's words", SUMMARY],
            23,
            &["/a", "/b", "/c"],
        ),
        (&[&opened("b"), SUMMARY], 23, &["/b"]),
        (&[&opened("b"), &opened("c"), SUMMARY], 23, &["/b", "/c"]),
        // Nothing is named, or something else.
        (&[SUMMARY], 23, &["/a", "/b", "/c"]),
        (&[&opened("other"), SUMMARY], 23, &["/a", "/b", "/c"]),
        (&["a wrapper's words", SUMMARY], 23, &["/a", "/b", "/c"]),
    ];
    for (lines, code, expected) in table {
        let transfer = Transfer::of("", &["a", "b", "c"]);
        transfer.end(lines, code);
        assert_eq!(transfer.failed(), expected, "{lines:?}");
        assert_eq!(transfer.pending(), [""; 0], "{lines:?}");
        assert_eq!(transfer.handle.sync.borrow().failures(), 0, "{lines:?}");
    }
}

/// lsyncd's table of exit codes. What is none of rsync's codes is a wrapper's, and repeated.
#[test]
fn each_exit_code_has_its_meaning() {
    let (done, die) = ([0, 23, 24], [1, 2, 4, 25]);
    for code in (0..=36).chain([255]) {
        let transfer = Transfer::of("", &["a"]);
        let evaluation = transfer.end(&[], code);
        assert_eq!(evaluation.is_critical, die.contains(&code), "{code}");
        let repeats = !die.contains(&code) && !done.contains(&code);
        assert_eq!(
            transfer.pending().is_empty(),
            done.contains(&code),
            "{code}"
        );
        let failures = transfer.handle.sync.borrow().failures();
        assert_eq!(failures, u32::from(repeats), "{code}");
    }
}

/// The table of the user decides for every code, 23 included.
#[test]
fn the_exit_codes_of_the_user_decide() {
    let table = [
        ("ok", 23, 0, false),
        ("again", 23, 1, false),
        ("die", 23, 1, true),
    ];
    for (meaning, code, pending, is_critical) in table {
        let options = format!("exitcodes = {{ [0] = 'ok', [{code}] = '{meaning}' }}");
        let transfer = Transfer::of(&options, &["a"]);
        let evaluation = transfer.end(&[&opened("a"), SUMMARY], code);
        assert_eq!(evaluation.is_critical, is_critical, "{meaning}");
        assert_eq!(transfer.pending().len(), pending, "{meaning}");
        assert_eq!(transfer.failed(), [""; 0], "{meaning}");
    }
}

#[test]
fn a_comparison_retries_what_failed_or_itself() {
    let transfer = Transfer::of("", &[]);
    assert_eq!(transfer.pending(), ["Init"]);
    std::fs::write(Path::new(&transfer.source).join("late"), "").unwrap();
    transfer.end(&[&opened("late"), SUMMARY], 23);
    assert_eq!(transfer.failed(), ["/late"]);
    assert!(
        !transfer
            .handle
            .sync
            .borrow()
            .failed_paths()
            .retries_everything()
    );
    for lines in [&[SUMMARY][..], &["unknown words", SUMMARY]] {
        let transfer = Transfer::of("", &[]);
        transfer.end(lines, 23);
        assert!(
            transfer
                .handle
                .sync
                .borrow()
                .failed_paths()
                .retries_everything()
        );
        assert_eq!(transfer.pending(), [""; 0]);
    }
    let transfer = Transfer::of("", &[]);
    transfer.end(&[], 0);
    assert_eq!(transfer.pending(), [""; 0]);
    assert!(
        !transfer
            .handle
            .sync
            .borrow()
            .failed_paths()
            .retries_everything()
    );
}

/// An aborted transfer goes on without the path that aborted it.
#[test]
fn one_file_without_space_holds_nothing_back() {
    let transfer = Transfer::of("", &["big", "small"]);
    std::fs::write(Path::new(&transfer.source).join("big"), [0; 100]).unwrap();
    let full =
        "rsync: [receiver] write failed on \"/nowhere/trg/big\": No space left on device (28)";
    let end = "rsync error: error in file IO (code 11) at receiver.c(380) [receiver=3.2.7]";
    transfer.end(&[full, end], 11);
    assert_eq!(transfer.failed(), ["/big"]);
    assert_eq!(transfer.pending(), ["/small"]);
    assert!(matches!(
        transfer.handle.sync.borrow_mut().next(0),
        crate::sync::Next::Act(_)
    ));
    // Nothing is named.
    let transfer = Transfer::of("", &["big", "small"]);
    transfer.end(&[end], 11);
    assert_eq!(transfer.failed(), [""; 0]);
    assert_eq!(transfer.pending(), ["/big", "/small"]);
    assert_eq!(transfer.handle.sync.borrow().failures(), 1);
}

/// An attribute that the target cannot have is not a failure.
#[test]
fn what_arrived_without_an_attribute_is_done() {
    let owner = "rsync: [receiver] chown \"/nowhere/trg/a\" failed: Operation not permitted (1)";
    let transfer = Transfer::of("", &["a", "b"]);
    let evaluation = transfer.end(&[owner, SUMMARY], 23);
    assert!(!evaluation.is_critical);
    assert_eq!(transfer.failed(), [""; 0]);
    assert_eq!(transfer.pending(), [""; 0]);
}

#[test]
fn an_option_that_is_refused_is_left_out_at_once() {
    let refused = "rsync: --delete-missing-args: unknown option";
    let end = "rsync error: syntax or usage error (code 1) at main.c(1578) [server=3.0.9]";
    let broken = "rsync: connection unexpectedly closed (0 bytes received so far) [sender]";
    for (lines, failures) in [(&[refused, end, broken][..], 0), (&[broken], 1)] {
        let transfer = Transfer::of_deleted("a");
        let missing = batch::TransferKind::FilesFrom { missing: true };
        assert_eq!(transfer.job.transfer, Some(missing));
        transfer.end(lines, 12);
        assert_eq!(transfer.pending(), ["/a"]);
        assert_eq!(transfer.handle.sync.borrow().failures(), failures);
    }
}

#[test]
fn hooks_are_told_of_the_first_failure_and_of_each_success() {
    let hooks = "onFailed = { 'x' }, onSynced = { 'y' }";
    let transfer = Transfer::of(hooks, &["a", "b"]);
    let report = transfer.end(&[&opened("b"), SUMMARY], 23).report.unwrap();
    assert_eq!(report.event, HookEvent::Failed);
    assert_eq!(report.paths, b"/a\0/b\0");
    assert!(!report.truncated);
    let transfer = Transfer::of(hooks, &["a"]);
    let report = transfer.end(&[], 0).report.unwrap();
    assert_eq!(report.event, HookEvent::Synced);
    let transfer = Transfer::of("", &["a"]);
    assert!(transfer.end(&[], 0).report.is_none());
}

/// A transfer that is repeated on purpose has not failed.
#[test]
fn a_transfer_that_was_ended_to_be_repeated_is_no_failure() {
    let mut transfer = Transfer::of("", &["a"]);
    repeat(&mut transfer.job, 0);
    assert_eq!(transfer.pending(), ["/a"]);
    let next = transfer.handle.sync.borrow_mut().next(0);
    assert!(matches!(next, crate::sync::Next::Act(_)));
    assert_eq!(transfer.handle.sync.borrow().failures(), 0);
    let mut transfer = Transfer::of("", &["a"]);
    retry_ended(&mut transfer.job, ExitStatus::Signal(9), 0);
    assert_eq!(transfer.pending(), ["/a"]);
    assert_eq!(transfer.handle.sync.borrow().failures(), 1);
}

#[test]
fn transfers_of_a_source_that_has_changed_are_ended_once() {
    let end = |job: &mut Job| recall::end_processes([(Pid(7), job)].into_iter());
    let mut transfer = Transfer::of("", &["a"]);
    assert_eq!(end(&mut transfer.job), []);
    transfer.handle.sync.borrow_mut().outdate_transfers();
    let kill = Action::SignalTree(Pid(7), Signal::SIGTERM);
    assert_eq!(end(&mut transfer.job)[0], kill);
    assert_eq!(end(&mut transfer.job), []);
    repeat(&mut transfer.job, 0);
    assert_eq!(transfer.pending(), ["/a"]);
    // A later transfer reads the source as it is.
    let mut later = begin(&transfer.job.script, &transfer.handle, NOW);
    assert_eq!(end(&mut later), []);

    let mut copy = Transfer::of("", &["a"]);
    let control = Arc::new(CopyControl::default());
    copy.job.control = Some(Arc::clone(&control));
    copy.handle.sync.borrow_mut().outdate_transfers();
    let stopped = recall::stop_copies([&mut copy.job].into_iter());
    assert!(stopped.len() == 1 && copy.job.is_restarted && control.is_stopped());

    let mut unguarded = Transfer::of("guard = false,", &["a"]);
    unguarded.handle.sync.borrow_mut().outdate_transfers();
    assert_eq!(end(&mut unguarded.job), []);
}

#[test]
fn the_last_sync_ends_the_daemon_and_others_go_on() {
    let transfer = Transfer::of("", &["a"]);
    let script = Rc::clone(&transfer.job.script);
    script.insist();
    let status = ExitStatus::Exit(1);
    let syncs = [Rc::clone(&transfer.handle)];
    let actions = end_sync(&transfer.job, status, &script, &syncs, 0);
    assert_eq!(actions, [Action::Exit(Exit::Failure)]);
    let other = Transfer::of("", &["a"]);
    let transfer = Transfer::of("", &["a"]);
    let syncs = [Rc::clone(&transfer.handle), Rc::clone(&other.handle)];
    let script = Rc::clone(&transfer.job.script);
    assert_eq!(end_sync(&transfer.job, status, &script, &syncs, 0), []);
    assert!(transfer.handle.sync.borrow().has_ended());
    assert!(!other.handle.sync.borrow().has_ended());
}

/// What was written in the second of its end may look unchanged to the next transfer.
#[test]
fn each_end_of_a_transfer_is_noted() {
    type End = fn(&mut Transfer);
    let ends: [End; 3] = [
        |transfer| drop(transfer.end(&[], 0)),
        |transfer| drop(retry_ended(&mut transfer.job, ExitStatus::Signal(9), 0)),
        |transfer| repeat(&mut transfer.job, 0),
    ];
    for end in ends {
        let mut transfer = Transfer::of("", &["a"]);
        let before = transfer.handle.sync.borrow().last_transfer();
        end(&mut transfer);
        assert!(transfer.handle.sync.borrow().last_transfer() > before);
    }
}

/// A wrapper writes them in any case. They say nothing of the files.
#[test]
fn the_words_of_a_successful_transfer_are_no_failure_of_the_next_one() {
    let words = "a wrapper's words";
    for is_known in [true, false] {
        let transfer = Transfer::of("", &["a", "b"]);
        transfer.end(&[words][..usize::from(is_known)], 0);
        for name in ["a", "b"] {
            let path = format!("{}{name}", transfer.source).into_bytes();
            let event = Event::Modify { path: &path };
            transfer.handle.sync.borrow_mut().ingest(event, 0);
        }
        let script = Rc::clone(&transfer.job.script);
        let next = Transfer {
            job: begin(&script, &transfer.handle, NOW),
            ..transfer
        };
        next.end(&[words, &opened("b"), SUMMARY], 23);
        let all = ["/a", "/b"];
        let expected = if is_known { &all[1..] } else { &all[..] };
        assert_eq!(next.failed(), expected);
    }
}

#[test]
fn a_transfer_that_was_not_started_is_repeated_whatever_its_exit_code_means() {
    let mut transfer = Transfer::of("exitcodes = { [0] = 'ok', [5] = 'ok' }", &["a"]);
    transfer.job.is_unsent = true;
    transfer.end(&[], 5);
    assert_eq!(transfer.pending(), ["/a"]);
    assert_eq!(transfer.handle.sync.borrow().failures(), 1);
}

#[test]
fn a_comparison_without_large_files_is_followed_by_one_of_everything() {
    let transfer = Transfer::of("", &[]);
    let ids = transfer.job.ids().to_vec();
    std::fs::write(Path::new(&transfer.source).join("big"), [0; 100]).unwrap();
    {
        let mut sync = transfer.handle.sync.borrow_mut();
        sync.begin_size_bound(true);
        let named = [(b"/big".to_vec(), crate::queue::Etype::Modify)].into();
        assert_eq!(sync.compare_smaller(&ids, &named, 0), None);
    }
    let script = Rc::clone(&transfer.job.script);
    let smaller = Transfer {
        job: begin(&script, &transfer.handle, 0),
        ..transfer
    };
    smaller.end(&[], 0);
    let sync = smaller.handle.sync.borrow();
    assert!(sync.failed_paths().retries_everything() && !sync.is_size_bounded());
}

/// The index contains only what is known to be on the target.
#[test]
fn an_index_is_made_after_the_success_of_a_comparison_of_everything() {
    let options = "init = 'changed', maxProcesses = 2";
    let state = |transfer: &Transfer| {
        let sync = transfer.handle.sync.borrow();
        sync.warm_start().unwrap().state()
    };
    for (code, is_compared) in [(0, true), (24, false), (23, false), (12, false)] {
        let transfer = Transfer::of(options, &[]);
        transfer.handle.sync.borrow_mut().begin_full_comparison();
        transfer.end(&[], code);
        let is_made = matches!(state(&transfer), IndexState::Compared { .. });
        assert_eq!(is_made, is_compared, "{code}");
    }
    // A batch that ends while everything is compared.
    let transfer = Transfer::of(options, &[]);
    {
        let mut sync = transfer.handle.sync.borrow_mut();
        sync.begin_full_comparison();
        sync.begin(transfer.job.ids());
        sync.finish(transfer.job.ids());
        let path = format!("{}a", transfer.source).into_bytes();
        sync.ingest(Event::Modify { path: &path }, 0);
    }
    let script = Rc::clone(&transfer.job.script);
    let batch = Transfer {
        job: begin(&script, &transfer.handle, NOW),
        ..transfer
    };
    batch.end(&[], 0);
    assert_eq!(batch.pending(), [""; 0]);
    assert_eq!(state(&batch), IndexState::Invalid);
}

/// rsync ends at the first file that the target refuses, with an exit code that may have another
/// meaning.
#[test]
fn what_aborted_a_transfer_is_told_from_what_failed_in_it() {
    let full =
        "rsync: [receiver] write failed on \"/nowhere/trg/big\": No space left on device (28)";
    let refused = opened("big");
    let own_table = "exitcodes = { [0] = 'ok', [2] = 'die' }";
    let (stopped, again, die) = ((1, 1, 1, false), (0, 2, 1, false), (0, 2, 0, true));
    // The expected numbers of failed and of pending paths, of failures, and the end of the sync.
    for (options, code, line, expected) in [
        ("", 11, full, stopped),
        ("", 11, &refused, stopped),
        ("", 12, full, stopped),
        ("", 12, &refused, again),
        ("", 30, full, again),
        ("", 2, full, stopped),
        ("", 4, full, stopped),
        ("", 1, full, die),
        (own_table, 2, full, die),
    ] {
        let transfer = Transfer::of(options, &["big", "small"]);
        std::fs::write(Path::new(&transfer.source).join("big"), [0; 100]).unwrap();
        let evaluation = transfer.end(&[line], code);
        let failures = transfer.handle.sync.borrow().failures();
        let found = (
            transfer.failed().len(),
            transfer.pending().len(),
            failures,
            evaluation.is_critical,
        );
        assert_eq!(found, expected, "{code} {line}");
    }
}

#[test]
fn a_comparison_that_a_large_file_has_ended_is_repeated_without_it() {
    let full =
        "rsync: [receiver] write failed on \"/nowhere/trg/big\": No space left on device (28)";
    for (line, is_bounded) in [(full, true), (&*opened("big"), false)] {
        let transfer = Transfer::of("", &[]);
        std::fs::write(Path::new(&transfer.source).join("big"), [0; 100]).unwrap();
        transfer.job.script.insist();
        transfer.handle.sync.borrow_mut().begin_size_bound(true);
        transfer.end(&[line], 11);
        let sync = transfer.handle.sync.borrow();
        assert_eq!(
            sync.too_large().iter().count(),
            usize::from(is_bounded),
            "{line}"
        );
        assert_eq!(sync.failures(), u32::from(!is_bounded));
        assert!(!sync.queue.is_empty());
    }
}

/// mv(1) changes the times of the directories on the target.
#[test]
fn the_times_of_directories_follow_moves_on_the_target() {
    for (options, is_copy, expected) in [
        ("rsync = { archive = true }", false, &["/"][..]),
        ("rsync = { archive = true }", true, &[]),
        ("rsync = { archive = false }", false, &[]),
    ] {
        let config = format!(
            "sync {{ default.rsyncssh, source = '@DIR@/src', host = 'h', targetdir = '/trg', \
             delay = 1, init = false, {options} }}"
        );
        let sync = ChangedSync::of(&config, &[], |path| Event::Modify { path });
        let [from, to] = ["a", "b"].map(|name| format!("{}{name}", sync.source).into_bytes());
        let (from, to) = (&from[..], &to[..]);
        std::fs::write(Path::new(&sync.source).join("b"), "").unwrap();
        sync.handle
            .sync
            .borrow_mut()
            .ingest(Event::Move { from, to }, 0);
        let mut job = begin(&sync.script, &sync.handle, NOW);
        job.is_copy = is_copy;
        evaluate(&job, ExitStatus::Exit(0), 0).unwrap();
        assert_eq!(pending(&sync.handle), expected, "{options}");
    }
}

/// lsyncd's meaning of exit code 23.
#[test]
fn a_partial_transfer_of_user_code_is_done() {
    let mut transfer = Transfer::of("", &["a"]);
    transfer.job.captured = false;
    transfer.end(&[], 23);
    assert_eq!((transfer.pending(), transfer.failed()), (vec![], vec![]));
}

#[test]
fn the_daemon_exits_if_a_startup_transfer_fails_for_good() {
    let status = ExitStatus::Exit(1);
    for (insists, names, expected) in [
        (false, &[][..], vec![Action::Exit(Exit::Failure)]),
        (true, &[], vec![]),
        (false, &["a"], vec![]),
    ] {
        let (transfer, other) = (Transfer::of("", names), Transfer::of("", &["a"]));
        let script = Rc::clone(&transfer.job.script);
        if insists {
            script.insist();
        }
        let syncs = [Rc::clone(&transfer.handle), Rc::clone(&other.handle)];
        let actions = end_sync(&transfer.job, status, &script, &syncs, 0);
        assert_eq!(actions, expected, "{insists} {names:?}");
    }
    // A transfer of the previous configuration does not end the daemon.
    let (old, new) = (Transfer::of("", &[]), Transfer::of("", &["a"]));
    let script = Rc::clone(&new.job.script);
    new.handle.sync.borrow_mut().end(&[], status, 0);
    assert_eq!(
        end_sync(&old.job, status, &script, &[Rc::clone(&new.handle)], 0),
        []
    );
}

#[test]
fn a_hook_gets_the_paths_of_many_entries() {
    let names: Vec<String> = (0..150).map(|number| format!("{number:0200}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let transfer = Transfer::of("onSynced = { 'x' }", &names);
    let report = transfer.end(&[], 0).report.unwrap();
    assert_eq!((report.paths.len(), report.truncated), (150 * 202, false));
}
