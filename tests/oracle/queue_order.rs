//! Under Coalesce the target becomes equal to the source for each order of events.
//!
//! A source is changed at random and its events are queued; delays are executed on a target in any
//! permitted order, early, late, or more than once.

use std::collections::{BTreeMap, VecDeque};

use lsyncd::queue::{Delay, DelayId, Etype, Policy, Pushed, Queue, Status, Take};
use proptest::prelude::*;

/// A tree by absolute paths without trailing slash; `None` is a directory, a number is the content
/// of a file.
type Tree = BTreeMap<String, Option<u32>>;

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn has_parent(tree: &Tree, name: &str) -> bool {
    matches!(parent(name), "") || tree.get(parent(name)) == Some(&None)
}

fn below(tree: &Tree, name: &str) -> Vec<String> {
    let inside = format!("{name}/");
    tree.keys()
        .filter(|other| other.starts_with(&inside))
        .cloned()
        .collect()
}

fn remove(tree: &mut Tree, name: &str) {
    for other in below(tree, name) {
        tree.remove(&other);
    }
    tree.remove(name);
}

fn rename(tree: &mut Tree, from: &str, to: &str) {
    remove(tree, to);
    for name in below(tree, from).into_iter().chain([from.to_string()]) {
        if let Some(node) = tree.remove(&name) {
            tree.insert(format!("{to}{}", &name[from.len()..]), node);
        }
    }
}

/// A delay, and if it includes all contents of a directory. This depends on the disk when the batch
/// starts, like a list that is written then and read later.
type Chosen = (DelayId, bool);

struct World {
    source: Tree,
    target: Tree,
    queue: Queue,
    /// Batches in queue order, and if they were executed when they started.
    running: Vec<(VecDeque<Chosen>, bool)>,
    writes: u32,
}

#[derive(Clone, Debug)]
enum Step {
    Write(&'static str),
    Mkdir(&'static str),
    Touch(&'static str),
    Remove(&'static str),
    /// Only the top directory causes an event.
    MoveOut(&'static str),
    Rename(&'static str, &'static str),
    Init,
    Start(u32, bool),
    End(usize, bool),
}

impl World {
    fn new() -> Self {
        World {
            source: Tree::new(),
            target: Tree::new(),
            queue: Queue::new(Policy::Coalesce),
            running: Vec::new(),
            writes: 0,
        }
    }

    fn event(&mut self, etype: Etype, name: &str, dir: bool) {
        let path = name.to_string() + if dir { "/" } else { "" };
        self.queue.push(etype, path.as_bytes(), None, 0);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write(name) => self.write(name),
            Step::Mkdir(name) => {
                if !self.source.contains_key(name) && has_parent(&self.source, name) {
                    self.source.insert(name.to_string(), None);
                    self.event(Etype::Create, name, true);
                }
            }
            Step::Touch(name) => {
                if let Some(node) = self.source.get(name) {
                    self.event(Etype::Attrib, name, node.is_none());
                }
            }
            Step::Remove(name) => {
                let inside = below(&self.source, name);
                for name in inside.iter().rev().map(String::as_str).chain([name]) {
                    if let Some(node) = self.source.remove(name) {
                        self.event(Etype::Delete, name, node.is_none());
                    }
                }
            }
            Step::MoveOut(name) => {
                if let Some(node) = self.source.get(name).copied() {
                    remove(&mut self.source, name);
                    self.event(Etype::Delete, name, node.is_none());
                }
            }
            Step::Rename(from, to) => self.rename(from, to),
            Step::Init => {
                self.queue.push(Etype::Init, b"", None, 0);
            }
            Step::Start(answers, early) => self.start(answers, early),
            Step::End(n, ok) => self.end(n, ok),
        }
    }

    fn write(&mut self, name: &str) {
        let old = self.source.get(name).copied();
        if old == Some(None) || !has_parent(&self.source, name) {
            return;
        }
        self.writes += 1;
        self.source.insert(name.to_string(), Some(self.writes));
        if old.is_none() {
            self.event(Etype::Create, name, false);
        }
        self.event(Etype::Modify, name, false);
    }

    fn rename(&mut self, from: &str, to: &str) {
        let Some(node) = self.source.get(from).copied() else {
            return;
        };
        let there = self.source.get(to).copied();
        let fits = match node {
            None => there.is_none(),
            Some(_) => there != Some(None),
        };
        let inside = to.starts_with(&format!("{from}/"));
        if !fits || inside || from == to || !has_parent(&self.source, to) {
            return;
        }
        rename(&mut self.source, from, to);
        let slash = if node.is_none() { "/" } else { "" };
        let (path, path2) = (format!("{from}{slash}"), format!("{to}{slash}"));
        let pushed = self
            .queue
            .push(Etype::Move, path.as_bytes(), Some(path2.as_bytes()), 0);
        if let Pushed::Split { .. } = pushed {
            for name in below(&self.source, to) {
                let dir = self.source[&name].is_none();
                self.event(Etype::Create, &name, dir);
            }
        }
    }

    fn start(&mut self, answers: u32, early: bool) {
        let mut bits = answers;
        // As in a sync, an Init never runs at the same time as a Move.
        let runs = |wanted| {
            let active = |own: Delay<'_>| own.status() == Status::Active && own.etype() == wanted;
            self.queue.iter().any(active)
        };
        let (init, moves) = (runs(Etype::Init), runs(Etype::Move));
        let ids = self.queue.take(|own| {
            bits = bits.rotate_left(1);
            let apart = match own.etype() {
                Etype::Init => moves,
                Etype::Move => init,
                _ => false,
            };
            if apart || bits & 1 == 0 {
                Take::Skip
            } else {
                Take::Take
            }
        });
        self.queue.activate(&ids);
        let batch: VecDeque<Chosen> = ids.iter().map(|id| (*id, self.is_deep(*id))).collect();
        if early {
            batch.iter().for_each(|chosen| self.execute(*chosen));
        }
        if !batch.is_empty() {
            self.running.push((batch, early));
        }
    }

    /// Ends the first delay of a batch. It fails if a Move before it has failed.
    fn end(&mut self, n: usize, ok: bool) {
        if self.running.is_empty() {
            return;
        }
        let n = n % self.running.len();
        let (batch, done) = &mut self.running[n];
        let (Some((id, deep)), done) = (batch.pop_front(), *done) else {
            return;
        };
        if batch.is_empty() {
            self.running.swap_remove(n);
        }
        let blocked = self.hangs_on_a_move(id);
        if !done && !blocked {
            self.execute((id, deep));
        }
        if ok && !blocked {
            assert!(self.queue.finish(id));
        } else {
            assert!(self.queue.retry(id, 0));
        }
    }

    fn hangs_on_a_move(&self, id: DelayId) -> bool {
        let way = |id: &DelayId| self.queue.get(*id)?.blocker();
        let hangs = way(&id).is_some();
        let mut way = std::iter::successors(Some(id), way).filter_map(|id| self.queue.get(id));
        hangs && way.any(|own| own.etype() == Etype::Move)
    }

    fn is_deep(&self, id: DelayId) -> bool {
        let Some(delay) = self.queue.get(id) else {
            return false;
        };
        let (path, _) = delay.paths();
        let name = String::from_utf8_lossy(&path);
        let node = self.source.get(name.trim_end_matches('/'));
        delay.etype() == Etype::Delete && node == Some(&None)
    }

    fn execute(&mut self, (id, deep): Chosen) {
        let Some(delay) = self.queue.get(id) else {
            return;
        };
        let etype = delay.etype();
        let (path, path2) = delay.paths();
        let name = |path: &[u8]| {
            String::from_utf8_lossy(path)
                .trim_end_matches('/')
                .to_string()
        };
        let from = name(&path);
        match path2.as_deref().map(name) {
            Some(to) => self.carry_move(&from, &to),
            None if etype == Etype::Init => self.target = self.source.clone(),
            None => self.send(&from, deep),
        }
    }

    /// `mv` on the target, and if that cannot be done what a transfer would do.
    fn carry_move(&mut self, from: &str, to: &str) {
        let target = &mut self.target;
        let fits = match (target.get(from), target.get(to)) {
            (None, _) => false,
            (Some(None), there) => there.is_none(),
            (Some(Some(_)), there) => there != Some(&None),
        };
        if fits && has_parent(target, to) {
            rename(target, from, to);
        } else {
            self.send(from, true);
            self.send(to, true);
        }
    }

    /// Makes the target's `name` like the source's; if `deep`, with all below.
    fn send(&mut self, name: &str, deep: bool) {
        let Some(node) = self.source.get(name).copied() else {
            return remove(&mut self.target, name);
        };
        let mut above: Vec<_> = name.match_indices('/').map(|(at, _)| &name[..at]).collect();
        above.retain(|name| !name.is_empty());
        for dir in above {
            if self.target.get(dir) != Some(&None) {
                self.target.insert(dir.to_string(), None);
            }
        }
        if deep || node.is_some() {
            remove(&mut self.target, name);
        }
        self.target.insert(name.to_string(), node);
        if deep {
            for name in below(&self.source, name) {
                self.target.insert(name.clone(), self.source[&name]);
            }
        }
    }
}

const NAMES: [&str; 8] = ["/a", "/b", "/c", "/a/x", "/a/y", "/b/x", "/a/x/f", "/b/x/f"];

fn any_step() -> impl Strategy<Value = Step> {
    let name = || prop::sample::select(&NAMES[..]);
    prop_oneof![
        6 => name().prop_map(Step::Write),
        4 => name().prop_map(Step::Mkdir),
        1 => name().prop_map(Step::Touch),
        3 => name().prop_map(Step::Remove),
        1 => name().prop_map(Step::MoveOut),
        8 => (name(), name()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => Just(Step::Init),
        3 => (any::<u32>(), any::<bool>()).prop_map(|(bits, early)| Step::Start(bits, early)),
        4 => (0..9usize, prop::bool::weighted(0.8)).prop_map(|(n, ok)| Step::End(n, ok)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4 * ProptestConfig::default().cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_target_becomes_equal_in_any_order(steps in prop::collection::vec(any_step(), 1..150)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        while !world.queue.is_empty() {
            world.start(u32::MAX, false);
            while !world.running.is_empty() {
                world.end(0, true);
            }
            let active = |status| status == Status::Active;
            assert!(!world.queue.iter().any(|delay| active(delay.status())));
        }
        assert_eq!(world.target, world.source);
    }
}

/// A directory with contents is moved out; while its Delete runs, a new one comes.
#[test]
fn a_directory_renewed_while_its_delete_runs_is_empty() {
    let mut world = World::new();
    let run = |world: &mut World| {
        world.start(u32::MAX, false);
        while !world.running.is_empty() {
            world.end(0, true);
        }
    };
    world.step(&Step::Mkdir("/a"));
    world.step(&Step::Write("/a/y"));
    run(&mut world);
    world.step(&Step::MoveOut("/a"));
    world.start(u32::MAX, false);
    world.step(&Step::Mkdir("/a"));
    world.end(0, true);
    assert_ne!(world.target, world.source);
    run(&mut world);
    assert_eq!(world.target, world.source);
}
