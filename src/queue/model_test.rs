//! Tests of the queue against its naive model: after each step both hold the same.

use std::collections::HashMap;

use proptest::prelude::*;

use super::model::{Item, Model};
use super::nodes::NodeId;
use super::path_index::{FULL_TOP, TOP};
use super::*;

/// Returns the queue's contents in the form of the model.
fn state(queue: &Queue) -> Vec<Item> {
    let item = |delay: Delay<'_>| {
        let (path, path2) = delay.paths();
        Item {
            serial: delay.id().serial,
            etype: delay.etype(),
            status: delay.status(),
            due: delay.due(),
            path,
            path2,
            blocker: delay.blocker().map(DelayId::serial),
        }
    };
    queue.iter().map(item).collect()
}

/// Checks that the trie contains exactly the paths of the delays and the newest delay of each
/// subtree, that no waiting delay lies before the cursor, and that each delay with an older one of
/// its path has a blocker.
fn check_index(queue: &Queue) {
    let mut newest: HashMap<NodeId, u64> = HashMap::new();
    for delay in queue.iter() {
        for end in queue.entries[delay.slot].ends {
            let mut path = Vec::new();
            let Some(node) = end.node else { continue };
            queue.index.path(node, &mut path);
            let top = match delay.etype() {
                Etype::Full => FULL_TOP,
                _ => TOP,
            };
            let mut way = vec![top];
            for name in path_index::components(&path) {
                way.push(queue.index.child(way[way.len() - 1], name).unwrap());
            }
            assert_eq!(way.last(), Some(&node));
            for node in way {
                let serial = newest.entry(node).or_default();
                *serial = delay.id().serial.max(*serial);
            }
        }
    }
    for (node, serial) in &newest {
        assert_eq!(queue.index.nodes[*node].newest, *serial);
    }
    let tops = [TOP, FULL_TOP]
        .iter()
        .filter(|top| newest.contains_key(top));
    assert_eq!(queue.index.len(), newest.len() - tops.count());

    for delay in queue.iter().filter(|delay| !delay.etype().is_special()) {
        let older = queue.entries[delay.slot].older().next();
        assert!(older.is_none() || delay.blocker().is_some());
    }

    let first = queue.iter().find(|delay| delay.status() == Status::Wait);
    if let Some(first) = first {
        let from = queue.waiting_from.unwrap();
        assert!(queue.entries[from].serial <= first.id().serial);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(Etype, &'static str, &'static str),
    /// Each pair of bits selects an answer for `take`.
    Take(u64),
    Finish(usize),
    Retry(usize),
    Discard(usize),
}

const FILES: [&str; 9] = [
    "/a", "/b", "/c", "/a/x", "/a/y", "/a/x/f", "/a/x/g", "/b/x", "/ab",
];
const DIRS: [&str; 6] = ["/", "/a/", "/b/", "/a/x/", "/a/y/", "/b/x/"];

fn any_path() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => prop::sample::select(&FILES[..]), 2 => prop::sample::select(&DIRS[..])]
}

fn any_step() -> impl Strategy<Value = Step> {
    let plain = prop::sample::select(vec![
        Etype::Create,
        Etype::Modify,
        Etype::Attrib,
        Etype::Delete,
    ]);
    let special = prop::sample::select(vec![Etype::Init, Etype::Blanket, Etype::Full]);
    let files = (
        prop::sample::select(&FILES[..]),
        prop::sample::select(&FILES[..]),
    );
    let dirs = (
        prop::sample::select(&DIRS[..]),
        prop::sample::select(&DIRS[..]),
    );
    prop_oneof![
        20 => (plain, any_path()).prop_map(|(etype, path)| Step::Push(etype, path, "")),
        5 => files.prop_map(|(from, to)| Step::Push(Etype::Move, from, to)),
        3 => dirs.prop_map(|(from, to)| Step::Push(Etype::Move, from, to)),
        1 => (special, any_path()).prop_map(|(etype, path)| Step::Push(etype, path, "")),
        4 => any::<u64>().prop_map(Step::Take),
        6 => (0..20usize).prop_map(Step::Finish),
        3 => (0..20usize).prop_map(Step::Retry),
        2 => (0..20usize).prop_map(Step::Discard),
    ]
}

/// Returns the n-th delay of this status, modulo their number.
fn nth(queue: &Queue, status: Status, n: usize) -> Option<DelayId> {
    let ids: Vec<_> = queue
        .iter()
        .filter(|delay| delay.status() == status)
        .map(|delay| delay.id())
        .collect();
    ids.get(n % ids.len().max(1)).copied()
}

fn run(queue: &mut Queue, model: &mut Model, step: &Step, now: Time) {
    match *step {
        Step::Push(etype, path, path2) => {
            let path2 = (!path2.is_empty()).then_some(path2.as_bytes());
            queue.push(etype, path.as_bytes(), path2, now + 10);
            model.push(etype, path.as_bytes(), path2, now + 10);
        }
        Step::Take(answers) => {
            let answer = |serial: u64| match answers >> (serial % 32 * 2) & 3 {
                0 if serial.is_multiple_of(5) => Take::Stop,
                0 => Take::Skip,
                _ => Take::Take,
            };
            let taken = queue.take(|delay| answer(delay.id().serial));
            let serials: Vec<_> = taken.iter().map(|id| id.serial).collect();
            assert_eq!(serials, model.take(|item| answer(item.serial)));
            queue.activate(&taken);
            for serial in serials {
                let at = model.at(serial);
                model.items[at].status = Status::Active;
            }
        }
        Step::Finish(n) => {
            if let Some(id) = nth(queue, Status::Active, n) {
                assert!(!queue.discard(id));
                assert!(queue.finish(id));
                assert!(!queue.finish(id) && queue.get(id).is_none());
                model.remove(id.serial);
            }
        }
        Step::Retry(n) => {
            if let Some(id) = nth(queue, Status::Active, n) {
                assert!(queue.retry(id, now + 50));
                model.retry(id.serial, now + 50);
            }
        }
        Step::Discard(n) => {
            if let Some(id) = nth(queue, Status::Wait, n) {
                assert!(!queue.finish(id) && !queue.retry(id, 0));
                assert!(queue.discard(id));
                model.remove(id.serial);
            }
        }
    }
}

fn agree(policy: Policy, steps: &[Step]) {
    let (mut queue, mut model) = (Queue::new(policy), Model::new(policy));
    for (now, step) in steps.iter().enumerate() {
        let now = now as Time;
        run(&mut queue, &mut model, step, now);
        assert_eq!(state(&queue), model.items, "after {step:?}");
        assert_eq!(queue.len(), model.items.len());
        check_index(&queue);
        let ready = match queue.first_ready(now, 30) {
            Ready::Now(id) => Some(Ok(id.serial)),
            Ready::At(time) => Some(Err(time)),
            Ready::Nothing => None,
        };
        assert_eq!(ready, model.first_ready(now, 30));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn coalescing_agrees_with_the_model(steps in prop::collection::vec(any_step(), 1..120)) {
        agree(Policy::Coalesce, &steps);
    }

    #[test]
    fn per_event_agrees_with_the_model(steps in prop::collection::vec(any_step(), 1..120)) {
        agree(Policy::PerEvent, &steps);
    }
}

#[test]
fn a_full_event_behind_one_that_is_not_due_runs() {
    let mut queue = Queue::new(Policy::Coalesce);
    queue.push(Etype::Modify, b"/f", None, 900);
    let Pushed::Placed(Placed::Appended { id }) = queue.push(Etype::Full, b"/", None, 10) else {
        panic!("a Full waits for nothing");
    };
    assert_eq!(queue.first_ready(5, 30), Ready::At(10));
    assert_eq!(queue.first_ready(10, 30), Ready::Now(id));
    queue.activate(&[id]);
    assert_eq!(queue.first_ready(10, 30), Ready::At(900));
    assert!(queue.finish(id));
    assert_eq!(queue.specials().count(), 0);
}
