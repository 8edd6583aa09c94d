//! Telling of rejected files: in the log, and by `onReject`.

use std::collections::VecDeque;
use std::rc::Rc;

use super::event_loop::EventLoop;
use super::scanners::environment;
use crate::config::{Hook, OnReject};
use crate::log;
use crate::process::{Command, Output, Pid, Stdin};
use crate::script::SyncHandle;

/// The most calls of `onReject` that wait; what is more is told in the log only.
const MOST_CALLS: usize = 1000;

/// Commands that tell of rejected files, one at a time.
#[derive(Default)]
pub struct RejectHooks {
    waiting: VecDeque<Command>,
    running: Option<Pid>,
}

impl EventLoop<'_> {
    /// A file was rejected; `member` is one of those it would have been sent for.
    pub(super) fn reject(
        &mut self,
        member: &Rc<SyncHandle>,
        path: &[u8],
        reason: &str,
        on_reject: &OnReject,
    ) {
        let gate = Rc::clone(&member.sync.borrow().gate);
        if !gate.withheld_mut().reject(path, reason.to_owned()) {
            return;
        }
        let name = member.sync.borrow().config.name.clone();
        let shown = log::escape(path);
        log::warn(format_args!("{name}: {shown} was rejected: {reason}"));
        let OnReject::Call(hook) = on_reject else {
            return;
        };
        let source = member.sync.borrow().config.source.clone();
        let full = [source.strip_suffix(b"/").unwrap_or(&source), path].concat();
        match hook {
            Hook::Function => {
                if let Err(error) = self.script.rejected(member, &full, reason) {
                    log::error("in onReject, which is ignored:");
                    self.script.report(&error);
                }
            }
            Hook::Command(words) if self.calls.waiting.len() < MOST_CALLS => {
                let (program, args) = words
                    .split_first()
                    .map_or((&[][..], &[][..]), |(p, a)| (p, a));
                let last = [full, reason.as_bytes().to_vec()];
                self.calls.waiting.push_back(Command {
                    args: args.iter().cloned().chain(last).collect(),
                    stdin: Stdin::Null,
                    output: Output::Lines,
                    environment: environment(&member.sync.borrow()),
                    ..Command::new(program)
                });
                self.tell_of_rejects();
            }
            Hook::Command(_) => {}
        }
    }

    fn tell_of_rejects(&mut self) {
        while self.calls.running.is_none()
            && let Some(command) = self.calls.waiting.pop_front()
        {
            let program = log::escape(&command.program).into_owned();
            match self.core.children.borrow_mut().spawn(command) {
                Ok(pid) => self.calls.running = Some(pid),
                Err(error) => log::error(format_args!("cannot run onReject {program}: {error}")),
            }
        }
    }

    /// A child that is no job has ended.
    pub(super) fn told_of_reject(&mut self, pid: Pid, code: i32) {
        if self.calls.running == Some(pid) {
            self.calls.running = None;
            if code != 0 {
                log::warn(format_args!("onReject ended with exit code {code}"));
            }
            self.tell_of_rejects();
        }
    }
}
