//! The protocol of the control socket: one JSON object per line in each direction. docs/control.md
//! describes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::history::LogPage;
use crate::reports::ReportPage;
use crate::status::drift_report::DriftReport;
use crate::status::snapshot::Snapshot;
use crate::status::snapshot::VERSION;
use crate::status::trends::TrendPage;

/// The maximum length of a request in bytes: a path in its printable form needs up to 16 KiB.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// The maximum number of entries per queue in a status.
pub const MAX_ENTRIES: usize = 1000;

/// A request to the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The protocol version, [`VERSION`].
    pub v: u32,
    /// The requested action.
    #[serde(flatten)]
    pub verb: Verb,
}

/// The action of a request. A sync is named as in the configuration; without a name, the request
/// applies to all syncs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Verb {
    /// Return the status.
    Status {
        /// The name of the sync.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
        /// The number of entries of each queue, at most [`MAX_ENTRIES`].
        #[serde(default)]
        entries: usize,
    },
    /// Reply when everything that happened before this request is on the target.
    Wait {
        /// The name of the sync.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
    },
    /// Start no more transfers.
    Pause {
        /// The name of the sync.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
    },
    /// Start transfers again.
    Resume {
        /// The name of the sync.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
    },
    /// Accept the source as it is: a guard that halted the sync is released.
    Release {
        /// The name of the sync.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
    },
    /// Run pending delays at once.
    Flush {
        /// The name of the sync.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
    },
    /// Compare a path, or everything.
    Resync {
        /// The name of the sync.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
        /// The path: absolute, or relative to the source; in printable form.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
    /// Tell what is known of a path.
    Explain {
        /// The name of the sync.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
        /// The absolute path, in printable form.
        path: String,
    },
    /// Retry failed paths at once.
    Retry {
        /// The name of the sync.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
    },
    /// Return entries of the transfer log.
    Log {
        /// The name of the sync.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
        /// Only entries about this path: absolute, or relative to the source; in printable form.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        /// The earliest time, in seconds since the epoch.
        #[serde(default)]
        since: f64,
        /// By sync, the number of the last known entry: `next` of the last reply.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        after: BTreeMap<String, u64>,
        /// The maximum number of entries.
        #[serde(default)]
        limit: Option<usize>,
        /// Return the newest entries, not the oldest.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        newest: bool,
    },
    /// Compare source and target, and reply with reports.
    Verify {
        /// The name of the sync.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
        /// The path: absolute, or relative to the source; in printable form.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        /// Compare contents.
        #[serde(default)]
        content: bool,
        /// Repair the differences.
        #[serde(default)]
        repair: bool,
        /// Compare the contents of this percentage of the files, each time of others.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sample: Option<f64>,
    },
    /// Return the series of the last hour and the last day.
    Trends {
        /// The name of the sync.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
    },
    /// Return kept reports, and check all of them.
    Reports {
        /// The maximum number of reports.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
    },
    /// Reload the configuration, as after HUP.
    Reload,
    /// Select the log categories, with the arguments of the option `-log`.
    LogLevel {
        /// `all`, `scarce` or names of categories; empty for the default.
        #[serde(default)]
        words: Vec<String>,
    },
}

/// A reply of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The protocol version, [`VERSION`].
    pub v: u32,
    /// True if the action was carried out.
    pub ok: bool,
    /// The result, or the reason of a failure.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// The status, in replies to [`Verb::Status`] and, at the moment the wait ends, to
    /// [`Verb::Wait`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Snapshot>,
    /// Entries of the transfer log, in replies to [`Verb::Log`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Box<LogPage>>,
    /// The series, in replies to [`Verb::Trends`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trends: Option<Box<TrendPage>>,
    /// Kept reports, in replies to [`Verb::Reports`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Box<ReportPage>>,
    /// The reports, in replies to [`Verb::Verify`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reports: Vec<DriftReport>,
}

impl Request {
    /// Returns a request of this protocol version.
    pub fn new(verb: Verb) -> Request {
        Request { v: VERSION, verb }
    }

    /// Parses a line.
    ///
    /// # Errors
    /// Returns a message for the sender.
    pub fn parse(line: &[u8]) -> Result<Verb, String> {
        #[derive(Deserialize)]
        struct Version {
            v: Option<u32>,
        }
        let version: Version =
            serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))?;
        match version.v {
            Some(VERSION) => {}
            Some(other) => {
                return Err(format!("unknown version {other}; the version is {VERSION}"));
            }
            None => return Err("the version is missing: \"v\":1".into()),
        }
        let request: Request =
            serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))?;
        Ok(request.verb)
    }

    /// Returns the line, with its newline.
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

impl Reply {
    /// Returns a reply of success.
    pub fn done(text: impl Into<String>) -> Reply {
        Reply {
            v: VERSION,
            ok: true,
            text: text.into(),
            status: None,
            log: None,
            trends: None,
            kept: None,
            reports: Vec::new(),
        }
    }

    /// Returns a reply of failure.
    pub fn refused(text: impl Into<String>) -> Reply {
        Reply {
            ok: false,
            ..Reply::done(text)
        }
    }

    /// Returns a reply with the status.
    pub fn status(snapshot: Snapshot) -> Reply {
        Reply {
            status: Some(snapshot),
            ..Reply::done("")
        }
    }

    /// Returns a reply with entries of the transfer log.
    pub fn log(page: LogPage) -> Reply {
        Reply {
            log: Some(Box::new(page)),
            ..Reply::done("")
        }
    }

    /// Returns a reply with series.
    pub fn trends(page: TrendPage) -> Reply {
        Reply {
            trends: Some(Box::new(page)),
            ..Reply::done("")
        }
    }

    /// Returns a reply with kept reports.
    pub fn kept(page: ReportPage) -> Reply {
        Reply {
            kept: Some(Box::new(page)),
            ..Reply::done("")
        }
    }

    /// Returns a reply with the results of comparisons.
    pub fn reports(reports: Vec<DriftReport>) -> Reply {
        Reply {
            reports,
            ..Reply::done("")
        }
    }

    /// Returns the line, with its newline.
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

/// Returns the JSON line of a value. Numbers and texts can always be serialised.
fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_lines() {
        let request = Request::new(Verb::Resync {
            sync: Some("web".into()),
            path: Some("/a\\012b".into()),
        });
        let line = request.line();
        let text = r#"{"v":1,"do":"resync","sync":"web","path":"/a\\012b"}"#;
        assert_eq!(line, format!("{text}\n").into_bytes());
        assert_eq!(Request::parse(&line), Ok(request.verb));
        let reload = Request::parse(br#"{"do":"reload","v":1,"more":[1]}"#);
        assert_eq!(reload, Ok(Verb::Reload));
        let level = Request::parse(br#"{"v":1,"do":"log-level"}"#);
        assert_eq!(level, Ok(Verb::LogLevel { words: Vec::new() }));
    }

    #[test]
    fn lines_that_are_no_request_are_refused() {
        let error = |text: &str| Request::parse(text.as_bytes()).unwrap_err();
        assert!(error("hello").starts_with("not a request: "));
        assert!(error(r#"{"v":2,"do":"reload"}"#).contains("version 2"));
        assert!(error(r#"{"do":"reload"}"#).contains("\"v\":1"));
        assert!(error(r#"{"v":1,"do":"explode"}"#).contains("explode"));
        assert!(error(&"[".repeat(60_000)).starts_with("not a request: "));
    }

    proptest! {
        #[test]
        fn nonsense_is_refused_and_no_more(line in prop::collection::vec(any::<u8>(), 0..300)) {
            // Every input gets an answer of one line.
            let text = Request::parse(&line).err().unwrap_or_default();
            let reply = Reply::refused(text).line();
            prop_assert_eq!(reply.iter().filter(|&&byte| byte == b'\n').count(), 1);
        }

        #[test]
        fn broken_requests_are_refused(
            at in 0usize..60,
            byte in any::<u8>(),
        ) {
            let mut line = Request::new(Verb::Wait { sync: Some("a sync".into()) }).line();
            let at = at % line.len();
            line[at] = byte;
            let _ = Request::parse(&line);
        }
    }
}
