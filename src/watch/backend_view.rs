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

    fn vacated(&mut self, path: &[u8]) {
        self.observer.vacated(path);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Records the reports that it implements itself.
    struct Recorder(Vec<String>);

    fn text(path: &[u8]) -> String {
        String::from_utf8_lossy(path).into()
    }

    impl Observer for Recorder {
        fn event(&mut self, event: Event<'_>) -> Follow {
            self.0.push(format!("{event:?}"));
            Follow::Contents
        }

        fn vacated(&mut self, path: &[u8]) {
            self.0.push(format!("vacated {}", text(path)));
        }

        fn follow(&mut self, number: u64) {
            self.0.push(format!("follow {number}"));
        }

        fn overflow(&mut self) {
            self.0.push("overflow".into());
        }

        fn root_lost(&mut self, scope: usize, loss: Loss) {
            self.0.push(format!("lost {scope} {loss:?}"));
        }

        fn root_back(&mut self, scope: usize) {
            self.0.push(format!("back {scope}"));
        }

        fn out_of_watches(&mut self, path: &[u8]) {
            self.0.push(format!("no watch {}", text(path)));
        }

        fn watch_failed(&mut self, path: &[u8], error: &io::Error, what: &'static str) {
            self.0.push(format!("{what} {}: {error}", text(path)));
        }
    }

    /// The observer does not implement the reports for which an event is harmless.
    #[test]
    fn each_report_is_passed_on_with_the_number_of_the_scope() {
        for keeps_short in [false, true] {
            let mut recorder = Recorder(Vec::new());
            let mut view = BackendView {
                observer: &mut recorder,
                scopes: vec![4, 2],
                keeps_short,
                short: Vec::new(),
                changes: Vec::new(),
            };
            let path = b"/f";
            assert_eq!(view.event(Event::Attrib { path }), Follow::Contents);
            view.renewed(path);
            view.vacated(path);
            view.follow(7);
            view.found(path, 7);
            view.written(path, true);
            view.overflow();
            view.root_lost(0, Loss::Moved);
            view.root_back(1);
            view.root_lost(2, Loss::Moved);
            view.root_back(2);
            view.out_of_watches(b"/d/");
            view.watch_failed(path, &io::Error::other("text"), "reading");
            assert_eq!(view.changes, [(4, true), (2, false)]);
            assert_eq!(view.short.len(), usize::from(keeps_short));
            let mut expected = vec![
                format!("{:?}", Event::Attrib { path }),
                format!("{:?}", Event::Delete { path }),
                "vacated /f".into(),
                "follow 7".into(),
                format!("{:?}", Event::Create { path }),
                format!("{:?}", Event::Modify { path }),
                "overflow".into(),
                "lost 4 Moved".into(),
                "back 2".into(),
                "no watch /d/".into(),
                "reading /f: text".into(),
            ];
            if keeps_short {
                expected.remove(9);
            }
            assert_eq!(recorder.0, expected);
        }
    }
}
