//! The only blocking call of the event loop: waits for events and deadlines.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::Events;
use mio::event::Event;

use super::context::{CRON_TOKEN, MOUNTS_TOKEN, SIGNALS_TOKEN};
use super::event_loop::EventLoop;
use crate::control::ControlServer;
use crate::log;
use crate::queue::Time;
use crate::sync::{Clock, Next};

impl EventLoop<'_> {
    /// Waits until an event arrives or a deadline is reached.
    pub(super) fn wait(&mut self) {
        let timeout = self.timeout();
        if log::enabled("Masterloop") {
            log::say("Masterloop", format_args!("waiting, at most {timeout:?}"));
        }
        let mut events = std::mem::replace(&mut self.context.events, Events::with_capacity(0));
        match self.context.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                log::error(format_args!("waiting for events: {error}"));
            }
            _ => {}
        }
        for event in &events {
            self.pass_on(event);
        }
        self.context.events = events;
        let children = Rc::clone(&self.context.children);
        if children.borrow().pending() {
            children
                .borrow_mut()
                .resume(&mut |pid, stream, line: &[u8]| self.take_output(pid, stream, line));
        }
    }

    /// Passes a poll event to its owner by its token.
    fn pass_on(&mut self, event: &Event) {
        let token = event.token();
        if ControlServer::owns(token) {
            self.context.server.borrow_mut().on_event(token);
        } else if token == MOUNTS_TOKEN {
            self.mounts_changed();
        } else if token == SIGNALS_TOKEN {
            for signal in self.context.signals.pending().collect::<Vec<_>>() {
                self.signal(signal);
            }
        } else if token == CRON_TOKEN {
            self.context.cron_timer.on_event();
        } else if !self.script.context.observed.note(event) {
            let children = Rc::clone(&self.context.children);
            if children.borrow().owns(token) {
                children
                    .borrow_mut()
                    .ready(event, &mut |pid, stream, line: &[u8]| {
                        self.take_output(pid, stream, line);
                    });
            }
        }
    }

    /// Returns the time until the next deadline; `None` without one.
    fn timeout(&mut self) -> Option<Duration> {
        if self.context.children.borrow().pending() || !self.script.context.requests.is_empty() {
            return Some(Duration::ZERO);
        }
        if self.starting_up && !self.watcher.crawling() {
            return Some(Duration::ZERO);
        }
        let instant = Instant::now();
        let deadline = self.deadline(instant);
        let deadline = deadline.map(|deadline| deadline.saturating_duration_since(instant));
        if self.shutdown.is_some() {
            return deadline;
        }
        let now = self.context.clock.now();
        let due = self.due(now).map(|due| Clock::until(now, due));
        let soonest = deadline.into_iter().chain(due).min();
        // The kernel's timer may fire slightly early; a turn before the deadline would only spin.
        soonest.map(|span| span + Duration::from_micros(u64::from(!span.is_zero()) * 500))
    }

    /// Returns the next deadline of the components other than the queues.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let always = [
            self.context.notify.deadline(),
            self.watcher.next_deadline(),
            self.context.server.borrow().deadline(now),
            self.transfers.deadline(),
        ];
        let always = always.into_iter().flatten();
        if let Some(shutdown) = &self.shutdown {
            let end = [Some(shutdown.deadline()), self.tunnels.patience()];
            return always.chain(end.into_iter().flatten()).min();
        }
        let at_work = [
            self.gate_deadline(),
            self.progress.deadline(self.watcher),
            self.source_monitor.deadline(),
            self.watch_limit.deadline(self.watcher.crawling()),
            self.report_files.deadline(),
            self.state_deadline(),
        ];
        always.chain(at_work.into_iter().flatten()).min()
    }

    /// Returns the next due time of syncs, tunnels and alarms.
    fn due(&self, now: Time) -> Option<Time> {
        let asks = self.started && self.script.context.may_spawn();
        let syncs = self.syncs.iter().filter(|_| asks);
        let syncs = syncs.filter_map(|handle| {
            if !handle.is_connected() {
                return None;
            }
            match handle.sync.borrow_mut().next(now) {
                Next::Act(_) => Some(now),
                Next::At(time) => Some(time),
                Next::Nothing => None,
            }
        });
        let others = [self.tunnel_deadline(), self.script.next_alarm()];
        syncs.chain(others.into_iter().flatten()).min()
    }
}
