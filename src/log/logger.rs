//! The log: lsyncd's categories and line formats, over the `log` crate.
//!
//! A message of the daemon is a record whose target is its category; a record of the `log` macros,
//! here or in a library, has a module path besides. The latter are for developers: `RUST_LOG`
//! selects them, and they appear as category `Debug`.
//!
//! Until [`open`] is called, which is where the start-up line is written, all messages go to
//! standard error without a time, like configuration errors.

use std::fmt::{self, Write};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::log::Facility;
use crate::log::Selection;
use crate::log::categories::is_usual;
use crate::log::dedup::Count;
use crate::log::dedup::Fold;
use crate::log::dedup::Verdict;
use crate::log::escape;
use crate::log::file::LogFile;
use crate::log::file::write_all_within;
use crate::log::reason;
use crate::log::systemd_journal;
use crate::sys;

/// The destinations of messages once the daemon runs. Each one that is set gets all of them.
#[derive(Clone, Debug, Default)]
pub struct Channels {
    /// Standard output, and standard error for `Error`; not used by a detached daemon.
    pub console: bool,
    /// A file. A relative name is resolved in the working directory of the first [`open`].
    pub file: Option<PathBuf>,
    /// syslog(3), for a daemon without a file.
    pub syslog: Option<Syslog>,
    /// Each message is a JSON object on a line.
    pub json: bool,
}

/// The identification in the system's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// The tag.
    pub ident: String,
    /// The facility.
    pub facility: Facility,
}

/// The error that the log file could not be opened.
#[derive(Debug)]
pub struct CannotOpen {
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for CannotOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cannot open logfile [{}]!", printable(&self.path))
    }
}

impl std::error::Error for CannotOpen {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Installs this as the log of the process. Further calls only change the selection.
///
/// `modules` is the value of `RUST_LOG`; without it, records of modules are not even formatted.
pub fn install(selection: Selection, modules: Option<&str>) {
    LOGGER
        .all_usual
        .store(selection.is_usual(), Ordering::Relaxed);
    *LOGGER
        .selection
        .write()
        .unwrap_or_else(PoisonError::into_inner) = selection;

    if log::set_logger(&LOGGER).is_err() {
        return;
    }
    let level = match modules.filter(|text| !text.is_empty()) {
        None => LevelFilter::Off,
        Some(text) => {
            let filter = env_logger::Builder::new().parse_filters(text).build();
            let level = filter.filter();
            let _ = LOGGER.modules.set(filter);
            level
        }
    };
    log::set_max_level(level);
}

/// Ends the start-up phase, or changes the destinations of messages: the start-up line of a daemon
/// is still written to the console, the next is not.
///
/// # Errors
/// The file cannot be opened; nothing is changed then.
pub fn open(channels: Channels) -> Result<(), CannotOpen> {
    let mut sinks = LOGGER.sinks.lock().unwrap_or_else(PoisonError::into_inner);
    let file = match channels.file {
        None => None,
        Some(path) => match sinks.file.take_if(|old| old.was_opened_as(&path)) {
            None => Some(open_file(path)?),
            same => same,
        },
    };
    if let Some(Syslog { ident, facility }) = &channels.syslog
        && channels.syslog != sinks.syslog
    {
        sys::syslog_open(ident, facility.value());
    }
    sinks.started = true;
    sinks.console = channels.console;
    sinks.file = file;
    sinks.syslog = channels.syslog;
    sinks.json = channels.json;
    sinks.transient = false;
    Ok(())
}

/// Returns true if messages of this category are shown; to be checked before a costly one is built.
pub fn enabled(category: &str) -> bool {
    if LOGGER.all_usual.load(Ordering::Relaxed) {
        is_usual(category)
    } else {
        LOGGER.selection().shows(category)
    }
}

/// Logs a message of a category. The text may have several lines; names in it have to be
/// [escaped](crate::log::escape()).
pub fn say(category: &str, text: impl fmt::Display) {
    if category == "Error" {
        *LAST_ERROR.lock().unwrap_or_else(PoisonError::into_inner) = text.to_string();
    }
    if enabled(category) {
        log::logger().log(
            &Record::builder()
                .args(format_args!("{text}"))
                .target(category)
                .level(level(category))
                .build(),
        );
    }
}

/// Shows a line on the console that the next line, message or transient, replaces; an empty one
/// removes it. For terminals.
pub fn transient(text: &str) {
    let mut sinks = LOGGER.sinks.lock().unwrap_or_else(PoisonError::into_inner);
    if sinks.console {
        sinks.transient = !text.is_empty();
        let line = format!("{ERASE}{text}");
        let _ = write_all_within(io::stdout(), line.as_bytes(), WRITE_TIMEOUT_MS);
    }
}

/// Moves to the first column and erases to the end of the line (ECMA-48).
const ERASE: &str = "\r\x1b[K";

/// The last message of category Error.
static LAST_ERROR: Mutex<String> = Mutex::new(String::new());

/// Returns the last message of category Error in this process.
pub fn last_error() -> String {
    let last = LAST_ERROR.lock();
    last.unwrap_or_else(PoisonError::into_inner).clone()
}

/// Logs an error.
pub fn error(text: impl fmt::Display) {
    say("Error", text);
}

/// The number of warnings so far.
static WARNINGS: AtomicUsize = AtomicUsize::new(0);

/// Returns the number of calls of [`warn`] in this process.
pub fn warnings() -> usize {
    WARNINGS.load(Ordering::Relaxed)
}

/// Logs a warning.
pub fn warn(text: impl fmt::Display) {
    WARNINGS.fetch_add(1, Ordering::Relaxed);
    say("Warn", text);
}

/// Logs a message of category Normal.
pub fn normal(text: impl fmt::Display) {
    say("Normal", text);
}

static LOGGER: Logger = Logger {
    all_usual: AtomicBool::new(true),
    selection: RwLock::new(Selection::DEFAULT),
    modules: OnceLock::new(),
    sinks: Mutex::new(Sinks {
        fold: Fold::new(),
        started: false,
        console: false,
        file: None,
        syslog: None,
        json: false,
        transient: false,
    }),
};

struct Logger {
    /// True if the selection is the default one: avoids the lock, and building the text, in nearly
    /// all cases.
    all_usual: AtomicBool,
    selection: RwLock<Selection>,
    modules: OnceLock<env_logger::Logger>,
    sinks: Mutex<Sinks>,
}

struct Sinks {
    fold: Fold,
    started: bool,
    console: bool,
    file: Option<LogFile>,
    syslog: Option<Syslog>,
    /// True if messages are JSON objects.
    json: bool,
    /// True if the console's last line is a transient one.
    transient: bool,
}

impl Logger {
    fn selection(&self) -> std::sync::RwLockReadGuard<'_, Selection> {
        self.selection
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.modules
            .get()
            .is_some_and(|filter| filter.enabled(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        if record.module_path().is_none() {
            let priority = self.selection().priority(record.target());
            sinks.write(record.target(), priority, *record.args());
        } else if self
            .modules
            .get()
            .is_some_and(|filter| filter.matches(record))
        {
            let text = format_args!("{}: {}", record.target(), record.args());
            sinks.write("Debug", libc::LOG_DEBUG, text);
        }
    }

    /// Logs the count of lines that were suppressed.
    fn flush(&self) {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sinks.fold.count() {
            sinks.emit_count(&count);
        }
    }
}

impl Sinks {
    fn write(&mut self, category: &str, priority: i32, text: fmt::Arguments<'_>) {
        let verdict = if self.started {
            self.fold.line(category, &text.to_string(), now())
        } else {
            Verdict::Show(None)
        };
        let Verdict::Show(count) = verdict else {
            return;
        };
        if let Some(count) = count {
            self.emit_count(&count);
        }
        self.emit(category, priority, text);
    }

    /// Logs the count of a repeated warning or error.
    fn emit_count(&mut self, count: &Count) {
        let Count { category, times } = count;
        let priority = match category.as_str() {
            "Error" => libc::LOG_ERR,
            _ => libc::LOG_WARNING,
        };
        let noun = if *times == 1 { "time" } else { "times" };
        self.emit(
            category,
            priority,
            format_args!("the line above was repeated {times} {noun}"),
        );
    }

    /// Writes a message to all destinations. A failing console is ignored, as there is no place to
    /// report it.
    fn emit(&mut self, category: &str, priority: i32, text: fmt::Arguments<'_>) {
        let (to_journal, errors_to_journal) = systemd_journal::streams();
        if !self.started {
            let line = if errors_to_journal {
                systemd_journal::lines(priority, category, &text.to_string())
            } else {
                format!("{category}: {text}\n")
            };
            let _ = write_all_within(io::stderr(), line.as_bytes(), WRITE_TIMEOUT_MS);
            return;
        }
        let now = now();
        let object = self.json.then(|| json(now, category, &text.to_string()));
        if self.console {
            if std::mem::take(&mut self.transient) {
                let _ = write_all_within(io::stdout(), ERASE.as_bytes(), WRITE_TIMEOUT_MS);
            }
            let error = category == "Error";
            let journal = (error && errors_to_journal) || (!error && to_journal);
            let line = match &object {
                Some(object) if journal => format!("<{priority}>{object}\n"),
                Some(object) => format!("{object}\n"),
                None if journal => systemd_journal::lines(priority, category, &text.to_string()),
                None => line(LineForm::Console, now, category, text),
            };
            let _ = if error {
                write_all_within(io::stderr(), line.as_bytes(), WRITE_TIMEOUT_MS)
            } else {
                write_all_within(io::stdout(), line.as_bytes(), WRITE_TIMEOUT_MS)
            };
        }
        if let Some(file) = &mut self.file {
            let line = match &object {
                Some(object) => format!("{object}\n"),
                None => line(LineForm::File, now, category, text),
            };
            if let Some(error) = file.append(line.as_bytes()) {
                complain(file.path(), &error);
            }
        }
        if self.syslog.is_some() {
            match &object {
                Some(object) => sys::syslog(priority, object),
                None => sys::syslog(priority, &format!("{category}, {text}")),
            }
        }
    }
}

/// The maximum time in milliseconds for which a full non-blocking console delays a message.
const WRITE_TIMEOUT_MS: u16 = 1000;

#[derive(Clone, Copy)]
enum LineForm {
    Console,
    File,
}

/// Returns a line of the log. `seconds` are those since the epoch; local time is shown.
fn line(form: LineForm, seconds: i64, category: &str, text: fmt::Arguments<'_>) -> String {
    let format = match form {
        LineForm::Console => c"%H:%M:%S",
        LineForm::File => c"%a %b %e %H:%M:%S %Y",
    };
    let mut line = sys::local_time(seconds, format);
    // Writing to a string cannot fail.
    let _ = writeln!(line, " {category}: {text}");
    line
}

/// Returns a message as a JSON object, with the time as in RFC 3339.
fn json(seconds: i64, category: &str, text: &str) -> String {
    let mut time = sys::local_time(seconds, c"%Y-%m-%dT%H:%M:%S%z");
    // strftime(3) writes +hhmm.
    if let Some(minutes) = time.len().checked_sub(2) {
        time.insert(minutes, ':');
    }
    serde_json::json!({ "time": time, "category": category, "message": text }).to_string()
}

fn open_file(path: PathBuf) -> Result<LogFile, CannotOpen> {
    LogFile::open(&path).map_err(|error| CannotOpen { path, error })
}

/// Reports on standard error that the log file fails while the daemon runs.
fn complain(path: &Path, error: &io::Error) {
    let text = format!(
        "Error: Cannot write logfile [{}]: {}",
        printable(path),
        reason(error)
    );
    let _ = write_all_within(
        io::stderr(),
        format!("{text}\n").as_bytes(),
        WRITE_TIMEOUT_MS,
    );
    sys::syslog(libc::LOG_ERR, &text);
}

fn printable(path: &Path) -> std::borrow::Cow<'_, str> {
    escape(path.as_os_str().as_encoded_bytes())
}

fn level(category: &str) -> Level {
    match category {
        "Error" => Level::Error,
        "Warn" => Level::Warn,
        "Normal" => Level::Info,
        _ => Level::Debug,
    }
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let noon = 1_636_977_600; // 15 Nov 2021, 12:00 UTC
        let console = line(LineForm::Console, noon, "Normal", format_args!("a\nb"));
        assert_eq!(&console[2..3], ":");
        assert_eq!(&console[8..], " Normal: a\nb\n");

        let early = line(
            LineForm::File,
            noon - 12 * 86_400,
            "Warn",
            format_args!("x"),
        );
        assert!(early.starts_with("Wed Nov  3 "), "{early}");
        assert!(early.ends_with(" 2021 Warn: x\n"), "{early}");
        assert_eq!(early.len(), 24 + " Warn: x\n".len());
    }

    #[test]
    fn objects() {
        let noon = 1_636_977_600;
        let object = json(noon, "Normal", "a \"b\"\nc");
        assert!(!object.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&object).unwrap();
        assert_eq!(value["category"], "Normal");
        assert_eq!(value["message"], "a \"b\"\nc");
        let time = value["time"].as_str().unwrap();
        assert_eq!(time.len(), "2021-11-15T12:00:00+00:00".len(), "{time}");
        assert!(
            time.starts_with("2021-11-1") && time.as_bytes()[22] == b':',
            "{time}"
        );
    }

    #[test]
    fn before_anything_is_installed() {
        assert!(enabled("Error") && enabled("Warn") && enabled("Normal"));
        assert!(!enabled("Exec"));
        error("goes nowhere");
    }

    #[test]
    fn a_file_that_cannot_be_opened() {
        let e = open_file(PathBuf::from("/proc/none/log\n")).unwrap_err();
        assert_eq!(e.to_string(), r"Cannot open logfile [/proc/none/log\012]!");
    }
}
