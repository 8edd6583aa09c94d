//! Requests of the control socket, of the metrics address and of the status page.

use std::time::Instant;

use super::barrier::{Barrier, is_meant};
use super::connections::ConnectionId;
use super::event_loop::EventLoop;
use super::event_router::EventRouter;
use super::http;
use crate::control::protocol::MAX_ENTRIES;
use crate::control::protocol::MAX_REQUEST_BYTES;
use crate::control::protocol::Reply;
use crate::control::protocol::Request;
use crate::control::protocol::Verb;
use crate::log;
use crate::log::Selection;
use crate::log::unescape;
use crate::paths;
use crate::status::number_format::counted;
use crate::sync::Sync;

/// When a request is answered.
enum ReplyTime {
    Now(Reply),
    /// When everything that happened before the request is at the target of this sync, or of all.
    Later(Option<String>),
}

impl EventLoop<'_> {
    /// Accepts connections, executes their requests and answers the barriers that have passed.
    pub(super) fn serve_clients(&mut self) {
        let now = Instant::now();
        self.context.server.admit(now);
        self.poll_barriers(now);
        for connection in self.context.server.connections.turn(MAX_REQUEST_BYTES, now) {
            let local = self
                .context
                .server
                .connections
                .connection(connection)
                .is_some_and(|p| p.is_local());
            if local {
                self.handle_request(connection, now)
            } else {
                self.handle_http(connection, now)
            }
        }
    }

    /// Executes one request line of the control socket.
    fn handle_request(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.context.server.connections.connection(id) else {
            return;
        };
        let line = match connection.said().iter().position(|&byte| byte == b'\n') {
            Some(end) => connection.take(end + 1),
            None if connection.said().len() >= MAX_REQUEST_BYTES => {
                let reply = Reply::refused("the request is too long");
                return connection.tell_and_close(reply.line(), now);
            }
            None => return,
        };
        let answer = match Request::parse(&line) {
            Ok(verb) => self.execute_verb(verb),
            Err(text) => ReplyTime::Now(Reply::refused(text)),
        };
        let Some(connection) = self.context.server.connections.connection(id) else {
            return;
        };
        match answer {
            ReplyTime::Now(reply) => connection.tell(reply.line(), now),
            ReplyTime::Later(sync) => {
                connection.let_wait();
                // What is in the place of a source that nothing told of is not current.
                self.watcher.check_roots();
                self.context.server.waits.push(Barrier::new(id, sync));
                self.poll_barriers(now);
            }
        }
    }

    fn execute_verb(&mut self, verb: Verb) -> ReplyTime {
        if let Some(name) = verb.sync()
            && !self.syncs.iter().any(|handle| is_meant(Some(name), handle))
        {
            return ReplyTime::Now(Reply::refused(format!("there is no sync \"{name}\"")));
        }
        let now = self.now;
        ReplyTime::Now(match verb {
            Verb::Status { sync, entries } => {
                let status = self.snapshot(sync.as_deref(), entries.min(MAX_ENTRIES));
                Reply::status(status)
            }
            Verb::Wait { sync } => return ReplyTime::Later(sync),
            Verb::Pause { sync } => self.each(sync, "paused", |sync| sync.set_paused(true)),
            Verb::Resume { sync } => self.each_at_work(sync, "resumed", |sync| {
                sync.set_paused(false);
            }),
            Verb::Release { sync } => {
                let reply = self.each_at_work(sync, "released", |sync| sync.release_guard(now));
                self.mounts_released();
                reply
            }
            Verb::Flush { sync } => self.each_at_work(sync, "flushed", Sync::flush),
            Verb::Retry { sync } => self.each_at_work(sync, "retrying", |sync| sync.retry_now(now)),
            Verb::Resync { sync, path: None } => {
                self.each_at_work(sync, "comparing all of", |sync| sync.resync(now))
            }
            Verb::Resync {
                sync,
                path: Some(path),
            } => self.resync_path(sync.as_deref(), &path),
            Verb::Reload => {
                if self.reload_on_request() {
                    Reply::done("the configuration was read again")
                } else {
                    Reply::refused(
                        "the new configuration is broken, see the log; the one before goes on",
                    )
                }
            }
            Verb::LogLevel { words } => log_level(&words),
        })
    }

    /// As [`EventLoop::each`], but refuses if all selected syncs have ended, since nothing is done
    /// for them any more.
    fn each_at_work(
        &mut self,
        name: Option<String>,
        done: &str,
        act: impl FnMut(&mut Sync),
    ) -> Reply {
        match self.ended(name.as_deref()) {
            Some(why) => Reply::refused(why),
            None => self.each(name, done, act),
        }
    }

    /// Returns an error message if all selected syncs have ended.
    fn ended(&self, name: Option<&str>) -> Option<String> {
        let mut last = None;
        for handle in self.syncs.iter().filter(|handle| is_meant(name, handle)) {
            let sync = handle.sync.borrow();
            last = Some((sync.config.name.clone(), sync.ended()?));
        }
        last.map(|(name, code)| {
            format!("{name} was ended by exit code {code}; \"lsyncdctl reload\" begins it anew")
        })
    }

    /// Applies `act` to each selected sync and logs it.
    fn each(&mut self, name: Option<String>, done: &str, mut act: impl FnMut(&mut Sync)) -> Reply {
        let mut count = 0;
        for handle in &self.syncs {
            if is_meant(name.as_deref(), handle) {
                act(&mut handle.sync.borrow_mut());
                count += 1;
            }
        }
        let what = match name {
            Some(name) => name,
            None => counted(count, "sync"),
        };
        let text = format!("{done} {what}");
        log::normal(format_args!("on request: {text}"));
        Reply::done(text)
    }

    /// Queues a path: an absolute path within the source of a sync, or a path relative to the
    /// source of the named sync.
    fn resync_path(&mut self, name: Option<&str>, path: &str) -> Reply {
        let wanted = unescape(path);
        if let Some(why) = self.ended(name) {
            return Reply::refused(why);
        }
        let mut done = Vec::new();
        for handle in &self.syncs {
            if !is_meant(name, handle) {
                continue;
            }
            let mut sync = handle.sync.borrow_mut();
            let source = sync.config.source.clone();
            let below = match paths::below(&wanted, &source) {
                Some(below) => below.to_vec(),
                None if name.is_some() => paths::rooted(&wanted),
                None => continue,
            };
            if paths::names(&below).any(|name| name == b"..") {
                return Reply::refused("a path may not have \"..\" in it");
            }
            sync.resync_path(&below, self.now);
            done.push(sync.config.name.clone());
        }
        if done.is_empty() {
            return Reply::refused(format!("no sync has {path} in its source"));
        }
        let text = format!("comparing {path} of {}", done.join(", "));
        log::normal(format_args!("on request: {text}"));
        Reply::done(text)
    }

    /// Answers the barriers that have passed and removes those of closed connections.
    fn poll_barriers(&mut self, now: Instant) {
        let mut waits = std::mem::take(&mut self.context.server.waits);
        for wait in &mut waits {
            wait.begin(self.watcher, &self.syncs, now);
        }
        if waits
            .iter()
            .any(|wait| wait.is_to_mark(self.watcher, self.started))
        {
            let mut watching = EventRouter::new(&self.syncs, self.now);
            self.watcher.report_all_open(&mut watching);
        }
        waits.retain_mut(|wait| {
            if !self.context.server.connections.knows(wait.connection) {
                return false;
            }
            if !wait.is_over(self.watcher, &self.syncs, self.started, now) {
                return true;
            }
            let status = self.snapshot(wait.sync.as_deref(), 0);
            if let Some(connection) = self.context.server.connections.connection(wait.connection) {
                connection.tell(Reply::status(status).line(), now);
            }
            false
        });
        self.context.server.waits = waits;
    }

    /// Answers an HTTP request.
    fn handle_http(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.context.server.connections.connection(id) else {
            return;
        };
        let answer = match http::parse(connection.said()) {
            None if connection.has_ended() => Some(http::bad()),
            None => None,
            Some(Err(refusal)) => Some(refusal),
            Some(Ok(page)) => {
                let entries = match page {
                    http::Page::Json => 20,
                    _ => 0,
                };
                Some(http::answer(page, &self.snapshot(None, entries)))
            }
        };
        if let Some(answer) = answer
            && let Some(connection) = self.context.server.connections.connection(id)
        {
            connection.tell_and_close(answer, now);
        }
    }
}

impl Verb {
    /// Returns the name of the sync a request refers to, if it has one.
    fn sync(&self) -> Option<&str> {
        match self {
            Verb::Status { sync, .. }
            | Verb::Wait { sync }
            | Verb::Pause { sync }
            | Verb::Resume { sync }
            | Verb::Release { sync }
            | Verb::Flush { sync }
            | Verb::Resync { sync, .. }
            | Verb::Retry { sync } => sync.as_deref(),
            Verb::Reload | Verb::LogLevel { .. } => None,
        }
    }
}

fn log_level(words: &[String]) -> Reply {
    let mut selection = Selection::default();
    for word in words {
        if let Err(error) = selection.add(word) {
            return Reply::refused(error.to_string());
        }
    }
    log::install(selection, None);
    let text = match words {
        [] => "logging the usual".to_owned(),
        words => format!("logging {}", words.join(", ")),
    };
    Reply::done(text)
}
