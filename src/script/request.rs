//! Requests of Lua code for the event loop, in the order of the calls.

use std::cell::RefCell;
use std::ffi::OsString;
use std::rc::Rc;

use mlua::{Function, Table, UserData, UserDataFields};

use super::sync_handle::SyncHandle;
use crate::batch::{Transfer, TransferKind};
use crate::local::CopyTask;
use crate::queue::DelayId;
use crate::staging::readers::Reading;

/// A request of Lua code for the event loop.
pub enum ScriptRequest {
    /// Start a process.
    Spawn(SpawnRequest),
    /// Copy locally.
    Copy(CopyRequest),
    /// Check files, then call a function.
    Scan(ScanRequest),
}

/// A process to be started for queue entries of a sync.
pub struct SpawnRequest {
    /// The sync.
    pub handle: Rc<SyncHandle>,
    /// The event or list object, for `collect`.
    pub agent: Table,
    /// The queue entries, which are active already.
    pub ids: Vec<DelayId>,
    /// The program, looked up in `PATH`.
    pub program: Vec<u8>,
    /// The arguments.
    pub args: Vec<Vec<u8>>,
    /// The standard input; `None` without a pipe.
    pub stdin: Option<Vec<u8>>,
    /// The output is read line by line and logged.
    pub captured: bool,
    /// Additional environment variables.
    pub environment: Vec<(OsString, OsString)>,
    /// The kind of transfer, if the process transfers a batch.
    pub transfer: Option<TransferKind>,
    /// The read lock of the staged tree, for a sync with checks.
    pub reading: Option<Rc<Reading>>,
}

/// A batch as an argument of `spawn`.
pub struct RsyncCall(pub Transfer);

impl UserData for RsyncCall {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_field_method_get("names", |lua, this| lua.create_string(this.0.names()));
    }
}

/// A local copy for queue entries of a sync.
pub struct CopyRequest {
    /// The sync.
    pub handle: Rc<SyncHandle>,
    /// The event or list object, for `collect`.
    pub agent: Table,
    /// The queue entries, which are active already.
    pub ids: Vec<DelayId>,
    /// The target, a local directory.
    pub target: Vec<u8>,
    /// Files deleted at the source are deleted on the target.
    pub delete: bool,
    /// Excluded files are deleted as well.
    pub delete_excluded: bool,
    /// True if events delete only what they name.
    pub keeps_others: bool,
    /// The changes to be copied.
    pub task: CopyTask,
}

/// Entries to be checked before their transfer.
pub struct ScanRequest {
    /// The sync.
    pub handle: Rc<SyncHandle>,
    /// The event or list object.
    pub agent: Table,
    /// The queue entries, which are active already.
    pub ids: Vec<DelayId>,
    /// The changes to be checked.
    pub task: CopyTask,
    /// The function called with the agent after the pass.
    pub send: Function,
}

/// The requests that the event loop has not taken yet.
#[derive(Default)]
pub struct RequestQueue(RefCell<Vec<ScriptRequest>>);

impl RequestQueue {
    /// Adds a request and marks its queue entries active.
    pub(super) fn push(&self, request: ScriptRequest) {
        match &request {
            ScriptRequest::Spawn(spawn) => spawn.handle.sync.borrow_mut().begin(&spawn.ids),
            ScriptRequest::Copy(CopyRequest { handle, ids, .. })
            | ScriptRequest::Scan(ScanRequest { handle, ids, .. }) => {
                handle.sync.borrow_mut().begin_anywhere(ids);
            }
        }
        self.0.borrow_mut().push(request);
    }

    /// Removes and returns all requests.
    pub fn take(&self) -> Vec<ScriptRequest> {
        self.0.take()
    }

    /// Returns true if there is no request.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Returns true if there are requests, and all are processes for empty lists, or for entries
    /// that were queued after the one with this serial number.
    pub fn are_for_none_up_to(&self, last: u64) -> bool {
        let requests = self.0.borrow();
        let is_for_none = |request: &ScriptRequest| match request {
            ScriptRequest::Spawn(spawn) => spawn.ids.iter().all(|id| id.serial() > last),
            ScriptRequest::Copy(_) | ScriptRequest::Scan(_) => false,
        };
        !requests.is_empty() && requests.iter().all(is_for_none)
    }

    /// Returns the number of requested processes.
    pub(super) fn spawns(&self) -> usize {
        self.count(|_| true)
    }

    /// Returns the number of requested processes of a sync.
    pub(super) fn spawns_of(&self, handle: &Rc<SyncHandle>) -> usize {
        self.count(|spawn| Rc::ptr_eq(&spawn.handle, handle))
    }

    fn count(&self, wanted: impl Fn(&SpawnRequest) -> bool) -> usize {
        let is_wanted = |request: &&ScriptRequest| match request {
            ScriptRequest::Spawn(spawn) => wanted(spawn),
            ScriptRequest::Copy(_) | ScriptRequest::Scan(_) => false,
        };
        self.0.borrow().iter().filter(is_wanted).count()
    }
}

#[cfg(test)]
mod tests {
    use mlua::Lua;

    use super::*;
    use crate::queue::Etype;
    use crate::sync::tests::sync_of;

    #[test]
    fn processes_for_nothing_are_told_from_those_for_entries() {
        let lua = Lua::new();
        let mut sync = sync_of(b"/src/");
        for path in [b"/a", b"/b"] {
            sync.queue.push(Etype::Modify, path, None, 0);
        }
        let ids: Vec<_> = sync.queue.iter().map(|delay| delay.id()).collect();
        let handle = SyncHandle::of_sync(&lua, sync);
        let other = SyncHandle::of_sync(&lua, sync_of(b"/other/"));
        let requests = RequestQueue::default();
        let request = |ids: &[DelayId]| {
            requests.push(ScriptRequest::Spawn(SpawnRequest {
                handle: Rc::clone(&handle),
                agent: lua.create_table().unwrap(),
                ids: ids.to_vec(),
                program: b"true".to_vec(),
                args: Vec::new(),
                stdin: None,
                captured: false,
                environment: Vec::new(),
                transfer: None,
                reading: None,
            }));
        };
        let (first, last) = (ids[0].serial(), ids[1].serial());
        assert!(!requests.are_for_none_up_to(last));
        assert_eq!(requests.spawns(), 0);
        request(&[]);
        assert!(requests.are_for_none_up_to(last));
        // It is for an entry that was queued later.
        request(&ids[1..]);
        assert!(requests.are_for_none_up_to(first));
        assert!(!requests.are_for_none_up_to(last));
        request(&ids[..1]);
        assert!(!requests.are_for_none_up_to(first));
        assert!(requests.are_for_none_up_to(first - 1));
        assert_eq!(requests.spawns(), 3);
        assert_eq!(requests.spawns_of(&handle), 3);
        assert_eq!(requests.spawns_of(&other), 0);
        assert_eq!(requests.take().len(), 3);
        assert!(requests.is_empty() && !requests.are_for_none_up_to(last));
    }
}
