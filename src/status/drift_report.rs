//! The result of a comparison of source and target (`lsyncdctl verify`), as plain data and as text.
//!
//! Names are in the printable form of [`escape`](crate::log::escape()), which represents one name
//! only; times are seconds since the epoch.

use serde::{Deserialize, Serialize};

use super::number_format::{bytes, counted, span};
use crate::sys;

/// The maximum number of differences that a report names. All are counted.
pub const MAX_LISTED: usize = 1000;

/// The kind of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriftKind {
    /// The target lacks the path.
    Missing,
    /// Only the target has the path.
    Extra,
    /// The target has another type of file there.
    Type,
    /// The size, and so the contents.
    Size,
    /// The contents.
    Content,
    /// The time of modification.
    Time,
    /// The target of a symbolic link, or a name that is not a hard link of the same file.
    Link,
    /// The permissions.
    Mode,
    /// The user.
    Owner,
    /// The group.
    Group,
    /// The access control list.
    Acl,
    /// Extended attributes.
    Xattr,
}

impl DriftKind {
    /// Returns the name of the kind, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            DriftKind::Missing => "missing",
            DriftKind::Extra => "extra",
            DriftKind::Type => "type",
            DriftKind::Size => "size",
            DriftKind::Content => "content",
            DriftKind::Time => "time",
            DriftKind::Link => "link",
            DriftKind::Mode => "mode",
            DriftKind::Owner => "owner",
            DriftKind::Group => "group",
            DriftKind::Acl => "acl",
            DriftKind::Xattr => "xattr",
        }
    }
}

/// The result of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriftVerdict {
    /// Everything that was compared is equal.
    Equal,
    /// There are differences that no pending change explains.
    Drift,
    /// The comparison could not be completed.
    #[default]
    Incomplete,
}

impl DriftVerdict {
    /// Returns the word for it.
    pub fn name(self) -> &'static str {
        match self {
            DriftVerdict::Equal => "equal",
            DriftVerdict::Drift => "drift",
            DriftVerdict::Incomplete => "incomplete",
        }
    }

    /// Returns the exit code of `lsyncdctl verify`.
    pub fn exit_code(self) -> u8 {
        match self {
            DriftVerdict::Equal => 0,
            DriftVerdict::Drift => 1,
            DriftVerdict::Incomplete => 2,
        }
    }

    /// Returns the verdict on several syncs: drift has precedence over incomplete comparisons.
    pub fn of_all(verdicts: impl IntoIterator<Item = DriftVerdict>) -> DriftVerdict {
        let (mut any, mut worst) = (false, DriftVerdict::Equal);
        for verdict in verdicts {
            any = true;
            worst = match (worst, verdict) {
                (DriftVerdict::Drift, _) | (_, DriftVerdict::Drift) => DriftVerdict::Drift,
                (DriftVerdict::Incomplete, _) | (_, DriftVerdict::Incomplete) => {
                    DriftVerdict::Incomplete
                }
                _ => DriftVerdict::Equal,
            };
        }
        if any { worst } else { DriftVerdict::Incomplete }
    }
}

/// Returns the number of parts of which a percentage is one; `None` if it is not a percentage. With
/// one, everything is compared.
pub fn sample_parts(percent: f64) -> Option<u32> {
    let is_percentage = percent > 0.0 && percent <= 100.0;
    is_percentage.then(|| (100.0 / percent).ceil().min(f64::from(MAX_PARTS)) as u32)
}

/// The maximum number of parts of a sample.
const MAX_PARTS: u32 = 100_000;

/// The files whose contents were compared, of those of a sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportSample {
    /// The part, from 1 on.
    pub part: u32,
    /// The number of parts.
    pub parts: u32,
    /// The number of files.
    pub files: u64,
}

/// A path as one side has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DriftSide {
    /// The size in bytes.
    pub size: u64,
    /// The time of modification, in seconds since the epoch.
    pub time: i64,
    /// The type and the permissions, as `ls -l` prints them.
    pub permissions: String,
}

/// The last entry of the transfer log about a path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastTransfer {
    /// The time at which its batch ended, in seconds since the epoch.
    pub time: f64,
    /// The operation, as in the transfer log.
    pub operation: String,
    /// The reason of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The difference at one path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListedDrift {
    /// The path relative to the source, with a leading slash; that of a directory ends with one.
    pub path: String,
    /// The kinds of the difference.
    pub kinds: Vec<DriftKind>,
    /// The entry of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<DriftSide>,
    /// The entry of the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<DriftSide>,
    /// The last entry of the transfer log about the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<LastTransfer>,
    /// True if the difference was removed by `-repair`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repaired: bool,
}

/// The result of a comparison of one sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DriftReport {
    /// The version of lsyncd.
    pub version: String,
    /// The name of the sync.
    pub sync: String,
    /// The verdict.
    pub verdict: DriftVerdict,
    /// Why the comparison is incomplete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The moment up to which all changes of the source were to be on the target.
    pub begin: f64,
    /// The end of the comparison.
    pub end: f64,
    /// The source; absolute, ends with `/`.
    pub source: String,
    /// The target in rsync's form.
    pub target: String,
    /// The path that was compared; empty for everything.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The name of this host.
    pub host: String,
    /// True if contents were compared, not only sizes, times and attributes.
    pub content: bool,
    /// The files whose contents were compared; `None` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<ReportSample>,
    /// The filter rules of the sync, as rsync gets them.
    pub filters: Vec<String>,
    /// The first line of `rsync --version` of this host.
    pub rsync: String,
    /// That of the target's host, if it is reached by a remote shell that permits the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_rsync: Option<String>,
    /// The checksum algorithm of the comparison, if rsync reports it (3.2 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// The arguments of the first dry run.
    pub command: Vec<String>,
    /// The number of compared entries of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// The bytes of the compared files of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The number of differences, those included that are not listed.
    pub drift: u64,
    /// The differences, at most [`MAX_LISTED`].
    pub differences: Vec<ListedDrift>,
    /// The number of paths that changed while they were compared.
    pub in_motion: u64,
    /// Some of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moving: Vec<String>,
    /// The number of differences that were removed by `-repair`.
    pub repaired: u64,
}

impl DriftReport {
    /// Returns the report as lines of text.
    pub fn text(&self) -> String {
        let mut lines = vec![self.headline()];
        let mut add = |text: String| lines.push(format!("    {text}"));
        add(format!("{} -> {}", self.source, self.target));
        if let Some(reason) = &self.reason {
            add(reason.clone());
        }
        for difference in &self.differences {
            add(difference.line());
            let details = difference.details();
            if !details.is_empty() {
                add(format!("           {details}"));
            }
        }
        let listed = self.differences.len() as u64;
        if self.drift > listed {
            add(format!("and {} more", self.drift - listed));
        }
        for path in &self.moving {
            add(format!("in motion: {path}"));
        }
        lines.push(String::new());
        lines.join("\n")
    }

    fn headline(&self) -> String {
        let mut parts = Vec::new();
        if self.drift > 0 {
            parts.push(counted(self.drift as usize, "difference"));
        }
        if self.repaired > 0 {
            parts.push(format!("{} repaired", self.repaired));
        }
        if self.in_motion > 0 {
            parts.push(format!("{} in motion", self.in_motion));
        }
        if let Some(entries) = self.entries {
            let what = if entries == 1 { "entry" } else { "entries" };
            parts.push(format!("{entries} {what} compared"));
        }
        if let Some(size) = self.bytes {
            parts.push(bytes(size));
        }
        parts.push(match (&self.sample, self.content) {
            (Some(sample), _) => {
                let ReportSample { part, parts, files } = sample;
                format!("{files} by content (part {part} of {parts})")
            }
            (None, true) => "by content".to_owned(),
            (None, false) => "by size, time and attributes".to_owned(),
        });
        parts.push(format!("in {}", span(self.end - self.begin)));
        let verdict = self.verdict.name().to_uppercase();
        format!("{}  {verdict}: {}", self.sync, parts.join(", "))
    }
}

impl ListedDrift {
    fn line(&self) -> String {
        let kinds: Vec<_> = self.kinds.iter().map(|kind| kind.name()).collect();
        let repaired = if self.repaired { "  (repaired)" } else { "" };
        format!("{:<10} {}{repaired}", kinds.join(","), self.path)
    }

    /// Returns what is known of both sides; empty without anything.
    fn details(&self) -> String {
        let side = |name: &str, side: &DriftSide| {
            let DriftSide {
                size, permissions, ..
            } = side;
            format!("{name} {permissions} {size} B {}", shown(side.time))
        };
        let source = self.source.iter().map(|it| side("source", it));
        let target = self.target.iter().map(|it| side("target", it));
        let last = self.last.iter().map(|last| {
            let reason = last.reason.iter().map(|reason| format!(": {reason}"));
            let time = shown(last.time as i64);
            format!(
                "last {} {time}{}",
                last.operation,
                reason.collect::<String>()
            )
        });
        source
            .chain(target)
            .chain(last)
            .collect::<Vec<_>>()
            .join("; ")
    }
}

fn shown(time: i64) -> String {
    sys::local_time(time, c"%Y-%m-%d %H:%M:%S")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_outweighs_what_could_not_be_compared() {
        use DriftVerdict::*;
        for (verdicts, expected) in [
            (&[][..], Incomplete),
            (&[Equal, Equal], Equal),
            (&[Equal, Incomplete], Incomplete),
            (&[Incomplete, Drift, Equal], Drift),
        ] {
            let all = verdicts.iter().copied();
            assert_eq!(DriftVerdict::of_all(all), expected, "{verdicts:?}");
        }
        assert_eq!(
            [Equal, Drift, Incomplete].map(DriftVerdict::exit_code),
            [0, 1, 2]
        );
    }

    #[test]
    fn a_percentage_is_one_of_several_parts() {
        let percentages = [100.0, 60.0, 50.0, 10.0, 0.1, 0.0, -1.0, 101.0, f64::NAN];
        let parts = percentages.map(sample_parts);
        let expected = [Some(1), Some(2), Some(2), Some(10), Some(1000)];
        assert_eq!(parts[..5], expected);
        assert_eq!(parts[5..], [None; 4]);
    }

    #[test]
    fn a_report_names_each_difference() {
        let difference = |path: &str, kinds: &[DriftKind], repaired| ListedDrift {
            path: path.into(),
            kinds: kinds.into(),
            repaired,
            ..ListedDrift::default()
        };
        let report = DriftReport {
            sync: "web".into(),
            verdict: DriftVerdict::Drift,
            source: "/src/".into(),
            target: "h:/trg/".into(),
            begin: 100.0,
            end: 103.0,
            entries: Some(12),
            bytes: Some(2048),
            drift: 3,
            differences: vec![
                difference("/a", &[DriftKind::Content, DriftKind::Mode], false),
                difference("/b/", &[DriftKind::Extra], true),
            ],
            repaired: 1,
            in_motion: 1,
            moving: vec!["/c".into()],
            ..DriftReport::default()
        };
        let expected = "\
web  DRIFT: 3 differences, 1 repaired, 1 in motion, 12 entries compared, 2.0 kB, by size, time and attributes, in 3 s
    /src/ -> h:/trg/
    content,mode /a
    extra      /b/  (repaired)
    and 1 more
    in motion: /c
";
        assert_eq!(report.text(), expected);
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains(r#""verdict":"drift""#), "{json}");
        assert_eq!(serde_json::from_str::<DriftReport>(&json).unwrap(), report);
    }
}
