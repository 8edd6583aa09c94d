//! The queue by its public functions: recorded results of lsyncd, and no lost, blocked or
//! accumulated delays. (`src/queue` compares its internals with a model.)

use std::collections::HashMap;

use lsyncd::queue::{DelayId, Etype, Placed, Policy, Pushed, Queue, Ready, Status, Take};
use proptest::prelude::*;

use Etype::*;
use Policy::*;

type Event = (Etype, &'static str, &'static str);

fn push(queue: &mut Queue, (etype, path, path2): Event) -> Pushed {
    let path2 = (!path2.is_empty()).then_some(path2.as_bytes());
    queue.push(etype, path.as_bytes(), path2, 0)
}

/// `Create /a wait, Move /b>/c block`
fn show(queue: &Queue) -> String {
    let show = |delay: lsyncd::queue::Delay<'_>| {
        let (path, path2) = delay.paths();
        let mut text = format!("{} {}", delay.etype().name(), path.escape_ascii());
        if let Some(path2) = path2 {
            text += &format!(">{}", path2.escape_ascii());
        }
        text + " " + delay.status().name()
    };
    queue.iter().map(show).collect::<Vec<_>>().join(", ")
}

fn after(policy: Policy, events: &[Event]) -> String {
    let mut queue = Queue::new(policy);
    for event in events {
        push(&mut queue, *event);
    }
    show(&queue)
}

fn all(queue: &mut Queue) -> Vec<DelayId> {
    let ids = queue.take(|_| Take::Take);
    queue.activate(&ids);
    ids
}

/// Results of lsyncd 2.3.1.
#[test]
fn recorded_combinations() {
    let cases: &[([Event; 2], &str)] = &[
        ([(Delete, "/a", ""), (Create, "/a", "")], "Create /a wait"),
        (
            [(Create, "/a/", ""), (Modify, "/a/b", "")],
            "Create /a/ wait, Modify /a/b block",
        ),
        (
            [(Modify, "/a/b", ""), (Delete, "/a/", "")],
            "Modify /a/b wait, Delete /a/ block",
        ),
        (
            [(Modify, "/a", ""), (Delete, "/b", "")],
            "Modify /a wait, Delete /b wait",
        ),
        (
            [(Move, "/a", "/b"), (Create, "/a", "")],
            "Move /a>/b wait, Create /a block",
        ),
        (
            [(Move, "/a", "/b"), (Create, "/b", "")],
            "Delete /a wait, Create /b block",
        ),
        (
            [(Move, "/a", "/b"), (Delete, "/b", "")],
            "Delete /a wait, Delete /b block",
        ),
        (
            [(Move, "/a", "/b"), (Modify, "/b", "")],
            "Move /a>/b wait, Modify /b block",
        ),
        (
            [(Modify, "/c", ""), (Move, "/a", "/b")],
            "Modify /c wait, Move /a>/b wait",
        ),
        (
            [(Create, "/d/", ""), (Move, "/d/a", "/b")],
            "Create /d/ wait, Delete /d/a block, Create /b wait",
        ),
        (
            [(Create, "/d/", ""), (Move, "/a", "/d/b")],
            "Create /d/ wait, Delete /a wait, Create /d/b block",
        ),
        (
            [(Move, "/a", "/b"), (Move, "/b", "/c")],
            "Delete /a wait, Delete /b block, Create /c wait",
        ),
        (
            [(Move, "/a", "/b"), (Move, "/c", "/d")],
            "Move /a>/b wait, Move /c>/d wait",
        ),
        (
            [(Move, "/a/", "/b/"), (Modify, "/b/x", "")],
            "Move /a/>/b/ wait, Modify /b/x block",
        ),
        (
            [(Move, "/a/", "/b/"), (Move, "/b/x", "/c")],
            "Move /a/>/b/ wait, Delete /b/x block, Create /c wait",
        ),
        (
            [(Delete, "/b", ""), (Move, "/a", "/b")],
            "Create /b wait, Delete /a wait",
        ),
    ];
    for (events, want) in cases {
        assert_eq!(after(Coalesce, events), *want, "{events:?}");
        assert_eq!(after(PerEvent, events), *want, "{events:?}");
    }
}

/// Cases in which the two policies differ, or in which lsyncd loses a result.
#[test]
fn changes_of_one_path_are_combined() {
    let of = |policy, older, newer| after(policy, &[(older, "/a", ""), (newer, "/a", "")]);
    assert_eq!(of(Coalesce, Create, Modify), "Create /a wait");
    assert_eq!(
        of(PerEvent, Create, Modify),
        "Create /a wait, Modify /a block"
    );
    assert_eq!(of(Coalesce, Modify, Delete), "Delete /a wait");
    assert_eq!(
        of(PerEvent, Modify, Delete),
        "Modify /a wait, Delete /a block"
    );
    assert_eq!(of(PerEvent, Modify, Modify), "Modify /a wait");

    let anew = [(Delete, "/a/", ""), (Create, "/a/", "")];
    assert_eq!(after(Coalesce, &anew), "Delete /a/ wait");
    assert_eq!(after(PerEvent, &anew), "Delete /a/ wait, Create /a/ block");

    let split = [(Modify, "/a", ""), (Move, "/a", "/b")];
    assert_eq!(after(Coalesce, &split), "Delete /a wait, Create /b wait");
    assert_eq!(
        after(PerEvent, &split),
        "Modify /a wait, Delete /a block, Create /b wait"
    );

    let onto_one = [(Move, "/a", "/b"), (Move, "/c", "/b")];
    assert_eq!(
        after(Coalesce, &onto_one),
        "Delete /a wait, Delete /c wait, Create /b block"
    );
    let file_and_dir = [(Delete, "/a", ""), (Create, "/a/", "")];
    assert_eq!(
        after(Coalesce, &file_and_dir),
        "Delete /a wait, Create /a/ wait"
    );
    let moved_over = [(Move, "/a/", "/b/"), (Create, "/b/", "")];
    assert_eq!(
        after(Coalesce, &moved_over),
        "Move /a/>/b/ wait, Create /b/ block"
    );
}

#[test]
fn init_full_and_blanket_block_or_pass() {
    assert_eq!(
        after(
            Coalesce,
            &[
                (Modify, "/a", ""),
                (Init, "", ""),
                (Modify, "/b", ""),
                (Full, "/", "")
            ]
        ),
        "Modify /a wait, Init  wait, Modify /b block, Full / wait"
    );
    assert_eq!(
        after(
            PerEvent,
            &[
                (Full, "/", ""),
                (Modify, "/b", ""),
                (Blanket, "", ""),
                (Move, "/c", "/d")
            ]
        ),
        "Full / wait, Modify /b wait, Blanket  wait, Move /c>/d block"
    );
}

#[test]
fn push_returns_what_it_did() {
    let mut queue = Queue::new(Coalesce);
    let placed = |pushed| match pushed {
        Pushed::Placed(placed) => placed,
        split => panic!("{split:?}"),
    };
    let Placed::Appended { id: a } = placed(push(&mut queue, (Create, "/a", ""))) else {
        panic!()
    };
    assert_eq!(
        placed(push(&mut queue, (Modify, "/a", ""))),
        Placed::Absorbed { by: a }
    );
    assert_eq!(
        placed(push(&mut queue, (Delete, "/a", ""))),
        Placed::Replaced { id: a, was: Create }
    );
    let Pushed::Split {
        on,
        was,
        delete,
        create,
    } = push(&mut queue, (Move, "/a", "/b"))
    else {
        panic!()
    };
    assert_eq!((on, was, delete), (a, Delete, Placed::Absorbed { by: a }));
    assert!(matches!(create, Placed::Appended { .. }));
    let Placed::Appended { id: moved } = placed(push(&mut queue, (Move, "/c", "/d"))) else {
        panic!()
    };
    assert!(matches!(
        placed(push(&mut queue, (Modify, "/d", ""))),
        Placed::Blocked { on, .. } if on == moved
    ));
    // The Modify of /d still waits and becomes the Delete.
    assert!(matches!(
        placed(push(&mut queue, (Delete, "/d", ""))),
        Placed::Replaced { was: Modify, .. }
    ));
    let Placed::Appended { id: moved } = placed(push(&mut queue, (Move, "/e", "/f"))) else {
        panic!()
    };
    assert!(matches!(
        placed(push(&mut queue, (Delete, "/f", ""))),
        Placed::Turned { on, .. } if on == moved
    ));
    assert_eq!(queue.get(moved).unwrap().etype(), Delete);
}

/// `mv a b; echo >> b; rm b` in the order of user code: lsyncd loses the delays that wait for the
/// Move.
#[test]
fn a_replaced_move_keeps_the_delays_that_it_blocks() {
    let mut queue = Queue::new(PerEvent);
    push(&mut queue, (Move, "/a/", "/b/"));
    push(&mut queue, (Create, "/a/", ""));
    push(&mut queue, (Delete, "/b/", ""));
    assert_eq!(
        show(&queue),
        "Delete /a/ wait, Create /a/ block, Delete /b/ block"
    );
    let Ready::Now(first) = queue.first_ready(0, 1000) else {
        panic!()
    };
    queue.activate(&[first]);
    assert!(queue.finish(first));
    assert_eq!(show(&queue), "Create /a/ wait, Delete /b/ wait");
}

#[test]
fn an_active_delay_is_never_changed() {
    for policy in [Coalesce, PerEvent] {
        let mut queue = Queue::new(policy);
        for time in 1..50 {
            push(&mut queue, (Modify, "/d/f", ""));
            for id in all(&mut queue) {
                push(&mut queue, (Modify, "/d/f", ""));
                assert_eq!(show(&queue), "Modify /d/f active, Modify /d/f block");
                assert!(queue.retry(id, time * 100));
            }
            assert_eq!(show(&queue), "Modify /d/f wait");
            assert_eq!(queue.first_ready(time * 100 - 1, 1000), {
                Ready::At(time * 100)
            });
        }
    }
}

#[test]
fn two_actions_never_run_for_one_path() {
    let mut queue = Queue::new(PerEvent);
    push(&mut queue, (Modify, "/d/f", ""));
    push(&mut queue, (Modify, "/d/g", ""));
    let running = all(&mut queue);
    // The Attrib waits for g only, and the second Modify of f waits for the Attrib.
    push(&mut queue, (Attrib, "/d/", ""));
    push(&mut queue, (Modify, "/d/f", ""));
    assert!(queue.finish(running[1]));
    let attrib = all(&mut queue);
    assert_eq!(
        show(&queue),
        "Modify /d/f active, Attrib /d/ active, Modify /d/f block"
    );
    assert!(queue.finish(attrib[0]));
    assert_eq!(show(&queue), "Modify /d/f active, Modify /d/f block");
    assert!(queue.finish(running[0]));
    assert_eq!(show(&queue), "Modify /d/f wait");
}

#[test]
fn ready_delays_are_returned_in_order() {
    let mut queue = Queue::new(Coalesce);
    assert_eq!(queue.first_ready(0, 1000), Ready::Nothing);
    queue.push(Modify, b"/a", None, 100);
    queue.push(Full, b"/", None, 99);
    assert_eq!(queue.first_ready(98, 1000), Ready::At(99));
    // A Full waits for nothing, so it may precede delays that are not due.
    assert!(
        matches!(queue.first_ready(99, 1000), Ready::Now(id) if Some(id) != queue.oldest().map(|delay| delay.id()))
    );
    let first = queue.oldest().unwrap().id();
    assert_eq!(queue.first_ready(100, 1000), Ready::Now(first));
    assert_eq!(queue.first_ready(0, 2), Ready::Now(first));
    // Later changes do not change the due time.
    queue.push(Delete, b"/a", None, 200);
    assert_eq!(queue.get(first).unwrap().due(), 100);
    queue.activate(&[first]);
    assert!(matches!(queue.first_ready(99, 1000), Ready::Now(id) if id != first));
}

#[test]
fn take_skips_delays_that_depend_on_a_skipped_one() {
    let mut queue = Queue::new(Coalesce);
    push(&mut queue, (Create, "/d/", ""));
    push(&mut queue, (Create, "/d/e/", ""));
    push(&mut queue, (Create, "/d/e/f", ""));
    push(&mut queue, (Create, "/g", ""));
    let skip_dir = queue.take(|delay| {
        if delay.paths().0 == b"/d/" {
            Take::Skip
        } else {
            Take::Take
        }
    });
    assert_eq!(skip_dir.len(), 1);
    let mut asked = 0;
    let stopped = queue.take(|_| {
        asked += 1;
        if asked == 3 { Take::Stop } else { Take::Take }
    });
    assert_eq!((stopped.len(), asked), (2, 3));
    assert_eq!(queue.take(|_| Take::Take).len(), 4);
}

const FILES: [&str; 8] = ["/a", "/b", "/c", "/a/x", "/a/y", "/a/x/f", "/a/x/g", "/b/x"];
const DIRS: [&str; 6] = ["/", "/a/", "/b/", "/a/x/", "/a/y/", "/b/x/"];

fn any_event() -> impl Strategy<Value = Event> {
    let plain = prop::sample::select(vec![Create, Modify, Attrib, Delete]);
    let special = prop::sample::select(vec![Init, Blanket]);
    let file = || prop::sample::select(&FILES[..]);
    let dir = || prop::sample::select(&DIRS[..]);
    prop_oneof![
        40 => (plain, prop_oneof![file(), dir()]).prop_map(|(etype, path)| (etype, path, "")),
        8 => (file(), file()).prop_map(|(from, to)| (Move, from, to)),
        6 => (dir(), dir()).prop_map(|(from, to)| (Move, from, to)),
        1 => special.prop_map(|etype| (etype, "", "")),
    ]
}

/// Paths that changed and have not been processed since.
#[derive(Default)]
struct PendingEvent {
    pending: Vec<String>,
    /// With the number of the batch.
    running: HashMap<DelayId, (u32, Vec<String>)>,
    batches: u32,
}

impl PendingEvent {
    fn push(&mut self, queue: &mut Queue, event: Event) {
        push(queue, event);
        let paths = [event.1, event.2]
            .into_iter()
            .filter(|path| !path.is_empty());
        self.pending.extend(paths.map(String::from));
    }

    fn start(&mut self, queue: &mut Queue, answers: u32) {
        let mut bits = answers;
        let ids = queue.take(|_| {
            bits = bits.rotate_left(1);
            if bits & 3 == 0 {
                Take::Skip
            } else {
                Take::Take
            }
        });
        queue.activate(&ids);
        self.batches += 1;
        for id in ids {
            let (path, path2) = queue.get(id).map(|own| own.paths()).unwrap_or_default();
            let is_it = |owed: &mut String| {
                owed.as_bytes() == path || Some(owed.as_bytes()) == path2.as_deref()
            };
            let mine = self.pending.extract_if(.., is_it).collect();
            self.running.insert(id, (self.batches, mine));
        }
    }

    /// A failure applies to the rest of its batch.
    fn end(&mut self, queue: &mut Queue, id: DelayId, ok: bool) {
        let Some((batch, _)) = self.running.get(&id) else {
            return;
        };
        let mut ends = vec![id];
        if !ok {
            let rest = |(other, (own, _)): (&DelayId, &(u32, _))| {
                (own == batch && other.serial() > id.serial()).then_some(*other)
            };
            ends.extend(self.running.iter().filter_map(rest));
        }
        for id in ends {
            let (_, mine) = self.running.remove(&id).unwrap_or_default();
            if ok {
                assert!(queue.finish(id));
            } else {
                assert!(queue.retry(id, 0));
                self.pending.extend(mine);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(Event),
    Start(u32),
    End(usize, bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => any_event().prop_map(Step::Push),
        2 => any::<u32>().prop_map(Step::Start),
        3 => (0..9usize, any::<bool>()).prop_map(|(n, ok)| Step::End(n, ok)),
    ]
}

fn nothing_is_lost(policy: Policy, steps: &[Step]) {
    let mut queue = Queue::new(policy);
    let mut owed = PendingEvent::default();
    for step in steps {
        match *step {
            Step::Push(event) => owed.push(&mut queue, event),
            Step::Start(answers) => owed.start(&mut queue, answers),
            Step::End(n, ok) => {
                let mut running: Vec<_> = owed.running.keys().copied().collect();
                running.sort_by_key(|id| id.serial());
                if let Some(id) = running.get(n % running.len().max(1)) {
                    owed.end(&mut queue, *id, ok);
                }
            }
        }
        if policy == Coalesce {
            no_path_piles_up(&queue);
        }
    }
    while !queue.is_empty() {
        owed.start(&mut queue, u32::MAX);
        let running: Vec<_> = owed.running.keys().copied().collect();
        assert!(!running.is_empty(), "stuck: {}", show(&queue));
        for id in running {
            owed.end(&mut queue, id, true);
        }
    }
    assert!(owed.pending.is_empty(), "lost: {:?}", owed.pending);
}

/// Asserts that each path has at most one active and one waiting delay besides Moves.
fn no_path_piles_up(queue: &Queue) {
    let mut seen = HashMap::new();
    for delay in queue.iter().filter(|delay| delay.etype() != Move) {
        if matches!(delay.etype(), Init | Blanket) {
            continue;
        }
        let active = delay.status() == Status::Active;
        let before = seen.insert((delay.paths().0, active), delay.id());
        assert!(before.is_none(), "{}", show(queue));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn coalescing_loses_nothing(steps in prop::collection::vec(any_step(), 1..200)) {
        nothing_is_lost(Coalesce, &steps);
    }

    #[test]
    fn per_event_loses_nothing(steps in prop::collection::vec(any_step(), 1..200)) {
        nothing_is_lost(PerEvent, &steps);
    }
}
