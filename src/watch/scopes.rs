//! The directories that each owner wants, and the roots of trees that follow from them.

use std::sync::Arc;

/// A function that returns true if the directory at this path is to be watched. See
/// [`Scope::wants`].
pub type Wants = dyn Fn(&[u8]) -> bool + Send + Sync;

/// A part of the file system that an owner observes.
#[derive(Clone)]
pub struct Scope {
    /// The absolute path of the root, ending with `/`, without symlinks.
    pub root: Vec<u8>,
    /// Returns true if the directory at this path, relative to the root like `/d/`, is to be
    /// watched. It must return false for everything below a directory for which it returns false.
    /// It is not called for `/`.
    pub wants: Arc<Wants>,
}

impl Scope {
    /// Returns true if the root and the function are the same.
    pub fn same(&self, other: &Scope) -> bool {
        self.root == other.root && Arc::ptr_eq(&self.wants, &other.wants)
    }

    /// Returns true if this absolute path is inside the scope and wanted.
    pub fn wanted(&self, path: &[u8]) -> bool {
        match path.strip_prefix(self.root.as_slice()) {
            Some([]) => true,
            // The root's trailing slash is the leading slash of the relative path.
            Some(_) => (self.wants)(&path[self.root.len() - 1..]),
            None => false,
        }
    }
}

/// All scopes; shared with the crawling threads.
#[derive(Clone, Default)]
pub struct Scopes {
    all: Arc<[Scope]>,
    /// The scopes without duplicates of earlier ones, whose answers would be the same.
    distinct: Arc<[Scope]>,
}

impl Scopes {
    pub fn new(scopes: Vec<Scope>) -> Scopes {
        let mut distinct: Vec<Scope> = Vec::new();
        for scope in &scopes {
            if !distinct.iter().any(|other| other.same(scope)) {
                distinct.push(scope.clone());
            }
        }
        Scopes {
            all: scopes.into(),
            distinct: distinct.into(),
        }
    }

    pub fn all(&self) -> &[Scope] {
        &self.all
    }

    /// Returns true if any scope wants the directory at this absolute path (ends with `/`).
    pub fn wanted(&self, path: &[u8]) -> bool {
        self.distinct.iter().any(|scope| scope.wanted(path))
    }

    /// Returns true if this scope's root is inside the tree of another scope.
    pub fn nested(&self, scope: &Scope) -> bool {
        let above = |other: &&Scope| other.root.len() < scope.root.len();
        self.distinct
            .iter()
            .filter(above)
            .any(|other| other.wanted(&scope.root))
    }

    /// Returns the paths at which a tree begins.
    pub fn roots(&self) -> Vec<Vec<u8>> {
        let own = self.distinct.iter().filter(|scope| !self.nested(scope));
        let mut roots: Vec<_> = own.map(|scope| scope.root.clone()).collect();
        roots.sort_unstable();
        roots.dedup();
        roots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(root: &str, unwanted: &'static str) -> Scope {
        let wants = move |path: &[u8]| !path.starts_with(unwanted.as_bytes());
        Scope {
            root: root.into(),
            wants: Arc::new(wants),
        }
    }

    #[test]
    fn a_root_another_scope_excludes_begins_its_own_tree() {
        let scopes = vec![
            scope("/a/", "/no/"),
            scope("/a/b/c/", "//"),
            scope("/a/no/d/", "/x/"),
            scope("/a/no/d/", "//"),
            scope("/ab/", "//"),
        ];
        let scopes = Scopes::new(scopes);
        let roots: [&[u8]; 3] = [b"/a/", b"/a/no/d/", b"/ab/"];
        assert_eq!(scopes.roots(), roots);
        assert!(scopes.wanted(b"/a/b/"));
        assert!(!scopes.wanted(b"/a/no/"));
        assert!(scopes.wanted(b"/a/no/d/x/"));
        assert!(!scopes.wanted(b"/"));
        assert!(Scopes::new(vec![scope("/", "/no/")]).wanted(b"/x/no/"));
        assert!(!Scopes::new(vec![scope("/", "/no/")]).wanted(b"/no/x/"));
    }
}
