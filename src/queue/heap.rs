//! A directory's children as a heap, ordered by the newest delay at or below each child.
//!
//! A directory event must find the newest delay anywhere below the directory, and that delay may
//! leave at any time. An intrusive pairing heap costs three links a node, O(1) when a child gets a
//! newer delay (always the newest of all) and amortised O(log n) when its newest delay leaves,
//! independent of the number of children.

use super::nodes::{NodeId, PathNode};
use super::slab::Slab;

/// Moves `node` to the top of the heap of `dir`. Its `newest` must be greater than all others. The
/// node may be in the heap already.
pub(super) fn raise(nodes: &mut Slab<PathNode>, dir: NodeId, node: NodeId) {
    let Some(top) = nodes[dir].children else {
        nodes[dir].children = Some(node);
        return;
    };
    if top == node {
        return;
    }
    if nodes[node].links.previous.is_some() {
        cut(nodes, node);
    }
    nodes[dir].children = Some(meld(nodes, top, node));
}

/// Restores the heap order of `node`, whose `newest` has decreased.
pub(super) fn lower(nodes: &mut Slab<PathNode>, dir: NodeId, node: NodeId) {
    remove(nodes, dir, node);
    nodes[dir].children = match nodes[dir].children {
        Some(top) => Some(meld(nodes, top, node)),
        None => Some(node),
    };
}

/// Removes `node` from the heap of `dir`.
pub(super) fn remove(nodes: &mut Slab<PathNode>, dir: NodeId, node: NodeId) {
    let orphans = take_children(nodes, node);
    if nodes[dir].children == Some(node) {
        nodes[dir].children = orphans;
        return;
    }
    cut(nodes, node);
    if let (Some(top), Some(orphans)) = (nodes[dir].children, orphans) {
        nodes[dir].children = Some(meld(nodes, top, orphans));
    }
}

/// Returns the top of the union of two heaps. Each is given by its top, which has no siblings.
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

/// Detaches `node`, which is not the top, together with its heap children.
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

/// Joins the heap children of `node` into one heap and returns its top: in pairs from the left,
/// then from the right into one. This order keeps the cost logarithmic.
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

/// Clears the links of a node to its siblings and returns the next sibling.
fn detach(nodes: &mut Slab<PathNode>, node: NodeId) -> Option<NodeId> {
    let links = &mut nodes[node].links;
    links.previous = None;
    links.next.take()
}
