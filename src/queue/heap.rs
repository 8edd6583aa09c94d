//! A directory's children as a heap: the child with the newest delay below it is on top.
//!
//! A directory event must find the newest delay anywhere below the directory, and that
//! one may leave at any time. An intrusive pairing heap costs three links a node, O(1)
//! when a child gets a newer delay (always the newest of all) and amortised O(log n)
//! when its newest leaves, whatever the number of children.

use super::path_index::{NodeId, PathNode};
use super::slab::Slab;

/// A node's place among its siblings. `previous` is the heap parent for the first of its
/// children, else the sibling before; the top of the heap has none.
#[derive(Clone, Copy, Default)]
pub(super) struct HeapLinks {
    child: Option<NodeId>,
    next: Option<NodeId>,
    previous: Option<NodeId>,
}

/// Puts `node` on top of the heap of `dir`: its `newest` is newer than all others.
/// It may be in the heap already.
pub(super) fn raise(nodes: &mut Slab<PathNode>, dir: NodeId, node: NodeId) {
    let Some(top) = nodes[dir].kids else {
        nodes[dir].kids = Some(node);
        return;
    };
    if top == node {
        return;
    }
    if nodes[node].links.previous.is_some() {
        cut(nodes, node);
    }
    nodes[dir].kids = Some(meld(nodes, top, node));
}

/// Finds the place of `node`, whose `newest` has become older.
pub(super) fn lower(nodes: &mut Slab<PathNode>, dir: NodeId, node: NodeId) {
    remove(nodes, dir, node);
    nodes[dir].kids = match nodes[dir].kids {
        Some(top) => Some(meld(nodes, top, node)),
        None => Some(node),
    };
}

/// Takes `node` out of the heap of `dir`.
pub(super) fn remove(nodes: &mut Slab<PathNode>, dir: NodeId, node: NodeId) {
    let orphans = take_children(nodes, node);
    if nodes[dir].kids == Some(node) {
        nodes[dir].kids = orphans;
        return;
    }
    cut(nodes, node);
    if let (Some(top), Some(orphans)) = (nodes[dir].kids, orphans) {
        nodes[dir].kids = Some(meld(nodes, top, orphans));
    }
}

/// Joins two heaps, each given by its top, which has no siblings.
fn meld(nodes: &mut Slab<PathNode>, a: NodeId, b: NodeId) -> NodeId {
    let (top, below) = if nodes[a].newest >= nodes[b].newest {
        (a, b)
    } else {
        (b, a)
    };
    let next = nodes[top].links.child.replace(below);
    let links = &mut nodes[below].links;
    links.next = next;
    links.previous = Some(top);
    if let Some(next) = next {
        nodes[next].links.previous = Some(below);
    }
    top
}

/// Separates `node`, which is not the top, with all below it.
fn cut(nodes: &mut Slab<PathNode>, node: NodeId) {
    let links = &mut nodes[node].links;
    let (next, previous) = (links.next.take(), links.previous.take());
    if let Some(next) = next {
        nodes[next].links.previous = previous;
    }
    let Some(previous) = previous else { return };
    let links = &mut nodes[previous].links;
    if links.child == Some(node) {
        links.child = next;
    } else {
        links.next = next;
    }
}

/// Joins the children of `node` to a heap of their own: in pairs from the left, then
/// from the right into one. That order is what keeps the cost logarithmic.
fn take_children(nodes: &mut Slab<PathNode>, node: NodeId) -> Option<NodeId> {
    let mut left = nodes[node].links.child.take();
    let mut pairs = None;
    while let Some(a) = left {
        let b = detach(nodes, a);
        left = b.and_then(|b| detach(nodes, b));
        let top = match b {
            Some(b) => meld(nodes, a, b),
            None => a,
        };
        nodes[top].links.next = pairs;
        pairs = Some(top);
    }
    let mut heap = None;
    while let Some(top) = pairs {
        pairs = detach(nodes, top);
        heap = match heap {
            Some(heap) => Some(meld(nodes, heap, top)),
            None => Some(top),
        };
    }
    heap
}

/// Ends a node's tie to its siblings and gives the next one.
fn detach(nodes: &mut Slab<PathNode>, node: NodeId) -> Option<NodeId> {
    let links = &mut nodes[node].links;
    links.previous = None;
    links.next.take()
}
