//! The one place where the daemon waits: until something happens or is due.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::Events;
use mio::event::Event;

use super::context::{CALENDAR, MOUNTS, SIGNALS};
use super::event_loop::EventLoop;
use super::job;
use super::server::Server;
use crate::log;
use crate::queue::Time;
use crate::sync::{Clock, Next};

impl EventLoop<'_> {
    /// Sleeps until something happens or is due.
    pub(super) fn wait(&mut self) {
        let timeout = self.timeout();
        if log::enabled("Masterloop") {
            log::say("Masterloop", format_args!("waiting, at most {timeout:?}"));
        }
        let mut events = std::mem::replace(&mut self.core.events, Events::with_capacity(0));
        match self.core.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                log::error(format_args!("waiting for events: {error}"));
            }
            _ => {}
        }
        for event in &events {
            self.pass_on(event);
        }
        self.core.events = events;
        let children = Rc::clone(&self.core.children);
        if children.borrow().pending() {
            let mut listener = job::listener(&self.jobs, &self.script.host);
            children.borrow_mut().resume(&mut listener);
        }
    }

    /// Hands an event to whom it is for.
    fn pass_on(&mut self, event: &Event) {
        let token = event.token();
        if Server::owns(token) {
            self.core.desk.wake(token);
        } else if token == MOUNTS {
            self.mounts_changed();
        } else if token == SIGNALS {
            for signal in self.core.signals.pending().collect::<Vec<_>>() {
                self.signal(signal);
            }
        } else if token == CALENDAR {
            self.core.cron_timer.on_event();
        } else if !self.script.host.observed.note(event) {
            let children = Rc::clone(&self.core.children);
            if children.borrow().owns(token) {
                let mut listener = job::listener(&self.jobs, &self.script.host);
                children.borrow_mut().ready(event, &mut listener);
            }
        }
    }

    /// How long there is nothing to do by ourselves.
    fn timeout(&mut self) -> Option<Duration> {
        if self.core.children.borrow().pending() || !self.script.host.requests.borrow().is_empty() {
            return Some(Duration::ZERO);
        }
        if self.beginning && !self.watcher.crawling() {
            return Some(Duration::ZERO);
        }
        let instant = Instant::now();
        let deadline = self.deadline(instant);
        let deadline = deadline.map(|deadline| deadline.saturating_duration_since(instant));
        if self.fading.is_some() {
            return deadline;
        }
        let now = self.core.clock.now();
        let due = self.due(now).map(|due| Clock::until(now, due));
        let soonest = deadline.into_iter().chain(due).min();
        // The kernel's timer may fire a little early; a turn too early would only spin.
        soonest.map(|span| span + Duration::from_micros(u64::from(!span.is_zero()) * 500))
    }

    /// When the daemon has something to do besides its queues.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let always = [
            self.core.notify.deadline(),
            self.watcher.next_deadline(),
            self.core.desk.deadline(now),
            self.stall_detector.deadline(),
        ];
        let always = always.into_iter().flatten();
        if let Some(fading) = &self.fading {
            let end = [Some(fading.deadline()), self.tunnels.patience()];
            return always.chain(end.into_iter().flatten()).min();
        }
        let at_work = [
            self.gate_deadline(),
            self.progress.deadline(self.watcher),
            self.sources.deadline(),
            self.watch_limit.deadline(self.watcher.crawling()),
            self.reports.deadline(),
            self.state_deadline(),
        ];
        always.chain(at_work.into_iter().flatten()).min()
    }

    /// When something of a sync, a tunnel or an alarm is due.
    fn due(&self, now: Time) -> Option<Time> {
        let asks = self.started && self.script.host.may_spawn();
        let members = self.members.iter().filter(|_| asks);
        let syncs = members.filter_map(|member| {
            if !member.is_connected() {
                return None;
            }
            match member.sync.borrow_mut().next(now) {
                Next::Act(_) => Some(now),
                Next::At(time) => Some(time),
                Next::Nothing => None,
            }
        });
        let others = [self.tunnel_deadline(), self.script.next_alarm()];
        syncs.chain(others.into_iter().flatten()).min()
    }
}
