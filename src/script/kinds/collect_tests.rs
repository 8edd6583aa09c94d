//! Tests of what follows the exit codes of the built-in kinds.

use crate::process::ExitStatus::{self, Exit, Signal};
use crate::queue::Etype;
use crate::script::runtime::CollectResult::{self, Again, Die, Done};
use crate::script::test_setup::Loaded;
use crate::watch::Event;

/// Returns a sync of default.rsyncssh with a move.
fn moved() -> Loaded {
    let sync = Loaded::of(
        "sync{ default.rsyncssh, source = '@DIR@/src', host = 'h', targetdir = '/trg',
           init = false }",
    );
    let handle = sync.handle(0);
    let source = handle.sync.borrow().config.source.clone();
    let (from, to) = ([&source, &b"b"[..]].concat(), [&source, &b"c"[..]].concat());
    let event = Event::Move {
        from: &from,
        to: &to,
    };
    handle.sync.borrow_mut().ingest(event, 0);
    sync
}

/// Ends the move. Returns the verdict, and true if its destination is sent in its place.
fn end_move(sync: &Loaded, status: ExitStatus, errors: &str) -> (CollectResult, bool) {
    let handle = sync.handle(0);
    let agent = sync.spawn().agent;
    let collected = sync
        .script
        .collect(&handle, &agent, status, errors.as_bytes());
    let sync = handle.sync.borrow();
    let is_sent = sync
        .queue
        .iter()
        .any(|delay| delay.etype() == Etype::Create);
    (collected.unwrap().0, is_sent)
}

#[test]
fn a_move_that_fails_on_the_target_is_sent() {
    for (status, errors, expected) in [
        (Exit(0), "", (Done, false)),
        (Exit(0), "Welcome to the host of mv", (Done, false)),
        (Exit(0), "mv: cannot move", (Done, true)),
        (Exit(1), "mv: cannot move", (Done, true)),
        (Exit(127), "sh: mv: not found", (Done, true)),
        (Exit(255), "connection refused", (Again, false)),
        (Signal(9), "", (Again, false)),
    ] {
        let found = end_move(&moved(), status, errors);
        assert_eq!(found, expected, "{status:?} {errors}");
    }
}

/// A host that was reached is waited for.
#[test]
fn moves_are_sent_if_the_remote_shell_has_never_worked() {
    for has_worked in [false, true] {
        let sync = moved();
        let handle = sync.handle(0);
        if has_worked {
            handle.sync.borrow_mut().remote_shell_mut().works();
        }
        let ends = [(); 3].map(|()| {
            let end = end_move(&sync, Exit(255), "");
            let mut sync = handle.sync.borrow_mut();
            let ids: Vec<_> = sync.queue.iter().map(|delay| delay.id()).collect();
            sync.requeue(&ids, 0);
            end
        });
        let last = if has_worked {
            (Again, false)
        } else {
            (Done, true)
        };
        assert_eq!(ends, [(Again, false), (Again, false), last]);
    }
}

/// A signal says nothing about the host.
#[test]
fn a_move_that_reached_the_target_proves_that_its_shell_works() {
    let sync = moved();
    end_move(&sync, Exit(0), "");
    let handle = sync.handle(0);
    let mut sync = handle.sync.borrow_mut();
    assert!([(); 9].iter().all(|()| !sync.remote_shell_mut().fails()));
}

/// rclone(1), "List of exit codes".
#[test]
fn exit_codes_of_rclone_have_its_meaning() {
    let sync = Loaded::of(
        "sync{ default.rclone, source = '@DIR@/src', target = 'remote:x', init = false }",
    );
    sync.create("f");
    let (handle, agent) = (sync.handle(0), sync.spawn().agent);
    let verdict = |status| sync.script.collect(&handle, &agent, status, b"").unwrap().0;
    let verdicts: Vec<_> = (0..=10).map(|code| verdict(Exit(code))).collect();
    let expected = [
        Done, Again, Die, Again, Again, Again, Again, Die, Again, Done, Die,
    ];
    assert_eq!(verdicts, expected);
    assert_eq!(verdict(Signal(15)), Again);
}
