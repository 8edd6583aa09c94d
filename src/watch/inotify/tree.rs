//! The watched directories: name, parent, children and descriptor of each.
//!
//! Two hash tables contain only indices of the [`arena`](super::arena): descriptor → node and
//! (parent, name) → node. A directory costs 28 bytes, its name and about 13 bytes of table;
//! renaming one with everything below it changes one node.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use super::arena::{Arena, ArenaSlot, NONE};
use crate::paths;

pub use super::arena::{DirNode, Flags};

/// A node that [`Tree::remove`] removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    pub node: DirNode,
    pub wd: i32,
    pub flags: Flags,
    /// True if no other node has this descriptor.
    pub last: bool,
}

impl Removed {
    /// Returns true if any of these flags was set.
    pub fn had(&self, flags: Flags) -> bool {
        self.flags.any(flags)
    }
}

/// The tree of watched directories.
pub struct Tree {
    arena: Arena,
    descriptors: HashTable<u32>,
    /// Further nodes of a descriptor: one directory mounted at several paths.
    aliases: HashMap<i32, Vec<DirNode>>,
    children: HashTable<u32>,
    roots: Vec<DirNode>,
    hasher: DefaultHashBuilder,
}

impl Tree {
    pub fn new() -> Tree {
        Tree {
            arena: Arena::new(),
            descriptors: HashTable::new(),
            aliases: HashMap::new(),
            children: HashTable::new(),
            roots: Vec::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Returns the number of nodes.
    pub fn len(&self) -> usize {
        self.arena.len()
    }

    /// Returns the bytes of memory in use.
    pub fn bytes(&self) -> usize {
        self.arena.bytes() + self.descriptors.allocation_size() + self.children.allocation_size()
    }

    /// Releases unused capacity.
    pub fn shrink(&mut self) {
        self.arena.shrink();
    }

    pub fn roots(&self) -> &[DirNode] {
        &self.roots
    }

    /// Returns true if this is still the node that had this descriptor.
    pub fn alive(&self, node: DirNode, wd: i32) -> bool {
        let slot = self.arena.get(node);
        slot.is_some_and(|slot| slot.wd == wd && wd != 0)
    }

    pub fn wd(&self, node: DirNode) -> i32 {
        self.slot(node).wd
    }

    pub fn name(&self, node: DirNode) -> &[u8] {
        self.arena.name(node)
    }

    pub fn parent(&self, node: DirNode) -> Option<DirNode> {
        some(self.slot(node).parent)
    }

    pub fn is_root(&self, node: DirNode) -> bool {
        self.slot(node).parent == NONE
    }

    /// Returns true if any of these flags is set.
    pub fn has(&self, node: DirNode, flags: Flags) -> bool {
        self.slot(node).flags.any(flags)
    }

    pub fn set(&mut self, node: DirNode, flags: Flags) {
        let slot = self.arena.slot_mut(node);
        slot.flags = slot.flags | flags;
    }

    pub fn clear(&mut self, node: DirNode, flags: Flags) {
        let slot = self.arena.slot_mut(node);
        slot.flags = slot.flags.without(flags);
    }

    /// Returns true if a node has this descriptor.
    pub fn has_watch(&self, wd: i32) -> bool {
        self.first(wd).is_some()
    }

    /// Returns the node with this descriptor, or one of them.
    pub fn first(&self, wd: i32) -> Option<DirNode> {
        let hash = self.hasher.hash_one(wd);
        let found = self
            .descriptors
            .find(hash, |&index| self.slot(DirNode(index)).wd == wd);
        found.copied().map(DirNode)
    }

    /// Returns all nodes with this descriptor: one, except for bind mounts.
    pub fn nodes_of(&self, wd: i32) -> impl Iterator<Item = DirNode> + use<> {
        let more = if self.aliases.is_empty() {
            Vec::new()
        } else {
            self.aliases.get(&wd).cloned().unwrap_or_default()
        };
        self.first(wd).into_iter().chain(more)
    }

    pub fn child(&self, parent: DirNode, name: &[u8]) -> Option<DirNode> {
        let hash = self.hasher.hash_one((parent.0, name));
        let found = self.children.find(hash, |&index| {
            self.slot(DirNode(index)).parent == parent.0 && self.name(DirNode(index)) == name
        });
        found.copied().map(DirNode)
    }

    /// Returns the direct children.
    pub fn children(&self, parent: DirNode) -> impl Iterator<Item = DirNode> {
        let first = some(self.slot(parent).first);
        std::iter::successors(first, |&node| some(self.slot(node).next))
    }

    /// Returns true if `node` is `ancestor` or below it.
    pub fn within(&self, node: DirNode, ancestor: DirNode) -> bool {
        let mut up = std::iter::successors(Some(node), |&node| self.parent(node));
        up.any(|node| node == ancestor)
    }

    /// Returns the node after this one, parents before children, among `top` and everything below
    /// it.
    pub fn next(&self, node: DirNode, top: DirNode) -> Option<DirNode> {
        some(self.slot(node).first).or_else(|| self.next_beside(node, top))
    }

    /// Returns the next node like [`Tree::next`], but skips everything below `node`.
    pub fn next_beside(&self, mut node: DirNode, top: DirNode) -> Option<DirNode> {
        loop {
            if node == top {
                return None;
            }
            if let Some(next) = some(self.slot(node).next) {
                return Some(next);
            }
            node = self.parent(node)?;
        }
    }

    /// Replaces the contents of `buffer` by the absolute path, which ends with `/`.
    pub fn path(&self, node: DirNode, buffer: &mut Vec<u8>) {
        let up = || std::iter::successors(Some(node), |&node| self.parent(node));
        // A root's name ends with the slash already.
        let part = |node: DirNode| self.name(node).len() + usize::from(!self.is_root(node));
        let mut end = up().map(part).sum();
        buffer.clear();
        buffer.resize(end, b'/');
        for node in up() {
            let start = end - part(node);
            let name = self.name(node);
            buffer[start..start + name.len()].copy_from_slice(name);
            end = start;
        }
    }

    /// Returns the node at an absolute path that ends with `/`.
    pub fn find(&self, path: &[u8]) -> Option<DirNode> {
        self.roots.iter().find_map(|&root| {
            let below = path.strip_prefix(self.name(root))?;
            paths::names(below).try_fold(root, |node, name| self.child(node, name))
        })
    }

    pub fn insert_root(&mut self, path: &[u8], wd: i32) -> DirNode {
        let node = self.allocate(path, wd);
        self.roots.push(node);
        node
    }

    /// Adds a directory. No child of that name may exist.
    pub fn insert(&mut self, parent: DirNode, name: &[u8], wd: i32) -> DirNode {
        let node = self.allocate(name, wd);
        self.link(node, parent);
        node
    }

    /// Moves a node, root or not, with everything below it to a name that is free and not below
    /// itself.
    pub fn relocate(&mut self, node: DirNode, parent: DirNode, name: &[u8]) {
        self.unlink(node);
        // The node is not linked now, as the table of children is keyed by name.
        self.arena.rename(node, name);
        self.link(node, parent);
    }

    /// Makes a node with everything below it a separate tree.
    pub fn make_root(&mut self, node: DirNode, path: &[u8]) {
        self.unlink(node);
        // The node is not linked now, as the table of children is keyed by name.
        self.arena.rename(node, path);
        self.roots.push(node);
    }

    /// Removes a node and everything below it; returns the state of each.
    pub fn remove(&mut self, top: DirNode) -> Vec<Removed> {
        let mut order = vec![top];
        let mut node = top;
        while let Some(next) = self.next(node, top) {
            order.push(next);
            node = next;
        }
        // Children first, so that every link remains valid.
        let removed = order.into_iter().rev().map(|node| self.release(node));
        removed.collect()
    }

    fn slot(&self, node: DirNode) -> &ArenaSlot {
        self.arena.slot(node)
    }

    fn allocate(&mut self, name: &[u8], wd: i32) -> DirNode {
        let node = self.arena.allocate(name, wd);
        if self.has_watch(wd) {
            self.aliases.entry(wd).or_default().push(node);
        } else {
            self.enter_descriptor(node, wd);
        }
        node
    }

    fn enter_descriptor(&mut self, node: DirNode, wd: i32) {
        let Tree { arena, hasher, .. } = self;
        let hash = |&index: &u32| hasher.hash_one(arena.slot(DirNode(index)).wd);
        self.descriptors
            .insert_unique(hasher.hash_one(wd), node.0, hash);
    }

    fn link(&mut self, node: DirNode, parent: DirNode) {
        let next = self.slot(parent).first;
        self.arena.slot_mut(parent).first = node.0;
        if let Some(next) = some(next) {
            self.arena.slot_mut(next).prev = node.0;
        }
        let slot = self.arena.slot_mut(node);
        slot.parent = parent.0;
        slot.next = next;
        slot.prev = NONE;
        let Tree { arena, hasher, .. } = self;
        let hash = |&index: &u32| {
            let node = DirNode(index);
            hasher.hash_one((arena.slot(node).parent, arena.name(node)))
        };
        self.children.insert_unique(hash(&node.0), node.0, hash);
    }

    fn unlink(&mut self, node: DirNode) {
        let ArenaSlot {
            parent, next, prev, ..
        } = *self.slot(node);
        let Some(parent) = some(parent) else {
            self.roots.retain(|&root| root != node);
            return;
        };
        let hash = self.hasher.hash_one((parent.0, self.name(node)));
        if let Ok(entry) = self.children.find_entry(hash, |&index| index == node.0) {
            entry.remove();
        }
        match some(prev) {
            Some(prev) => self.arena.slot_mut(prev).next = next,
            None => self.arena.slot_mut(parent).first = next,
        }
        if let Some(next) = some(next) {
            self.arena.slot_mut(next).prev = prev;
        }
        let slot = self.arena.slot_mut(node);
        slot.parent = NONE;
        slot.next = NONE;
        slot.prev = NONE;
    }

    fn release(&mut self, node: DirNode) -> Removed {
        self.unlink(node);
        let ArenaSlot { wd, flags, .. } = *self.slot(node);
        let last = self.forget_descriptor(node, wd);
        self.arena.release(node);
        Removed {
            node,
            wd,
            flags,
            last,
        }
    }

    /// Removes a node from the table of descriptors. Returns true if it was the descriptor's last
    /// node.
    fn forget_descriptor(&mut self, node: DirNode, wd: i32) -> bool {
        let others = self.aliases.get_mut(&wd);
        let heir = others.and_then(
            |others| match others.iter().position(|&other| other == node) {
                Some(at) => {
                    others.swap_remove(at);
                    None
                }
                None => others.pop(),
            },
        );
        if self.aliases.get(&wd).is_some_and(Vec::is_empty) {
            self.aliases.remove(&wd);
        }
        let hash = self.hasher.hash_one(wd);
        let Ok(entry) = self.descriptors.find_entry(hash, |&index| index == node.0) else {
            return false;
        };
        entry.remove();
        if let Some(heir) = heir {
            self.enter_descriptor(heir, wd);
        }
        heir.is_none()
    }
}

fn some(index: u32) -> Option<DirNode> {
    (index != NONE).then_some(DirNode(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(usize, u8),
        Remove(usize),
        Relocate(usize, usize, u8),
        Alias(usize, usize, u8),
        Uproot(usize, u8),
        Shrink,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (any::<usize>(), 0..6u8).prop_map(|(at, name)| Step::Insert(at, name)),
            1 => any::<usize>().prop_map(Step::Remove),
            3 => (any::<usize>(), any::<usize>(), 0..6u8).prop_map(|(a, b, n)| Step::Relocate(a, b, n)),
            1 => (any::<usize>(), any::<usize>(), 0..6u8).prop_map(|(a, b, n)| Step::Alias(a, b, n)),
            1 => (any::<usize>(), 0..9u8).prop_map(|(at, name)| Step::Uproot(at, name)),
            1 => Just(Step::Shrink),
        ]
    }

    /// The model: path → descriptor.
    type Model = BTreeMap<Vec<u8>, i32>;

    fn moved(model: &mut Model, from: &[u8], to: &[u8]) {
        let below: Vec<_> = model
            .keys()
            .filter(|path| path.starts_with(from))
            .cloned()
            .collect();
        for path in below {
            if let Some(wd) = model.remove(&path) {
                model.insert([to, &path[from.len()..]].concat(), wd);
            }
        }
    }

    proptest! {
        #[test]
        fn like_a_map_of_paths(steps in prop::collection::vec(step(), 0..80)) {
            let mut tree = Tree::new();
            let mut model = Model::new();
            let mut wd = 1;
            tree.insert_root(b"/r/", wd);
            model.insert(b"/r/".to_vec(), wd);
            let pick = |model: &Model, at: usize| {
                let paths: Vec<_> = model.keys().cloned().collect();
                paths[at % paths.len()].clone()
            };
            for step in steps {
                match step {
                    Step::Insert(at, name) => {
                        let parent = pick(&model, at);
                        let path = [&parent[..], &[b'a' + name], b"/"].concat();
                        if model.contains_key(&path) { continue; }
                        wd += 1;
                        tree.insert(tree.find(&parent).unwrap(), &[b'a' + name], wd);
                        model.insert(path, wd);
                    }
                    Step::Alias(at, same, name) => {
                        let parent = pick(&model, at);
                        let path = [&parent[..], &[b'a' + name], b"/"].concat();
                        if model.contains_key(&path) { continue; }
                        let wd = model[&pick(&model, same)];
                        tree.insert(tree.find(&parent).unwrap(), &[b'a' + name], wd);
                        model.insert(path, wd);
                    }
                    Step::Remove(at) => {
                        let path = pick(&model, at);
                        if path == b"/r/" { continue; }
                        let gone = tree.remove(tree.find(&path).unwrap());
                        let before = model.len();
                        let removed: Vec<_> = model.iter().filter(|(other, _)| other.starts_with(&path))
                            .map(|(_, &wd)| wd).collect();
                        model.retain(|other, _| !other.starts_with(&path));
                        prop_assert_eq!(gone.len(), before - model.len());
                        for removed in removed {
                            let last = gone.iter().filter(|gone| gone.wd == removed && gone.last).count();
                            prop_assert_eq!(last, usize::from(!model.values().any(|&wd| wd == removed)));
                        }
                    }
                    Step::Relocate(at, to, name) => {
                        let (from, parent) = (pick(&model, at), pick(&model, to));
                        let path = [&parent[..], &[b'a' + name], b"/"].concat();
                        if from == b"/r/" || parent.starts_with(&from) || model.contains_key(&path) { continue; }
                        let (node, parent) = (tree.find(&from).unwrap(), tree.find(&parent).unwrap());
                        prop_assert!(!tree.within(parent, node));
                        tree.relocate(node, parent, &[b'a' + name]);
                        moved(&mut model, &from, &path);
                    }
                    Step::Uproot(at, name) => {
                        let from = pick(&model, at);
                        let path = [b"/s", &[b'0' + name][..], b"/"].concat();
                        if from == b"/r/" || model.contains_key(&path) { continue; }
                        tree.make_root(tree.find(&from).unwrap(), &path);
                        moved(&mut model, &from, &path);
                    }
                    Step::Shrink => tree.shrink(),
                }
                let mut seen = Model::new();
                let mut path = Vec::new();
                for &root in tree.roots() {
                    let mut node = Some(root);
                    while let Some(at) = node {
                        tree.path(at, &mut path);
                        prop_assert_eq!(tree.find(&path), Some(at));
                        prop_assert!(tree.nodes_of(tree.wd(at)).any(|place| place == at));
                        seen.insert(path.clone(), tree.wd(at));
                        node = tree.next(at, root);
                    }
                }
                prop_assert_eq!(&seen, &model);
                prop_assert_eq!(tree.len(), model.len());
                for &wd in model.values() {
                    let places = model.values().filter(|&&other| other == wd).count();
                    prop_assert_eq!(tree.nodes_of(wd).count(), places);
                }
            }
        }
    }
}
