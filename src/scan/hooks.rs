//! Reports of rejected files: log messages and `onReject`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::scanners::environment;
use crate::config::{Hook, OnReject};
use crate::log;
use crate::paths;
use crate::process::{Children, Command, Output, Pid, Stdin};
use crate::script::{Script, SyncHandle};

/// The maximum number of waiting `onReject` calls. Further ones are only logged.
const MAX_PENDING_CALLS: usize = 1000;

/// The `onReject` commands, run one at a time.
pub struct RejectHooks {
    children: Rc<RefCell<Children>>,
    waiting: VecDeque<Command>,
    running: Option<Pid>,
}

impl RejectHooks {
    /// Returns the state without calls. Commands are started as these children.
    pub fn new(children: Rc<RefCell<Children>>) -> RejectHooks {
        RejectHooks {
            children,
            waiting: VecDeque::new(),
            running: None,
        }
    }

    /// Reports a rejected file to one of the syncs that would have sent it.
    pub fn on_rejected(
        &mut self,
        handle: &Rc<SyncHandle>,
        path: &[u8],
        reason: &str,
        on_reject: &OnReject,
        script: &Script,
    ) {
        let gate = Rc::clone(&handle.sync.borrow().gate);
        if !gate.blocked_mut().reject(path, reason.to_owned()) {
            return;
        }
        let name = handle.sync.borrow().config.name.clone();
        let shown = log::escape(path);
        log::warn(format_args!("{name}: {shown} was rejected: {reason}"));
        let OnReject::Call(hook) = on_reject else {
            return;
        };
        let source = handle.sync.borrow().config.source.clone();
        let full = paths::join(&source, path);
        match hook {
            Hook::Function => {
                if let Err(error) = script.rejected(handle, &full, reason) {
                    log::error("in onReject, which is ignored:");
                    script.report(&error);
                }
            }
            Hook::Command(words) if self.waiting.len() < MAX_PENDING_CALLS => {
                let (program, args) = words
                    .split_first()
                    .map_or((&[][..], &[][..]), |(p, a)| (p, a));
                let last = [full, reason.as_bytes().to_vec()];
                self.waiting.push_back(Command {
                    args: args.iter().cloned().chain(last).collect(),
                    stdin: Stdin::Null,
                    output: Output::Lines,
                    environment: environment(&handle.sync.borrow()),
                    ..Command::new(program)
                });
                self.start_next();
            }
            Hook::Command(_) => {}
        }
    }

    fn start_next(&mut self) {
        while self.running.is_none()
            && let Some(command) = self.waiting.pop_front()
        {
            let program = log::escape(&command.program).into_owned();
            match self.children.borrow_mut().spawn(command) {
                Ok(pid) => self.running = Some(pid),
                Err(error) => log::error(format_args!("cannot run onReject {program}: {error}")),
            }
        }
    }

    /// Handles the end of an `onReject` command.
    pub fn on_ended(&mut self, pid: Pid, code: i32) {
        if self.running == Some(pid) {
            self.running = None;
            if code != 0 {
                log::warn(format_args!("onReject ended with exit code {code}"));
            }
            self.start_next();
        }
    }
}
