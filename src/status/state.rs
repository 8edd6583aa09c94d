//! States of a sync and their urgency, in the words of all views.

use serde::{Deserialize, Serialize};

/// The state of a sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The target has all changes.
    #[default]
    Current,
    /// Directories are being read, or the startup transfer is not done.
    Starting,
    /// Changes wait for their delay or for a free process slot.
    Pending,
    /// Transfers are running.
    Sending,
    /// Paused by request; nothing starts.
    Paused,
    /// A transfer failed and is retried.
    Retrying,
    /// A guard blocks deletions until they are released.
    Halted,
    /// The source does not exist.
    SourceLost,
    /// A transfer ended with an exit code after which nothing is retried.
    Ended,
}

impl State {
    /// All states, for metrics that have every series from the start.
    pub const ALL: [State; 9] = [
        State::Current,
        State::Starting,
        State::Pending,
        State::Sending,
        State::Paused,
        State::Retrying,
        State::Halted,
        State::SourceLost,
        State::Ended,
    ];

    /// Returns the name in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            State::Current => "current",
            State::Starting => "starting",
            State::Pending => "pending",
            State::Sending => "sending",
            State::Paused => "paused",
            State::Retrying => "retrying",
            State::Halted => "halted",
            State::SourceLost => "source-lost",
            State::Ended => "ended",
        }
    }

    /// Returns the severity of the state.
    pub fn severity(self) -> Severity {
        match self {
            State::Current => Severity::Current,
            State::Starting | State::Pending | State::Sending | State::Paused => Severity::Behind,
            State::Retrying | State::Halted | State::SourceLost | State::Ended => Severity::Trouble,
        }
    }
}

/// The urgency of a state; the numbers are exit codes of `lsyncdctl status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing to do: the target has all changes.
    #[default]
    Current = 0,
    /// Work is in progress, or paused.
    Behind = 1,
    /// Attention is needed.
    Trouble = 2,
}

impl Severity {
    /// Returns the name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Current => "current",
            Severity::Behind => "behind",
            Severity::Trouble => "trouble",
        }
    }
}
