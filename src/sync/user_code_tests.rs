//! The order and the number of events that user code gets when its sync is replaced.

use super::handover_tests::queued;
use super::tests::sync_with;
use super::*;
use crate::queue::{Etype, Take};
use crate::watch::Event;

/// What a child of the replaced sync has processed is not processed again, wherever it is queued by
/// then. A failed event is, and so is an equal event that has arrived since.
#[test]
fn user_code_is_not_called_again_for_what_a_running_child_processes() {
    for has_started in [false, true] {
        for (succeeds, repeated) in [(true, false), (true, true), (false, false)] {
            let mut old = sync_with(Policy::PerEvent);
            old.config.moves = true;
            old.queue.push(Etype::Move, b"/a", Some(b"/b"), 0);
            old.queue.push(Etype::Create, b"/c", None, 0);
            let ids = old.queue.take(|_| Take::Take);
            old.queue.activate(&ids);
            old.queue.push(Etype::Create, b"/d", None, 0);
            let events = old.events_of(&ids);
            let mut new = sync_with(Policy::PerEvent);
            new.config.moves = true;
            new.adopt(&old);
            new.add_predecessor_job(events.clone());
            if has_started {
                new.start(0);
            }
            if repeated {
                let path = b"/src/c".as_slice();
                new.ingest(Event::Create { path }, 0);
            }
            if succeeds {
                new.predecessor_succeeded(events);
            }
            if !has_started {
                new.start(0);
            }
            let mut expected = vec!["/d", "Init"];
            if !succeeds || repeated {
                expected.insert(0, "/c");
            }
            if !succeeds {
                expected.insert(0, "/a");
            }
            let mut found = queued(&new);
            found.dedup();
            assert_eq!(found, expected, "{has_started} {succeeds} {repeated}");
        }
    }
}

/// Events that arrive before the start are newer than those of the replaced sync.
#[test]
fn user_code_gets_inherited_events_before_newer_ones() {
    let of_user = || {
        let mut sync = sync_with(Policy::PerEvent);
        sync.config.moves = true;
        sync
    };
    let mut old = of_user();
    old.queue.push(Etype::Move, b"/a", Some(b"/b"), 0);
    old.queue.push(Etype::Delete, b"/d/", None, 0);
    let mut new = of_user();
    new.adopt(&old);
    for event in [
        Event::Modify { path: b"/src/b" },
        Event::Create { path: b"/src/d/" },
    ] {
        new.ingest(event, 0);
    }
    new.start(0);
    let delays = new.queue.iter();
    let paths = delays.map(|delay| (delay.etype(), delay.paths().0));
    let expected = [
        (Etype::Init, &b""[..]),
        (Etype::Move, b"/a"),
        (Etype::Delete, b"/d/"),
        (Etype::Modify, b"/b"),
        (Etype::Create, b"/d/"),
    ];
    let expected = expected.map(|(etype, path)| (etype, path.to_vec()));
    assert_eq!(paths.collect::<Vec<_>>(), expected);
}

#[test]
fn restored_events_of_user_functions_stay_as_they_were() {
    for (policy, moved) in [
        (Policy::PerEvent, &["/b"][..]),
        (Policy::Coalesce, &["/b", "/c"]),
    ] {
        let mut sync = sync_with(policy);
        sync.restore(Etype::Move, b"/b", Some(b"/c"), 0);
        assert_eq!(queued(&sync), moved);
        let mut sync = sync_with(policy);
        sync.restore(Etype::Modify, b"/a", None, 0);
        assert_eq!(queued(&sync), ["/a"]);
        let is_by_content = policy == Policy::Coalesce;
        assert_eq!(sync.verify.is_by_content(b"/a"), is_by_content);
    }
}
