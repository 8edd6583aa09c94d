//! Children at work for a sync: from what Lua asked for to what their end means.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::SystemTime;

use mlua::Table;

use super::engine::{Engine, Outcome};
use crate::batch;
use crate::exit::Exit;
use crate::process::{Command, End, Output, Pid, SpawnError, Stdin, Stream};
use crate::queue::DelayId;
use crate::report;
use crate::script::{Member, SpawnRequest, Verdict};

/// What lsyncd's children exit with when their program can't be executed.
const NOT_EXECUTED: i32 = 255;

/// The last lines of a child's error output are kept, to know a failure by its words.
const KEPT_LINES: usize = 50;

/// One child at work for a sync.
pub struct Job {
    member: Rc<Member>,
    agent: Table,
    ids: Vec<DelayId>,
    started: SystemTime,
    transfer: Option<batch::Kind>,
    errors: std::cell::RefCell<Vec<Vec<u8>>>,
}

impl Job {
    /// A line of output of a child: into the log, with the sync's name.
    pub fn output(jobs: &HashMap<Pid, Job>, pid: Pid, stream: Stream, line: &[u8]) {
        let Some(job) = jobs.get(&pid) else {
            return report::normal(report::escape(line));
        };
        let name = &job.member.sync.borrow().config.name;
        let text = format_args!("{name}: {}", report::escape(line)).to_string();
        match stream {
            Stream::Stdout => report::normal(text),
            Stream::Stderr => {
                report::warn(text);
                let mut errors = job.errors.borrow_mut();
                if errors.len() < KEPT_LINES {
                    errors.push(line.to_vec());
                }
            }
        }
    }
}

impl Engine<'_> {
    /// Starts what Lua asked for.
    pub(super) fn launch(&mut self) {
        let requests = self.script.host.requests.take();
        for request in requests {
            self.start(request);
        }
    }

    fn start(&mut self, request: SpawnRequest) {
        if report::enabled("Exec") {
            report::say("Exec", shown(&request));
        }
        let output = match (&self.script.settings.log_file, self.script.settings.nodaemon) {
            _ if request.captured => Output::Lines,
            (_, true) => Output::Inherit,
            (Some(file), false) => Output::Append(file.clone()),
            (None, false) => Output::Inherit,
        };
        let command = Command {
            program: request.program.clone(),
            args: request.args,
            stdin: match request.stdin {
                Some(bytes) if !bytes.is_empty() => Stdin::Bytes(bytes),
                _ => Stdin::Inherit,
            },
            output,
        };
        let spawned = self.core.children.borrow_mut().spawn(command);
        let job = Job {
            member: Rc::clone(&request.member),
            agent: request.agent,
            ids: request.ids,
            started: Self::wall_clock(),
            transfer: request.transfer,
            errors: Default::default(),
        };
        match spawned {
            Ok(pid) => {
                request.member.sync.borrow_mut().running += 1;
                self.jobs.insert(pid, job);
                self.count_running();
            }
            Err(SpawnError::NotExecutable(_)) => {
                let program = report::escape(&request.program);
                report::error(format_args!("Failed executing [ {program} ]!"));
                self.evaluate(job, End::Exit(NOT_EXECUTED));
            }
            Err(SpawnError::Resources(error)) => {
                let mut sync = request.member.sync.borrow_mut();
                let wait = sync.failed(&job.ids, self.now);
                let name = &sync.config.name;
                let program = report::escape(&request.program);
                report::error(format_args!(
                    "{name}: cannot start {program}: {error}; trying again in {} s",
                    wait.as_secs()
                ));
            }
        }
    }

    /// Evaluates the children that ended.
    pub(super) fn collect(&mut self) {
        let children = Rc::clone(&self.core.children);
        let jobs = &self.jobs;
        let mut sink = |pid, stream, line: &[u8]| Job::output(jobs, pid, stream, line);
        let ended = children.borrow_mut().reap(&mut sink);
        for child in ended {
            if let Some(job) = self.jobs.remove(&child.pid) {
                job.member.sync.borrow_mut().running -= 1;
                self.count_running();
                self.evaluate(job, child.end);
            }
        }
    }

    fn count_running(&self) {
        self.script.host.running.set(self.jobs.len());
    }

    /// What the end of a child means for its sync.
    fn evaluate(&mut self, job: Job, end: End) {
        let code = end.code();
        if self.falls_back(&job, code) {
            return;
        }
        let signal = match end {
            End::Signal(signal) => Some(signal),
            End::Exit(_) => None,
        };
        let errors = job.errors.borrow().join(&b'\n');
        let collected = self
            .script
            .collect(&job.member, &job.agent, code, signal, &errors);
        let verdict = match collected {
            Ok(verdict) => verdict,
            Err(error) => return self.fail(&error),
        };
        let mut sync = job.member.sync.borrow_mut();
        match verdict {
            Verdict::Done => {
                sync.transferred(job.started);
                sync.succeeded(&job.ids);
                drop(sync);
                job.member.forget(&job.ids);
            }
            Verdict::Again => {
                let wait = sync.failed(&job.ids, self.now);
                report::say(
                    "Delay",
                    format_args!("{}: again in {} s", sync.config.name, wait.as_secs()),
                );
            }
            Verdict::Die => {
                if !self.script.host.startup_failed.get() {
                    report::error("Critical exitcode.");
                }
                self.over = Some(Outcome::Exit(Exit::Failure));
            }
        }
    }

    /// Whether the transfer failed because the two rsyncs cannot do it this way: then it is done
    /// at once in the other.
    fn falls_back(&mut self, job: &Job, code: i32) -> bool {
        let Some(kind) = job.transfer else {
            return false;
        };
        let mut sync = job.member.sync.borrow_mut();
        let errors = job.errors.borrow();
        if !sync.chooser.failed(kind, code, errors.iter()) {
            return false;
        }
        report::normal(format_args!(
            "{}: this rsync cannot take a list of missing files, using filters from now on",
            sync.config.name
        ));
        sync.redo(&job.ids, self.now);
        true
    }
}

/// A command as the category Exec shows it.
fn shown(request: &SpawnRequest) -> String {
    let mut text = report::escape(&request.program).into_owned();
    let mut word = |word: &[u8]| {
        text.push_str(&format!(" [{}]", report::escape(word)));
    };
    if let Some(stdin) = &request.stdin {
        word(b"<");
        let lines: Vec<u8> = stdin.iter().map(|&b| if b == 0 { b'\n' } else { b }).collect();
        word(&lines);
    }
    for argument in &request.args {
        word(argument);
    }
    text
}
