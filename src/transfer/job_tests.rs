//! One job: what is known of its entries, and what its output means.

use super::*;
use crate::config::Scanner;
use crate::process::ExitStatus;
use crate::script::ScriptRequest;
use crate::staging::ScanAnswer;
use crate::staging::readers::Readers;
use crate::sync::LeftOutReason;
use crate::transfer::test_setup::{
    ChangedSync, NOW, OPENED, SUMMARY, Transfer, begin, script_request,
};
use crate::watch::Event;

const OWNER: &[u8] =
    b"rsync: [receiver] chown \"/nowhere/trg/a\" failed: Operation not permitted (1)";

fn modify(path: &[u8]) -> Event<'_> {
    Event::Modify { path }
}

fn delete(path: &[u8]) -> Event<'_> {
    Event::Delete { path }
}

fn remove(path: &[u8]) -> Event<'_> {
    std::fs::remove_file(OsStr::from_bytes(path)).unwrap();
    delete(path)
}

fn job_of(config: &str, event: fn(&[u8]) -> Event<'_>) -> (ChangedSync, Job) {
    let sync = ChangedSync::of(config, &["a"], event);
    let job = match script_request(&sync.script, &sync.handle, NOW) {
        ScriptRequest::Spawn(request) => {
            let roots = spawn::roots(&request.args);
            Job::of_request(request, roots, Rc::clone(&sync.script))
        }
        ScriptRequest::Copy(request) => Job::of_order(&request, Rc::clone(&sync.script)),
        ScriptRequest::Scan(_) => panic!("a scan was requested"),
    };
    (sync, job)
}

fn config(kind: &str, options: &str) -> String {
    format!("sync {{ {kind}, source = '@DIR@/src', delay = 1, init = false, {options} }}")
}

/// A file that has been created again is compared, and not reported as deleted.
#[test]
fn a_deleted_path_that_exists_again_is_known_at_the_start() {
    for kind in ["default.rsync", "default.direct"] {
        let config = config(kind, "target = '/nowhere/trg'");
        let events: [fn(&[u8]) -> Event<'_>; 3] = [delete, remove, modify];
        for (event, count) in events.into_iter().zip([1, 0, 0]) {
            let (_sync, job) = job_of(&config, event);
            assert_eq!(job.existing.len(), count, "{kind}");
        }
    }
}

#[test]
fn the_error_text_is_of_a_failure_if_there_is_one() {
    let transfer = Transfer::of("", &["a"]);
    assert_eq!(transfer.job.words(), b"");
    transfer.job.take_errors([OWNER.to_vec()]);
    assert_eq!(transfer.job.words(), OWNER);
    let failure = OPENED.replace("@SRC@NAME", "/x").into_bytes();
    transfer.job.take_errors([failure.clone()]);
    assert_eq!(transfer.job.words(), failure);
    let copy = Transfer::of("", &["a"]);
    copy.job.keep_reasons([String::from("no access")].iter());
    assert_eq!(copy.job.words(), b"no access");
}

#[test]
fn the_first_and_the_last_lines_of_many_errors_are_kept() {
    let transfer = Transfer::of("", &["a"]);
    let lines = (0..60).map(|number| format!("line {number}").into_bytes());
    transfer.job.take_errors(lines.clone());
    let first = MAX_KEPT_LINES - LAST_LINES;
    let expected: Vec<_> = lines.clone().take(first).chain(lines.skip(40)).collect();
    assert_eq!(*transfer.job.errors.borrow(), expected);
}

/// The output of user code, and of commands that move files on the target, is not that of rsync.
#[test]
fn only_the_errors_of_transfers_are_evaluated() {
    let names_a = [OPENED.replace("@SRC@NAME", "a").into_bytes()];
    for captured in [true, false] {
        let mut transfer = Transfer::of("", &["a"]);
        transfer.job.captured = captured;
        transfer.job.take_errors(names_a.clone());
        assert_eq!(transfer.job.blame(|_| Some(())).is_some(), captured);
        assert_eq!(transfer.job.may_stall(), captured);
    }
    let config = config("default.rsyncssh", "host = 'h', targetdir = '/trg'");
    let sync = ChangedSync::of(&config, &[], modify);
    let [from, to] = ["a", "b"].map(|name| format!("{}{name}", sync.source).into_bytes());
    std::fs::write(OsStr::from_bytes(&to), "").unwrap();
    let (from, to) = (&from[..], &to[..]);
    sync.handle
        .sync
        .borrow_mut()
        .ingest(Event::Move { from, to }, 0);
    let job = begin(&sync.script, &sync.handle, NOW);
    assert!(job.may_stall() && !job.is_transfer(&sync.handle.sync.borrow()));
    job.take_errors(names_a);
    assert!(job.blame(|_| Some(())).is_none());
}

#[test]
fn an_attribute_that_is_not_set_is_reported_once() {
    let transfer = Transfer::of("", &["a"]);
    let job = &transfer.job;
    assert!(matches!(
        job.read_error(OWNER),
        OutputKind::Attribute(Attribute::Owner)
    ));
    assert!(matches!(job.read_error(OWNER), OutputKind::Nothing));
    assert!(matches!(job.read_error(b"anything"), OutputKind::Line));
}

#[test]
fn paths_that_are_too_long_are_counted_as_left_out() {
    let transfer = Transfer::of("", &["a"]);
    transfer
        .job
        .take_errors([b"skipping overly long name: b/c".to_vec()]);
    let sync = transfer.handle.sync.borrow();
    assert_eq!(sync.left_out().count(LeftOutReason::TooLong), 1);
}

/// A comparison of everything that waits for the batch has not been made by it.
#[test]
fn a_batch_beside_a_waiting_comparison_is_not_one_of_everything() {
    let transfer = Transfer::of("", &["a"]);
    transfer.handle.sync.borrow_mut().resync(0);
    let sync = transfer.handle.sync.borrow();
    assert!(!transfer.job.is_whole(&sync) && !transfer.job.is_startup(&sync));
    let comparison = Transfer::of("", &[]);
    let sync = comparison.handle.sync.borrow();
    assert!(comparison.job.is_whole(&sync) && comparison.job.is_startup(&sync));
}

#[test]
fn a_transfer_is_local_if_its_target_is() {
    for (target, is_local) in [("/nowhere/trg", true), ("host:/trg", false)] {
        let options = format!("target = '{target}'");
        let (_sync, job) = job_of(&config("default.rsync", &options), modify);
        assert_eq!(job.is_local(), is_local, "{target}");
    }
    let action = "action = function(inlet) spawn(inlet.getEvent(), '/bin/true') end";
    let config = "sync { source = '@DIR@/src', delay = 1, init = false, ACTION }";
    let (_sync, job) = job_of(&config.replace("ACTION", action), modify);
    assert!(!job.is_local() && !job.captured);
}

/// The staged tree must not change while rsync reads it.
#[test]
fn the_staged_tree_is_locked_while_its_transfer_runs() {
    let sync = ChangedSync::of(
        &config("default.rsync", "target = '/nowhere/trg'"),
        &["a"],
        modify,
    );
    let reading = Rc::new(Readers::begin(&Arc::default()));
    let mut request = sync.request();
    request.reading = Some(Rc::clone(&reading));
    let job = Job::of_request(request, Vec::new(), Rc::clone(&sync.script));
    assert_eq!(Rc::strong_count(&reading), 2);
    drop(job);
    assert_eq!(Rc::strong_count(&reading), 1);
}

#[test]
fn each_line_of_output_goes_where_it_is_evaluated() {
    let progress = b"  1,000  50%  1.00kB/s    0:00:01  (xfr#1, to-chk=1/2)";
    let totals = b"Total bytes sent: 1,234";
    let take = |job: &Job, stream, line: &[u8]| take_output(Some(job), stream, line, None);
    let mut transfer = Transfer::of("", &["a"]);
    for hides_progress in [false, true] {
        let job = &mut transfer.job;
        job.hides_progress = hides_progress;
        job.progress.take();
        job.totals.take();
        assert!(!job.takes_progress(totals));
        for line in [&progress[..], totals] {
            take(job, Stream::Stdout, line);
        }
        let shown = job.progress(&transfer.handle.sync.borrow()).unwrap();
        assert_eq!((shown.bytes, shown.percent), (1000, 50));
        assert_eq!(job.totals().bytes, 1234);
    }
    assert!(transfer.job.takes_progress(progress));
    for line in [OPENED.replace("@SRC@NAME", "a").as_str(), SUMMARY] {
        take(&transfer.job, Stream::Stderr, line.as_bytes());
    }
    assert!(matches!(
        transfer.job.failed_paths(),
        FailedEntries::Paths(..)
    ));

    let limited = config(
        "default.rsync",
        "target = '/nowhere/trg', guard = { maxDelete = 1 }",
    );
    let sync = ChangedSync::of(&limited, &["a"], modify);
    let dry_run = Job::dry_run(DryRun::new(sync.request()), Rc::clone(&sync.script));
    for _ in 0..2 {
        take(&dry_run, Stream::Stdout, b"*deleting   f");
        take(&dry_run, Stream::Stderr, b"*deleting   f");
    }
    assert_eq!(dry_run.errors.borrow().len(), 2);
    let result = dry_run.dry_run.unwrap().result(ExitStatus::Exit(0));
    assert!(
        format!("{result:?}").starts_with("Exceeded(2"),
        "{result:?}"
    );

    let scanner = Scanner {
        words: Vec::new(),
        stdin: false,
        ok: vec![0],
        reject: vec![1],
        timeout: std::time::Duration::from_secs(60),
        parallel: 1,
    };
    let call = ScannerCall::new(1, vec![0], &scanner);
    let agent = transfer.job.agent.clone();
    let handle = Rc::clone(&transfer.handle);
    let scan = Job::scan(call, handle, Rc::clone(&transfer.job.script), agent);
    take(&scan, Stream::Stdout, b"/copy: a virus");
    let answer = scan
        .scan
        .as_ref()
        .unwrap()
        .answer(ExitStatus::Exit(1), &[b"/copy".to_vec()]);
    assert_eq!(answer, ScanAnswer::Rejected("a virus".into()));
    assert!(!scan.may_stall());
}
