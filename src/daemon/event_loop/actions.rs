//! Executes the actions of components.

use std::time::Instant;

use super::EventLoop;
use crate::component::{Action, SyncCommand};
use crate::daemon::os::signals::Signal;
use crate::daemon::reload::ReloadScope;
use crate::daemon::shutdown::{Ending, Shutdown};
use crate::id::SyncId;
use crate::log;

impl EventLoop<'_> {
    /// Carries out the actions of components.
    pub(super) fn apply(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Watch(action) => {
                    let actions = self.watching.perform(action, self.now);
                    self.apply(actions);
                }
                Action::Log(level, text) => log::say(level.category(), text),
                Action::FullSync(id) => self.command(id, &SyncCommand::ResyncOnce),
                Action::Command(id, SyncCommand::ResyncPath(path))
                    if self.watching.report_contents(id, &path, self.now) => {}
                Action::Command(id, command) => self.command(id, &command),
                Action::Audit(request) => self.audits.on_request(request),
                Action::Reload => {
                    log::normal("on request: reading the configuration again");
                    self.context.notify.heard(Signal::HangUp);
                    let result = self.on_reload_request(ReloadScope::Changed);
                    let mut server = self.context.server.borrow_mut();
                    server.on_reloaded(result, Instant::now());
                }
                Action::LogTransfer(key, record) => self.context.history.write(key, record),
                Action::Read(token, request) => self.context.read(token, request),
                Action::FindLast(token, key, paths) => {
                    if !self.context.history.find_last(token, key, paths) {
                        self.audits.on_last_found(token, Vec::new());
                    }
                }
                Action::SaveSample(id, place) => {
                    let state = self.context.state.as_ref();
                    self.sending.save_sample(state, id, place);
                }
                Action::TellDrift(id, news) => self.sending.tell_drift(id, news),
                Action::KeepReport(report) => self.context.reports.keep(*report),
                Action::SelectLog(selection) => log::install(selection, None),
                Action::RetryStartups => self.sending.script().insist(),
                Action::SignalTransfers(signal) => self.sending.signal_all(signal),
                Action::SignalTree(pid, signal) => self.context.signal_tree(pid, signal),
                Action::KillDescendants => self.sending.kill_descendants(),
                Action::CloseTunnels => {
                    if self.sending.close_tunnels() {
                        let shutdown = self.shutdown.iter();
                        let last = shutdown.flat_map(Shutdown::on_tunnels_closed).collect();
                        self.apply(last);
                    }
                }
                Action::ShutDown(exit) => self.begin_shutdown(Ending::Exit(exit)),
                Action::StartAnew => {
                    let _ = self.reload(ReloadScope::All);
                }
                Action::Exit(exit) => self.ending = Some(exit),
            }
        }
    }

    fn command(&self, id: SyncId, command: &SyncCommand) {
        if let Some(handle) = self.sending.find(id) {
            handle.sync.borrow_mut().execute(command, self.now);
        }
    }
}
