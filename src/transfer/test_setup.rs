//! A sync with a transfer of its first entries, for the tests of this room. The configuration and
//! the call of rsync are real; rsync is not started.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mio::{Poll, Token, Waker};
use nix::sys::signal::Signal;

use super::completion::{Evaluation, evaluate};
use super::job::Job;
use super::spawn;
use super::transfers::Transfers;
use crate::component::Action;
use crate::process::{Children, ExitStatus, Pid};
use crate::queue::Time;
use crate::script::{CopyRequest, Script, ScriptRequest, SpawnRequest, SyncHandle};
use crate::watch::Event;

pub const OPENED: &str =
    "rsync: [sender] send_files failed to open \"@SRC@NAME\": Permission denied (13)";
pub const SUMMARY: &str = "rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1338) [sender=3.2.7]";

/// A sync and the transfer of its first entries.
pub struct Transfer {
    pub _directory: tempfile::TempDir,
    pub handle: Rc<SyncHandle>,
    pub job: Job,
    pub source: String,
}

/// A sync whose files have changed.
pub struct ChangedSync {
    pub directory: tempfile::TempDir,
    pub script: Rc<Script>,
    pub handle: Rc<SyncHandle>,
    pub source: String,
}

/// The time of the requests: all changes are due.
pub const NOW: Time = 100_000_000;

impl ChangedSync {
    /// Returns the first sync of a configuration, in which `@DIR@` is a new directory that
    /// contains the source `src`, after an event of each of these files.
    pub fn of(config: &str, names: &[&str], event: fn(&[u8]) -> Event<'_>) -> ChangedSync {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("src");
        std::fs::create_dir(&source).unwrap();
        for name in names {
            std::fs::write(source.join(name), "content").unwrap();
        }
        let root = directory.path().to_str().unwrap();
        let script = Rc::new(Script::of_text(&config.replace("@DIR@", root)));
        let handle = script.syncs().remove(0);
        let source = String::from_utf8(handle.sync.borrow().config.source.clone()).unwrap();
        {
            let mut sync = handle.sync.borrow_mut();
            sync.start(0);
            for name in names {
                let path = format!("{source}{name}").into_bytes();
                sync.ingest(event(&path), 0);
            }
        }
        ChangedSync {
            directory,
            script,
            handle,
            source,
        }
    }

    /// Returns the request of the transfer of what is due.
    pub fn request(&self) -> SpawnRequest {
        request(&self.script, &self.handle, NOW)
    }
}

impl Transfer {
    /// Returns the transfer of files that have changed; of everything without names.
    pub fn of(options: &str, names: &[&str]) -> Transfer {
        Transfer::after(options, names, |path| Event::Modify { path })
    }

    /// Returns the transfer of a deletion.
    pub fn of_deleted(name: &str) -> Transfer {
        Transfer::after("", &[name], |path| {
            std::fs::remove_file(OsStr::from_bytes(path)).unwrap();
            Event::Delete { path }
        })
    }

    pub fn after(options: &str, names: &[&str], event: fn(&[u8]) -> Event<'_>) -> Transfer {
        let init = if names.is_empty() {
            ""
        } else {
            "init = false,"
        };
        let config = format!(
            "sync {{ default.rsync, source = '@DIR@/src', target = '/nowhere/trg', delay = 1, \
             {init} {options} }}"
        );
        let sync = ChangedSync::of(&config, names, event);
        Transfer {
            job: begin(&sync.script, &sync.handle, NOW),
            _directory: sync.directory,
            handle: sync.handle,
            source: sync.source,
        }
    }

    /// Ends the transfer with these lines of error output.
    pub fn end(&self, lines: &[&str], code: i32) -> Evaluation {
        let lines = lines
            .iter()
            .map(|line| line.replace("@SRC@", &self.source).into_bytes());
        self.job.take_errors(lines);
        evaluate(&self.job, ExitStatus::Exit(code), 0).unwrap()
    }

    pub fn pending(&self) -> Vec<String> {
        pending(&self.handle)
    }

    pub fn failed(&self) -> Vec<String> {
        let sync = self.handle.sync.borrow();
        let names = sync.failed_paths().names(9);
        names
            .map(|name| String::from_utf8(name.into()).unwrap())
            .collect()
    }
}

/// Returns the paths in the queue of a sync, and the names of events without a path.
pub fn pending(handle: &SyncHandle) -> Vec<String> {
    let sync = handle.sync.borrow();
    let delays = sync.queue.iter().map(|delay| match delay.etype() {
        etype if etype.is_special() => etype.name().into(),
        _ => String::from_utf8(delay.paths().0).unwrap(),
    });
    delays.collect()
}

/// Lets the action of the sync request its transfer. Returns its job.
pub fn begin(script: &Rc<Script>, handle: &Rc<SyncHandle>, now: Time) -> Job {
    let request = request(script, handle, now);
    let roots = spawn::roots(&request.args);
    Job::of_request(request, roots, Rc::clone(script))
}

/// Lets the action of the sync request its transfer.
pub fn request(script: &Rc<Script>, handle: &Rc<SyncHandle>, now: Time) -> SpawnRequest {
    match script_request(script, handle, now) {
        ScriptRequest::Spawn(request) => request,
        _ => panic!("no process was requested"),
    }
}

/// Lets the action of the sync request something.
pub fn script_request(script: &Rc<Script>, handle: &Rc<SyncHandle>, now: Time) -> ScriptRequest {
    let next = handle.sync.borrow_mut().next(now);
    let crate::sync::Next::Act(id) = next else {
        panic!("nothing is due: {next:?}")
    };
    script.act(handle, id).unwrap();
    let request = script.context.requests.take().into_iter().next();
    request.unwrap()
}

/// The begin of a sync of default.rsync.
pub const RSYNC: &str =
    "sync { default.rsync, source = '@DIR@/src', target = '/nowhere/trg', delay = 1, ";

/// A sync with a changed file, and its transfers.
pub struct Rig {
    pub sync: ChangedSync,
    pub transfers: Transfers,
    /// The owner of the waker, which is never polled.
    _poll: Poll,
}

impl Rig {
    pub fn of(config: &str) -> Rig {
        let sync = ChangedSync::of(config, &["a"], |path| Event::Modify { path });
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let registry = poll.registry().try_clone().unwrap();
        let children = Rc::new(RefCell::new(Children::new(registry, 1)));
        let syncs = [Rc::clone(&sync.handle)];
        Rig {
            transfers: Transfers::new(children, waker, &sync.script, &syncs),
            sync,
            _poll: poll,
        }
    }

    /// Returns the rig of a sync of default.rsync with these keys.
    pub fn rsync(options: &str) -> Rig {
        Rig::of(&format!("{RSYNC} init = false, {options} }}"))
    }

    /// Returns a request in which a program takes the place of rsync.
    pub fn request(&self, program: &str, args: &[&str]) -> SpawnRequest {
        SpawnRequest {
            program: program.into(),
            args: args.iter().map(|word| word.as_bytes().to_vec()).collect(),
            stdin: None,
            ..self.sync.request()
        }
    }

    /// Starts a process that ends by a signal only.
    pub fn sleep(&mut self) {
        let request = self.request("sleep", &["1000"]);
        assert_eq!(self.transfers.start(request, NOW), []);
    }

    /// Waits for the end of a process.
    pub fn reap(&self) -> (Pid, ExitStatus) {
        loop {
            let ended = self
                .transfers
                .children()
                .borrow_mut()
                .reap(&mut |_, _, _| {});
            if let Some(ended) = ended.first() {
                return (ended.pid, ended.end);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the end of a transfer and evaluates it.
    pub fn end(&mut self) -> Vec<Action> {
        let (pid, status) = self.reap();
        let job = self.transfers.remove(pid).unwrap();
        self.transfers.on_ended(pid, job, status, NOW)
    }

    pub fn copy_request(&self) -> CopyRequest {
        match script_request(&self.sync.script, &self.sync.handle, NOW) {
            ScriptRequest::Copy(request) => request,
            _ => panic!("no copy was requested"),
        }
    }

    pub fn pending(&self) -> Vec<String> {
        pending(&self.sync.handle)
    }

    pub fn failures(&self) -> u32 {
        self.sync.handle.sync.borrow().failures()
    }

    /// Returns the numbers of processes as the daemon, user code and the sync see them.
    pub fn running(&self) -> (usize, usize, usize) {
        let context = self.sync.script.context.running.get();
        let sync = self.sync.handle.sync.borrow().running();
        (self.transfers.running(), context, sync)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let children = self.transfers.children().borrow();
        let pids: Vec<Pid> = children.pids().collect();
        for &pid in &pids {
            let _ = children.kill_tree(pid, Signal::SIGKILL);
        }
        drop(children);
        while self.transfers.children().borrow().count() > 0 {
            self.reap();
        }
    }
}
