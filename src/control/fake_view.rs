//! A daemon for the tests of the control server.

use std::cell::{Cell, RefCell};

use super::view::{DaemonView, SyncView};
use crate::component::SyncCommand;
use crate::id::SyncId;
use crate::status::snapshot::Snapshot;
use crate::status::trends::TrendPage;
use crate::sync::Mark;
use crate::watch::EventMark;

/// A daemon whose state is set by a test.
#[derive(Default)]
pub struct FakeView {
    /// Its syncs.
    pub syncs: Vec<SyncView>,
    /// All watch events are queued.
    pub has_reported: Cell<bool>,
    /// The syncs whose entries are done.
    pub done: RefCell<Vec<SyncId>>,
    /// The syncs in which commands change nothing.
    pub unchanged: RefCell<Vec<SyncId>>,
}

impl FakeView {
    /// Returns a daemon with syncs of these names, whose sources are `/src/NAME/`.
    pub fn new(names: &[&str]) -> FakeView {
        let sync = |name: &&str| SyncView {
            id: SyncId::new(),
            name: (*name).to_owned(),
            source: format!("/src/{name}/").into_bytes(),
            target: b"/dst/".to_vec(),
            state_key: (*name).to_owned(),
            ended: None,
        };
        FakeView {
            syncs: names.iter().map(sync).collect(),
            ..FakeView::default()
        }
    }
}

impl DaemonView for FakeView {
    fn syncs(&self, name: Option<&str>) -> Vec<SyncView> {
        let meant = |sync: &&SyncView| name.is_none_or(|name| sync.name == name);
        self.syncs.iter().filter(meant).cloned().collect()
    }

    fn snapshot(&self, _: Option<&str>, _: usize) -> Snapshot {
        Snapshot::default()
    }

    fn trends(&self, _: Option<&str>) -> TrendPage {
        TrendPage::default()
    }

    fn explain(&self, _: Option<&str>, path: &[u8]) -> String {
        String::from_utf8_lossy(path).into_owned()
    }

    fn leaves_out(&self, _: SyncId, _: &[u8]) -> bool {
        false
    }

    fn event_mark(&self) -> EventMark {
        EventMark::default()
    }

    fn has_reported(&self, _: EventMark) -> bool {
        self.has_reported.get()
    }

    fn would_change(&self, sync: SyncId, _: &SyncCommand) -> bool {
        !self.unchanged.borrow().contains(&sync)
    }

    fn mark(&self, _: SyncId) -> Option<Mark> {
        Some(Mark::default())
    }

    fn reached(&self, sync: SyncId, _: &mut Mark) -> bool {
        self.done.borrow().contains(&sync)
    }
}
