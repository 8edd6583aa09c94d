//! Warm starts, `init = "changed"`: threads that plan startups by the index of a source, and that
//! make and update the index.
//!
//! * `files`: the files of an index, and the conditions for trusting it;
//! * `jobs`: the work of the threads;
//! * `tests`: tests.
//!
//! An index is made in three steps. A thread reads the directories. Then all events from before its
//! end must have been reported, so that every directory with a change is known. Then the index is
//! written without these.

mod files;
mod jobs;

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use mio::Waker;

use self::files::IndexFiles;
use self::jobs::{Directories, ReadIndex};
use super::{StateDir, pending};
use crate::id::SyncId;
use crate::index::ChangedDirs;
use crate::index::plan::DirectoryPlan;
use crate::log;
use crate::queue::{Etype, Time};
use crate::script::SyncHandle;
use crate::sync::{IndexState, Sync};
use crate::watch::{EventMark, Watcher};

/// The interval of checks if all events have been reported.
const SETTLE_INTERVAL: Duration = Duration::from_millis(10);

/// The work on the indexes of all syncs.
#[derive(Default)]
pub struct WarmStarts {
    tasks: HashMap<SyncId, Task>,
    /// The daemon stops.
    is_stopping: bool,
    /// Syncs whose index is final, as the daemon stops.
    finished: Vec<SyncId>,
}

/// The daemon as far as warm starts see it.
pub struct WarmView<'a> {
    /// The syncs.
    pub syncs: &'a [Rc<SyncHandle>],
    /// The watcher.
    pub watcher: &'a mut Watcher,
    /// The state directory.
    pub state: Option<&'a StateDir>,
    /// Wakes the event loop.
    pub waker: Arc<Waker>,
    /// The syncs with directories that are not watched.
    pub lacking: &'a BTreeSet<SyncId>,
    /// The time of queues.
    pub now: Time,
}

/// Work on one index. It is cancelled on drop.
struct Task {
    cancelled: Arc<AtomicBool>,
    stage: TaskStage,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

enum TaskStage {
    /// Nothing is left to do.
    Done,
    /// A thread determines the directories that the startup compares.
    Planning {
        begun: SystemTime,
        is_first: bool,
        result: Receiver<Result<DirectoryPlan, String>>,
    },
    /// Directories are being read.
    Reading {
        making: Making,
        result: Receiver<Result<ReadIndex, String>>,
    },
    /// Events from before the end of reading are being reported.
    Settling {
        making: Making,
        read: ReadIndex,
        mark: EventMark,
    },
    /// The index is being written.
    Writing {
        making: Making,
        racy: Vec<Vec<u8>>,
        result: Receiver<Result<(), String>>,
    },
}

/// The index that is being made.
#[derive(Clone, Copy)]
struct Making {
    /// The number of comparisons and losses of events before.
    generation: u64,
    /// The daemon stops.
    is_last: bool,
}

impl WarmStarts {
    /// Plans the startup of a sync whose directories are watched. Returns false if it compares
    /// everything.
    pub fn begin(&mut self, sync: &Sync, view: &WarmView<'_>, is_first: bool) -> bool {
        if sync.warm_start().is_none() || !sync.awaits_watches() {
            return false;
        }
        let Some(state) = view.state else {
            log::warn(format_args!(
                "{}: init = \"changed\" has no effect without a usable stateDir",
                sync.config.name
            ));
            return false;
        };
        let files = IndexFiles::new(state, sync);
        let obstacle = sync.index_obstacle().or(sync.startup_distrust());
        let begun = SystemTime::now();
        let planned = match obstacle {
            Some(reason) => Err(reason.to_owned()),
            None => {
                let (files, filter) = (files.clone(), Arc::clone(&sync.filter));
                spawn(&view.waker, move |cancelled| {
                    jobs::plan(&files, &filter, begun, cancelled)
                })
            }
        };
        match planned {
            Ok((cancelled, result)) => {
                let stage = TaskStage::Planning {
                    begun,
                    is_first,
                    result,
                };
                self.tasks.insert(sync.id, Task { cancelled, stage });
                true
            }
            Err(reason) => {
                files.discard();
                tell_everything(sync, &reason);
                false
            }
        }
    }

    /// Returns the time of the next step that no event announces.
    pub fn deadline(&self, syncs: &[Rc<SyncHandle>], now: Instant) -> Option<Instant> {
        let settles = |task: &Task| matches!(task.stage, TaskStage::Settling { .. });
        if self.tasks.values().any(settles) {
            return Some(now + SETTLE_INTERVAL);
        }
        let due = syncs.iter().filter(|_| !self.is_stopping);
        let due = due.filter_map(|handle| {
            let sync = handle.sync.borrow();
            match sync.warm_start()?.state() {
                IndexState::Compared { due, .. } if !self.tasks.contains_key(&sync.id) => Some(due),
                _ => None,
            }
        });
        due.min()
    }

    /// Called in each turn, right after that of the watcher.
    pub fn on_turn(&mut self, view: &mut WarmView<'_>) {
        let live = |id: &SyncId| view.syncs.iter().any(|other| other.sync.borrow().id == *id);
        self.tasks.retain(|id, _| live(id));
        for handle in view.syncs {
            let mut sync = handle.sync.borrow_mut();
            if let Some(task) = self.tasks.remove(&sync.id) {
                if let Some(task) = advance(task, &mut sync, view) {
                    self.tasks.insert(sync.id, task);
                }
                continue;
            }
            if let Some(IndexState::Compared { due, .. }) = sync.warm_start().map(|w| w.state())
                && due <= Instant::now()
            {
                let is_right = sync.index_obstacle().is_none() && !view.lacking.contains(&sync.id);
                match read(&mut sync, view, false).filter(|_| is_right) {
                    Some(task) => drop(self.tasks.insert(sync.id, task)),
                    None => sync.lose_index(),
                }
            }
        }
    }

    /// Takes in that syncs were replaced. A stop that has waited for the last transfers is over.
    pub fn on_reload(&mut self) {
        self.is_stopping = false;
        self.finished.clear();
    }

    /// Called in each turn of a stop, when no transfer runs any more. Returns true while an index
    /// is being updated.
    pub fn on_stop(&mut self, view: &mut WarmView<'_>) -> bool {
        self.is_stopping = true;
        for handle in view.syncs {
            let mut sync = handle.sync.borrow_mut();
            if sync.warm_start().is_none() || self.finished.contains(&sync.id) {
                continue;
            }
            let is_written = |task: &Task| matches!(task.stage, TaskStage::Writing { .. });
            let is_last = |task: &Task| match &task.stage {
                TaskStage::Planning { .. } | TaskStage::Done => false,
                TaskStage::Reading { making, .. }
                | TaskStage::Settling { making, .. }
                | TaskStage::Writing { making, .. } => making.is_last,
            };
            let task = self.tasks.remove(&sync.id);
            let task = task.filter(|task| is_written(task) || is_last(task));
            let next = match task {
                Some(task) => {
                    let was_last = is_last(&task);
                    match advance(task, &mut sync, view) {
                        None if was_last => None,
                        None => finish(&mut sync, view),
                        some => some,
                    }
                }
                None => finish(&mut sync, view),
            };
            match next {
                Some(task) => drop(self.tasks.insert(sync.id, task)),
                None => self.finished.push(sync.id),
            }
        }
        !self.tasks.is_empty()
    }
}

/// Begins the last update of an index; `None` if there is nothing to do.
fn finish(sync: &mut Sync, view: &WarmView<'_>) -> Option<Task> {
    let files = IndexFiles::new(view.state?, sync);
    if !sync.has_started() {
        // The files contain the state before the startup, as after a kill.
        return None;
    }
    let (events, everything) = sync.pending_events();
    let warm = sync.warm_start()?;
    let is_lost = everything || sync.index_obstacle().is_some() || view.lacking.contains(&sync.id);
    match warm.state() {
        _ if is_lost => files.discard_all(),
        IndexState::Invalid => files.discard_all(),
        IndexState::Valid if warm.changed().is_full() => files.discard_all(),
        IndexState::Valid if warm.changed().is_empty() && events.is_empty() => files.close(),
        _ => return read(sync, view, true),
    }
    None
}

/// Begins to read the directories for an index.
fn read(sync: &mut Sync, view: &WarmView<'_>, is_last: bool) -> Option<Task> {
    let files = IndexFiles::new(view.state?, sync);
    let warm = sync.warm_start_mut()?;
    let directories = match warm.state() {
        IndexState::Compared { begun, .. } => Directories::All { compared: begun },
        _ => Directories::Changed(warm.take_changed()),
    };
    let making = Making {
        generation: warm.generation(),
        is_last,
    };
    let filter = Arc::clone(&sync.filter);
    let spawned = spawn(&view.waker, move |cancelled| {
        jobs::read(&files, &filter, directories, cancelled)
    });
    let (cancelled, result) = spawned.ok()?;
    let stage = TaskStage::Reading { making, result };
    Some(Task { cancelled, stage })
}

/// Takes the next step of a task. Returns `None` if it is complete.
fn advance(mut task: Task, sync: &mut Sync, view: &mut WarmView<'_>) -> Option<Task> {
    match std::mem::replace(&mut task.stage, TaskStage::Done) {
        TaskStage::Done => {}
        TaskStage::Planning {
            begun,
            is_first,
            result,
        } => match result.try_recv() {
            Err(TryRecvError::Empty) => {
                task.stage = TaskStage::Planning {
                    begun,
                    is_first,
                    result,
                };
                return Some(task);
            }
            planned => {
                let planned = planned.unwrap_or_else(|_| Err("a thread has failed".to_owned()));
                start(sync, planned, begun, is_first, view);
            }
        },
        TaskStage::Reading { making, result } => match result.try_recv() {
            Err(TryRecvError::Empty) => {
                task.stage = TaskStage::Reading { making, result };
                return Some(task);
            }
            Ok(Ok(read)) => {
                let mark = view.watcher.event_mark();
                task.stage = TaskStage::Settling { making, read, mark };
                return Some(task);
            }
            Ok(Err(reason)) => give_up(sync, view, making, &reason),
            Err(_) => give_up(sync, view, making, "a thread has failed"),
        },
        TaskStage::Settling { making, read, mark } => {
            if !view.watcher.has_reported(mark) {
                task.stage = TaskStage::Settling { making, read, mark };
                return Some(task);
            }
            return write(task, sync, view, making, read);
        }
        TaskStage::Writing {
            making,
            racy,
            result,
        } => match result.try_recv() {
            Err(TryRecvError::Empty) => {
                task.stage = TaskStage::Writing {
                    making,
                    racy,
                    result,
                };
                return Some(task);
            }
            Ok(Ok(())) => {
                if let Some(warm) = sync.warm_start_mut()
                    && warm.generation() == making.generation
                {
                    warm.made(&racy);
                }
            }
            Ok(Err(reason)) => give_up(sync, view, making, &reason),
            Err(_) => give_up(sync, view, making, "a thread has failed"),
        },
    }
    None
}

/// Begins to write an index, without the directories that have changed.
fn write(
    mut task: Task,
    sync: &mut Sync,
    view: &mut WarmView<'_>,
    making: Making,
    read: ReadIndex,
) -> Option<Task> {
    let files = IndexFiles::new(view.state?, sync);
    let concerns = |path: &[u8]| sync.concerns(path);
    let open = view.watcher.being_written(&concerns);
    let (events, everything) = match making.is_last {
        true => sync.pending_events(),
        false => (Vec::new(), false),
    };
    let warm = sync.warm_start()?;
    let mut changed: ChangedDirs = warm.changed();
    for path in open.iter().filter_map(|path| sync.relative(path)) {
        changed.add(path, false);
    }
    for (etype, path, to) in &events {
        let is_tree = !matches!(etype, Etype::Attrib | Etype::Modify);
        changed.add(path, is_tree);
        if let Some(to) = to {
            changed.add(to, is_tree);
        }
    }
    let obstacle = match sync.index_obstacle() {
        _ if warm.generation() != making.generation || everything => Some("events were lost"),
        _ if view.lacking.contains(&sync.id) => Some("some directories are not watched"),
        _ if changed.is_full() => Some("too many directories have changed"),
        obstacle => obstacle,
    };
    if let Some(reason) = obstacle {
        give_up(sync, view, making, reason);
        return None;
    }
    let racy = read.racy.clone();
    let spawned = spawn(&view.waker, move |_| {
        jobs::write(&files, read, &changed, making.is_last)
    });
    match spawned {
        Ok((_, result)) => {
            task.stage = TaskStage::Writing {
                making,
                racy,
                result,
            };
            Some(task)
        }
        Err(reason) => {
            give_up(sync, view, making, &reason);
            None
        }
    }
}

/// Records that no index can be made now. The next start compares everything.
fn give_up(sync: &mut Sync, view: &WarmView<'_>, making: Making, reason: &str) {
    let name = &sync.config.name;
    let text = format_args!("{name}: no index of the source is kept: {reason}");
    log::say("Info", text);
    if let Some(state) = view.state {
        let files = IndexFiles::new(state, sync);
        match making.is_last {
            true => files.discard_all(),
            false => files.discard(),
        }
    }
    if let Some(warm) = sync.warm_start_mut()
        && warm.generation() == making.generation
    {
        sync.lose_index();
    }
}

/// Starts a sync by its plan.
fn start(
    sync: &mut Sync,
    planned: Result<DirectoryPlan, String>,
    begun: SystemTime,
    is_first: bool,
    view: &WarmView<'_>,
) {
    let has_plan = planned.is_ok();
    // Events may have been lost since the plan was begun.
    let planned = match sync.index_obstacle() {
        Some(reason) => Err(reason.to_owned()),
        None => planned,
    };
    let has_started = match planned {
        Ok(plan) => {
            let name = &sync.config.name;
            match plan.directories.len() {
                0 => log::normal(format_args!(
                    "{name}: nothing has changed since the last stop, no comparison is needed"
                )),
                count => log::normal(format_args!(
                    "{name}: {count} directories have changed since the last stop"
                )),
            }
            sync.start_warm(plan, begun, view.now)
        }
        Err(reason) => {
            tell_everything(sync, &reason);
            sync.watched(view.now)
        }
    };
    if has_started && let Some(state) = view.state {
        pending::restore(state, sync, is_first, has_plan, view.now);
    }
}

fn tell_everything(sync: &Sync, reason: &str) {
    let name = &sync.config.name;
    log::normal(format_args!("{name}: everything is compared: {reason}"));
}

/// The flag that cancels a thread, and its result.
type Spawned<T> = (Arc<AtomicBool>, Receiver<T>);

/// Runs a job on a thread, which wakes the event loop at its end.
///
/// # Errors
///
/// No thread can be started: a text for the log.
fn spawn<T: Send + 'static>(
    waker: &Arc<Waker>,
    job: impl FnOnce(&AtomicBool) -> T + Send + 'static,
) -> Result<Spawned<T>, String> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let (sender, result) = mpsc::channel();
    let (waker, flag) = (Arc::clone(waker), Arc::clone(&cancelled));
    thread::Builder::new()
        .name("index".into())
        .spawn(move || {
            // Nobody waits if the loop has ended.
            let _ = sender.send(job(&flag));
            let _ = waker.wake();
        })
        .map_err(|error| format!("no thread can be started: {error}"))?;
    Ok((cancelled, result))
}

#[cfg(test)]
mod tests;
