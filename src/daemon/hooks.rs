//! Statistics of transfers and the hooks `onSynced` and `onFailed`.
//!
//! A hook never delays transfers. Commands run in parallel, one at a time for each sync, and
//! results in the meantime are merged into the next call. A Lua function runs in the daemon and is
//! stopped if it takes too long.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::rc::Rc;

use super::event_loop::EventLoop;
use super::job::Job;
use crate::config::Hook;
use crate::log;
use crate::process::{Command, Output, Pid, Stdin};
use crate::script::{HookReport, SyncHandle};
use crate::sync::Sync;

/// The maximum size of the paths passed to one call, in bytes.
const MAX_PATH_BYTES: usize = 4 * 1024 * 1024;

/// The maximum number of waiting calls of one sync.
const MAX_WAITING_CALLS: usize = 8;

/// The result of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferResult {
    /// All entries are at the target.
    Synced,
    /// Some or all entries failed.
    Failed,
}

/// Running and waiting hook commands, by sync.
#[derive(Default)]
pub struct Hooks(Vec<HookQueue>);

struct HookQueue {
    handle: Rc<SyncHandle>,
    running: Option<Pid>,
    waiting: VecDeque<HookReport>,
}

impl EventLoop<'_> {
    /// Counts the end of a child and returns the report for the sync's hook, if it has one. Must be
    /// called while the entries are still queued.
    pub(super) fn account(
        &self,
        job: &Job,
        code: i32,
        outcome: TransferResult,
    ) -> Option<HookReport> {
        let mut sync = job.handle().sync.borrow_mut();
        let text = job.words();
        sync.counters.sent(job.totals());
        let news = match outcome {
            TransferResult::Synced => {
                sync.compared(job.ids());
                sync.counters.succeeded(job.ids().len());
                true
            }
            TransferResult::Failed => sync.counters.failed(code, text.clone()),
        };
        let failed = outcome == TransferResult::Failed;
        let hook = if failed {
            &sync.config.on_failed
        } else {
            &sync.config.on_synced
        };
        if !news || hook.is_none() {
            return None;
        }
        let (paths, truncated) = paths(&sync, job);
        Some(HookReport {
            failed,
            code,
            text,
            paths,
            truncated,
            batches: 1,
        })
    }

    /// Calls the hook, or queues the call while another one runs.
    pub(super) fn call_hook(&mut self, handle: &Rc<SyncHandle>, report: Option<HookReport>) {
        let Some(report) = report else {
            return;
        };
        let function = {
            let sync = handle.sync.borrow();
            let hook = if report.failed {
                &sync.config.on_failed
            } else {
                &sync.config.on_synced
            };
            matches!(hook, Some(Hook::Function))
        };
        if function {
            if let Err(error) = self.script.hook(handle, &report) {
                log::error("in a hook, which is ignored:");
                self.script.report(&error);
            }
            return;
        }
        self.hooks.note(handle, report);
        self.start_hooks();
    }

    /// Handles the end of a hook command.
    pub(super) fn hook_ended(&mut self, pid: Pid, code: i32) {
        for slot in &mut self.hooks.0 {
            if slot.running == Some(pid) {
                slot.running = None;
                if code != 0 {
                    let sync = slot.handle.sync.borrow();
                    let name = &sync.config.name;
                    log::warn(format_args!("{name}: the hook ended with exit code {code}"));
                }
            }
        }
        self.start_hooks();
        self.hooks.retire();
    }

    fn start_hooks(&mut self) {
        for slot in &mut self.hooks.0 {
            // A command that cannot be started is logged, and the next one follows.
            while slot.running.is_none()
                && let Some(report) = slot.waiting.pop_front()
            {
                let Some(command) = command(&slot.handle, report) else {
                    continue;
                };
                let program = command.program.clone();
                match self.context.children.borrow_mut().spawn(command) {
                    Ok(pid) => slot.running = Some(pid),
                    Err(error) => log::error(format_args!(
                        "{}: cannot run the hook {}: {error}",
                        slot.handle.sync.borrow().config.name,
                        log::escape(&program)
                    )),
                }
            }
        }
    }
}

impl Hooks {
    /// Removes slots without calls, including those of replaced configurations. A slot with calls
    /// is removed once they are done.
    pub(super) fn retire(&mut self) {
        self.0
            .retain(|slot| slot.running.is_some() || !slot.waiting.is_empty());
    }

    fn note(&mut self, handle: &Rc<SyncHandle>, report: HookReport) {
        let known = self
            .0
            .iter()
            .position(|slot| Rc::ptr_eq(&slot.handle.sync, &handle.sync));
        let index = known.unwrap_or_else(|| {
            self.0.push(HookQueue {
                handle: Rc::clone(handle),
                running: None,
                waiting: VecDeque::new(),
            });
            self.0.len() - 1
        });
        let slot = &mut self.0[index];
        // After a reload the sync may belong to the new configuration.
        slot.handle = Rc::clone(handle);
        let waiting = &mut slot.waiting;
        let last_is_like = waiting
            .back()
            .is_some_and(|last| last.failed == report.failed);
        if !last_is_like && waiting.len() < MAX_WAITING_CALLS {
            return waiting.push_back(report);
        }
        let alike = waiting.iter_mut().rev();
        if let Some(older) = alike
            .into_iter()
            .find(|older| older.failed == report.failed)
        {
            merge(older, report);
        }
    }
}

/// Merges two reports into one.
fn merge(older: &mut HookReport, newer: HookReport) {
    let room = MAX_PATH_BYTES.saturating_sub(older.paths.len());
    if newer.paths.len() <= room {
        older.paths.extend(newer.paths);
    } else {
        older.truncated = true;
    }
    older.truncated |= newer.truncated;
    older.code = newer.code;
    older.text = newer.text;
    older.batches += newer.batches;
}

/// Returns the paths of a child's entries, each followed by a zero byte, and true if paths were
/// left out.
fn paths(sync: &Sync, job: &Job) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    for delay in job.ids().iter().filter_map(|&id| sync.queue.get(id)) {
        let (path, to) = delay.paths();
        for path in [Some(path), to].into_iter().flatten() {
            if all.len() + path.len() >= MAX_PATH_BYTES {
                return (all, true);
            }
            if !path.is_empty() {
                all.extend(path);
                all.push(0);
            }
        }
    }
    (all, false)
}

fn command(handle: &SyncHandle, report: HookReport) -> Option<Command> {
    let sync = handle.sync.borrow();
    let config = &sync.config;
    let hook = if report.failed {
        config.on_failed.as_ref()
    } else {
        config.on_synced.as_ref()
    };
    let Some(Hook::Command(words)) = hook else {
        return None;
    };
    let (program, args) = words.split_first()?;
    let count = report.paths.iter().filter(|&&byte| byte == 0).count();
    let event = if report.failed { "failed" } else { "synced" };
    let text = log::escape(&report.text).into_owned();
    let target = handle.destination().unwrap_or_default();
    let env = [
        ("LSYNCD_EVENT", event.into()),
        ("LSYNCD_SYNC", config.name.clone().into_bytes()),
        ("LSYNCD_SOURCE", config.source.clone()),
        ("LSYNCD_TARGET", target),
        ("LSYNCD_EXITCODE", report.code.to_string().into_bytes()),
        ("LSYNCD_ERROR", text.into_bytes()),
        ("LSYNCD_PATHS", count.to_string().into_bytes()),
        (
            "LSYNCD_TRUNCATED",
            u8::from(report.truncated).to_string().into_bytes(),
        ),
        ("LSYNCD_BATCHES", report.batches.to_string().into_bytes()),
    ];
    let env: [(&str, Vec<u8>); 9] = env;
    let env = env.map(|(key, value)| (OsString::from(key), OsString::from_vec(value)));
    Some(Command {
        program: program.clone(),
        args: args.to_vec(),
        environment: env.to_vec(),
        stdin: Stdin::Bytes(report.paths),
        output: Output::Lines,
        priority: Default::default(),
    })
}
