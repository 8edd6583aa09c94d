//! The choice of the backend for each tree, with the reason.

use super::{Scope, TreeSize};

/// The setting `watch`: which backend is to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchChoice {
    /// fanotify for large trees and whole file systems, if it can be used.
    Auto,
    /// inotify.
    #[default]
    Inotify,
    /// fanotify, if it can be used.
    Fanotify,
}

/// A backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// One watch for each directory.
    Inotify,
    /// One mark for each file system.
    Fanotify,
}

impl BackendKind {
    /// Returns the name of the interface of the kernel.
    pub fn name(self) -> &'static str {
        match self {
            BackendKind::Inotify => "inotify",
            BackendKind::Fanotify => "fanotify",
        }
    }
}

/// The backend of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeBackend {
    /// The root of the tree, ending with `/`.
    pub root: Vec<u8>,
    /// The backend.
    pub kind: BackendKind,
    /// The reason for it, for people.
    pub why: String,
    /// fanotify has been found unsuitable.
    pub(super) is_final: bool,
    /// The size of the tree when it changed to fanotify, if it is known.
    pub(super) size: Option<TreeSize>,
}

impl TreeBackend {
    /// Returns a tree that inotify serves for this reason.
    pub(super) fn inotify(root: &[u8], why: impl Into<String>) -> TreeBackend {
        TreeBackend {
            root: root.to_vec(),
            kind: BackendKind::Inotify,
            why: why.into(),
            is_final: false,
            size: None,
        }
    }

    /// Records that fanotify cannot be used.
    pub(super) fn refuse(&mut self, why: &str) {
        self.kind = BackendKind::Inotify;
        self.why = format!("fanotify cannot be used: {why}");
        self.is_final = true;
    }
}

/// Returns the tree that contains this path.
pub(super) fn tree_of<'t>(trees: &'t [TreeBackend], path: &[u8]) -> Option<&'t TreeBackend> {
    let around = trees.iter().filter(|tree| path.starts_with(&tree.root));
    around.max_by_key(|tree| tree.root.len())
}

/// Returns the positions of the scopes that this backend serves.
pub(super) fn served_by(kind: BackendKind, trees: &[TreeBackend], scopes: &[Scope]) -> Vec<usize> {
    let serves = |scope: &Scope| tree_of(trees, &scope.root).is_some_and(|tree| tree.kind == kind);
    let positions = 0..scopes.len();
    positions.filter(|&at| serves(&scopes[at])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_scope_is_served_by_the_backend_of_its_tree() {
        let mut inner = TreeBackend::inotify(b"/a/b/", "small");
        inner.kind = BackendKind::Fanotify;
        let trees = [TreeBackend::inotify(b"/a/", "small"), inner];
        let scopes: Vec<_> = ["/a/", "/a/b/", "/a/b/c/", "/a/bc/"]
            .map(|root| Scope {
                root: root.into(),
                wants: Arc::new(|_| true),
            })
            .into();
        assert_eq!(served_by(BackendKind::Inotify, &trees, &scopes), [0, 3]);
        assert_eq!(served_by(BackendKind::Fanotify, &trees, &scopes), [1, 2]);
    }
}
