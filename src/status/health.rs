//! Derives a sync's state, its severity and a description from its figures.

use super::state::{Severity, State};
use crate::status::number_format::counted;
use crate::status::number_format::span;
use crate::status::snapshot::Snapshot;
use crate::status::snapshot::SyncSnapshot;

impl Snapshot {
    /// Sets the severity to the worst of all syncs.
    pub fn judged(mut self) -> Snapshot {
        let worst = self.syncs.iter().map(|sync| sync.severity).max();
        self.severity = worst.unwrap_or_default();
        let lags = self.syncs.iter().map(|sync| sync.lag);
        self.lag = lags.fold(0.0, f64::max);
        self
    }
}

impl SyncSnapshot {
    /// Sets state, severity and description from the other fields. `starting` is the startup work
    /// in progress, if there is any; `lost` is true if the source does not exist.
    pub fn judged(mut self, starting: Option<String>, lost: bool) -> Self {
        self.state = match () {
            () if self.ended.is_some() => State::Ended,
            () if lost => State::SourceLost,
            () if self.halted.is_some() => State::Halted,
            () if self.paused => State::Paused,
            () if self.retry.is_some() && self.sending.is_empty() => State::Retrying,
            () if starting.is_some() => State::Starting,
            () if !self.sending.is_empty() => State::Sending,
            () if self.pending > 0 => State::Pending,
            () if self.failed > 0 => State::Retrying,
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
        self.remedy = self.known_remedy();
        self
    }

    /// Returns what to do about the trouble that the sync is in.
    fn known_remedy(&self) -> Option<String> {
        match self.state {
            State::Halted => Some(self.remedy_of_halt()),
            State::SourceLost => Some(
                "create, rename or mount the source again; the target is kept until then".into(),
            ),
            State::Ended => {
                Some("after its cause is removed, \"lsyncdctl reload\" starts it again".into())
            }
            _ if self.severity == Severity::Trouble => self.last_error.as_ref()?.remedy.clone(),
            _ if self.stalled().is_some() => Some(
                "check the target's host and the network; settings { stallTimeout = SECONDS } ends \
                 and repeats such transfers"
                    .into(),
            ),
            _ => None,
        }
    }

    fn remedy_of_halt(&self) -> String {
        let name = &self.name;
        let reason = self.halted.as_deref().unwrap_or_default();
        if reason.contains("mounted") {
            format!(
                "mount it again; if it is not to be mounted any more, \"lsyncdctl release {name}\" \
                 continues"
            )
        } else if reason.contains("would be deleted") {
            format!(
                "find out what deleted the files; if they are to be deleted on the target, too: \
                 \"lsyncdctl release {name}\""
            )
        } else {
            format!(
                "find the cause; if the change is intended, \"lsyncdctl release {name}\" continues"
            )
        }
    }

    /// Returns true if what failed last has succeeded since then.
    pub fn is_error_past(&self) -> bool {
        let failure = self.last_error.as_ref().map(|error| error.time);
        let has_succeeded = self.last_success >= failure;
        self.failed == 0 && self.ended.is_none() && (self.retry.is_none() || has_succeeded)
    }

    fn words(&self, starting: Option<String>) -> String {
        let error = || match &self.last_error {
            Some(error) if !error.text.is_empty() => error.text.clone(),
            Some(error) if error.code != 0 => format!("exit code {}", error.code),
            // The comparison succeeds without the files that are too large.
            _ => "some paths failed".into(),
        };
        let failed_paths = || counted(self.failed, "path");
        let mut words = match self.state {
            State::Current => "current".into(),
            State::Starting => starting.unwrap_or_default(),
            State::Pending => self.waiting(),
            State::Sending => self.sending_words(),
            State::Paused => format!("paused, {}", self.waiting()),
            State::Retrying => match &self.retry {
                Some(retry) => format!("retrying in {} after {}", span(retry.seconds), error()),
                None => format!("retrying {} after {}", failed_paths(), error()),
            },
            State::Halted => format!("halted: {}", self.halted.as_deref().unwrap_or_default()),
            State::SourceLost => "source lost, waiting for it to come back".into(),
            State::Ended => format!("ended: {}", error()),
        };
        if let Some(seconds) = self.stalled() {
            words.push_str(&format!(", no I/O for {}", span(seconds)));
        }
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
        let is_at_work = matches!(
            self.state,
            State::Starting | State::Pending | State::Sending
        );
        if is_at_work && !self.is_error_past() {
            words.push_str(&format!(", the last attempt failed: {}", error()));
        }
        let is_told = self.state == State::Retrying && self.retry.is_none();
        if self.failed > 0 && !is_told {
            words.push_str(&format!(", {} failed", failed_paths()));
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
        let what = if self.sending.iter().any(|each| each.full) {
            "comparing everything".to_owned()
        } else {
            format!("sending {}", counted(entries, "path"))
        };
        let mut words = format!("{what} for {}", span(longest));
        if let Some(progress) = self.sending.iter().find_map(|each| each.progress.as_ref()) {
            words.push_str(&format!(", {} %", progress.percent));
            if progress.total > 0 {
                words.push_str(&format!(", {}", progress.words()));
            }
        }
        let waiting = self.pending.saturating_sub(entries);
        if waiting > 0 {
            words.push_str(&format!(", {waiting} more pending"));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::snapshot::LastError;
    use crate::status::snapshot::Retry;
    use crate::status::snapshot::Sending;

    fn sync() -> SyncSnapshot {
        SyncSnapshot::default()
    }

    #[test]
    fn what_is_worst_names_the_state() {
        let current = sync().judged(None, false);
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
        let sending = busy.clone().judged(None, false);
        assert_eq!(sending.detail, "sending 10 paths for 61 s, 2 more pending");
        let paused = SyncSnapshot {
            paused: true,
            ..busy.clone()
        };
        let paused = paused.judged(None, false);
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
                ..LastError::default()
            }),
            ..busy
        };
        // A retry in progress does not improve the state.
        let trying = failing.clone().judged(None, false);
        assert_eq!(
            (trying.state, trying.severity),
            (State::Sending, Severity::Trouble)
        );
        let retrying = SyncSnapshot {
            sending: Vec::new(),
            ..failing
        };
        let retrying = retrying.judged(None, false);
        assert_eq!(
            retrying.detail,
            "retrying in 30 s after rsync: connection refused"
        );
        assert_eq!(retrying.severity, Severity::Trouble);
        assert_eq!(sync().judged(None, true).state, State::SourceLost);
    }

    #[test]
    fn a_transfer_without_io_is_shown_in_every_state() {
        let sending = |stalled| Sending {
            entries: 1,
            seconds: 90.0,
            stalled,
            ..Sending::default()
        };
        let busy = SyncSnapshot {
            pending: 3,
            sending: vec![sending(Some(40.0)), sending(None), sending(Some(41.0))],
            ..sync()
        };
        let told = busy.clone().judged(None, false);
        assert_eq!(told.detail, "sending 3 paths for 90 s, no I/O for 41 s");
        assert_eq!(
            (told.state, told.severity),
            (State::Sending, Severity::Behind)
        );
        let starting = busy.judged(Some("starting".into()), false);
        assert_eq!(starting.detail, "starting, no I/O for 41 s");
    }

    #[test]
    fn each_halt_has_a_remedy_of_its_own() {
        for (reason, part) in [
            ("/srv is not mounted any more", "mount it again"),
            ("20 entries would be deleted on the target", "what deleted"),
            ("the source is another directory", "find the cause"),
        ] {
            let halted = SyncSnapshot {
                name: "web".into(),
                halted: Some(reason.into()),
                ..sync()
            };
            let remedy = halted.judged(None, false).remedy.unwrap();
            assert!(remedy.contains(part), "{remedy}");
            assert!(remedy.contains("\"lsyncdctl release web\""), "{remedy}");
        }
    }

    #[test]
    fn an_error_before_a_success_is_past() {
        let at = |error: f64, success: f64| SyncSnapshot {
            last_error: Some(LastError {
                time: error,
                ..LastError::default()
            }),
            last_success: Some(success),
            halted: Some("20 entries would be deleted".into()),
            retry: Some(Retry::default()),
            ..sync()
        };
        assert!(at(1.0, 2.0).is_error_past());
        assert!(!at(2.0, 1.0).is_error_past());
        let failed = SyncSnapshot {
            failed: 1,
            ..at(1.0, 2.0)
        };
        assert!(!failed.is_error_past());
    }

    #[test]
    fn failed_paths_are_trouble_whatever_else_is_well() {
        let failed = SyncSnapshot {
            failed: 1,
            ..sync()
        };
        let waiting = failed.clone().judged(None, false);
        let detail = "retrying 1 path after some paths failed";
        assert_eq!(waiting.detail, detail);
        assert_eq!(
            (waiting.state, waiting.severity),
            (State::Retrying, Severity::Trouble)
        );
        let sending = SyncSnapshot {
            sending: vec![Sending {
                entries: 1,
                ..Sending::default()
            }],
            ..failed
        };
        let sending = sending.judged(None, false);
        assert_eq!(
            sending.detail,
            "sending 1 path for 0 s, the last attempt failed: some paths failed, 1 path failed"
        );
        assert_eq!(sending.severity, Severity::Trouble);
    }
}
