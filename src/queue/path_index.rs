//! The paths of all delays as a trie over path components.
//!
//! A component keeps its slash: `/d/f` is `/`, `d/`, `f`. So a file and a directory of one name are
//! two nodes, and only directories have children. A node exists while a delay is at it or below it,
//! and stores the newest of these; hence the newest delay related to a path is found by visiting
//! the path's components only.
//!
//! The empty path is the top. It contains every path, which fits Init and Blanket, whose path is
//! empty: all later events wait for them. Paths of Full delays are below a second top that is never
//! searched.

use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroU32;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::heap;
use super::nodes::{NodeId, PathNode, Slot};
use super::records::DelayTable;
use super::slab::{Slab, SlabKey};

/// The node of the empty path.
pub(super) const TOP: NodeId = SlabKey::new(NonZeroU32::MIN);

/// The node above the paths of Full delays.
pub(super) const FULL_TOP: NodeId = SlabKey::new(NonZeroU32::MIN.saturating_add(1));

/// The number of unused bytes in `names` below which no compaction is done.
const MIN_GARBAGE: usize = 64 * 1024;

/// A trie of paths; the module describes it.
pub(super) struct PathIndex {
    pub(super) nodes: Slab<PathNode>,
    by_name: HashTable<NodeId>,
    hasher: DefaultHashBuilder,
    names: Vec<u8>,
    /// Bytes of `names` that no node uses.
    garbage: usize,
}

/// Returns the components of a path, each with its slash.
pub(super) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split_inclusive(|byte| *byte == b'/')
}

impl PathIndex {
    pub(super) fn new() -> Self {
        let mut index = PathIndex {
            nodes: Slab::new(),
            by_name: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            names: Vec::new(),
            garbage: 0,
        };
        index.init();
        index
    }

    /// Returns the node of a path if a delay is at it or below it.
    pub(super) fn find(&self, path: &[u8]) -> Option<NodeId> {
        components(path).try_fold(TOP, |node, name| self.child(node, name))
    }

    /// Returns true if paths of this many bytes in all can be added.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        bytes <= self.nodes.room() && self.names.len() + bytes <= u32::MAX as usize
    }

    /// Returns the node of `name` in `dir`.
    pub(super) fn child(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        let is_it = |node: &NodeId| {
            let node = &self.nodes[*node];
            node.parent == Some(dir) && self.name(node) == name
        };
        self.by_name.find(self.hash(dir, name), is_it).copied()
    }

    /// Returns the node of `path`, relative to `dir`, and creates it if necessary. A new node is in
    /// no heap until [`PathIndex::raise`] is called for it.
    pub(super) fn insert(&mut self, dir: NodeId, path: &[u8]) -> NodeId {
        components(path).fold(dir, |dir, name| match self.child(dir, name) {
            Some(node) => node,
            None => self.add(dir, name),
        })
    }

    /// Records a delay at `node` that is newer than all others.
    pub(super) fn raise(&mut self, mut node: NodeId, serial: u64) {
        loop {
            self.nodes[node].newest = serial;
            let Some(dir) = self.nodes[node].parent else {
                return;
            };
            heap::raise(&mut self.nodes, dir, node);
            node = dir;
        }
    }

    /// Records that the newest delay at `node` has left. Nodes without delays at or below them are
    /// removed.
    pub(super) fn lower(&mut self, mut node: NodeId, entries: &DelayTable) {
        loop {
            let newest = self.newest(node, entries);
            if newest == self.nodes[node].newest {
                return;
            }
            self.nodes[node].newest = newest;
            let Some(dir) = self.nodes[node].parent else {
                return;
            };
            if newest == 0 {
                heap::remove(&mut self.nodes, dir, node);
                self.forget(node, dir);
            } else {
                heap::lower(&mut self.nodes, dir, node);
            }
            node = dir;
        }
    }

    /// Returns the newest delay below `node`, not at it.
    pub(super) fn newest_below(&self, node: NodeId, entries: &DelayTable) -> Option<Slot> {
        let mut kid = self.nodes[node].children?;
        let newest = self.nodes[kid].newest;
        loop {
            match self.nodes[kid].own {
                Some(own) if entries[own].serial == newest => return Some(own),
                _ => kid = self.nodes[kid].children?,
            }
        }
    }

    /// Replaces the contents of `into` by the path of `node`.
    pub(super) fn path(&self, node: NodeId, into: &mut Vec<u8>) {
        let way = || {
            std::iter::successors(Some(&self.nodes[node]), |node| {
                node.parent.map(|parent| &self.nodes[parent])
            })
        };
        let mut end = way().map(|node| node.name_len as usize).sum();
        into.clear();
        into.resize(end, 0);
        for node in way() {
            let name = self.name(node);
            into[end - name.len()..end].copy_from_slice(name);
            end -= name.len();
        }
    }

    /// Returns the node of the directory that contains `node`, and the last component of its path.
    pub(super) fn last_component(&self, node: NodeId) -> (Option<NodeId>, &[u8]) {
        let node = &self.nodes[node];
        (node.parent, self.name(node))
    }

    /// Returns the number of nodes.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Returns the number of bytes of all names, with those that no node uses.
    #[cfg(test)]
    pub(super) fn name_bytes(&self) -> usize {
        self.names.len()
    }

    /// Returns true if the path of `node` is that of a directory.
    pub(super) fn is_dir(&self, node: NodeId) -> bool {
        self.name(&self.nodes[node]).ends_with(b"/")
    }

    /// Removes all nodes of an empty queue and keeps memory for at most `keep` of them.
    pub(super) fn reset(&mut self, keep: usize) {
        self.nodes.reset(keep);
        self.by_name.clear();
        self.by_name.shrink_to(keep, |_| 0);
        self.names.clear();
        self.names.shrink_to(MIN_GARBAGE);
        self.garbage = 0;
        self.init();
    }

    /// Creates TOP and FULL_TOP, the first two nodes.
    fn init(&mut self) {
        self.nodes.insert(PathNode::default());
        self.nodes.insert(PathNode::default());
    }

    fn newest(&self, node: NodeId, entries: &DelayTable) -> u64 {
        let node = &self.nodes[node];
        let own = node.own.map_or(0, |own| entries[own].serial);
        own.max(node.children.map_or(0, |kid| self.nodes[kid].newest))
    }

    fn add(&mut self, dir: NodeId, name: &[u8]) -> NodeId {
        let node = self.nodes.insert(PathNode {
            parent: Some(dir),
            name_at: self.names.len() as u32,
            name_len: name.len() as u32,
            ..PathNode::default()
        });
        self.names.extend_from_slice(name);
        let hash = self.hash(dir, name);
        let (nodes, names, hasher) = (&self.nodes, &self.names, &self.hasher);
        self.by_name.insert_unique(hash, node, |other| {
            let other = &nodes[*other];
            hash_of(hasher, other.parent.unwrap_or(TOP), name_of(names, other))
        });
        node
    }

    /// Removes a node without delays and children.
    fn forget(&mut self, node: NodeId, dir: NodeId) {
        let hash = self.hash(dir, self.name(&self.nodes[node]));
        if let Ok(found) = self.by_name.find_entry(hash, |other| *other == node) {
            found.remove();
        }
        self.garbage += self.nodes.remove(node).name_len as usize;
        // Compacts only if unused bytes outnumber the names and pay for a walk over all slots.
        let worth = MIN_GARBAGE
            .max(self.names.len() / 2)
            .max(self.nodes.slots());
        if self.garbage > worth {
            self.collect_garbage();
        }
    }

    fn collect_garbage(&mut self) {
        let mut names = Vec::with_capacity(self.names.len() - self.garbage);
        for node in self.nodes.iter_mut() {
            let at = names.len() as u32;
            names.extend_from_slice(name_of(&self.names, node));
            node.name_at = at;
        }
        self.names = names;
        self.garbage = 0;
    }

    fn name(&self, node: &PathNode) -> &[u8] {
        name_of(&self.names, node)
    }

    fn hash(&self, dir: NodeId, name: &[u8]) -> u64 {
        hash_of(&self.hasher, dir, name)
    }
}

fn name_of<'a>(names: &'a [u8], node: &PathNode) -> &'a [u8] {
    &names[node.name_at as usize..][..node.name_len as usize]
}

fn hash_of(hasher: &DefaultHashBuilder, dir: NodeId, name: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write_u32(dir.number());
    hasher.write(name);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_small() {
        assert_eq!(size_of::<PathNode>(), 40);
    }

    #[test]
    fn components_keep_their_slash() {
        let split = |path: &'static [u8]| components(path).collect::<Vec<_>>();
        assert_eq!(split(b"/d/f"), [&b"/"[..], b"d/", b"f"]);
        assert_eq!(split(b"/d/"), [&b"/"[..], b"d/"]);
        assert!(split(b"").is_empty());
    }

    #[test]
    fn paths_survive_garbage_collection() {
        let mut index = PathIndex::new();
        let entries = DelayTable::new();
        let keep = index.insert(TOP, b"/keep/this one");
        index.raise(keep, 1);
        for round in 0..2000u32 {
            let path = format!("/a rather long directory name/and a file name {round}");
            let node = index.insert(TOP, path.as_bytes());
            index.raise(node, 2);
            index.lower(node, &entries);
        }
        assert!(index.names.len() < 3 * MIN_GARBAGE);
        let mut path = Vec::new();
        index.path(keep, &mut path);
        assert_eq!(path, b"/keep/this one");
        assert_eq!(index.insert(TOP, b"/keep/this one"), keep);
    }
}
