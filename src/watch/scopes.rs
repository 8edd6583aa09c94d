//! Which directories are wanted, and where trees have to begin for that.

use std::sync::Arc;

/// Is the directory at this path to be watched? See [`Scope::wants`].
pub type Wants = dyn Fn(&[u8]) -> bool + Send + Sync;

/// A part of the file system someone wants to hear of.
#[derive(Clone)]
pub struct Scope {
    /// Absolute, ends with `/`, no symlinks on the way.
    pub root: Vec<u8>,
    /// Is the directory at this path, relative to the root like `/d/`, to be watched? Must
    /// say no for everything below a directory it says no for. Not asked for `/`.
    pub wants: Arc<Wants>,
}

impl Scope {
    /// Is it the same root and the same function?
    pub fn same(&self, other: &Scope) -> bool {
        self.root == other.root && Arc::ptr_eq(&self.wants, &other.wants)
    }

    /// Is this absolute path inside, and wanted if it is?
    pub fn wanted(&self, path: &[u8]) -> bool {
        match path.strip_prefix(self.root.as_slice()) {
            Some([]) => true,
            // The slash the root ends with is the one the relative path begins with.
            Some(_) => (self.wants)(&path[self.root.len() - 1..]),
            None => false,
        }
    }
}

/// All scopes; shared with the threads that crawl.
#[derive(Clone, Default)]
pub struct Scopes {
    all: Arc<[Scope]>,
    /// The same without those that are like one before them: they would answer the same.
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

    /// Does any scope want the directory at this absolute path (ends with `/`)?
    pub fn wanted(&self, path: &[u8]) -> bool {
        self.distinct.iter().any(|scope| scope.wanted(path))
    }

    /// Is this scope's root reached from another scope's root that lies above it?
    pub fn nested(&self, scope: &Scope) -> bool {
        let above = |other: &&Scope| other.root.len() < scope.root.len();
        self.distinct
            .iter()
            .filter(above)
            .any(|other| other.wanted(&scope.root))
    }

    /// The paths at which a tree begins.
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
