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

/// An event that waits for others would otherwise be due for ever.
#[test]
fn a_blanket_event_is_discarded() {
    for kind in [
        "default.rsync, target = '/trg'",
        "default.rsyncssh, host = 'h', targetdir = '/trg'",
        "default.direct, target = '/trg'",
        "default.rclone, target = 'remote:x'",
    ] {
        let sync = Loaded::of(&format!(
            "sync{{ {kind}, source = '@DIR@/src', init = false }}"
        ));
        let handle = sync.handle(0);
        handle
            .sync
            .borrow_mut()
            .queue
            .push(Etype::Blanket, b"", None, 0);
        assert!(sync.act().is_empty(), "{kind}");
        assert!(handle.sync.borrow().queue.is_empty(), "{kind}");
    }
}

/// rclone's rules have neither line feeds nor bytes that are not UTF-8.
#[test]
fn names_that_rclone_cannot_express_become_patterns() {
    let sync = Loaded::of(
        "sync{ default.rclone, source = '@DIR@/src', target = 'remote:x', init = false,
           exclude = 'no{' }",
    );
    let handle = sync.handle(0);
    let source = handle.sync.borrow().config.source.clone();
    for name in [&b"a\nb"[..], b"\xff\xfe.x", b"\xc3\xa4", b"end "] {
        let path = [&source, name].concat();
        handle
            .sync
            .borrow_mut()
            .ingest(Event::Create { path: &path }, 0);
    }
    let request = sync.spawn();
    assert_eq!(request.args[0], b"sync");
    let rules = String::from_utf8(request.stdin.unwrap()).unwrap();
    let named = ["a?b", "*.x", "\u{e4}", "end?"].map(|name| format!("+ /{name}\n+ /{name}/**\n"));
    let excludes = "- no\\{\n- no\\{/**\n";
    assert_eq!(rules, format!("{excludes}{}- *\n", named.concat()));
}
