//! The commands of the hooks `onSynced`, `onFailed` and `onRecovered`.
//!
//! A hook never delays transfers. Commands run in parallel, one at a time for each sync, and
//! results in the meantime are merged into the next call.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::config::{Hook, SyncConfig};
use crate::id::SyncId;
use crate::log;
use crate::process::{Command, ExitStatus, Output, Pid, SpawnError, Stdin};
use crate::script::{HookReport, Script, SyncHandle};

/// The maximum size of the paths passed to one call, in bytes.
pub const MAX_PATH_BYTES: usize = 4 * 1024 * 1024;

/// The maximum number of waiting calls of one sync.
const MAX_WAITING_CALLS: usize = 8;

/// Starts a command.
pub type Spawner<'a> = &'a mut dyn FnMut(Command) -> Result<Pid, SpawnError>;

/// Running and waiting hook commands, by sync.
#[derive(Default)]
pub struct Hooks(Vec<HookQueue>);

struct HookQueue {
    sync: HookSync,
    running: Option<Pid>,
    waiting: VecDeque<HookReport>,
}

/// The properties of a sync that a hook command gets.
#[derive(Clone, Debug)]
pub struct HookSync {
    id: SyncId,
    target: Vec<u8>,
    config: SyncConfig,
}

impl HookSync {
    /// Returns the properties of a sync.
    pub fn of(handle: &SyncHandle) -> HookSync {
        let target = handle.destination().unwrap_or_default();
        let sync = handle.sync.borrow();
        HookSync {
            id: sync.id,
            target,
            config: sync.config.clone(),
        }
    }

    /// Returns the command of a hook; `None` if it is not a command.
    fn command(&self, report: HookReport) -> Option<Command> {
        let Some(Hook::Command(words)) = report.event.hook(&self.config) else {
            return None;
        };
        let (program, args) = words.split_first()?;
        let count = report.paths.iter().filter(|&&byte| byte == 0).count();
        let text = log::escape(&report.text).into_owned();
        let env = [
            ("LSYNCD_EVENT", report.event.name().into()),
            ("LSYNCD_SYNC", log::unescape(&self.config.name)),
            ("LSYNCD_SOURCE", self.config.source.clone()),
            ("LSYNCD_TARGET", self.target.clone()),
            (
                "LSYNCD_EXITCODE",
                report.status.code().to_string().into_bytes(),
            ),
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
}

impl Hooks {
    /// Calls the hook of a sync, if it has one for the event. A Lua function runs in the daemon and
    /// is stopped if it takes too long.
    pub fn on_report(
        &mut self,
        script: &Script,
        handle: &SyncHandle,
        report: HookReport,
        spawn: Spawner<'_>,
    ) {
        let hook = report.event.hook(&handle.sync.borrow().config).cloned();
        match hook {
            None => {}
            Some(Hook::Command(_)) => self.call(HookSync::of(handle), report, spawn),
            Some(Hook::Function) => {
                if let Err(error) = script.hook(handle, &report) {
                    log::error("in a hook, which is ignored:");
                    script.report(&error);
                }
            }
        }
    }

    /// Calls the hook command of a sync, or queues the call while another one runs.
    fn call(&mut self, sync: HookSync, report: HookReport, spawn: Spawner<'_>) {
        self.queue(sync).push(report);
        self.start(spawn);
    }

    /// Takes in the end of a process, if it is a hook command.
    pub fn on_ended(&mut self, pid: Pid, status: ExitStatus, spawn: Spawner<'_>) {
        for queue in &mut self.0 {
            if queue.running == Some(pid) {
                queue.running = None;
                if !status.is_success() {
                    let (name, code) = (&queue.sync.config.name, status.code());
                    log::warn(format_args!("{name}: the hook ended with exit code {code}"));
                }
            }
        }
        self.start(spawn);
        self.retire();
    }

    /// Removes queues without calls, including those of replaced configurations. A queue with calls
    /// is removed once they are done.
    pub fn retire(&mut self) {
        self.0
            .retain(|queue| queue.running.is_some() || !queue.waiting.is_empty());
    }

    fn start(&mut self, spawn: Spawner<'_>) {
        for queue in &mut self.0 {
            // A command that cannot be started is logged, and the next one follows.
            while queue.running.is_none()
                && let Some(report) = queue.waiting.pop_front()
            {
                let Some(command) = queue.sync.command(report) else {
                    continue;
                };
                let program = command.program.clone();
                match spawn(command) {
                    Ok(pid) => queue.running = Some(pid),
                    Err(error) => log::error(format_args!(
                        "{}: cannot run the hook {}: {error}",
                        queue.sync.config.name,
                        log::escape(&program)
                    )),
                }
            }
        }
    }

    /// Returns the queue of a sync, which may belong to a new configuration after a reload.
    fn queue(&mut self, sync: HookSync) -> &mut HookQueue {
        let known = self.0.iter().position(|queue| queue.sync.id == sync.id);
        let index = known.unwrap_or(self.0.len());
        if known.is_none() {
            self.0.push(HookQueue {
                sync,
                running: None,
                waiting: VecDeque::new(),
            });
        } else {
            self.0[index].sync = sync;
        }
        &mut self.0[index]
    }
}

impl HookQueue {
    /// Queues a call, or merges it with a waiting one of the same kind.
    fn push(&mut self, report: HookReport) {
        let waiting = &mut self.waiting;
        let last = waiting.back();
        let last_is_like = last.is_some_and(|last| last.event == report.event);
        if !last_is_like && waiting.len() < MAX_WAITING_CALLS {
            return waiting.push_back(report);
        }
        let mut alike = waiting.iter_mut().rev();
        if let Some(older) = alike.find(|older| older.event == report.event) {
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
    older.status = newer.status;
    older.text = newer.text;
    older.batches += newer.batches;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::HookEvent;

    fn sync() -> HookSync {
        let config =
            "{ source = '/s/', name = 'one', onSynced = { 'synced' }, onFailed = { 'failed' } }";
        let lua = crate::sys::lua();
        let config: mlua::Table = lua.load(config).eval().unwrap();
        HookSync {
            id: SyncId::new(),
            target: b"/t/".to_vec(),
            config: SyncConfig::from_table(&config).unwrap(),
        }
    }

    fn report(code: i32, paths: &[u8]) -> HookReport {
        HookReport {
            event: if code == 0 {
                HookEvent::Synced
            } else {
                HookEvent::Failed
            },
            status: ExitStatus::Exit(code),
            text: Vec::new(),
            paths: paths.to_vec(),
            truncated: false,
            batches: 1,
        }
    }

    /// Returns the program and the value of a variable.
    fn shown(command: &Command, key: &str) -> (String, String) {
        let mut environment = command.environment.iter();
        let value = environment.find(|(name, _)| name == key).unwrap().1.clone();
        let program = String::from_utf8(command.program.clone()).unwrap();
        (program, value.into_string().unwrap())
    }

    #[test]
    fn calls_of_a_sync_follow_one_another_and_are_merged() {
        let (mut hooks, sync, mut started) = (Hooks::default(), sync(), Vec::new());
        let mut spawn = |command: Command| {
            started.push(command);
            Ok(Pid(started.len() as u32))
        };
        hooks.call(sync.clone(), report(0, b"/a\0"), &mut spawn);
        for code in [0, 12, 23] {
            hooks.call(sync.clone(), report(code, b"/b\0"), &mut spawn);
        }
        let exit = ExitStatus::Exit(0);
        hooks.on_ended(Pid(7), exit, &mut spawn);
        hooks.on_ended(Pid(1), exit, &mut spawn);
        hooks.on_ended(Pid(2), exit, &mut spawn);
        assert_eq!(hooks.0.len(), 1);
        hooks.on_ended(Pid(3), exit, &mut spawn);
        assert!(hooks.0.is_empty());
        let told: Vec<_> = started
            .iter()
            .map(|command| shown(command, "LSYNCD_PATHS"))
            .collect();
        let told: Vec<_> = told.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(told, [("synced", "1"), ("synced", "1"), ("failed", "2")]);
        assert_eq!(shown(&started[2], "LSYNCD_EXITCODE").1, "23");
        assert_eq!(shown(&started[2], "LSYNCD_BATCHES").1, "2");
    }

    #[test]
    fn beyond_the_limit_the_last_call_of_the_kind_tells_of_all() {
        let mut queue = HookQueue {
            sync: sync(),
            running: None,
            waiting: VecDeque::new(),
        };
        for n in 0..MAX_WAITING_CALLS + 2 {
            let mut report = report(n as i32 % 2, b"/f\0");
            report.text = n.to_string().into_bytes();
            report.truncated = n == MAX_WAITING_CALLS;
            queue.push(report);
        }
        assert_eq!(queue.waiting.len(), MAX_WAITING_CALLS);
        let tail: Vec<_> = queue.waiting.range(MAX_WAITING_CALLS - 2..).collect();
        assert_eq!((tail[0].batches, tail[1].batches), (2, 2));
        assert_eq!((tail[0].truncated, tail[1].truncated), (true, false));
        assert_eq!((&*tail[0].text, &*tail[1].text), (&b"8"[..], &b"9"[..]));
    }

    #[test]
    fn paths_beyond_the_limit_are_left_out() {
        let mut older = report(0, &vec![b'x'; MAX_PATH_BYTES - 2]);
        merge(&mut older, report(0, b"/a"));
        assert!(!older.truncated);
        merge(&mut older, report(0, b"/b"));
        assert!(older.truncated);
        assert_eq!((older.paths.len(), older.batches), (MAX_PATH_BYTES, 3));
    }
}
