//! The contract between the event loop and the components that it drives.
//!
//! A component owns its state and performs no I/O, except for the control server and the transfers,
//! which own sockets and processes and never block. The loop passes events to it (`on_…` methods,
//! with the time as a parameter) and executes the [`Action`]s that it returns. `deadline()` returns
//! the time at which a component is to be called without an event. It is computed from the state
//! each time. The loop calls it right before it sleeps, so a timer that an earlier step of the turn
//! has armed is not missed.
//!
//! The design is that of protocol libraries without I/O, whose callers own sockets and clock.

use nix::sys::signal::Signal;

use crate::exit::Exit;
use crate::history::{BatchRecord, HistoryQuery};
use crate::id::{ConnectionId, SyncId};
use crate::log::Selection;
use crate::process::Pid;
use crate::status::drift_report::DriftReport;

/// How a message of a component is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Log category `Normal`.
    Normal,
    /// Log category `Warn`.
    Warn,
    /// Log category `Error`.
    Error,
}

impl Level {
    /// Returns the log category.
    pub fn category(self) -> &'static str {
        match self {
            Level::Normal => "Normal",
            Level::Warn => "Warn",
            Level::Error => "Error",
        }
    }
}

/// A command of a user for a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncCommand {
    /// Starts no more transfers.
    Pause,
    /// Starts transfers again.
    Resume,
    /// Makes all pending entries due.
    Flush,
    /// Makes failed entries due.
    Retry,
    /// Compares the whole source.
    Resync,
    /// Compares the whole source, unless that is queued already. Events have been lost.
    ResyncOnce,
    /// Compares a path of the source.
    ResyncPath(Vec<u8>),
    /// Accepts the source and the target as they are.
    Release,
    /// Sends a path that differs on the target, or deletes it there.
    Repair(Vec<u8>),
    /// Begins a record of the paths that change.
    RecordChanges,
    /// Begins the next part of the record, and forgets the part before the current one.
    DivideChanges,
    /// Ends the record.
    ForgetChanges,
}

/// The part of the files that a comparison by sample reads next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplePlace {
    /// The part, from 0 on.
    pub part: u32,
    /// The number of parts.
    pub parts: u32,
}

/// The differences that a comparison has found and not repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriftNews {
    /// A text for the user.
    pub text: String,
    /// Their paths, each followed by a zero byte.
    pub paths: Vec<u8>,
    /// Paths were left out.
    pub is_cut: bool,
}

/// The scope of a comparison that a client has requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditScope {
    /// The syncs, with the path of each that is compared, relative to its source and with a leading
    /// slash; empty for everything.
    pub syncs: Vec<(SyncId, Vec<u8>)>,
    /// Contents are compared, not only sizes, times and attributes.
    pub by_content: bool,
    /// Differences are repaired.
    pub repairs: bool,
    /// The contents of one file in this many are compared; each comparison selects other files.
    pub sample: Option<u32>,
}

/// A request for a comparison of sources and targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRequest {
    /// The client that gets the reports; `None` for a comparison at a configured time.
    pub client: Option<ConnectionId>,
    /// What is compared.
    pub scope: AuditScope,
}

/// A client's request for stored data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadRequest {
    /// Entries of the transfer log.
    Log(HistoryQuery),
    /// This many of the kept reports.
    Reports(usize),
}

/// A request of a component to the watched side of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchAction {
    /// Compares the whole source of a sync once no directory is being read.
    FullSync(SyncId),
    /// Corrects all watches by comparison with the disk, and sets missing ones.
    Rebuild,
    /// Counts in the background the directories that all syncs want watched.
    CountDirectories,
    /// Accepts what is mounted in all sources as what is expected there.
    AcceptMounts,
    /// Checks the directory at the path of each source.
    CheckRoots,
    /// Queues the changes of files that are still open.
    ReportOpenFiles,
}

/// A request of a component to the event loop. Actions are executed in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Logs a message, which may have several lines.
    Log(Level, String),
    /// Passed on to the watched side.
    Watch(WatchAction),
    /// Gives a sync a command.
    Command(SyncId, SyncCommand),
    /// Compares sources and targets. The control server gets the result.
    Audit(AuditRequest),
    /// Reads the configuration again. The control server gets the result.
    Reload,
    /// Writes a batch to the transfer log of the sync with this state key.
    LogTransfer(String, BatchRecord),
    /// Reads stored data for a client. The control server gets the result, with this number.
    Read(u64, ReadRequest),
    /// Finds the last entry about each path in the transfer log of the sync with this state key.
    /// The audits get the result, with this number.
    FindLast(u64, String, Vec<Vec<u8>>),
    /// Keeps the report of a comparison.
    KeepReport(Box<DriftReport>),
    /// Saves the part of a sync's files that is compared next by content.
    SaveSample(SyncId, SamplePlace),
    /// Calls the hook of a sync for failures: a comparison has found differences.
    TellDrift(SyncId, DriftNews),
    /// Selects the log messages that are shown.
    SelectLog(Selection),
    /// Sends a signal to a child and its descendants.
    SignalTree(Pid, Signal),
    /// Sends a signal to all running transfers and their descendants.
    SignalTransfers(Signal),
    /// Kills the descendants that [`Action::SignalTransfers`] found and that still run.
    KillDescendants,
    /// Ends the processes of all tunnels. Repeated in each turn until they have ended.
    CloseTunnels,
    /// Retries failed startup transfers from now on, because they replace lost events.
    RetryStartups,
    /// Starts no more processes, and exits when the running ones have ended.
    ShutDown(Exit),
    /// Reads the configuration again and restarts all syncs. No process may be running.
    StartAnew,
    /// Ends the event loop after this turn.
    Exit(Exit),
}

impl Action {
    /// Returns a message of category `Normal`.
    pub fn normal(text: impl Into<String>) -> Action {
        Action::Log(Level::Normal, text.into())
    }

    /// Returns a message of category `Warn`.
    pub fn warn(text: impl Into<String>) -> Action {
        Action::Log(Level::Warn, text.into())
    }

    /// Returns a message of category `Error`.
    pub fn error(text: impl Into<String>) -> Action {
        Action::Log(Level::Error, text.into())
    }
}
