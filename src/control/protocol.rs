//! The language of the control socket: one JSON object a line, each way. docs/control.md is
//! its manual.

use serde::{Deserialize, Serialize};

use crate::status::snapshot::Snapshot;
use crate::status::snapshot::VERSION;

/// The longest request, in bytes: a path in its printable form takes up to 16 KiB.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// The most entries of a queue a status may have.
pub const MAX_ENTRIES: usize = 1000;

/// A line to the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`]
    pub v: u32,
    /// What to do.
    #[serde(flatten)]
    pub verb: Verb,
}

/// What to do. A sync is named as in the configuration; without a name, all are meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Verb {
    /// Tell what is going on.
    Status {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
        /// So many entries of each queue, at most [`MAX_ENTRIES`].
        #[serde(default)]
        entries: usize,
    },
    /// Answer when everything that happened before this request is at the target.
    Wait {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
    },
    /// Start nothing more.
    Pause {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
    },
    /// Start again what is due.
    Resume {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
    },
    /// Take the source as it is: a guard that halted the sync is content.
    Release {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
    },
    /// Don't wait for delays.
    Flush {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
    },
    /// Compare a path, or everything.
    Resync {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
        /// Absolute, or relative to the source; in printable form.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
    /// Try what failed again now.
    Retry {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync: Option<String>,
    },
    /// Read the configuration again, as after HUP.
    Reload,
    /// Choose what is logged from now on, in words of the option `-log`.
    LogLevel {
        /// `all`, `scarce` or names of categories; none for the usual.
        #[serde(default)]
        words: Vec<String>,
    },
}

/// A line from the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`]
    pub v: u32,
    /// It was done.
    pub ok: bool,
    /// What was done, or why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// To [`Verb::Status`], and to [`Verb::Wait`] of the moment it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Snapshot>,
}

impl Request {
    /// A request of this version.
    pub fn new(verb: Verb) -> Request {
        Request { v: VERSION, verb }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// In words for whoever sent it.
    pub fn parse(line: &[u8]) -> Result<Verb, String> {
        #[derive(Deserialize)]
        struct Version {
            v: Option<u32>,
        }
        let version: Version =
            serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))?;
        match version.v {
            Some(VERSION) => {}
            Some(other) => return Err(format!("version {other} is not known, {VERSION} is")),
            None => return Err("a request has a version: \"v\":1".into()),
        }
        let request: Request =
            serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))?;
        Ok(request.verb)
    }

    /// The line, with its end.
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

impl Reply {
    /// It was done.
    pub fn done(text: impl Into<String>) -> Reply {
        Reply {
            v: VERSION,
            ok: true,
            text: text.into(),
            status: None,
        }
    }

    /// It was not.
    pub fn refused(text: impl Into<String>) -> Reply {
        Reply {
            ok: false,
            ..Reply::done(text)
        }
    }

    /// What is going on.
    pub fn status(snapshot: Snapshot) -> Reply {
        Reply {
            status: Some(snapshot),
            ..Reply::done("")
        }
    }

    /// The line, with its end.
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

/// Numbers and texts always have a form in JSON.
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
    fn what_is_no_request_is_told() {
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
            // Whatever comes, there is an answer of one line.
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
