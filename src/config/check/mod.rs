//! `check = …`: the checks of a file before it is sent.
//!
//! A function, a table with a `command`, or a list of these, which run in order.
//!
//! * `scanner`: one command;
//! * `refused`: options and paths that conflict with a check.

use mlua::{Result, Table, Value};

use super::hook::{Hook, hook};
use super::keys::{self, CHECK, Key, SCANNER};
use super::target::resolved;
use super::{text_of, truthy};
use refused::wrong;

mod refused;
mod scanner;

use crate::paths;
pub use scanner::Scanner;

/// One check of a `check` list.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// A scanner.
    Command(Scanner),
    /// A Lua function, looked up in the sync's table.
    Function,
}

/// The treatment of rejected files.
#[derive(Clone, Debug, PartialEq)]
pub enum OnReject {
    /// They are not sent, and the target keeps its version.
    Hold,
    /// The target's version is deleted.
    DeleteTarget,
    /// They are moved to this directory.
    Quarantine(Vec<u8>),
    /// They are not sent, and the hook is called.
    Call(Hook),
}

/// The staging directory: absolute, without a trailing slash.
#[derive(Clone, Debug, PartialEq)]
pub enum Staging {
    /// `check.staging`.
    Given(Vec<u8>),
    /// A directory beside the source, on the same file system for reflinks.
    Beside {
        /// `/data/.www.checked-0123456789abcdef` for `/data/www/`.
        source: Vec<u8>,
        /// The path if another sync uses the first one; its number includes the target.
        target: Vec<u8>,
    },
}

impl Staging {
    fn given(&self) -> Option<&[u8]> {
        match self {
            Staging::Given(place) => Some(place),
            Staging::Beside { .. } => None,
        }
    }
}

/// The checks of one sync.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckConfig {
    /// The checks in order; at least one.
    pub checks: Vec<Check>,
    /// The treatment of rejected files.
    pub on_reject: OnReject,
    /// The staging directory.
    pub staging: Staging,
    /// rsync compares contents, so the gate does it too for files of equal size and time.
    pub checksum: bool,
}

impl CheckConfig {
    /// Returns a text that is equal for equal checks; `None` if they include functions.
    pub fn rules(&self) -> Option<Vec<u8>> {
        let functions = self.checks.contains(&Check::Function);
        (!functions).then(|| format!("{:?}\n", self.checks).into_bytes())
    }

    /// Returns the staging directory, if the configuration names one.
    pub fn given_staging(&self) -> Option<&[u8]> {
        self.staging.given()
    }

    /// Returns a text that is equal for syncs that may share checked files, provided that they have
    /// the same source files and functions.
    pub fn sharing(&self) -> Vec<u8> {
        let parts = (
            &self.checks,
            &self.on_reject,
            self.given_staging(),
            self.checksum,
        );
        format!("{parts:?}").into_bytes()
    }
}

/// Reads the `check` of a sync's merged table.
///
/// # Errors
///
/// An invalid key or value, or an option of rsync that bypasses the checks.
pub fn check(config: &Table) -> Result<Option<CheckConfig>> {
    let given: Value = config.get("check")?;
    let (checks, table) = match &given {
        Value::Nil | Value::Boolean(false) => return Ok(None),
        Value::Function(_) => (vec![Check::Function], None),
        Value::Table(table) => (checks(table)?, Some(table)),
        _ => return Err(wrong("check", "check must be a table or a function")),
    };
    if checks.is_empty() {
        return Err(wrong("check", "check needs a command or a function"));
    }
    refused::options(config)?;
    let value = |key| table.map_or(Ok(Value::Nil), |table| table.get::<Value>(key));
    let on_reject = on_reject(&value("onReject")?, &value("quarantine")?, table)?;
    let staging = match value("staging")? {
        Value::Nil => default_staging(config)?,
        value => Staging::Given(directory("staging", &value)?),
    };
    let quarantine = match &on_reject {
        OnReject::Quarantine(place) => Some(place.as_slice()),
        _ => None,
    };
    refused::places(config, staging.given(), quarantine)?;
    Ok(Some(CheckConfig {
        checks,
        on_reject,
        staging,
        checksum: match config.get("rsync")? {
            Value::Table(rsync) => truthy(&rsync.get("checksum")?),
            _ => false,
        },
    }))
}

/// Returns true if the value has the form of a check; it may still be refused.
pub fn is_check(value: &Value) -> bool {
    match value {
        Value::Boolean(false) | Value::Function(_) => true,
        Value::Table(table) => checks(table).is_ok_and(|checks| !checks.is_empty()),
        _ => false,
    }
}

/// Returns the checks of a table or list.
fn checks(table: &Table) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    if !table.get::<Value>("command")?.is_nil() {
        checks.push(Check::Command(Scanner::from_table(table)?));
    }
    for pair in table.pairs::<Value, Value>() {
        let (key, _) = pair?;
        if !matches!(key, Value::Integer(_)) {
            known(&key, CHECK)?;
        }
    }
    for item in table.sequence_values::<Value>() {
        checks.push(match item? {
            Value::Function(_) => Check::Function,
            Value::Table(item) => {
                for pair in item.pairs::<Value, Value>() {
                    known(&pair?.0, SCANNER)?;
                }
                Check::Command(Scanner::from_table(&item)?)
            }
            _ => return Err(wrong("check", "check is a list of functions and tables")),
        });
    }
    Ok(checks)
}

fn known(key: &Value, table: &[Key]) -> Result<()> {
    let name = text_of(key).unwrap_or_default();
    let name = String::from_utf8_lossy(&name).into_owned();
    match keys::unknown(table, "check.", &name) {
        Some(text) => Err(wrong(&name, text)),
        None => Ok(()),
    }
}

fn on_reject(value: &Value, quarantine: &Value, table: Option<&Table>) -> Result<OnReject> {
    let place = match quarantine {
        Value::Nil | Value::Boolean(false) => None,
        value => Some(directory("quarantine", value)?),
    };
    let word = match value {
        Value::Nil => "hold".to_owned(),
        Value::String(text) => text.to_string_lossy(),
        _ => {
            let hook = table.map_or(Ok(None), |table| hook(table, "onReject"))?;
            let hook = hook.ok_or_else(|| wrong("onReject", "onReject must not be false"))?;
            return Ok(OnReject::Call(hook));
        }
    };
    match (word.as_str(), place) {
        ("hold", _) => Ok(OnReject::Hold),
        ("delete-target", _) => Ok(OnReject::DeleteTarget),
        ("quarantine", Some(place)) => Ok(OnReject::Quarantine(place)),
        ("quarantine", None) => {
            let text = "onReject = \"quarantine\" needs check.quarantine, a directory";
            Err(wrong("onReject", text))
        }
        (other, _) => Err(wrong(
            "onReject",
            format!(
                "onReject must be \"hold\", \"quarantine\", \"delete-target\", a function or a \
                 command, not \"{other}\""
            ),
        )),
    }
}

fn directory(key: &str, value: &Value) -> Result<Vec<u8>> {
    let text = format!("check.{key} must be the absolute path of a directory");
    let path = text_of(value).filter(|path| path.starts_with(b"/"));
    let path = path.ok_or_else(|| wrong(key, text.clone()))?;
    let end = path.iter().rposition(|&byte| byte != b'/');
    let path = end.map(|end| resolved(&path[..=end]));
    // A symlink in the path could be changed later.
    match path.as_deref().and_then(|path| path.strip_suffix(b"/")) {
        Some(path) if !path.is_empty() => Ok(path.to_vec()),
        _ => Err(wrong(key, text)),
    }
}

fn default_staging(config: &Table) -> Result<Staging> {
    let text =
        |key: &str| -> Result<Vec<u8>> { Ok(text_of(&config.get(key)?).unwrap_or_default()) };
    let (source, target) = (text("source")?, text("target")?);
    let (above, name) = paths::split(&source);
    if name.is_empty() {
        return Err(wrong(
            "staging",
            "check.staging is required if the source is /",
        ));
    }
    let beside = |parts: &[&[u8]]| {
        // FNV-1a, which is stable between versions of this program.
        let bytes = parts.iter().copied().flatten();
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        // The whole name must not exceed 255 bytes.
        let name = &name[..name.len().min(200)];
        let end = format!(".checked-{hash:016x}");
        [above, b".", name, end.as_bytes()].concat()
    };
    Ok(Staging::Beside {
        target: beside(&[&source, b"\0", &target]),
        source: beside(&[&source]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<CheckConfig, String> {
        let lua = crate::sys::lua();
        let text = format!("{{ source = '/s/w/', target = 'h:/t/', {text} }}");
        let config: Table = lua.load(text).eval().unwrap();
        let checked = check(&config).map_err(|error| error.to_string())?;
        checked.ok_or_else(|| "none".to_owned())
    }

    #[test]
    fn one_command_has_defaults() {
        let read = read("check = { command = { 'scan', '-x' } }").unwrap();
        let Check::Command(scanner) = &read.checks[0] else {
            panic!("a command");
        };
        assert_eq!(scanner.words, [b"scan".to_vec(), b"-x".to_vec()]);
        assert_eq!(
            (scanner.ok.as_slice(), scanner.reject.as_slice()),
            (&[0][..], &[1][..])
        );
        assert_eq!((scanner.parallel, scanner.timeout.as_secs()), (2, 60));
        assert_eq!(read.on_reject, OnReject::Hold);
        let Staging::Beside { source, target } = &read.staging else {
            panic!("no place was given");
        };
        assert!(source.starts_with(b"/s/.w.checked-") && target.starts_with(b"/s/.w.checked-"));
        assert_ne!(source, target);
    }

    #[test]
    fn lists_keep_their_order() {
        let read = read(
            "check = { { command = { 'a' }, ok = 3 }, function() end, { command = { 'b' } },
               onReject = 'quarantine', quarantine = '/q/', staging = '/st' }",
        )
        .unwrap();
        assert_eq!(read.checks.len(), 3);
        assert_eq!(read.checks[1], Check::Function);
        assert_eq!(read.on_reject, OnReject::Quarantine(b"/q".to_vec()));
        assert_eq!(read.staging, Staging::Given(b"/st".to_vec()));
        assert_eq!(read.rules(), None);
    }

    #[test]
    fn contradictory_keys_are_refused() {
        let cases = [
            ("check = 5", "check must be a table or a function"),
            ("check = {}", "needs a command or a function"),
            (
                "check = { comand = { 'a' } }",
                "Did you mean \"check.command\"?",
            ),
            ("check = { command = 'a' }", "check.command must be a list"),
            (
                "check = { command = { 'a' }, ok = { 300 } }",
                "check.ok must be",
            ),
            (
                "check = { command = { 'a' }, reject = 0 }",
                "both ok and reject",
            ),
            (
                "check = { command = { 'a' }, timeout = 0 }",
                "check.timeout must be",
            ),
            ("check = { command = { 'a' }, onReject = 'x' }", "not \"x\""),
            (
                "check = { command = { 'a' }, onReject = 'quarantine' }",
                "needs check.quarantine",
            ),
            (
                "check = { command = { 'a' }, staging = '/s/w/x' }",
                "inside the source",
            ),
            (
                "check = { command = { 'a' } }, rsync = { copy_links = true }",
                "rsync.copy_links",
            ),
            (
                "check = { command = { 'a' } }, rsync = { _extra = { '-aL' } }",
                "\"-aL\"",
            ),
            (
                "check = { command = { 'a' } }, rsync = { _extra = { '--copy-links' } }",
                "\"--copy-links\"",
            ),
            (
                "check = { command = { 'a' } }, rsync = { _extra = { '-v', '-xe', 'ssh' } }",
                "\"-xe\"",
            ),
            (
                "check = { command = { 'a' } }, rsync = { _extra = { '/etc' } }",
                "\"/etc\"",
            ),
        ];
        for (text, expected) in cases {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
