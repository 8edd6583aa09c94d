//! Requests of the control socket: the reply and the actions of each.

use std::collections::BTreeMap;

use super::protocol::{MAX_ENTRIES, Reply, Verb};
use super::view::{DaemonView, SyncView};
use crate::component::{Action, AuditScope, ReadRequest, SyncCommand, WatchAction};
use crate::history::{HistoryQuery, RingQuery};
use crate::log::{Selection, unescape};
use crate::paths;
use crate::status::drift_report::sample_parts;
use crate::status::number_format::counted;

/// The default number of reports.
const REPORTS: usize = 20;

/// The result of a request.
#[derive(Debug, PartialEq)]
pub enum Response {
    /// The reply, and what is to be done.
    Reply(Box<Reply>, Vec<Action>),
    /// The reply follows when everything that happened before the request is on the target of this
    /// sync, or of all.
    Barrier(Option<String>),
    /// The reply follows when the transfer log or reports have been read.
    Read(ReadRequest),
    /// The reply follows when sources and targets have been compared.
    Audit(AuditScope),
    /// The reply follows when the configuration has been read again.
    Reload,
}

impl Response {
    fn refused(text: impl Into<String>) -> Response {
        Response::Reply(Box::new(Reply::refused(text)), Vec::new())
    }

    /// Returns the reply to a request that is carried out, which is logged as well.
    fn done(text: String, mut actions: Vec<Action>) -> Response {
        actions.push(Action::normal(format!("on request: {text}")));
        Response::Reply(Box::new(Reply::done(text)), actions)
    }
}

/// Returns what a request comes to.
pub fn respond(verb: Verb, view: &impl DaemonView) -> Response {
    if let Some(name) = verb.sync()
        && view.syncs(Some(name)).is_empty()
    {
        return Response::refused(format!("there is no sync \"{name}\""));
    }
    match verb {
        Verb::Status { sync, entries } => {
            let status = view.snapshot(sync.as_deref(), entries.min(MAX_ENTRIES));
            Response::Reply(Box::new(Reply::status(status)), Vec::new())
        }
        Verb::Explain { sync, path } => {
            let text = view.explain(sync.as_deref(), &unescape(&path));
            Response::Reply(Box::new(Reply::done(text)), Vec::new())
        }
        Verb::Wait { sync } => Response::Barrier(sync),
        Verb::Pause { sync } => {
            let syncs = view.syncs(sync.as_deref());
            command(view, sync, &syncs, "paused", &SyncCommand::Pause)
        }
        Verb::Resume { sync } => command_at_work(view, sync, "resumed", &SyncCommand::Resume),
        Verb::Release { sync } => command_at_work(view, sync, "released", &SyncCommand::Release),
        Verb::Flush { sync } => command_at_work(view, sync, "flushed", &SyncCommand::Flush),
        Verb::Retry { sync } => command_at_work(view, sync, "retrying", &SyncCommand::Retry),
        Verb::Resync { sync, path: None } => {
            command_at_work(view, sync, "comparing all of", &SyncCommand::Resync)
        }
        Verb::Resync {
            sync,
            path: Some(path),
        } => resync_path(view, sync.as_deref(), &path),
        Verb::Log {
            sync,
            path,
            since,
            after,
            limit,
            newest,
        } => match rings(view, sync.as_deref(), path.as_deref(), &after) {
            Err(why) => Response::refused(why),
            Ok(rings) => Response::Read(ReadRequest::Log(HistoryQuery {
                rings,
                since: (since.max(0.0) * 1e6) as u64,
                limit: limit.unwrap_or(usize::MAX),
                newest,
            })),
        },
        Verb::Verify {
            sync,
            path,
            content,
            repair,
            sample,
        } => {
            let sample = sample.map(sample_parts);
            if sample == Some(None) {
                return Response::refused("a sample is a percentage above 0 and up to 100");
            }
            let scope = AuditScope {
                syncs: Vec::new(),
                by_content: content || sample.is_some(),
                repairs: repair,
                sample: sample.flatten().filter(|&parts| parts > 1),
            };
            verify(view, sync.as_deref(), path.as_deref(), scope)
        }
        Verb::Trends { sync } => {
            let page = view.trends(sync.as_deref());
            Response::Reply(Box::new(Reply::trends(page)), Vec::new())
        }
        Verb::Reports { limit } => Response::Read(ReadRequest::Reports(limit.unwrap_or(REPORTS))),
        Verb::Reload => Response::Reload,
        Verb::LogLevel { words } => log_level(&words),
    }
}

/// Returns the reply after the configuration was read again.
pub fn reloaded(result: Result<(), String>) -> Reply {
    match result {
        Ok(()) => Reply::done("the configuration was read again"),
        Err(problem) => Reply::refused(format!(
            "the new configuration has errors, the previous one stays in force\n{problem}"
        )),
    }
}

/// Gives a command to each of the syncs in which it changes anything.
fn command(
    view: &impl DaemonView,
    name: Option<String>,
    syncs: &[SyncView],
    done: &str,
    command: &SyncCommand,
) -> Response {
    let each = syncs.iter();
    let each = each.filter(|sync| view.would_change(sync.id, command));
    let mut actions: Vec<Action> = each
        .map(|sync| Action::Command(sync.id, command.clone()))
        .collect();
    let what = |count| match (&name, syncs) {
        (Some(_), [sync, ..]) => sync.name.clone(),
        _ => counted(count, "sync"),
    };
    if actions.is_empty() {
        let text = format!("nothing to do for {}", what(syncs.len()));
        return Response::Reply(Box::new(Reply::done(text)), actions);
    }
    let what = what(actions.len());
    if *command == SyncCommand::Release {
        actions.push(Action::Watch(WatchAction::AcceptMounts));
    }
    Response::done(format!("{done} {what}"), actions)
}

/// As [`command`], but refuses if all selected syncs have ended, since nothing is done for them any
/// more.
fn command_at_work(
    view: &impl DaemonView,
    name: Option<String>,
    done: &str,
    what: &SyncCommand,
) -> Response {
    let syncs = view.syncs(name.as_deref());
    match all_ended(&syncs) {
        Some(why) => Response::refused(why),
        None => command(view, name, &syncs, done, what),
    }
}

/// Returns an error message if all syncs have ended.
fn all_ended(syncs: &[SyncView]) -> Option<String> {
    let mut last = None;
    for sync in syncs {
        last = Some((&sync.name, sync.ended?));
    }
    last.map(|(name, code)| {
        format!("{name} was ended by exit code {code}; \"lsyncdctl reload\" starts it again")
    })
}

/// Queues a path: an absolute path within the source of a sync, or a path relative to the source of
/// the named sync.
fn resync_path(view: &impl DaemonView, name: Option<&str>, path: &str) -> Response {
    let syncs = view.syncs(name);
    if let Some(why) = all_ended(&syncs) {
        return Response::refused(why);
    }
    let found = match having(&syncs, name, path) {
        Ok(found) => found,
        Err(why) => return Response::refused(why),
    };
    let done: Vec<_> = found.iter().map(|(sync, _)| sync.name.as_str()).collect();
    let actions = found.iter().map(|(sync, below)| {
        let command = SyncCommand::ResyncPath(below.clone());
        Action::Command(sync.id, command)
    });
    let actions = actions.collect();
    Response::done(format!("comparing {path} of {}", done.join(", ")), actions)
}

/// Returns the syncs that have a path in their source, and the path relative to it. A relative path
/// is relative to the source of a named sync.
fn having<'a>(
    syncs: &'a [SyncView],
    name: Option<&str>,
    path: &str,
) -> Result<Vec<(&'a SyncView, Vec<u8>)>, String> {
    let mut found = Vec::new();
    for sync in syncs {
        let Some(below) = in_source(sync, name, path) else {
            continue;
        };
        if paths::names(&below).any(|name| name == b"..") {
            return Err("a path must not contain \"..\"".to_owned());
        }
        found.push((sync, below));
    }
    if found.is_empty() {
        return Err(format!("no source contains {path}"));
    }
    Ok(found)
}

/// Compares everything, or a path in the sources that have it.
fn verify(
    view: &impl DaemonView,
    name: Option<&str>,
    path: Option<&str>,
    scope: AuditScope,
) -> Response {
    let syncs = view.syncs(name);
    let found = match path {
        Some(path) => having(&syncs, name, path),
        None => Ok(syncs.iter().map(|sync| (sync, Vec::new())).collect()),
    };
    match found {
        Err(why) => Response::refused(why),
        Ok(found) => Response::Audit(AuditScope {
            syncs: found
                .into_iter()
                .map(|(sync, path)| (sync.id, path))
                .collect(),
            ..scope
        }),
    }
}

/// Returns a path relative to the source: an absolute one that is within it, or, if the sync is
/// named, any other.
fn in_source(sync: &SyncView, name: Option<&str>, path: &str) -> Option<Vec<u8>> {
    let wanted = unescape(path);
    match paths::below(&wanted, &sync.source) {
        Some(below) => Some(below.to_vec()),
        None => name.map(|_| paths::rooted(&wanted)),
    }
}

/// Returns the parts of the transfer log that a request is about.
fn rings(
    view: &impl DaemonView,
    name: Option<&str>,
    path: Option<&str>,
    after: &BTreeMap<String, u64>,
) -> Result<Vec<RingQuery>, String> {
    let syncs = view.syncs(name).into_iter();
    let rings = syncs.filter_map(|sync| {
        let below = path.map(|path| in_source(&sync, name, path));
        if below == Some(None) {
            return None;
        }
        let below = below.flatten();
        let is_left_out = below
            .as_ref()
            .is_some_and(|it| view.leaves_out(sync.id, it));
        Some(RingQuery {
            key: sync.state_key,
            after: after.get(&sync.name).copied(),
            name: sync.name,
            target: sync.target,
            path: below,
            is_left_out,
        })
    });
    let rings: Vec<RingQuery> = rings.collect();
    match path {
        Some(path) if rings.is_empty() => Err(format!("no source contains {path}")),
        _ => Ok(rings),
    }
}

/// Returns the query for the newest entries of all syncs.
pub fn newest(view: &impl DaemonView, limit: usize) -> HistoryQuery {
    HistoryQuery {
        rings: rings(view, None, None, &BTreeMap::new()).unwrap_or_default(),
        limit,
        newest: true,
        ..HistoryQuery::default()
    }
}

fn log_level(words: &[String]) -> Response {
    let mut selection = Selection::default();
    for word in words {
        if let Err(error) = selection.add(word) {
            return Response::refused(error.to_string());
        }
    }
    let text = match words {
        [] => "logging the default categories".to_owned(),
        words => format!("logging {}", words.join(", ")),
    };
    Response::Reply(
        Box::new(Reply::done(text)),
        vec![Action::SelectLog(selection)],
    )
}

impl Verb {
    /// Returns the name of the sync a request refers to, if it has one.
    fn sync(&self) -> Option<&str> {
        match self {
            Verb::Status { sync, .. }
            | Verb::Explain { sync, .. }
            | Verb::Wait { sync }
            | Verb::Pause { sync }
            | Verb::Resume { sync }
            | Verb::Release { sync }
            | Verb::Flush { sync }
            | Verb::Resync { sync, .. }
            | Verb::Log { sync, .. }
            | Verb::Verify { sync, .. }
            | Verb::Trends { sync }
            | Verb::Retry { sync } => sync.as_deref(),
            Verb::Reports { .. } | Verb::Reload | Verb::LogLevel { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fake_view::FakeView;

    fn texts(view: &FakeView, verb: Verb) -> (bool, String, Vec<Action>) {
        match respond(verb, view) {
            Response::Reply(reply, actions) => (reply.ok, reply.text, actions),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_command_is_given_to_the_syncs_of_the_name() {
        let view = FakeView::new(&["one", "two"]);
        let sync = Some("two".to_owned());
        let (ok, text, actions) = texts(&view, Verb::Pause { sync });
        assert!(ok);
        assert_eq!(text, "paused two");
        let id = view.syncs[1].id;
        let expected = [
            Action::Command(id, SyncCommand::Pause),
            Action::normal("on request: paused two"),
        ];
        assert_eq!(actions, expected);
        let (_, text, actions) = texts(&view, Verb::Release { sync: None });
        assert_eq!(text, "released 2 syncs");
        assert_eq!(actions.len(), 4);
        assert_eq!(actions[2], Action::Watch(WatchAction::AcceptMounts));
        let sync = Some("three".to_owned());
        let (ok, text, actions) = texts(&view, Verb::Wait { sync });
        assert!(!ok && actions.is_empty());
        assert_eq!(text, "there is no sync \"three\"");
    }

    #[test]
    fn a_command_that_changes_nothing_is_not_given() {
        let view = FakeView::new(&["one", "two"]);
        view.unchanged.borrow_mut().push(view.syncs[0].id);
        let resume = |sync: Option<&str>| {
            let sync = sync.map(str::to_owned);
            texts(&view, Verb::Resume { sync })
        };
        let (_, text, actions) = resume(None);
        assert_eq!((text.as_str(), actions.len()), ("resumed 1 sync", 2));
        let nothing = (true, "nothing to do for one".to_owned(), Vec::new());
        assert_eq!(resume(Some("one")), nothing);
        view.unchanged.borrow_mut().push(view.syncs[1].id);
        let (ok, text, actions) = texts(&view, Verb::Release { sync: None });
        assert!(ok && actions.is_empty());
        assert_eq!(text, "nothing to do for 2 syncs");
    }

    #[test]
    fn what_has_ended_is_given_no_command() {
        let mut view = FakeView::new(&["one", "two"]);
        view.syncs[1].ended = Some(12);
        let (ok, _, actions) = texts(&view, Verb::Flush { sync: None });
        assert!(ok);
        assert_eq!(actions.len(), 3);
        let sync = Some("two".to_owned());
        let (ok, text, actions) = texts(&view, Verb::Flush { sync });
        assert!(!ok && actions.is_empty());
        assert!(text.starts_with("two was ended by exit code 12"), "{text}");
    }

    #[test]
    fn a_path_is_compared_in_the_sources_that_have_it() {
        let view = FakeView::new(&["one", "two"]);
        let resync = |sync: Option<&str>, path: &str| {
            let (sync, path) = (sync.map(str::to_owned), Some(path.to_owned()));
            texts(&view, Verb::Resync { sync, path })
        };
        let command = |at: usize, path: &[u8]| {
            Action::Command(view.syncs[at].id, SyncCommand::ResyncPath(path.to_vec()))
        };
        let (_, text, actions) = resync(None, "/src/two/a b");
        assert_eq!(text, "comparing /src/two/a b of two");
        assert_eq!(actions[..1], [command(1, b"/a b")]);
        assert_eq!(resync(Some("one"), "a").2[..1], [command(0, b"/a")]);
        assert_eq!(resync(None, "/src/two").2[..1], [command(1, b"")]);
        for (sync, path) in [(None, "/src/twofold"), (None, "a"), (Some("one"), "a/../b")] {
            let (ok, _, actions) = resync(sync, path);
            assert!(!ok && actions.is_empty(), "{path}");
        }
    }
}
