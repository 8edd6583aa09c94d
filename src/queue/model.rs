//! The queue against a naive model: a list that is searched from its end, with paths
//! compared as strings.

use std::collections::HashMap;

use proptest::prelude::*;

use super::combine::combine;
use super::path_index::{APART, NodeId, TOP};
use super::*;

type Path = Vec<u8>;

#[derive(Clone, Debug, PartialEq)]
struct Item {
    serial: u64,
    etype: Etype,
    status: Status,
    due: Time,
    path: Path,
    path2: Option<Path>,
    blocker: Option<u64>,
}

impl Item {
    fn is_at(&self, path: &[u8]) -> bool {
        self.path == path || self.path2.as_deref() == Some(path)
    }

    fn shares_path(&self, other: &Item) -> bool {
        let paths = [Some(&other.path), other.path2.as_ref()];
        !self.etype.is_special() && paths.into_iter().flatten().any(|path| self.is_at(path))
    }

    fn relation(&self, policy: Policy, newer: Etype, path: &[u8]) -> Option<Relation> {
        let namesake = |older: &[u8]| {
            policy == Policy::Settle
                && (newer == Etype::Move || self.etype == Etype::Move)
                && (older.strip_suffix(b"/") == Some(path)
                    || path.strip_suffix(b"/") == Some(older))
        };
        let paths = || {
            [Some(&self.path), self.path2.as_ref()]
                .into_iter()
                .flatten()
        };
        match () {
            _ if self.etype.is_special() => Some(Relation::Within),
            _ if self.path2.as_deref() == Some(path) => Some(Relation::Destination),
            _ if self.path == path => Some(Relation::Same),
            _ if paths().any(|older| contains(older, path)) => Some(Relation::Within),
            _ if paths().any(|older| contains(path, older)) => Some(Relation::Around),
            _ if paths().any(|older| namesake(older)) => Some(Relation::Namesake),
            _ => None,
        }
    }
}

fn contains(dir: &[u8], path: &[u8]) -> bool {
    dir.ends_with(b"/") && path.starts_with(dir) && path != dir
}

struct Model {
    policy: Policy,
    items: Vec<Item>,
    serial: u64,
}

impl Model {
    fn new(policy: Policy) -> Self {
        Model {
            policy,
            items: Vec::new(),
            serial: 0,
        }
    }

    fn push(&mut self, etype: Etype, path: &[u8], path2: Option<&[u8]>, due: Time) {
        match (etype, path2) {
            (Etype::Init | Etype::Blanket, _) => {
                let is_it = |item: &&Item| {
                    item.etype == Etype::Move
                        && item.status != Status::Active
                        && self.policy == Policy::Settle
                };
                let moves: Vec<_> = self.items.iter().filter(is_it).cloned().collect();
                moves.iter().for_each(|item| self.split(item.serial, due));
                self.append(etype, b"", None, due, None);
            }
            (Etype::Full, _) => self.append(etype, path, None, due, None),
            (Etype::Move, Some(to)) if to != path => self.push_move(path, to, due),
            (Etype::Move, _) => self.push_plain(Etype::Modify, path, due),
            _ => self.push_plain(etype, path, due),
        }
    }

    fn decide(&self, newer: Etype, path: &[u8]) -> Option<(usize, Verdict)> {
        let verdict = |(at, item): (usize, &Item)| {
            let relation = item.relation(self.policy, newer, path)?;
            let older = (item.etype, item.status);
            match combine(self.policy, older, (newer, path.ends_with(b"/")), relation) {
                Verdict::Unrelated => None,
                verdict => Some((at, verdict)),
            }
        };
        let open = |(_, item): &(usize, &Item)| {
            item.path == path
                && item.status != Status::Active
                && item.etype != Etype::Move
                && !item.etype.is_special()
        };
        if self.policy == Policy::Settle && newer != Etype::Move {
            let found = self.items.iter().enumerate().rfind(open);
            if let Some(found) = found {
                return verdict(found);
            }
        }
        let mut items = self.items.iter().enumerate().rev();
        items.find_map(verdict)
    }

    fn split(&mut self, serial: u64, due: Time) {
        let at = self.at(serial);
        let to = self.items[at].path2.take().unwrap();
        self.items[at].etype = Etype::Delete;
        self.fold_newer(at);
        self.push_plain(Etype::Create, &to, due);
    }

    fn push_plain(&mut self, etype: Etype, path: &[u8], due: Time) {
        let deleting = |item: &Item| {
            item.etype == Etype::Delete && item.status == Status::Active && item.path == path
        };
        let made = etype == Etype::Create && path.ends_with(b"/");
        let renewed = self.policy == Policy::Settle && made && self.items.iter().any(deleting);
        let etype = if renewed { Etype::Delete } else { etype };
        match self.decide(etype, path) {
            None => self.append(etype, path, None, due, None),
            Some((_, Verdict::Absorb)) => {}
            Some((at, Verdict::Replace)) => self.items[at].etype = etype,
            Some((at, verdict)) => {
                let on = self.items[at].serial;
                self.append(etype, path, None, due, Some(on));
                if verdict == Verdict::ToDelete {
                    self.items[at].etype = Etype::Delete;
                    self.items[at].path2 = None;
                    self.fold_newer(at);
                }
            }
        }
    }

    fn push_move(&mut self, from: &[u8], to: &[u8], due: Time) {
        let decided = [from, to].map(|path| self.decide(Etype::Move, path));
        match decided.into_iter().flatten().max_by_key(|(at, _)| *at) {
            Some((_, Verdict::Split)) => {
                self.push_plain(Etype::Delete, from, due);
                self.push_plain(Etype::Create, to, due);
            }
            decided => {
                let on = decided.map(|(at, _)| self.items[at].serial);
                self.append(Etype::Move, from, Some(to), due, on);
            }
        }
    }

    fn append(
        &mut self,
        etype: Etype,
        path: &[u8],
        path2: Option<&[u8]>,
        due: Time,
        blocker: Option<u64>,
    ) {
        self.serial += 1;
        self.items.push(Item {
            serial: self.serial,
            etype,
            status: match blocker {
                Some(_) => Status::Block,
                None => Status::Wait,
            },
            due,
            path: path.to_vec(),
            path2: path2.map(<[u8]>::to_vec),
            blocker,
        });
    }

    fn take(&self, mut test: impl FnMut(&Item) -> Take) -> Vec<u64> {
        let mut taken = Vec::new();
        for (at, item) in self.items.iter().enumerate() {
            let older = self.items[..at].iter().filter(|old| old.shares_path(item));
            let free = |serial: &u64| taken.contains(serial);
            let open = match item.status {
                Status::Wait => true,
                Status::Active => false,
                Status::Block => {
                    item.blocker.iter().all(free) && older.map(|old| &old.serial).all(free)
                }
            };
            match open.then(|| test(item)) {
                Some(Take::Take) => taken.push(item.serial),
                Some(Take::Stop) => break,
                _ => {}
            }
        }
        taken
    }

    fn first_ready(&self, now: Time, max_delays: usize) -> Option<Result<u64, Time>> {
        let waiting = || self.items.iter().filter(|item| item.status == Status::Wait);
        let first = waiting().next()?;
        if first.due <= now || self.items.len() >= max_delays {
            return Some(Ok(first.serial));
        }
        let special = || waiting().filter(|item| item.etype.is_special());
        match special().find(|item| item.due <= now) {
            Some(item) => Some(Ok(item.serial)),
            None => Some(Err(special()
                .map(|item| item.due)
                .fold(first.due, Time::min))),
        }
    }

    fn at(&self, serial: u64) -> usize {
        let is_it = |item: &Item| item.serial == serial;
        self.items.iter().position(is_it).unwrap()
    }

    fn remove(&mut self, serial: u64) {
        self.items.retain(|item| item.serial != serial);
        for at in 0..self.items.len() {
            if self.items[at].blocker == Some(serial) {
                self.items[at].blocker = None;
                self.stack_on_path(at);
                if self.items[at].status == Status::Block {
                    self.rest(at);
                }
            }
        }
    }

    fn retry(&mut self, serial: u64, due: Time) {
        let at = self.at(serial);
        self.items[at].due = due;
        self.stack_on_path(at);
        self.rest(at);
        let whole = |item: &Item| matches!(item.etype, Etype::Init | Etype::Blanket);
        let moved = self.items[at].etype == Etype::Move && self.policy == Policy::Settle;
        if moved && self.items.iter().any(whole) {
            self.split(serial, due);
        }
        self.fold_newer(at);
        if self.items[at].etype.is_special() {
            return;
        }
        let path = &self.items[at].path;
        let mut older = self.items[..at].iter();
        let is_older = |old: &Item| old.is_at(path) && !old.etype.is_special();
        if let Some(older) = older.rposition(is_older) {
            self.fold_newer(older);
        }
    }

    fn stack_on_path(&mut self, at: usize) {
        let item = &self.items[at];
        if item.blocker.is_none() && !item.etype.is_special() {
            let older = self.items[..at].iter().rfind(|old| old.shares_path(item));
            self.items[at].blocker = older.map(|old| old.serial);
        }
    }

    fn rest(&mut self, at: usize) {
        self.items[at].status = match self.items[at].blocker {
            Some(_) => Status::Block,
            None => Status::Wait,
        };
    }

    fn fold_newer(&mut self, at: usize) {
        loop {
            let item = self.items[at].clone();
            let mut newer = self.items[at + 1..].iter();
            let Some(other) = newer
                .find(|new| new.is_at(&item.path) && !new.etype.is_special())
                .cloned()
            else {
                return;
            };
            let next = self.policy == Policy::Settle || other.blocker == Some(item.serial);
            if !next || other.status == Status::Active {
                return;
            }
            let dir = item.path.ends_with(b"/");
            let (older, newest) = ((item.etype, item.status), (other.etype, dir));
            match combine(self.policy, older, newest, Relation::Same) {
                Verdict::Absorb => {}
                Verdict::Replace => self.items[at].etype = other.etype,
                _ => return,
            }
            for blocked in &mut self.items {
                if blocked.blocker == Some(other.serial) {
                    blocked.blocker = Some(item.serial);
                }
            }
            self.remove(other.serial);
        }
    }
}

/// What the queue holds, as the model would.
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

/// The trie knows exactly the paths of the delays and the newest delay of each subtree,
/// and no waiting delay hides before the cursor.
fn check_index(queue: &Queue) {
    let mut newest: HashMap<NodeId, u64> = HashMap::new();
    for delay in queue.iter() {
        for end in queue.entries[delay.slot].ends {
            let mut path = Vec::new();
            let Some(node) = end.node else { continue };
            queue.index.path(node, &mut path);
            let top = match delay.etype() {
                Etype::Full => APART,
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
    let tops = [TOP, APART].iter().filter(|top| newest.contains_key(top));
    assert_eq!(queue.index.len(), newest.len() - tops.count());

    let first = queue.iter().find(|delay| delay.status() == Status::Wait);
    if let Some(first) = first {
        let from = queue.waiting_from.unwrap();
        assert!(queue.entries[from].serial <= first.id().serial);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(Etype, &'static str, &'static str),
    /// Each bit pair says what `take` answers.
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

/// The n-th delay of this status, counted round.
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
    fn settle_agrees_with_the_model(steps in prop::collection::vec(any_step(), 1..120)) {
        agree(Policy::Settle, &steps);
    }

    #[test]
    fn deliver_agrees_with_the_model(steps in prop::collection::vec(any_step(), 1..120)) {
        agree(Policy::Deliver, &steps);
    }
}

#[test]
fn a_full_event_behind_one_that_is_not_due_runs() {
    let mut queue = Queue::new(Policy::Settle);
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
