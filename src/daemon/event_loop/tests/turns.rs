//! Turn by turn: what is called, started and stored, and when the loop wakes.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;

use super::super::*;
use super::rig::Site;
use crate::component::{AuditRequest, AuditScope, SyncCommand};

#[test]
fn the_loop_does_not_sleep_while_something_is_due() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let file = site.path("src/f");
    let mut event_loop = site.start();
    fs::write(file, "x").unwrap();
    event_loop.run_until(|event_loop| event_loop.is_pending("one"));
    // The changes are due in an hour.
    assert_ne!(event_loop.timeout(), Some(Duration::ZERO));
    let id = event_loop.sync("one").sync.borrow().id;
    event_loop.apply(vec![Action::Command(id, SyncCommand::Flush)]);
    assert_eq!(event_loop.timeout(), Some(Duration::ZERO));
    event_loop.apply(vec![Action::Command(id, SyncCommand::Pause)]);
    assert_ne!(event_loop.timeout(), Some(Duration::ZERO));
}

#[test]
fn a_report_file_wakes_the_loop() {
    let mut site = Site::new();
    let status = site.path("status");
    let settings = format!("statusFile = '{}', statusInterval = 1", status.display());
    site.configure(&settings, &["one"]);
    let mut event_loop = site.start();
    event_loop.run_until(|_| status.exists());
    let first = fs::read(&status).unwrap();
    event_loop.run_until(|_| fs::read(&status).unwrap() != first);
    let timeout = event_loop.timeout().unwrap();
    // On a busy host the pause grows with the time that a report takes.
    assert!(timeout < Duration::from_secs(60), "{timeout:?}");
}

/// Nothing else would wake the loop at that time.
#[test]
fn an_alarm_wakes_the_loop() {
    for (alarm, is_due) in [("", false), ("alarm(now() + 3600, function() end)", true)] {
        let mut site = Site::new();
        site.configure("", &["one"]);
        let file = site.path("lsyncd.conf.lua");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(file, text + alarm).unwrap();
        let event_loop = site.start();
        let now = event_loop.context.clock.now();
        let due = event_loop.sending.due(true, now);
        assert_eq!(due.is_some_and(|due| due > now), is_due, "{due:?}");
    }
}

#[test]
fn a_command_is_for_its_sync_alone() {
    let mut site = Site::new();
    site.configure("", &["one", "two"]);
    let mut event_loop = site.start();
    let id = event_loop.sync("two").sync.borrow().id;
    event_loop.apply(vec![Action::Command(id, SyncCommand::Pause)]);
    let is_paused = |name| event_loop.sync(name).sync.borrow().is_paused();
    assert!(!is_paused("one") && is_paused("two"));
}

/// Returns a loop with a due change, and the file that its call makes.
fn with_due_change(site: &mut Site) -> (EventLoop<'_>, PathBuf) {
    site.configure("", &["one"]);
    let (file, called) = (site.path("src/f"), site.path("called"));
    let mut event_loop = site.start();
    fs::write(file, "x").unwrap();
    event_loop.run_until(|event_loop| event_loop.is_pending("one"));
    event_loop.sending.flush();
    (event_loop, called)
}

#[test]
fn nothing_begins_once_the_end_is_asked_for() {
    let mut site = Site::new();
    let (mut event_loop, called) = with_due_change(&mut site);
    event_loop.apply(vec![Action::ShutDown(Exit::Asked(5))]);
    assert_eq!(event_loop.run_to_its_end(), Exit::Asked(5));
    assert!(!called.exists());
}

#[test]
fn what_is_due_is_called_before_the_end_is_asked_for() {
    let mut site = Site::new();
    let (mut event_loop, called) = with_due_change(&mut site);
    event_loop.run_until(|_| called.exists());
}

#[test]
fn a_wrong_configuration_leaves_the_old_one_in_force() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let config = site.path("lsyncd.conf.lua");
    let good = fs::read(&config).unwrap();
    let mut event_loop = site.start();
    fs::write(&config, "settings{ nodaemon = true }\nsync{ nonsense }").unwrap();
    let problem = event_loop.reload(ReloadScope::Changed).unwrap_err();
    assert!(problem.contains("lsyncd.conf.lua:2"), "{problem}");
    assert_eq!(event_loop.state().reload_error, Some(problem.as_str()));
    event_loop.sync("one");
    let second = String::from_utf8(good).unwrap().replace("'one'", "'two'");
    fs::write(&config, second).unwrap();
    event_loop.reload(ReloadScope::Changed).unwrap();
    assert_eq!(event_loop.state().reload_error, None);
    event_loop.sync("two");
    assert_eq!(event_loop.sending.syncs().len(), 1);
}

#[test]
fn a_new_start_waits_for_the_end_of_the_old_one() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let mut event_loop = site.start();
    let before = event_loop.sync("one").sync.borrow().id;
    event_loop.on_reload_request(ReloadScope::All).unwrap();
    assert!(event_loop.shutdown.is_some());
    event_loop
        .run_until(|event_loop| event_loop.shutdown.is_none() && event_loop.watching.is_complete());
    assert_ne!(event_loop.sync("one").sync.borrow().id, before);
}

/// Returns the contents of the only file with stored changes.
fn stored(state: &Path) -> Vec<u8> {
    let mut found = Vec::new();
    for directory in fs::read_dir(state).unwrap() {
        found.extend(fs::read(directory.unwrap().path().join("pending")).ok());
    }
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[test]
fn a_new_start_watches_for_the_events_of_the_new_configuration() {
    for scope in [ReloadScope::All, ReloadScope::Changed] {
        let mut site = Site::new();
        site.configure("maxStaleness = 0", &["one"]);
        let (config, file) = (site.path("lsyncd.conf.lua"), site.path("src/f"));
        fs::write(&file, "x").unwrap();
        let mut event_loop = site.start();
        let text = fs::read_to_string(&config).unwrap();
        let text = text.replace("nodaemon", "inotifyMode = 'Modify', nodaemon");
        fs::write(&config, text).unwrap();
        event_loop.on_reload_request(scope).unwrap();
        event_loop.run_until(|event_loop| {
            event_loop.shutdown.is_none() && event_loop.watching.is_complete()
        });
        let mut open = File::options().append(true).open(&file).unwrap();
        open.write_all(b"y").unwrap();
        event_loop.run_until(|event_loop| event_loop.is_pending("one"));
    }
}

/// A daemon that exits after an error in user code has not begun a shutdown.
#[test]
fn a_file_that_is_open_at_the_end_is_stored_as_pending() {
    let mut site = Site::new();
    let (file, state) = (site.path("src/f"), site.path("state"));
    fs::write(&file, "x").unwrap();
    fs::create_dir(&state).unwrap();
    site.configure("", &["one"]);
    let mut event_loop = site.start();
    let mut open = File::options().append(true).open(&file).unwrap();
    open.write_all(b"y").unwrap();
    event_loop.run_until(|event_loop| event_loop.watching.watcher().oldest_open().is_some());
    assert!(!event_loop.is_pending("one"));
    event_loop.apply(vec![Action::Exit(Exit::Failure)]);
    assert_eq!(event_loop.run_to_its_end(), Exit::Failure);
    let stored = stored(&state);
    let stored = stored.escape_ascii().to_string();
    assert!(stored.contains("Modify\\x00/f\\x00"), "{stored}");
}

/// A change that is reported after a transfer has begun may be missing in it.
#[test]
fn a_running_transfer_is_noted_before_events_are_taken() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let mut event_loop = site.start();
    let handle = Rc::clone(event_loop.sync("one"));
    handle.sync.borrow_mut().child_started();
    event_loop.watching.on_turn(false, event_loop.now);
    handle.sync.borrow_mut().child_ended();
    assert_eq!(handle.sync.borrow().caught_up_since(), None);
}

#[test]
fn syncs_start_up_when_all_directories_are_watched() {
    let mut site = Site::new();
    site.make_directories();
    fs::create_dir(site.path("state")).unwrap();
    site.configure("", &["one"]);
    let mut event_loop = site.begin();
    event_loop.run_until(|event_loop| {
        let is_crawling = event_loop.watching.watcher().crawling();
        let handle = event_loop.sync("one");
        assert_eq!(handle.sync.borrow().awaits_watches(), is_crawling);
        assert_eq!(event_loop.watching.has_started(), !is_crawling);
        // The reader of directories wakes the loop.
        // What the watcher waits for wakes the loop.
        let wakes = event_loop.watching.watcher().next_deadline();
        let is_due = wakes.is_some_and(|time| time <= Instant::now());
        assert!(!is_crawling || is_due || event_loop.timeout() != Some(Duration::ZERO));
        !is_crawling
    });
}

/// It may be due to an overflow of the kernel's queue.
#[test]
fn a_comparison_that_waits_for_the_watches_outlives_a_reload() {
    let mut site = Site::new();
    site.mirror("nil");
    let mut event_loop = site.start();
    let id = event_loop.pause("one");
    event_loop.apply(vec![Action::Watch(WatchAction::FullSync(id))]);
    event_loop.reload(ReloadScope::Changed).unwrap();
    assert_eq!(event_loop.sync("one").sync.borrow().id, id);
    event_loop.run_until(|event_loop| event_loop.is_pending("one"));
}

#[test]
fn changes_that_have_not_been_read_at_the_end_are_stored_as_a_comparison() {
    let mut site = Site::new();
    let (file, state) = (site.path("src/f"), site.path("state"));
    fs::create_dir(&state).unwrap();
    site.configure("", &["one"]);
    let mut event_loop = site.start();
    fs::write(file, "x").unwrap();
    let mark = event_loop.watching.watcher().event_mark();
    event_loop.watching.save_pending(mark, event_loop.now);
    assert!(stored(&state).windows(5).any(|word| word == b"Full\0"));
}

/// They are restored when its directories are watched.
#[test]
fn stored_changes_of_a_new_sync_outlive_an_end_before_its_start() {
    let mut site = Site::new();
    let (file, state) = (site.path("src/f"), site.path("state"));
    let config = site.path("lsyncd.conf.lua");
    fs::create_dir(&state).unwrap();
    site.configure("", &["one"]);
    let mut event_loop = site.start();
    fs::write(file, "x").unwrap();
    event_loop.run_until(|event_loop| event_loop.is_pending("one"));
    event_loop.apply(vec![Action::Exit(Exit::Failure)]);
    event_loop.run_to_its_end();
    drop(event_loop);
    let before = stored(&state);
    let text = fs::read_to_string(&config).unwrap();
    site.configure("", &["two"]);
    let mut event_loop = site.start();
    fs::write(&config, text).unwrap();
    event_loop.reload(ReloadScope::Changed).unwrap();
    assert!(!event_loop.watching.is_complete());
    event_loop
        .watching
        .save_pending(Default::default(), event_loop.now);
    assert_eq!(stored(&state), before);
}

#[test]
fn after_an_overflow_nothing_that_events_told_is_relied_on() {
    let mut site = Site::new();
    site.mirror("'changed'");
    let mut event_loop = site.start();
    event_loop.pause("one");
    let handle = Rc::clone(event_loop.sync("one"));
    let comparisons = || handle.sync.borrow().warm_start().unwrap().generation();
    event_loop.run_until(|_| handle.sync.borrow().verify().is_done());
    let before = comparisons();
    event_loop.watching.overflow();
    assert_eq!(handle.sync.borrow().counters.overflows, 1);
    assert!(!handle.sync.borrow().verify().is_done());
    assert_ne!(comparisons(), before);
}

#[test]
fn the_comparison_after_an_overflow_begins_when_all_directories_are_watched() {
    let mut site = Site::new();
    site.make_directories();
    site.mirror("nil");
    let mut event_loop = site.start();
    event_loop.pause("one");
    event_loop.watching.overflow();
    event_loop.run_until_watched_and_pending("one");
}

#[test]
fn a_source_that_is_back_is_compared_when_all_directories_are_watched() {
    let mut site = Site::new();
    site.make_directories();
    site.mirror("nil");
    let (source, other) = (site.path("src"), site.path("other"));
    let mut event_loop = site.start();
    event_loop.pause("one");
    let handle = Rc::clone(event_loop.sync("one"));
    fs::rename(&source, &other).unwrap();
    event_loop.run_until(|_| handle.sync.borrow().halted().is_some());
    fs::rename(&other, &source).unwrap();
    event_loop.run_until_watched_and_pending("one");
}

/// User functions get each path.
#[test]
fn a_directory_is_compared_on_request_for_one_sync_with_its_contents() {
    let mut site = Site::new();
    fs::create_dir(site.path("src/d")).unwrap();
    for name in ["f", "g"] {
        fs::write(site.path("src/d").join(name), "x").unwrap();
    }
    site.configure("", &["one", "two"]);
    let mut event_loop = site.start();
    let handle = Rc::clone(event_loop.sync("two"));
    let id = handle.sync.borrow().id;
    let command = SyncCommand::ResyncPath(b"/d/".to_vec());
    event_loop.apply(vec![Action::Command(id, command)]);
    event_loop.run_until(|_| {
        let sync = handle.sync.borrow();
        let paths: Vec<_> = sync.queue.iter().map(|delay| delay.paths().0).collect();
        [&b"/d/"[..], b"/d/f", b"/d/g"]
            .iter()
            .all(|path| paths.iter().any(|found| found == path))
    });
    assert!(!event_loop.is_pending("one"));
}

/// It may begin before the watcher has reported that the source is gone.
#[test]
fn a_source_is_checked_before_a_transfer() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let (source, called) = (site.path("src"), site.path("called"));
    let mut event_loop = site.start();
    fs::write(source.join("f"), "x").unwrap();
    event_loop.run_until(|event_loop| event_loop.is_pending("one"));
    fs::rename(&source, source.with_file_name("other")).unwrap();
    event_loop.sending.flush();
    let EventLoop {
        sending,
        watching,
        now,
        ..
    } = &mut event_loop;
    let actions = sending.run_due(watching, *now);
    assert!(matches!(actions[..], [Action::Log(..)]), "{actions:?}");
    let is_halted = event_loop.sync("one").sync.borrow().halted().is_some();
    assert!(is_halted && !called.exists());
}

/// What has failed in user code may be what the next call relies on.
#[test]
fn nothing_is_called_after_an_error_in_user_code() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let (config, fails) = (site.path("lsyncd.conf.lua"), site.path("fails"));
    let (file, called) = (site.path("src/f"), site.path("called"));
    let alarm = format!(
        "local function ring()
           if io.open('{}') then error('as requested') end
           alarm(now() + 0.01, ring)
         end
         alarm(now(), ring)",
        fails.display()
    );
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + &alarm).unwrap();
    let mut event_loop = site.start();
    fs::write(file, "x").unwrap();
    event_loop.run_until(|event_loop| event_loop.is_pending("one"));
    event_loop.sending.flush();
    fs::write(fails, "").unwrap();
    let rings = event_loop.sending.script().next_alarm().unwrap();
    while event_loop.context.clock.now() <= rings {
        thread::yield_now();
    }
    assert_eq!(event_loop.turn(), Some(Exit::Failure));
    assert!(!called.exists());
}

#[test]
fn the_state_of_syncs_that_are_gone_is_removed_after_the_startup() {
    let mut site = Site::new();
    let old = site.path("state/old-0123456789abcdef");
    fs::create_dir_all(&old).unwrap();
    let age = Duration::from_secs(40 * 24 * 60 * 60);
    let changed = File::open(&old).unwrap();
    changed.set_modified(SystemTime::now() - age).unwrap();
    site.configure("", &["one"]);
    let mut event_loop = site.begin();
    assert!(old.exists());
    event_loop.run_until(|event_loop| event_loop.watching.is_complete());
    assert!(!old.exists());
}

#[test]
fn a_comparison_that_is_requested_begins() {
    let mut site = Site::new();
    site.mirror("nil");
    let mut event_loop = site.start();
    let id = event_loop.pause("one");
    let scope = AuditScope {
        syncs: vec![(id, Vec::new())],
        by_content: false,
        repairs: false,
        sample: None,
    };
    let request = AuditRequest {
        client: None,
        scope,
    };
    event_loop.apply(vec![Action::Audit(request)]);
    let last = |event_loop: &EventLoop<'_>| event_loop.audits.last(id).cloned();
    let runs = |event_loop: &EventLoop<'_>| event_loop.audits.progress(id).is_some();
    assert!(!runs(&event_loop) && last(&event_loop).is_none());
    event_loop.turn();
    assert!(runs(&event_loop) || last(&event_loop).is_some());
    event_loop.poll_until(|event_loop| {
        let snapshot = report::snapshot(&event_loop.state(), None, 0);
        let sync = &snapshot.syncs[0];
        assert_eq!(sync.verifying.is_some(), runs(event_loop));
        assert_eq!(sync.verified, last(event_loop));
        sync.verified.is_some()
    });
}
