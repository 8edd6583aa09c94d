//! Converts the reports of one backend to those of the watcher, since each backend numbers its
//! scopes from zero.

use std::io;

use super::{Event, Follow, Loss, Observer};

/// The observer of one backend.
pub(super) struct BackendView<'o> {
    pub(super) observer: &'o mut dyn Observer,
    /// The positions of its scopes among all.
    pub(super) scopes: Vec<usize>,
    /// Directories without a watch are kept in `short`.
    pub(super) keeps_short: bool,
    pub(super) short: Vec<Vec<u8>>,
    /// Scopes whose roots were lost, or are back.
    pub(super) changes: Vec<(usize, bool)>,
}

impl Observer for BackendView<'_> {
    fn event(&mut self, event: Event<'_>) -> Follow {
        self.observer.event(event)
    }

    fn renewed(&mut self, path: &[u8]) {
        self.observer.renewed(path);
    }

    fn follow(&mut self, number: u64) {
        self.observer.follow(number);
    }

    fn found(&mut self, path: &[u8], number: u64) {
        self.observer.found(path, number);
    }

    fn written(&mut self, path: &[u8], closed: bool) {
        self.observer.written(path, closed);
    }

    fn overflow(&mut self) {
        self.observer.overflow();
    }

    fn root_lost(&mut self, scope: usize, loss: Loss) {
        if let Some(&scope) = self.scopes.get(scope) {
            self.changes.push((scope, true));
            self.observer.root_lost(scope, loss);
        }
    }

    fn root_back(&mut self, scope: usize) {
        if let Some(&scope) = self.scopes.get(scope) {
            self.changes.push((scope, false));
            self.observer.root_back(scope);
        }
    }

    fn out_of_watches(&mut self, path: &[u8]) {
        if self.keeps_short {
            self.short.push(path.to_vec());
        } else {
            self.observer.out_of_watches(path);
        }
    }

    fn watch_failed(&mut self, path: &[u8], error: &io::Error, what: &'static str) {
        self.observer.watch_failed(path, error, what);
    }
}
