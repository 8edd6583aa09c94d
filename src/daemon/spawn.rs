//! Processes of syncs: starts them on request of Lua, and reaps them.

use std::rc::Rc;
use std::time::{Instant, SystemTime};

use super::event_loop::EventLoop;
use super::job::{Job, listener};
use crate::log;
use crate::process::{Command, ExitStatus, Output, Pid, SpawnError, Stdin};
use crate::script::{Script, ScriptRequest, SpawnRequest};

/// The exit code of lsyncd's children whose program cannot be executed.
const EXIT_NOT_EXECUTED: i32 = 255;

impl EventLoop<'_> {
    /// Executes the requests of Lua code in their order.
    pub(super) fn launch(&mut self) {
        for request in self.script.context.requests.take() {
            match request {
                ScriptRequest::Spawn(request) => self.start(request),
                ScriptRequest::Copy(request) => self.start_copy(request),
                ScriptRequest::Scan(request) => self.request_scan(request),
            }
        }
    }

    fn start(&mut self, request: SpawnRequest) {
        if let Some(request) = self.dry_run_first(request) {
            self.execute(request);
        }
    }

    /// Starts one process.
    pub(super) fn execute(&mut self, mut request: SpawnRequest) {
        if log::enabled("Exec") {
            log::say("Exec", shown(&request));
        }
        let program = request.program.clone();
        let roots = roots(&request.args);
        let command = command(&mut request, &self.script);
        let spawned = self.context.children.borrow_mut().spawn(command);
        let job = Job::of_request(request, roots, Rc::clone(&self.script));
        match spawned {
            Ok(pid) => {
                job.handle.sync.borrow_mut().child_started();
                self.add_job(pid, job);
                self.count_running();
            }
            Err(SpawnError::NotExecutable(_)) => {
                let text = format!("Failed executing [ {} ]!", log::escape(&program));
                log::error(&text);
                job.errors.borrow_mut().push_back(text.into_bytes());
                self.evaluate(job, ExitStatus::Exit(EXIT_NOT_EXECUTED));
            }
            Err(SpawnError::Resources(error)) => {
                let mut sync = job.handle.sync.borrow_mut();
                let wait = sync.failed(&job.ids, self.now);
                let program = log::escape(&program);
                let text = format!("cannot start {program}: {error}");
                let name = &sync.config.name;
                log::error(format_args!(
                    "{name}: {text}; trying again in {} s",
                    wait.as_secs()
                ));
                sync.counters.failed(EXIT_NOT_EXECUTED, text.into_bytes());
            }
        }
    }

    /// Reaps and evaluates ended children.
    pub(super) fn reap(&mut self) {
        self.reap_copies();
        self.collect_counts();
        let children = Rc::clone(&self.context.children);
        let ended = children
            .borrow_mut()
            .reap(&mut listener(&self.jobs, &self.script.context));
        for child in ended {
            if let Some(mut job) = self.jobs.remove(&child.pid) {
                self.last_end = Some(SystemTime::now());
                job.leave();
                self.transfer_ended(&job.handle);
                self.count_running();
                if self.stall_detector.ended(child.pid).is_some() && child.end.code() != 0 {
                    self.retry_stalled(job, child.end);
                    continue;
                }
                match (job.dry_run.take(), job.scan.take()) {
                    (Some(dry_run), _) => self.apply_dry_run(dry_run, child.end),
                    (None, Some(scan)) => self.scanned(scan, child.end),
                    (None, None) => self.evaluate(job, child.end),
                }
            } else {
                self.told_of_reject(child.pid, child.end.code());
                self.hook_ended(child.pid, child.end.code());
                self.tunnel_ended(child.pid, child.end);
            }
        }
    }

    /// Registers the job of a started process.
    pub(super) fn add_job(&mut self, pid: Pid, job: Job) {
        if job.may_stall() {
            self.stall_detector.started(pid, Instant::now());
        }
        self.jobs.insert(pid, job);
    }

    fn count_running(&self) {
        self.script.context.running.set(self.jobs.len());
    }
}

/// Returns the command of a request, with its output settings. Takes the arguments out of the
/// request.
fn command(request: &mut SpawnRequest, script: &Script) -> Command {
    let output = match (&script.settings.log_file, script.settings.nodaemon) {
        _ if request.captured => Output::Lines,
        (_, true) => Output::Inherit,
        (Some(file), false) => Output::Append(file.clone()),
        (None, false) => Output::Inherit,
    };
    let priority = request.handle.sync.borrow().config.priority;
    Command {
        program: std::mem::take(&mut request.program),
        args: std::mem::take(&mut request.args),
        stdin: match request.stdin.take() {
            Some(bytes) => Stdin::Bytes(bytes),
            None => Stdin::Inherit,
        },
        output,
        environment: std::mem::take(&mut request.environment),
        priority: priority.or(script.settings.priority),
    }
}

/// Returns the source and the target among the arguments of rsync.
fn roots(args: &[Vec<u8>]) -> Vec<Vec<u8>> {
    args[args.len().saturating_sub(2)..].to_vec()
}

/// Returns a command as logged in the category Exec, with the names of a file list on lines of
/// their own.
fn shown(request: &SpawnRequest) -> String {
    let mut words = vec![log::escape(&request.program).into_owned()];
    if let Some(stdin) = &request.stdin {
        // With `--from0` the names end with zero bytes, else with newlines.
        let from0 = request.args.iter().any(|word| word == b"--from0");
        let end = if from0 { 0 } else { b'\n' };
        let lines: Vec<_> = stdin.split(|&byte| byte == end).map(log::escape).collect();
        words.push("[<]".into());
        words.push(format!("[{}]", lines.join("\n")));
    }
    let arguments = request.args.iter();
    words.extend(arguments.map(|word| format!("[{}]", log::escape(word))));
    words.join(" ")
}
