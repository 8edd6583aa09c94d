//! What the end of a child means for its sync.

use std::time::Duration;

use super::engine::{Engine, Outcome};
use super::job::Job;
use super::outcome;
use crate::exit::Exit;
use crate::process::End;
use crate::queue::Time;
use crate::report;
use crate::report::amounts::counted;
use crate::script::Verdict;
use crate::sync::{Sync, micros};

/// What changed while it was acted upon is looked at again after this; the event that tells of
/// the change is on its way.
const SOON: Duration = Duration::from_millis(200);

/// rsync's code for "some files were not transferred".
const PARTIAL: i32 = 23;

impl Engine<'_> {
    /// What the end of a child means for its sync.
    pub(super) fn evaluate(&mut self, job: Job, end: End) {
        let code = end.code();
        job.member.sync.borrow_mut().transferred();
        if self.falls_back(&job, code) {
            return;
        }
        let signal = match end {
            End::Signal(signal) => Some(signal),
            End::Exit(_) => None,
        };
        let errors = job.errors.borrow().join(&b'\n');
        let collected = job
            .script
            .collect(&job.member, &job.agent, code, signal, &errors);
        let verdict = match collected {
            Ok(verdict) => verdict,
            Err(error) => return self.fail(&error),
        };
        let outcome = job.outcome(verdict, code);
        let told = match verdict {
            Verdict::Redo => None,
            _ => self.account(&job, code, outcome),
        };
        if verdict != Verdict::Done {
            job.keep_doubt();
        }
        if job.repeated && verdict != Verdict::Again {
            job.tell_errors();
        }
        self.carry_out(&job, verdict, code);
        self.call_hook(&job.member, told);
    }

    /// The stall detector ended a transfer: its work is done again, later each time.
    pub(super) fn retry_stalled(&mut self, mut job: Job, end: End) {
        if let Some(trial) = job.trial.take() {
            job.ids = trial.ids().to_vec();
        }
        job.member.sync.borrow_mut().transferred();
        job.keep_doubt();
        let told = self.account(&job, end.code(), outcome::Outcome::Failed);
        self.carry_out(&job, Verdict::Again, end.code());
        self.call_hook(&job.member, told);
    }

    /// What a verdict means for the entries the child was about.
    fn carry_out(&mut self, job: &Job, verdict: Verdict, code: i32) {
        let mut sync = job.member.sync.borrow_mut();
        match verdict {
            Verdict::Done => {
                if job.captured && job.is_transfer(&sync) {
                    partly_done(&mut sync, job, code, self.now);
                }
                sync.succeeded(&job.ids);
                drop(sync);
                job.member.forget(&job.ids);
            }
            Verdict::Again => {
                let wait = sync.failed(&job.ids, self.now).as_secs();
                let name = &sync.config.name;
                report::warn(match sync.failures() {
                    0 | 1 => format!("{name}: trying again in {wait} s"),
                    count => {
                        format!("{name}: failed {count} times in a row, trying again in {wait} s")
                    }
                });
            }
            Verdict::Redo => sync.redo(&job.ids, self.now + micros(SOON)),
            Verdict::Die => {
                drop(sync);
                self.end_sync(job, code);
            }
        }
    }

    /// A sync can't go on: the others do, unless there are none or this was its startup, whose
    /// failure ends a daemon that was not told to insist.
    fn end_sync(&mut self, job: &Job, code: i32) {
        let over = Some(Outcome::Exit(Exit::Failure));
        if self.script.host.startup_failed.get() {
            self.over = over;
            return;
        }
        report::error("Critical exitcode.");
        let mut sync = job.member.sync.borrow_mut();
        let startup = job.is_startup(&sync) && !self.script.insists();
        sync.end(&job.ids, code, self.now);
        let name = sync.config.name.clone();
        drop(sync);
        if !self.members.iter().any(|member| job.is_for(&member.sync)) {
            return;
        }
        if startup || self.members.iter().all(|m| m.sync.borrow().has_ended()) {
            self.over = over;
            return;
        }
        report::error(format_args!(
            "{name}: ended by exit code {code}, its target is not kept current any more; \
             the other syncs go on"
        ));
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

impl Job {
    /// How its work ended.
    fn outcome(&self, verdict: Verdict, code: i32) -> outcome::Outcome {
        let sync = self.member.sync.borrow();
        let partly = code == PARTIAL && self.captured && self.is_transfer(&sync);
        match verdict {
            Verdict::Done if !partly => outcome::Outcome::Synced,
            _ => outcome::Outcome::Failed,
        }
    }

    /// Tells the kept lines of its error output.
    fn tell_errors(&self) {
        let sync = self.member.sync.borrow();
        let name = &sync.config.name;
        for line in self.errors.borrow().iter() {
            report::warn(format_args!("{name}: {}", report::escape(line)));
        }
    }
}

/// What a transfer that is otherwise done left undone is not forgotten.
fn partly_done(sync: &mut Sync, job: &Job, code: i32, now: Time) {
    if code != PARTIAL {
        return sync.undone.well();
    }
    let wait = sync.partly_failed(&job.ids, &job.errors.borrow(), now);
    let name = &sync.config.name;
    match wait {
        Some(wait) => report::warn(format_args!(
            "{name}: rsync could not do everything (exit code {code}), {} again in {} s",
            match sync.undone.len() {
                0 => "all".to_owned(),
                count => counted(count, "path"),
            },
            wait.as_secs()
        )),
        None => report::warn(format_args!(
            "{name}: rsync still could not do everything (exit code {code})"
        )),
    }
}
