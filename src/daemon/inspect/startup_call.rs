//! The startup transfer of a sync as the daemon would request it, without carrying it out.

use std::rc::Rc;

use crate::log::{self, Selection};
use crate::queue::Etype;
use crate::script::{Script, ScriptRequest, SyncHandle};

/// The startup transfer of a sync.
pub enum StartupCall {
    /// The request that the daemon would carry out.
    Request(Box<ScriptRequest>),
    /// The transfer is not known, for this reason.
    Untold(&'static str),
    /// Building it failed, with this error.
    Failed(String),
}

/// Returns the startup transfer of a sync. No code of the configuration is run: the startup of a
/// sync with its own function is not known.
pub fn startup_call(script: &Script, handle: &Rc<SyncHandle>) -> StartupCall {
    if script.is_idle(handle) {
        return StartupCall::Untold("the sync has no action");
    }
    if !script.starts_built_in(handle) {
        return StartupCall::Untold("its own functions or commands decide what is sent");
    }
    if handle.tunnel.is_some() {
        return StartupCall::Untold("its tunnel is opened by the running daemon only");
    }
    // The caller prints the same information in another form.
    let mut selection = Selection::default();
    let _ = selection.add("scarce");
    log::install(selection, None);
    let id = {
        let mut sync = handle.sync.borrow_mut();
        if !sync.config.init {
            return StartupCall::Untold("it has no startup transfer (init = false)");
        }
        // Files that the check rejects are seen when it runs.
        sync.config.check = None;
        let now = script.context.clock.now();
        sync.queue.push(Etype::Init, b"", None, now);
        sync.queue.specials().next().map(|startup| startup.id())
    };
    let Some(id) = id else {
        return StartupCall::Failed("its startup transfer cannot be queued".into());
    };
    if let Err(error) = script.act(handle, id) {
        script.report(&error);
        return StartupCall::Failed("its startup transfer cannot be built".into());
    }
    match script.context.requests.take().pop() {
        Some(request) => StartupCall::Request(Box::new(request)),
        None => StartupCall::Untold("it requests no startup transfer"),
    }
}
