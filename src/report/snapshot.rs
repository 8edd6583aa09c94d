//! What the daemon is doing at one moment, as plain data.
//!
//! Status lines, JSON, metrics, the status page and the terminal view are all made of this, so
//! that they cannot tell different things. Names are in the printable form of
//! [`escape`](super::escape()), which stands for one name only; times are seconds since the epoch,
//! spans are seconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of this format; fields may be added to a version, not taken or changed.
pub const VERSION: u32 = 1;

/// The daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Of lsyncd, for instance `3.0.0`.
    pub version: String,
    /// The daemon's process.
    pub pid: u32,
    /// When this was true.
    pub time: f64,
    /// When the daemon started.
    pub started: f64,
    /// It waits for its last children and starts nothing new.
    pub ending: bool,
    /// All syncs together.
    pub severity: Severity,
    /// Watched directories.
    pub watches: usize,
    /// Directories are being read to be watched.
    pub crawling: bool,
    /// Resident memory in bytes.
    pub memory: u64,
    /// How often the kernel's queue overflowed.
    pub overflows: u64,
    /// In the order of the configuration.
    pub syncs: Vec<SyncSnapshot>,
}

/// One sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncSnapshot {
    /// `Sync1`, or as configured.
    pub name: String,
    /// Absolute, ends with `/`.
    pub source: String,
    /// As configured; empty for a sync that has none.
    pub target: String,
    /// In one word.
    pub state: State,
    /// What the state means to someone who is to be woken.
    pub severity: Severity,
    /// The state in a few words: `retrying in 12 s since rsync: …`.
    pub detail: String,
    /// Entries of the queue, running ones included.
    pub pending: usize,
    /// Age of the oldest of them, within about a second.
    pub oldest: Option<f64>,
    /// Running children.
    pub sending: Vec<Sending>,
    /// What is waited for after a failure.
    pub retry: Option<Retry>,
    /// Paths that a transfer left undone.
    pub failed: usize,
    /// The first of them.
    pub failed_paths: Vec<String>,
    /// Files that do not leave as they did not pass the checks, or could not be checked yet.
    pub withheld: usize,
    /// Those of them that were rejected.
    pub rejected: usize,
    /// The first of them.
    pub withheld_paths: Vec<WithheldPath>,
    /// What was mounted inside the source and is not: the target keeps what it has of it.
    pub away: Vec<String>,
    /// The first entries of the queue.
    pub queue: Vec<Entry>,
    /// When a child ended well last.
    pub last_success: Option<f64>,
    /// What failed last.
    pub last_error: Option<LastError>,
    /// It was paused.
    pub paused: bool,
    /// The guard holds deletions back, and why.
    pub halted: Option<String>,
    /// The exit code after which it does nothing any more.
    pub ended: Option<i32>,
    /// Counters since the daemon started.
    pub totals: Totals,
}

/// A file that does not leave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WithheldPath {
    /// Relative to the source.
    pub path: String,
    /// It was rejected; else it could not be checked yet.
    pub rejected: bool,
    /// Why, in words of the scanner maybe.
    pub reason: String,
}

/// Counters of a sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Events that passed the filter.
    pub events: u64,
    /// Children that ended well.
    pub batches: u64,
    /// Queue entries these were about.
    pub entries: u64,
    /// Bytes sent, as far as children tell.
    pub bytes: u64,
    /// Files sent, as far as children tell.
    pub files: u64,
    /// Files that passed the checks.
    pub passed: u64,
    /// Files that were rejected.
    pub rejections: u64,
    /// Failed children by exit code.
    pub failures: BTreeMap<i32, u64>,
}

/// A running child.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sending {
    /// Its process.
    pub pid: u32,
    /// How many queue entries it is about.
    pub entries: usize,
    /// It is the startup transfer or another comparison of everything.
    pub full: bool,
    /// For how long.
    pub seconds: f64,
    /// The first paths it is about.
    pub paths: Vec<String>,
    /// How far it is, if it tells.
    pub progress: Option<Progress>,
}

/// How far a child is, in rsync's words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Bytes sent.
    pub bytes: u64,
    /// 0 to 100.
    pub percent: u8,
    /// `146.38kB/s`
    pub rate: String,
    /// `0:00:08`
    pub time: String,
}

/// A wait after a failure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// In so many seconds.
    pub seconds: f64,
    /// Failures in a row.
    pub failures: u32,
}

/// A failure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastError {
    /// When.
    pub time: f64,
    /// Exit code; 128 + n is signal n.
    pub code: i32,
    /// In the child's words.
    pub text: String,
}

/// An entry of a queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// `active`, `wait` or `block`
    pub status: String,
    /// `Create`, `Move` …
    pub event: String,
    /// Relative to the source; empty for the whole sync.
    pub path: String,
    /// Where a Move goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// What a sync is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing is to be done: the target has it all.
    #[default]
    Current,
    /// Directories are being read, or the startup transfer is not done.
    Starting,
    /// Changes wait for their delay or for a free child.
    Pending,
    /// Children run.
    Sending,
    /// Nothing starts until someone says so.
    Paused,
    /// Something failed and is tried again.
    Retrying,
    /// Something was left undone and will not be tried again by itself.
    Incomplete,
    /// Deletions are held back until someone says so.
    Halted,
    /// The source is not there.
    SourceLost,
    /// A child ended with a code after which nothing more is tried.
    Ended,
}

impl State {
    /// All of them, for metrics that have every series from the start.
    pub const ALL: [State; 10] = [
        State::Current,
        State::Starting,
        State::Pending,
        State::Sending,
        State::Paused,
        State::Retrying,
        State::Incomplete,
        State::Halted,
        State::SourceLost,
        State::Ended,
    ];

    /// As JSON and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            State::Current => "current",
            State::Starting => "starting",
            State::Pending => "pending",
            State::Sending => "sending",
            State::Paused => "paused",
            State::Retrying => "retrying",
            State::Incomplete => "incomplete",
            State::Halted => "halted",
            State::SourceLost => "source-lost",
            State::Ended => "ended",
        }
    }

    /// What it means.
    pub fn severity(self) -> Severity {
        match self {
            State::Current => Severity::Current,
            State::Starting | State::Pending | State::Sending | State::Paused => Severity::Behind,
            State::Retrying
            | State::Incomplete
            | State::Halted
            | State::SourceLost
            | State::Ended => Severity::Trouble,
        }
    }
}

/// What someone has to do about it; the numbers are exit codes of `lsyncdctl status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing: the target has it all.
    #[default]
    Current = 0,
    /// Nothing yet: work is under way, or paused.
    Behind = 1,
    /// To look at it.
    Trouble = 2,
}

impl Severity {
    /// As JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Current => "current",
            Severity::Behind => "behind",
            Severity::Trouble => "trouble",
        }
    }
}

impl Snapshot {
    /// Takes the worst of the syncs, or of those with this name, as a whole.
    pub fn judged(mut self) -> Snapshot {
        let worst = self.syncs.iter().map(|sync| sync.severity).max();
        self.severity = worst.unwrap_or_default();
        self
    }
}

impl SyncSnapshot {
    /// Puts state, severity and the words for them in, from everything else. `starting` is
    /// what is being done for the startup, if it is not over; `lost` and `incomplete` are what
    /// only the sync knows.
    pub fn judged(mut self, starting: Option<String>, lost: bool, incomplete: bool) -> Self {
        self.state = match () {
            () if self.ended.is_some() => State::Ended,
            () if lost => State::SourceLost,
            () if self.halted.is_some() => State::Halted,
            () if self.paused => State::Paused,
            () if self.retry.is_some() && self.sending.is_empty() => State::Retrying,
            () if incomplete => State::Incomplete,
            () if starting.is_some() => State::Starting,
            () if !self.sending.is_empty() => State::Sending,
            () if self.pending > 0 => State::Pending,
            () => State::Current,
        };
        self.severity = self.state.severity();
        if !self.away.is_empty() {
            self.severity = self.severity.max(Severity::Behind);
        }
        if self.failed > 0 || self.retry.is_some() {
            self.severity = Severity::Trouble;
        }
        self.detail = self.words(starting);
        self
    }

    fn words(&self, starting: Option<String>) -> String {
        let error = || match &self.last_error {
            Some(error) if error.text.is_empty() => format!("exit code {}", error.code),
            Some(error) => error.text.clone(),
            None => "something was left undone".into(),
        };
        let mut words = match self.state {
            State::Current => "current".into(),
            State::Starting => starting.unwrap_or_default(),
            State::Pending => self.waiting(),
            State::Sending => self.sending_words(),
            State::Paused => format!("paused, {}", self.waiting()),
            State::Retrying => {
                let seconds = self.retry.as_ref().map_or(0.0, |retry| retry.seconds);
                format!("retrying in {} since {}", span(seconds), error())
            }
            State::Incomplete => format!("incomplete: {}", error()),
            State::Halted => format!("halted: {}", self.halted.as_deref().unwrap_or_default()),
            State::SourceLost => "source lost, waiting for it to come back".into(),
            State::Ended => format!("ended: {}", error()),
        };
        if !self.away.is_empty() {
            words.push_str(&format!(
                ", {} not mounted",
                counted(self.away.len(), "place")
            ));
        }
        if self.rejected > 0 {
            words.push_str(&format!(", {} rejected", counted(self.rejected, "file")));
        }
        if self.withheld > self.rejected {
            let held = self.withheld - self.rejected;
            words.push_str(&format!(", {} held unchecked", counted(held, "file")));
        }
        if self.failed > 0 {
            words.push_str(&format!(", {} left undone", counted(self.failed, "path")));
        }
        words
    }

    fn waiting(&self) -> String {
        match self.oldest {
            Some(age) => format!("{} pending, the oldest for {}", self.pending, span(age)),
            None => format!("{} pending", self.pending),
        }
    }

    fn sending_words(&self) -> String {
        let entries = self.sending.iter().map(|each| each.entries).sum();
        let longest = self
            .sending
            .iter()
            .map(|each| each.seconds)
            .fold(0.0, f64::max);
        let what = match self.sending.iter().any(|each| each.full) {
            true => "comparing everything".to_owned(),
            false => format!("sending {}", counted(entries, "path")),
        };
        let mut words = format!("{what} for {}", span(longest));
        if let Some(progress) = self.sending.iter().find_map(|each| each.progress.as_ref()) {
            words.push_str(&format!(", {} %", progress.percent));
        }
        let waiting = self.pending.saturating_sub(entries);
        if waiting > 0 {
            words.push_str(&format!(", {waiting} more pending"));
        }
        words
    }
}

/// `1 path`, `2 paths`
pub fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// A span for people: `12 s`, `5 min`, `3 h`, `4 days`.
pub fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    match seconds {
        _ if seconds < 120.0 => format!("{seconds:.0} s"),
        _ if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        _ if seconds < 172_800.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}

/// Bytes for people: `831 B`, `1.2 MB`.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB", "PB"].iter();
    let mut unit = units.next();
    while value >= 1000.0
        && let Some(next) = units.next()
    {
        value /= 1000.0;
        unit = Some(next);
    }
    let unit = unit.copied().unwrap_or_default();
    match unit {
        "B" => format!("{count} B"),
        _ => format!("{value:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sync() -> SyncSnapshot {
        SyncSnapshot::default()
    }

    #[test]
    fn what_is_worst_names_the_state() {
        let current = sync().judged(None, false, false);
        assert_eq!(
            (current.state, current.detail.as_str()),
            (State::Current, "current")
        );

        let busy = SyncSnapshot {
            pending: 12,
            oldest: Some(3.2),
            sending: vec![Sending {
                entries: 10,
                seconds: 61.0,
                ..Sending::default()
            }],
            ..sync()
        };
        let sending = busy.clone().judged(None, false, false);
        assert_eq!(sending.detail, "sending 10 paths for 61 s, 2 more pending");
        let paused = SyncSnapshot {
            paused: true,
            ..busy.clone()
        };
        let paused = paused.judged(None, false, false);
        assert_eq!(paused.detail, "paused, 12 pending, the oldest for 3 s");
        assert_eq!(paused.severity, Severity::Behind);

        let failing = SyncSnapshot {
            retry: Some(Retry {
                seconds: 30.0,
                failures: 2,
            }),
            last_error: Some(LastError {
                code: 12,
                text: "rsync: connection refused".into(),
                time: 0.0,
            }),
            ..busy
        };
        // While it is being tried again, it is no better yet.
        let trying = failing.clone().judged(None, false, false);
        assert_eq!(
            (trying.state, trying.severity),
            (State::Sending, Severity::Trouble)
        );
        let retrying = SyncSnapshot {
            sending: Vec::new(),
            ..failing
        };
        let retrying = retrying.judged(None, false, false);
        assert_eq!(
            retrying.detail,
            "retrying in 30 s since rsync: connection refused"
        );
        assert_eq!(retrying.severity, Severity::Trouble);
        assert_eq!(sync().judged(None, true, true).state, State::SourceLost);
    }

    #[test]
    fn failed_paths_are_trouble_whatever_else_is_well() {
        let failed = SyncSnapshot {
            failed: 1,
            ..sync()
        };
        let failed = failed.judged(None, false, false);
        assert_eq!(failed.detail, "current, 1 path left undone");
        assert_eq!(failed.severity, Severity::Trouble);
    }

    #[test]
    fn it_survives_json() {
        let snapshot = Snapshot {
            syncs: vec![sync().judged(Some("starting".into()), false, false)],
            ..Snapshot::default()
        }
        .judged();
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
        for state in State::ALL {
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(text, format!("\"{}\"", state.name()));
        }
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(bytes(831), "831 B");
        assert_eq!(bytes(1_234_567), "1.2 MB");
        assert_eq!(span(119.4), "119 s");
        assert_eq!(span(7199.0), "120 min");
    }
}
