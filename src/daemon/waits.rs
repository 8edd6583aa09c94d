//! Who waits until everything that happened before the request is at the target.
//!
//! Two things have to come true, one after the other. First, the kernel's events of before the
//! request have been told ([`Watcher::has_told`]). Then what is in the queues at that moment is
//! done ([`Sync::reached`](crate::sync::Sync::reached)). docs/control.md says why that is
//! enough.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::peers::PeerId;
use crate::script::Member;
use crate::sync::Mark;
use crate::watch::{Moment, Watcher};

/// The reader's thread does not wake the loop to say that it found nothing, so it is asked
/// again; less often when it takes longer.
const SOON: Duration = Duration::from_millis(2);
const LATER: Duration = Duration::from_millis(100);

/// One who waits.
pub struct Wait {
    /// Who.
    pub peer: PeerId,
    /// For the syncs of this name, or all.
    pub sync: Option<String>,
    stage: Stage,
}

enum Stage {
    /// For the events of before this moment.
    Told {
        moment: Moment,
        again: Instant,
        pause: Duration,
    },
    /// For the entries of before these marks.
    Done(Vec<(Rc<Member>, Mark)>),
    /// It has not begun, or begins anew: the configuration was read again, and what was noticed
    /// went over to other syncs.
    Anew,
}

impl Wait {
    /// From now on.
    pub fn new(peer: PeerId, sync: Option<String>) -> Wait {
        Wait {
            peer,
            sync,
            stage: Stage::Anew,
        }
    }

    /// When to look again.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Told { again, .. } => Some(*again),
            Stage::Done(_) | Stage::Anew => None,
        }
    }

    /// Begins, or begins anew if the syncs are others now. To be called right after the
    /// watcher's turn, as the other two.
    pub fn begin(&mut self, watcher: &Watcher, members: &[Rc<Member>], now: Instant) {
        if let Stage::Done(marks) = &self.stage
            && !self.is_about(marks, members)
        {
            self.stage = Stage::Anew;
        }
        if let Stage::Anew = self.stage {
            self.stage = Stage::Told {
                moment: watcher.moment(),
                again: now,
                pause: SOON,
            };
        }
    }

    /// Returns true if all that happened before has been told, and is about to be marked: what was
    /// written to files that are open has to be in the queues then.
    pub fn is_to_mark(&self, watcher: &Watcher, started: bool) -> bool {
        matches!(self.stage, Stage::Told { moment, .. } if started && watcher.has_told(moment))
    }

    /// Returns true if it is over. `started` says that startup transfers are queued.
    pub fn is_over(
        &mut self,
        watcher: &Watcher,
        members: &[Rc<Member>],
        started: bool,
        now: Instant,
    ) -> bool {
        if let Stage::Told {
            moment,
            again,
            pause,
        } = &mut self.stage
        {
            if !started || !watcher.has_told(*moment) {
                if *again <= now {
                    *again = now + *pause;
                    *pause = (*pause * 2).min(LATER);
                }
                return false;
            }
            let marks = self
                .meant(members)
                .map(|member| (Rc::clone(member), member.sync.borrow().mark()));
            self.stage = Stage::Done(marks.collect());
        }
        match &mut self.stage {
            Stage::Done(marks) => marks
                .iter_mut()
                .all(|(member, mark)| member.sync.borrow().reached(mark)),
            _ => false,
        }
    }

    fn meant<'a>(&self, members: &'a [Rc<Member>]) -> impl Iterator<Item = &'a Rc<Member>> {
        let name = self.sync.clone();
        let meant = move |member: &&Rc<Member>| is_meant(name.as_deref(), member);
        members.iter().filter(meant)
    }

    /// Returns true if the marks are those of the syncs there are.
    fn is_about(&self, marks: &[(Rc<Member>, Mark)], members: &[Rc<Member>]) -> bool {
        let mut marked = marks.iter().map(|(member, _)| member);
        let mut meant = self.meant(members);
        let same = meant.all(|member| marked.next().is_some_and(|other| Rc::ptr_eq(member, other)));
        same && marked.next().is_none()
    }
}

/// Returns true if the sync has this name, or any will do.
pub fn is_meant(name: Option<&str>, member: &Member) -> bool {
    name.is_none_or(|name| member.sync.borrow().config.name == name)
}
