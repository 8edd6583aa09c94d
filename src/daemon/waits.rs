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
    /// The syncs are others now: all anew.
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

    /// The configuration was read anew. What was noticed went over to new queues.
    pub fn begin_anew(&mut self) {
        self.stage = Stage::Anew;
    }

    /// When to look again.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Told { again, .. } => Some(*again),
            Stage::Done(_) | Stage::Anew => None,
        }
    }

    /// Whether it is over. To be asked right after the watcher's turn; `started` says that
    /// startup transfers are queued.
    pub fn is_over(
        &mut self,
        watcher: &Watcher,
        members: &[Rc<Member>],
        started: bool,
        now: Instant,
    ) -> bool {
        if let Stage::Anew = self.stage {
            self.stage = Stage::Told {
                moment: watcher.moment(),
                again: now,
                pause: SOON,
            };
        }
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
            let marks = members
                .iter()
                .filter(|member| is_meant(self.sync.as_deref(), member))
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
}

/// Whether the sync has this name, or any will do.
pub fn is_meant(name: Option<&str>, member: &Member) -> bool {
    name.is_none_or(|name| member.sync.borrow().config.name == name)
}
