//! A naive queue for tests: a list that is searched from its end and compares paths as strings.

use super::combine::combine;
use super::*;

type Path = Vec<u8>;

#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub serial: u64,
    pub etype: Etype,
    pub status: Status,
    pub due: Time,
    pub path: Path,
    pub path2: Option<Path>,
    pub blocker: Option<u64>,
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
            policy == Policy::Coalesce
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

pub struct Model {
    policy: Policy,
    pub items: Vec<Item>,
    serial: u64,
}

impl Model {
    pub fn new(policy: Policy) -> Self {
        Model {
            policy,
            items: Vec::new(),
            serial: 0,
        }
    }

    pub fn push(&mut self, etype: Etype, path: &[u8], path2: Option<&[u8]>, due: Time) {
        match (etype, path2) {
            (Etype::Init | Etype::Blanket, _) => {
                let is_it = |item: &&Item| {
                    item.etype == Etype::Move
                        && item.status != Status::Active
                        && self.policy == Policy::Coalesce
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

    fn decide(&self, newer: Etype, path: &[u8]) -> Option<(usize, Combination)> {
        let verdict = |(at, item): (usize, &Item)| {
            let relation = item.relation(self.policy, newer, path)?;
            let older = (item.etype, item.status);
            match combine(self.policy, older, (newer, path.ends_with(b"/")), relation) {
                Combination::Unrelated => None,
                verdict => Some((at, verdict)),
            }
        };
        let open = |(_, item): &(usize, &Item)| {
            item.path == path
                && item.status != Status::Active
                && item.etype != Etype::Move
                && !item.etype.is_special()
        };
        if self.policy == Policy::Coalesce && newer != Etype::Move {
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
        let renewed = self.policy == Policy::Coalesce && made && self.items.iter().any(deleting);
        let etype = if renewed { Etype::Delete } else { etype };
        match self.decide(etype, path) {
            None => self.append(etype, path, None, due, None),
            Some((_, Combination::Absorb)) => {}
            Some((at, Combination::Replace)) => self.items[at].etype = etype,
            Some((at, verdict)) => {
                let on = self.items[at].serial;
                self.append(etype, path, None, due, Some(on));
                if verdict == Combination::ToDelete {
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
            Some((_, Combination::Split)) => {
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

    pub fn take(&self, mut test: impl FnMut(&Item) -> Take) -> Vec<u64> {
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

    pub fn first_ready(&self, now: Time, max_delays: usize) -> Option<Result<u64, Time>> {
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

    pub fn at(&self, serial: u64) -> usize {
        let is_it = |item: &Item| item.serial == serial;
        self.items.iter().position(is_it).unwrap()
    }

    pub fn remove(&mut self, serial: u64) {
        self.items.retain(|item| item.serial != serial);
        for at in 0..self.items.len() {
            if self.items[at].blocker == Some(serial) {
                self.items[at].blocker = None;
                self.block_on_path(at);
                if self.items[at].status == Status::Block {
                    self.rest(at);
                }
            }
        }
    }

    pub fn retry(&mut self, serial: u64, due: Time) {
        let at = self.at(serial);
        self.items[at].due = due;
        self.rest(at);
        let whole = |item: &Item| matches!(item.etype, Etype::Init | Etype::Blanket);
        let moved = self.items[at].etype == Etype::Move && self.policy == Policy::Coalesce;
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

    fn block_on_path(&mut self, at: usize) {
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
            let next = self.policy == Policy::Coalesce || other.blocker == Some(item.serial);
            if !next || other.status == Status::Active {
                return;
            }
            let dir = item.path.ends_with(b"/");
            let (older, newest) = ((item.etype, item.status), (other.etype, dir));
            match combine(self.policy, older, newest, Relation::Same) {
                Combination::Absorb => {}
                Combination::Replace => self.items[at].etype = other.etype,
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
