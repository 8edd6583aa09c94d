//! The control server: clients of the control socket, the metrics address and the status page.

use std::collections::VecDeque;
use std::time::Instant;

use mio::{Registry, Token};

use super::barrier::Barrier;
use super::connections::{Connections, MAX_CONNECTIONS};
use super::http;
use super::listener::Listeners;
use super::protocol::{MAX_REQUEST_BYTES, Reply, Request};
use super::requests::{self, Response};
use super::view::DaemonView;
use crate::component::{Action, AuditRequest, ReadRequest, WatchAction};
use crate::config::Settings;
use crate::id::ConnectionId;
use crate::status::drift_report::DriftReport;

const FIRST_CONNECTION_TOKEN: usize = 16;

/// The first token not used by the server.
pub const END_OF_TOKENS: usize = FIRST_CONNECTION_TOKEN + MAX_CONNECTIONS;

/// The maximum number of connections accepted in one turn.
const MAX_ACCEPTED: usize = 32;

/// The maximum number of entries of each queue in the JSON of the status page.
const MAX_PAGE_ENTRIES: usize = 20;

/// The maximum number of entries of the transfer log on the status page.
const MAX_ACTIVITY_ENTRIES: usize = 200;

/// The sockets and clients of a daemon.
///
/// A turn consists of steps, because a request of one client may change the reply to the next one.
/// The loop calls [`ControlServer::on_step`] until no step is left, and executes the actions of
/// each before the next.
pub struct ControlServer {
    listeners: Listeners,
    connections: Connections,
    /// The clients that wait until their changes are on the target.
    barriers: Vec<(ConnectionId, Barrier)>,
    /// The remaining steps of the turn.
    steps: VecDeque<ServerStep>,
    /// The client that has requested the reload in progress.
    reloading: Option<ConnectionId>,
    /// The clients that wait for the transfer log or for reports, by the number of their query.
    readers: Vec<(u64, ConnectionId)>,
    /// The number of such queries so far.
    queries: u64,
    /// More connections may be waiting to be accepted.
    crowded: bool,
}

#[derive(Clone, Copy)]
enum ServerStep {
    /// Begins barriers and finds out which ones are about to be marked.
    BeginBarriers,
    /// Answers the barriers that have passed.
    AnswerBarriers,
    /// Reads and writes.
    MoveBytes,
    /// Handles the input of a connection.
    Handle(ConnectionId),
}

impl ControlServer {
    /// Returns a server without listening sockets.
    pub fn new(registry: Registry) -> ControlServer {
        ControlServer {
            listeners: Listeners::default(),
            connections: Connections::new(registry, FIRST_CONNECTION_TOKEN),
            barriers: Vec::new(),
            steps: VecDeque::new(),
            reloading: None,
            readers: Vec::new(),
            queries: 0,
            crowded: false,
        }
    }

    /// Opens the sockets named in the settings.
    ///
    /// # Errors
    ///
    /// A message for the user. Failure to open a default control socket is only logged.
    pub fn open(&mut self, settings: &Settings, registry: &Registry) -> Result<(), String> {
        self.listeners.open(settings, registry)
    }

    /// Returns true if events of this token belong to [`ControlServer::on_event`].
    pub fn owns(token: Token) -> bool {
        let connections = FIRST_CONNECTION_TOKEN..END_OF_TOKENS;
        Listeners::owns(token) || connections.contains(&token.0)
    }

    /// Takes in a poll event.
    pub fn on_event(&mut self, token: Token) {
        if Listeners::owns(token) {
            self.crowded = true;
        } else {
            self.connections.wake(token);
        }
    }

    /// Returns the time of the next turn without an event.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.crowded || self.connections.pending() {
            return Some(now);
        }
        let barriers = self.barriers.iter();
        let barriers = barriers.filter_map(|(_, barrier)| barrier.deadline());
        barriers.chain(self.connections.deadline()).min()
    }

    /// Begins a turn: accepts connections.
    pub fn on_turn(&mut self, now: Instant) {
        self.steps = VecDeque::from([ServerStep::BeginBarriers, ServerStep::MoveBytes]);
        if !std::mem::take(&mut self.crowded) {
            return;
        }
        for _ in 0..MAX_ACCEPTED {
            let Some(stream) = self.listeners.accept() else {
                return;
            };
            // A stream that cannot be registered is closed.
            let _ = self.connections.add(stream, now);
        }
        self.crowded = true;
    }

    /// Does the next step of the turn. Returns what is to be done before the one after it, or
    /// `None` if no step is left.
    pub fn on_step(&mut self, view: &impl DaemonView, now: Instant) -> Option<Vec<Action>> {
        match self.steps.pop_front()? {
            ServerStep::BeginBarriers => Some(self.begin_barriers(view, now)),
            ServerStep::AnswerBarriers => {
                self.answer_barriers(view, now);
                Some(Vec::new())
            }
            ServerStep::MoveBytes => {
                let heard = self.connections.turn(MAX_REQUEST_BYTES, now);
                self.steps.extend(heard.into_iter().map(ServerStep::Handle));
                Some(Vec::new())
            }
            ServerStep::Handle(id) => {
                let connection = self.connections.connection(id);
                if connection.is_some_and(|connection| connection.is_local()) {
                    Some(self.handle_request(id, view, now))
                } else {
                    Some(self.handle_http(id, view, now))
                }
            }
        }
    }

    /// Takes in the result of [`Action::Reload`]: the new configuration is in force, or invalid.
    pub fn on_reloaded(&mut self, result: Result<(), String>, now: Instant) {
        let client = self.reloading.take();
        if let Some(connection) = client.and_then(|id| self.connections.connection(id)) {
            connection.tell(requests::reloaded(result).line(), now);
        }
    }

    /// Takes in the result of [`Action::Read`].
    pub fn on_read(&mut self, token: u64, reply: Reply, now: Instant) {
        let position = self.readers.iter().position(|it| it.0 == token);
        let client = position.map(|at| self.readers.remove(at).1);
        let Some(connection) = client.and_then(|id| self.connections.connection(id)) else {
            return;
        };
        match reply {
            Reply {
                log: Some(page), ..
            } if !connection.is_local() => connection.tell_and_close(http::json(&page), now),
            reply => connection.tell(reply.line(), now),
        }
    }

    /// Returns the number of a new query of a client.
    fn add_reader(&mut self, client: ConnectionId) -> u64 {
        self.queries += 1;
        self.readers.push((self.queries, client));
        self.queries
    }

    /// Returns true if the connection is still open.
    pub fn knows(&self, id: ConnectionId) -> bool {
        self.connections.knows(id)
    }

    /// Takes in the result of [`Action::Audit`].
    pub fn on_audited(&mut self, id: ConnectionId, reports: Vec<DriftReport>, now: Instant) {
        if let Some(connection) = self.connections.connection(id) {
            connection.tell(Reply::reports(reports).line(), now);
        }
    }

    /// Takes in the end of [`Action::Audit`] without a result: the daemon shuts down.
    pub fn on_audit_ended(&mut self, id: ConnectionId, now: Instant) {
        if let Some(connection) = self.connections.connection(id) {
            let reply = Reply::refused("the daemon shuts down or reads its configuration again");
            connection.tell(reply.line(), now);
        }
    }

    /// Handles one request line of the control socket.
    fn handle_request(
        &mut self,
        id: ConnectionId,
        view: &impl DaemonView,
        now: Instant,
    ) -> Vec<Action> {
        let Some(connection) = self.connections.connection(id) else {
            return Vec::new();
        };
        let line = match connection.said().iter().position(|&byte| byte == b'\n') {
            Some(end) => connection.take(end + 1),
            None if connection.said().len() >= MAX_REQUEST_BYTES => {
                let reply = Reply::refused("the request is too long");
                connection.tell_and_close(reply.line(), now);
                return Vec::new();
            }
            None => return Vec::new(),
        };
        let response = match Request::parse(&line) {
            Ok(verb) => requests::respond(verb, view),
            Err(text) => Response::Reply(Box::new(Reply::refused(text)), Vec::new()),
        };
        match response {
            Response::Reply(reply, actions) => {
                connection.tell(reply.line(), now);
                actions
            }
            Response::Barrier(sync) => {
                connection.let_wait();
                self.barriers.push((id, Barrier::new(sync)));
                self.steps.push_front(ServerStep::BeginBarriers);
                // A replaced source that no event has reported is not current.
                vec![Action::Watch(WatchAction::CheckRoots)]
            }
            Response::Read(request) => {
                connection.let_wait();
                vec![Action::Read(self.add_reader(id), request)]
            }
            Response::Audit(scope) => {
                connection.let_wait();
                vec![
                    Action::Watch(WatchAction::CheckRoots),
                    Action::Audit(AuditRequest {
                        client: Some(id),
                        scope,
                    }),
                ]
            }
            Response::Reload => {
                connection.let_wait();
                self.reloading = Some(id);
                vec![Action::Reload]
            }
        }
    }

    /// Answers an HTTP request.
    fn handle_http(
        &mut self,
        id: ConnectionId,
        view: &impl DaemonView,
        now: Instant,
    ) -> Vec<Action> {
        let Some(connection) = self.connections.connection(id) else {
            return Vec::new();
        };
        let answer = match http::parse(connection.said()) {
            None if connection.has_ended() => http::bad(),
            None => return Vec::new(),
            Some(Err(refusal)) => refusal,
            Some(Ok(http::Page::Activity)) => {
                connection.let_wait();
                let query = requests::newest(view, MAX_ACTIVITY_ENTRIES);
                return vec![Action::Read(self.add_reader(id), ReadRequest::Log(query))];
            }
            Some(Ok(http::Page::Trends)) => http::json(&view.trends(None)),
            Some(Ok(page)) => {
                let entries = match page {
                    http::Page::Json => MAX_PAGE_ENTRIES,
                    _ => 0,
                };
                http::answer(page, &view.snapshot(None, entries))
            }
        };
        connection.tell_and_close(answer, now);
        Vec::new()
    }

    fn begin_barriers(&mut self, view: &impl DaemonView, now: Instant) -> Vec<Action> {
        let connections = &self.connections;
        self.barriers
            .retain(|(client, _)| connections.knows(*client));
        for (_, barrier) in &mut self.barriers {
            barrier.begin(view, now);
        }
        if self.barriers.is_empty() {
            return Vec::new();
        }
        self.steps.push_front(ServerStep::AnswerBarriers);
        let mut barriers = self.barriers.iter();
        if barriers.any(|(_, barrier)| barrier.is_to_mark(view)) {
            vec![Action::Watch(WatchAction::ReportOpenFiles)]
        } else {
            Vec::new()
        }
    }

    fn answer_barriers(&mut self, view: &impl DaemonView, now: Instant) {
        let connections = &mut self.connections;
        self.barriers.retain_mut(|(client, barrier)| {
            let is_over = barrier.is_over(view, now);
            if is_over && let Some(connection) = connections.connection(*client) {
                let status = view.snapshot(barrier.sync.as_deref(), 0);
                connection.tell(Reply::status(status).line(), now);
            }
            !is_over
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::time::Duration;

    use mio::Poll;
    use mio::net::UnixStream;

    use super::*;
    use crate::component::SyncCommand;
    use crate::control::connection::ClientStream;
    use crate::control::fake_view::FakeView;

    /// A server with one client.
    struct Fixture {
        _poll: Poll,
        server: ControlServer,
        client: UnixStream,
        view: FakeView,
        start: Instant,
    }

    impl Fixture {
        fn new() -> Fixture {
            let poll = Poll::new().unwrap();
            let start = Instant::now();
            let mut server = ControlServer::new(poll.registry().try_clone().unwrap());
            let (ours, client) = UnixStream::pair().unwrap();
            let ours = ClientStream::Unix(ours);
            server.connections.add(ours, start).unwrap();
            Fixture {
                _poll: poll,
                server,
                client,
                view: FakeView::new(&["one", "two"]),
                start,
            }
        }

        fn say(&mut self, line: &str) {
            self.client.write_all(line.as_bytes()).unwrap();
        }

        /// Runs a turn this many milliseconds after the start and returns its actions.
        fn turn(&mut self, millis: u64) -> Vec<Action> {
            let now = self.start + Duration::from_millis(millis);
            self.server.on_event(Token(FIRST_CONNECTION_TOKEN));
            self.server.on_turn(now);
            let mut all = Vec::new();
            while let Some(actions) = self.server.on_step(&self.view, now) {
                all.extend(actions);
            }
            all
        }

        /// Returns the reply, which is written in the turn after the request.
        fn reply(&mut self, millis: u64) -> Option<String> {
            self.turn(millis);
            let mut bytes = [0; 10_000];
            let count = self.client.read(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
        }

        fn deadline(&self, millis: u64) -> Option<Duration> {
            let now = self.start + Duration::from_millis(millis);
            self.server.deadline(now).map(|due| due - now)
        }
    }

    #[test]
    fn a_request_gets_its_actions_and_its_reply() {
        let mut fixture = Fixture::new();
        fixture.say("{\"v\":1,\"do\":\"pause\",\"sync\":\"one\"}\n");
        let actions = fixture.turn(0);
        let id = fixture.view.syncs[0].id;
        assert_eq!(actions[0], Action::Command(id, SyncCommand::Pause));
        assert!(fixture.reply(1).unwrap().contains("paused one"));
        fixture.say("nonsense\n");
        assert_eq!(fixture.turn(2), []);
        assert!(fixture.reply(3).unwrap().contains("not a request"));
    }

    #[test]
    fn a_reload_is_answered_when_it_is_done() {
        let mut fixture = Fixture::new();
        fixture.say("{\"v\":1,\"do\":\"reload\"}\n");
        assert_eq!(fixture.turn(0), [Action::Reload]);
        assert_eq!(fixture.reply(1), None);
        fixture
            .server
            .on_reloaded(Err("/c.lua:3: wrong".into()), fixture.start);
        assert!(fixture.reply(2).unwrap().contains("/c.lua:3: wrong"));
    }

    #[test]
    fn a_barrier_passes_when_all_events_are_queued_and_all_entries_are_done() {
        let mut fixture = Fixture::new();
        fixture.say("{\"v\":1,\"do\":\"wait\"}\n");
        assert_eq!(fixture.turn(0), [Action::Watch(WatchAction::CheckRoots)]);
        // The watcher is asked again, with growing delays.
        assert_eq!(fixture.deadline(0), Some(Duration::from_millis(2)));
        assert_eq!(fixture.turn(2), []);
        assert_eq!(fixture.deadline(2), Some(Duration::from_millis(4)));
        fixture.view.has_reported.set(true);
        assert_eq!(
            fixture.turn(6),
            [Action::Watch(WatchAction::ReportOpenFiles)]
        );
        assert_eq!(fixture.deadline(6), None);
        let ids: Vec<_> = fixture.view.syncs.iter().map(|sync| sync.id).collect();
        fixture.view.done.borrow_mut().push(ids[0]);
        assert_eq!(fixture.reply(7), None);
        fixture.view.done.borrow_mut().push(ids[1]);
        assert!(fixture.reply(8).unwrap().contains("\"ok\":true"));
        assert!(fixture.server.barriers.is_empty());
    }

    #[test]
    fn a_barrier_begins_again_when_its_syncs_are_replaced() {
        let mut fixture = Fixture::new();
        fixture.view.has_reported.set(true);
        fixture.say("{\"v\":1,\"do\":\"wait\",\"sync\":\"one\"}\n");
        let actions = fixture.turn(0);
        assert_eq!(
            actions,
            [
                Action::Watch(WatchAction::CheckRoots),
                Action::Watch(WatchAction::ReportOpenFiles)
            ]
        );
        assert_eq!(fixture.turn(1), []);
        fixture
            .view
            .done
            .borrow_mut()
            .push(fixture.view.syncs[0].id);
        fixture.view.syncs = FakeView::new(&["one", "two"]).syncs;
        assert_eq!(
            fixture.turn(2),
            [Action::Watch(WatchAction::ReportOpenFiles)]
        );
        assert_eq!(fixture.reply(3), None);
    }

    #[test]
    fn the_barrier_of_a_client_that_is_gone_is_dropped() {
        let mut fixture = Fixture::new();
        fixture.say("{\"v\":1,\"do\":\"wait\"}\n");
        fixture.turn(0);
        // A child process that another test starts at the time may have a copy of the socket, which
        // would stay connected if it were only dropped.
        fixture.client.shutdown(Shutdown::Both).unwrap();
        fixture.turn(2);
        fixture.turn(3);
        assert_eq!(fixture.server.barriers.len(), 0);
        assert_eq!(fixture.deadline(3), None);
    }
}
