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

    /// Takes in the end of a child. Begins a removal after the first successful transfer of a day.
    pub fn on_transferred(
        &mut self,
        job: &Job,
        status: ExitStatus,
        now: WallTime,
        waker: Arc<Waker>,
        spawn: &mut dyn FnMut(Command) -> Result<Pid, SpawnError>,
    ) {
        if !status.is_success() || !job.captured {
            return;
        }
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

#[cfg(test)]
mod tests {
    use mio::{Poll, Token};

    use super::*;
    use crate::transfer::test_setup::{ChangedSync, Transfer};
    use crate::watch::Event;

    const DAY: i64 = 86_400;

    fn transfer(backup: &str) -> Transfer {
        let options = format!("target = 'host:/trg', backup = {{ {backup} }}");
        Transfer::of(&options, &["a"])
    }

    /// Returns the number of removals that begin at the end of a transfer, and the last command.
    fn removals(
        backups: &mut Backups,
        transfer: &Transfer,
        code: i32,
        now: WallTime,
    ) -> Vec<Command> {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut commands = Vec::new();
        let spawn = &mut |command| {
            commands.push(command);
            Ok(Pid(7))
        };
        backups.on_transferred(&transfer.job, ExitStatus::Exit(code), now, waker, spawn);
        commands
    }

    #[test]
    fn old_backups_are_removed_once_a_day_after_a_success() {
        let mut transfer = transfer("dir = '/old', keep = '30d'");
        let mut backups = Backups::default();
        let now = 20_000 * DAY + DAY / 2;
        let mut begun = Vec::new();
        for (code, time) in [
            (12, now),
            (0, now),
            (0, now + 1),
            (0, now + DAY),
            (23, now + DAY),
        ] {
            begun.push(removals(&mut backups, &transfer, code, time).len());
        }
        assert_eq!(begun, [0, 1, 0, 1, 0]);
        let commands = removals(&mut backups, &transfer, 0, now + 2 * DAY);
        let today = Day::at(now + 2 * DAY);
        for (days, is_kept) in [(-31, false), (-30, true), (0, true)] {
            let rule = format!("--filter=P /{}/", today.plus(days).name());
            let has_rule = commands[0].args.contains(&rule.into_bytes());
            assert_eq!(has_rule, is_kept, "{days}");
        }
        // The end of the removal is not that of a transfer.
        backups.on_ended(Pid(7), ExitStatus::Exit(0));
        assert!(backups.processes.is_empty());
        transfer.job.captured = false;
        let later = now + 5 * DAY;
        assert!(removals(&mut backups, &transfer, 0, later).is_empty());
        let kept = self::transfer("dir = '/old'");
        assert!(removals(&mut backups, &kept, 0, later).is_empty());
    }

    /// A file that is replaced twice in a moment is kept twice.
    #[test]
    fn no_two_transfers_have_the_same_directory() {
        let mut backups = Backups::default();
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        let mut directories = std::collections::BTreeSet::new();
        for time in [now, now, now - std::time::Duration::from_secs(60)] {
            let config = "sync { default.rsync, source = '@DIR@/src', target = '/nowhere/trg', \
                          delay = 1, init = false, backup = { dir = '/old' } }";
            let sync = ChangedSync::of(config, &["a"], |path| Event::Modify { path });
            let mut request = sync.request();
            let before = request.args.clone();
            backups.date(&mut request, time);
            let mut changed = request
                .args
                .iter()
                .zip(before)
                .filter(|(word, old)| *word != old);
            let (word, old) = changed.next().unwrap();
            assert_eq!(old, b"--backup-dir=/old");
            assert!(
                word.starts_with(b"--backup-dir=/old/19"),
                "{}",
                log::escape(word)
            );
            assert!(changed.next().is_none());
            directories.insert(word.clone());
        }
        assert_eq!(directories.len(), 3);
    }
}
