//! The processes of syncs: how many there are, what becomes of them, and the end of the daemon.

use std::fs;
use std::path::Path;
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use super::super::*;
use super::rig::{LIMIT, Site};
use crate::process::{Command, ExitStatus, Output, Priority, Stdin};

/// Keys of a sync that starts a process for each change.
const SLEEPER: &str = "delay = 0, maxProcesses = 9, action = function(inlet)
       spawn(inlet.getEvent(), '/bin/sleep', '300')
     end";

/// Waits for a condition.
fn wait_for(mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < limit);
        thread::sleep(Duration::from_millis(5));
    }
}

impl EventLoop<'_> {
    fn running(&self) -> usize {
        self.sending.transfers().running()
    }
}

#[test]
fn processes_do_not_outlive_a_daemon_that_fails() {
    let mut site = Site::new();
    site.write("", SLEEPER);
    let file = site.path("src/f");
    let mut event_loop = site.start();
    fs::write(file, "x").unwrap();
    event_loop.poll_until(|event_loop| event_loop.running() == 1);
    event_loop.apply(vec![Action::Exit(Exit::Failure)]);
    assert_eq!(event_loop.run_to_its_end(), Exit::Failure);
    drop(event_loop);
    let mut ended = Vec::new();
    wait_for(|| {
        let children = &mut site.context.children.borrow_mut();
        ended.extend(children.reap(&mut |_, _, _| {}));
        !ended.is_empty()
    });
    let how: Vec<_> = ended.iter().map(|ended| ended.end).collect();
    assert_eq!(how, [ExitStatus::Signal(15)]);
}

/// It would write to the target beside the transfers of the next daemon.
#[test]
fn descendants_that_ignore_a_signal_are_killed_at_the_end() {
    let mut site = Site::new();
    site.write(
        "",
        r#"delay = 0, action = function(inlet)
             spawn(inlet.getEvents(), '/bin/sh', '-c', [[
               sh -c 'trap "" TERM; echo $$ > @/new; mv @/new @/pid; exec sleep 300' & wait]])
           end"#,
    );
    let (file, number) = (site.path("src/f"), site.path("pid"));
    let mut event_loop = site.start();
    fs::write(file, "x").unwrap();
    event_loop.poll_until(|_| number.exists());
    let number = fs::read_to_string(number).unwrap();
    let program = Path::new("/proc").join(number.trim()).join("exe");
    // That of a zombie cannot be read.
    let is_alive = || fs::read_link(&program).is_ok();
    event_loop.apply(vec![Action::SignalTransfers(Signal::SIGTERM)]);
    event_loop.poll_until(|event_loop| event_loop.running() == 0);
    assert!(is_alive());
    event_loop.apply(vec![Action::KillDescendants]);
    wait_for(|| !is_alive());
}

#[test]
fn the_global_limit_of_processes_is_kept() {
    let mut site = Site::new();
    site.write("maxProcesses = 2", SLEEPER);
    let source = site.path("src");
    let mut event_loop = site.start();
    for name in ["a", "b", "c"] {
        fs::write(source.join(name), "x").unwrap();
    }
    let pending = |event_loop: &EventLoop<'_>| event_loop.sync("one").sync.borrow().pending();
    event_loop.poll_until(|event_loop| pending(event_loop) >= 3 && event_loop.running() >= 2);
    event_loop.poll_until(|_| true);
    assert_eq!(event_loop.running(), 2);
    event_loop.sending.abandon();
}

/// Its progress is logged, and a stall is noticed.
#[test]
fn a_comparison_wakes_the_loop_while_it_runs() {
    let mut site = Site::new();
    site.compare_for_long();
    let mut event_loop = site.start();
    event_loop.poll_until(|event_loop| event_loop.running() == 1);
    for at_work in [true, false] {
        let deadline = event_loop.sending.deadline(at_work, Instant::now());
        assert!(deadline.is_some(), "{at_work}");
    }
    event_loop.sending.abandon();
}

/// No process would start, and the loop would turn for its request until the end.
#[test]
fn user_code_starts_nothing_at_the_end() {
    let mut site = Site::new();
    site.write("", &SLEEPER.replace("delay = 0", "delay = 3600"));
    let file = site.path("src/f");
    let mut event_loop = site.start();
    fs::write(file, "x").unwrap();
    event_loop.run_until(|event_loop| event_loop.is_pending("one"));
    event_loop.sending.flush();
    event_loop.apply(vec![Action::ShutDown(Exit::Done)]);
    let script = Rc::clone(event_loop.sending.script());
    let handle = Rc::clone(event_loop.sync("one"));
    let first = handle.sync.borrow().queue.iter().next().unwrap().id();
    script.act(&handle, first).unwrap();
    assert!(script.context.requests.is_empty());
}

#[test]
fn an_alarm_may_start_a_process() {
    let mut site = Site::new();
    site.write(
        "",
        "delay = 3600, init = function(event)
           local blanket = event.inlet.createBlanketEvent()
           event.inlet.discardEvent(event)
           alarm(now(), function() spawn(blanket, '/bin/sleep', '300') end)
         end, action = function() end",
    );
    let mut event_loop = site.start();
    event_loop.poll_until(|event_loop| event_loop.running() == 1);
    event_loop.sending.abandon();
}

/// The end terminates what runs for longer than `stopTimeout`.
#[test]
fn onepass_ends_when_no_process_is_running_any_more() {
    let mut site = Site::new();
    site.write(
        "onepass = true",
        "init = function(event)
           spawn(event.inlet.createBlanketEvent(), '/bin/cat', '@/end')
           event.inlet.discardEvent(event)
         end, action = function() end",
    );
    let pipe = site.path("end");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let mut event_loop = site.start();
    event_loop.poll_until(|event_loop| event_loop.running() == 1);
    assert!(event_loop.sync("one").sync.borrow().has_started());
    event_loop.poll_until(|_| true);
    assert!(event_loop.shutdown.is_none());
    fs::write(pipe, "").unwrap();
    event_loop.poll_until(|event_loop| event_loop.running() == 0);
    assert!(event_loop.shutdown.is_some());
    assert_eq!(event_loop.run_to_its_end(), Exit::Done);
}

/// No event comes for it.
#[test]
fn the_loop_does_not_sleep_while_output_is_left_to_be_read() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let mut event_loop = site.start_and_settle();
    let children = Rc::clone(&event_loop.context.children);
    let command = Command {
        program: b"cat".to_vec(),
        args: vec![b"/dev/zero".to_vec()],
        stdin: Stdin::Null,
        output: Output::Lines,
        environment: Vec::new(),
        priority: Priority::default(),
    };
    let pid = children.borrow_mut().spawn(command).unwrap();
    let limit = Instant::now() + LIMIT;
    while !children.borrow().pending() {
        assert!(Instant::now() < limit);
        event_loop.wait();
    }
    assert_eq!(event_loop.turn(), None);
    let timeout = event_loop.timeout();
    children.borrow().kill(pid, Signal::SIGKILL).unwrap();
    assert_eq!(timeout, Some(Duration::ZERO));
}
