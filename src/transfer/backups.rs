//! Backups of `backup = { … }`: the directory of a transfer that starts, and the removal of old
//! ones after the first successful transfer of a day.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::SystemTime;

use mio::Waker;

use super::job::Job;
use crate::backup::{self, Day};
use crate::batch;
use crate::cron::WallTime;
use crate::id::SyncId;
use crate::log;
use crate::process::{Command, ExitStatus, Pid, SpawnError};
use crate::script::SpawnRequest;
use crate::status::number_format::counted;

/// The removals of old backups that run, and when each sync had the last one.
#[derive(Default)]
pub struct Backups {
    /// The time of the last directory, in milliseconds.
    last: i64,
    pruned: HashMap<SyncId, Day>,
    processes: HashMap<Pid, String>,
    threads: Vec<(String, Receiver<io::Result<usize>>)>,
    stop: Arc<AtomicBool>,
}

impl Backups {
    /// Adds date and time to the directory of the backups in a call of rsync. No two calls have the
    /// same directory, in which a backup would replace the one before.
    pub fn date(&mut self, request: &mut SpawnRequest, now: SystemTime) {
        let sync = request.handle.sync.borrow();
        let Some(backup) = &sync.config.backup else {
            return;
        };
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let now = i64::try_from(now.as_millis()).unwrap_or_default();
        self.last = now.max(self.last + 1);
        let option = [b"--backup-dir=", &backup.dir[..]].concat();
        for word in request.args.iter_mut().filter(|word| **word == option) {
            word.push(b'/');
            word.extend(backup::directory(self.last).into_bytes());
        }
    }

    /// Takes in a successful transfer. Begins a removal if it is the first one of the day.
    pub fn on_synced(
        &mut self,
        job: &Job,
        now: WallTime,
        waker: Arc<Waker>,
        spawn: &mut dyn FnMut(Command) -> Result<Pid, SpawnError>,
    ) {
        let (id, name, backup) = {
            let sync = job.handle().sync.borrow();
            (
                sync.id,
                sync.config.name.clone(),
                sync.config.backup.clone(),
            )
        };
        let Some((keep, backup)) = backup.and_then(|backup| Some((backup.keep?, backup))) else {
            return;
        };
        let today = Day::at(now);
        if self.pruned.insert(id, today) == Some(today) {
            return;
        }
        let oldest = today.plus(-i64::from(keep));
        let target = match job.script.target(job.handle()) {
            Ok(target) => target,
            Err(error) => return tell(&name, &error),
        };
        let dir = backup.directory(&target);
        if !batch::is_remote(&target) {
            return self.prune_local(name, dir, oldest, waker);
        }
        match job.script.prune_command(job.handle(), |words, source| {
            backup::arguments(words, source, &dir, oldest, today)
        }) {
            Ok(command) => match spawn(command) {
                Ok(pid) => {
                    self.processes.insert(pid, name);
                }
                Err(error) => tell(&name, &error.to_string()),
            },
            Err(why) => tell(&name, &why),
        }
    }

    fn prune_local(&mut self, name: String, dir: Vec<u8>, oldest: Day, waker: Arc<Waker>) {
        let (sender, result) = mpsc::channel();
        let stop = Arc::clone(&self.stop);
        let started = thread::Builder::new()
            .name("backups".into())
            .spawn(move || {
                // The receiver is gone if the configuration has been replaced.
                let _ = sender.send(backup::prune(&dir, oldest, &stop));
                let _ = waker.wake();
            });
        match started {
            Ok(_) => self.threads.push((name, result)),
            Err(error) => tell(&name, &format!("cannot start a thread: {error}")),
        }
    }

    /// Logs the removals on threads that have ended.
    pub fn on_turn(&mut self) {
        self.threads.retain(|(name, result)| {
            match result.try_recv() {
                Err(TryRecvError::Empty) => return true,
                Ok(Ok(0)) | Err(TryRecvError::Disconnected) => {}
                Ok(Ok(count)) => {
                    let days = counted(count, "day");
                    log::normal(format_args!("{name}: removed the backups of {days}"));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => tell(name, &log::reason(&error).to_string()),
            }
            false
        });
    }

    /// Takes in the end of a process, if it removes backups.
    pub fn on_ended(&mut self, pid: Pid, status: ExitStatus) {
        if let Some(name) = self.processes.remove(&pid)
            && !status.is_success()
        {
            tell(
                &name,
                &format!("rsync ended with exit code {}", status.code()),
            );
        }
    }

    /// Takes in a new configuration, after which threads may run again.
    pub fn on_reload(&mut self) {
        self.stop = Arc::default();
    }

    /// Stops all threads as soon as possible.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn tell(name: &str, why: &str) {
    log::warn(format_args!("{name}: cannot remove old backups: {why}"));
}
