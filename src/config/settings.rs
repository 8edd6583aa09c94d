//! `settings{}`: what holds for the daemon as a whole.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlua::{Lua, Result, Table, Value};

use super::complaint::{bare_complaint, complaint, complaint_about};
use super::priority::priority;
use super::{kind_of, nearest, number_of, text_of, truthy};
use crate::cli::Options;
use crate::process::Priority;
use crate::report::{Facility, Selection, UnknownFacility};
use crate::watch::Mode;

/// The kinds of values a setting takes.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    /// A text or a list of texts.
    Words,
    /// Any value; what Lua takes for true switches on (`insist = 1` is common).
    Switch,
    /// Seconds or a count; a text that is a number counts.
    Number,
}

const KNOWN: &[(&str, Kind)] = &[
    ("controlSocket", Kind::Text),
    ("hup", Kind::Text),
    ("inotifyMode", Kind::Text),
    ("insist", Kind::Switch),
    ("ionice", Kind::Text),
    ("log", Kind::Words),
    ("logfacility", Kind::Text),
    ("logfile", Kind::Text),
    ("logident", Kind::Text),
    ("maxDelays", Kind::Number),
    ("maxProcesses", Kind::Number),
    ("metricsFile", Kind::Text),
    ("metricsListen", Kind::Text),
    ("maxStartups", Kind::Number),
    ("nice", Kind::Number),
    ("maxStaleness", Kind::Number),
    ("nodaemon", Kind::Switch),
    ("onepass", Kind::Switch),
    ("pidfile", Kind::Text),
    ("rescanInterval", Kind::Number),
    ("stateDir", Kind::Text),
    ("statusFile", Kind::Text),
    ("statusInterval", Kind::Number),
    ("stopTimeout", Kind::Number),
];

/// So many whole sources are compared at a time unless the configuration says otherwise: each
/// reads two trees from one end to the other.
const STARTUPS: usize = 4;
/// Seconds; what still runs then is ended before systemd's own limit of 90 s has passed.
const STOP_TIMEOUT: f64 = 60.0;

/// How long a file may be open for writing before it is sent as it is.
const STALENESS: Duration = Duration::from_secs(60);

/// How often what is not watched is compared.
const RESCAN: Duration = Duration::from_secs(60);

/// The values set so far, while the configuration runs.
#[derive(Clone)]
pub struct SettingsTable(Table);

impl SettingsTable {
    /// No settings yet.
    ///
    /// # Errors
    /// Lua is out of memory.
    pub fn new(lua: &Lua) -> Result<SettingsTable> {
        Ok(SettingsTable(lua.create_table()?))
    }

    /// The value of a setting; nil if it is not set or there is none of that name.
    ///
    /// # Errors
    /// None but Lua's own.
    pub fn value(&self, key: &str) -> Result<Value> {
        self.0.get(key)
    }

    /// Takes over a table given to `settings{}`: its named keys, and its list items as switches.
    ///
    /// # Errors
    /// The first key that is no setting, or value that is of the wrong type.
    pub fn take(&self, given: &Table) -> Result<()> {
        for pair in given.pairs::<Value, Value>() {
            let (key, value) = pair?;
            let (name, value) = match (&key, &value) {
                (Value::Integer(_), Value::String(item)) => {
                    (item.to_string_lossy(), Value::Boolean(true))
                }
                (Value::String(name), _) => (name.to_string_lossy(), value),
                _ => {
                    let kind = kind_of(if matches!(key, Value::Integer(_)) {
                        &value
                    } else {
                        &key
                    });
                    let text = format!("the name of a setting must be a text, not {kind}.");
                    return Err(complaint(text));
                }
            };
            let Some(&(_, kind)) = KNOWN.iter().find(|(known, _)| *known == name) else {
                return Err(unknown(&name));
            };
            check_kind(&name, kind, &value)?;
            self.0.set(name, value)?;
        }
        // What is wrong is told here, where the line it stands on is known.
        self.typed(0.0).map(|_| ())
    }

    /// Puts in what the command line says, which beats the configuration.
    ///
    /// # Errors
    /// None but Lua's own.
    pub fn override_by(&self, lua: &Lua, options: &Options) -> Result<()> {
        for (key, on) in [
            ("insist", options.insist),
            ("nodaemon", options.nodaemon),
            ("onepass", options.onepass),
        ] {
            if on {
                self.0.set(key, true)?;
            }
        }
        for (key, path) in [("logfile", &options.logfile), ("pidfile", &options.pidfile)] {
            if let Some(path) = path {
                self.0
                    .set(key, lua.create_string(path.as_encoded_bytes())?)?;
            }
        }
        Ok(())
    }

    /// The settings in types.
    ///
    /// # Errors
    /// A value no setting can have.
    pub fn typed(&self, default_interval: f64) -> Result<Settings> {
        let path = |key| -> Result<Option<PathBuf>> {
            let text = self.text(key)?;
            if text.as_ref().is_some_and(|text| text.is_empty()) {
                let text = format!("setting \"{key}\" must not be empty.");
                return Err(complaint_about(key, text));
            }
            Ok(text.map(PathBuf::from))
        };
        let interval = self.number("statusInterval")?.unwrap_or(default_interval);
        if !(0.0..=1e9).contains(&interval) {
            return Err(complaint_about(
                "statusInterval",
                "setting \"statusInterval\" must be a number of seconds, 0 or more.",
            ));
        }
        let stop_timeout = self.number("stopTimeout")?.unwrap_or(STOP_TIMEOUT);
        if !(0.0..=1e9).contains(&stop_timeout) {
            return Err(complaint_about(
                "stopTimeout",
                "setting \"stopTimeout\" must be a number of seconds, 0 or more.",
            ));
        }
        Ok(Settings {
            control_socket: self.control_socket()?,
            hup: self.hup()?,
            insist: self.switch("insist")?,
            log: self.log()?,
            log_facility: self.facility()?,
            log_file: path("logfile")?,
            log_ident: self
                .text("logident")?
                .map(|ident| ident.to_string_lossy().into_owned()),
            max_processes: self.count("maxProcesses")?,
            metrics_file: path("metricsFile")?,
            metrics_listen: self.metrics_listen()?,
            max_startups: self.count("maxStartups")?.unwrap_or(STARTUPS),
            priority: priority(&self.value("nice")?, &self.value("ionice")?)?,
            max_staleness: self.staleness()?,
            mode: self.mode()?,
            nodaemon: self.switch("nodaemon")?,
            onepass: self.switch("onepass")?,
            pid_file: path("pidfile")?,
            rescan_interval: self.rescan_interval()?,
            state_dir: path("stateDir")?,
            status_file: path("statusFile")?,
            status_interval: Duration::from_secs_f64(interval),
            stop_timeout: Duration::from_secs_f64(stop_timeout),
        })
    }

    /// A setting that must be a whole number above zero.
    ///
    /// # Errors
    /// It is something else.
    pub fn count(&self, key: &str) -> Result<Option<usize>> {
        match self.number(key)? {
            None => Ok(None),
            Some(number) if number >= 1.0 => Ok(Some(number as usize)),
            Some(_) => Err(complaint_about(
                key,
                format!("setting \"{key}\" must be a number, 1 or more."),
            )),
        }
    }

    /// What is logged besides what the command line says; of `all` and `scarce` the last one
    /// counts, and the command line's comes last.
    fn log(&self) -> Result<Vec<String>> {
        let words = words(&self.value("log")?).unwrap_or_default();
        for word in &words {
            Selection::default()
                .add(word)
                .map_err(|error| complaint_about("log", error.to_string()))?;
        }
        Ok(words)
    }

    fn switch(&self, key: &str) -> Result<bool> {
        Ok(truthy(&self.value(key)?))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        Ok(number_of(&self.value(key)?))
    }

    fn text(&self, key: &str) -> Result<Option<OsString>> {
        Ok(text_of(&self.value(key)?).map(OsString::from_vec))
    }

    fn staleness(&self) -> Result<Option<Duration>> {
        match self.number("maxStaleness")? {
            None => Ok(Some(STALENESS)),
            Some(0.0) => Ok(None),
            Some(seconds) if seconds > 0.0 => Ok(Some(Duration::from_secs_f64(seconds.min(1e9)))),
            Some(_) => Err(complaint_about(
                "maxStaleness",
                "setting \"maxStaleness\" must be a number of seconds, 0 or more.",
            )),
        }
    }

    fn rescan_interval(&self) -> Result<Duration> {
        match self.number("rescanInterval")? {
            None => Ok(RESCAN),
            Some(seconds) if seconds > 0.0 => Ok(Duration::from_secs_f64(seconds.min(1e9))),
            Some(_) => Err(complaint_about(
                "rescanInterval",
                "setting \"rescanInterval\" must be a number of seconds above 0.",
            )),
        }
    }

    fn facility(&self) -> Result<Facility> {
        let unknown = |error: UnknownFacility| bare_complaint("logfacility", error.to_string());
        match self.value("logfacility")? {
            Value::Integer(number) => Facility::from_number(number).map_err(unknown),
            value => match text_of(&value) {
                None => Ok(Facility::USER),
                Some(name) => Facility::from_name(&lossy(name)).map_err(unknown),
            },
        }
    }

    fn hup(&self) -> Result<Hup> {
        match text_of(&self.value("hup")?).as_deref() {
            None | Some(b"all") => Ok(Hup::All),
            Some(b"changed") => Ok(Hup::Changed),
            Some(_) => Err(complaint_about(
                "hup",
                "setting \"hup\" must be \"all\" or \"changed\".",
            )),
        }
    }

    fn control_socket(&self) -> Result<ControlSocket> {
        Ok(match self.value("controlSocket")? {
            Value::Nil => ControlSocket::Default,
            value => match text_of(&value).filter(|path| !path.is_empty()) {
                Some(path) => ControlSocket::At(OsString::from_vec(path).into()),
                None => ControlSocket::None,
            },
        })
    }

    /// What can be asked there is not for everyone, and there is no password.
    fn metrics_listen(&self) -> Result<Option<SocketAddr>> {
        let Some(text) = self.text("metricsListen")? else {
            return Ok(None);
        };
        let text = text.to_string_lossy().into_owned();
        let numbers = text.replacen("localhost:", "127.0.0.1:", 1);
        match numbers.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Some(address)),
            Ok(_) => Err(complaint_about(
                "metricsListen",
                format!(
                    "setting \"metricsListen\" must be a loopback address like 127.0.0.1:9180, \
                     not \"{text}\". Put a proxy in front to reach it from elsewhere."
                ),
            )),
            Err(_) => Err(complaint_about(
                "metricsListen",
                format!(
                    "setting \"metricsListen\" must be an address and a port like \
                     127.0.0.1:9180 or [::1]:9180, not \"{text}\"."
                ),
            )),
        }
    }

    fn mode(&self) -> Result<Mode> {
        match text_of(&self.value("inotifyMode")?).as_deref() {
            None => Ok(Mode::default()),
            Some(text) => mode_of(&lossy(text.to_vec())),
        }
    }
}

/// Which writes are told: the setting `inotifyMode`.
///
/// # Errors
/// No such mode.
pub fn mode_of(text: &str) -> Result<Mode> {
    match text {
        "" | "CloseWrite" => Ok(Mode::CloseWrite),
        "Modify" => Ok(Mode::Modify),
        "CloseWrite or Modify" => Ok(Mode::CloseWriteOrModify),
        "CloseWrite after Modify" => Err(complaint_about(
            "inotifyMode",
            "'CloseWrite after Modify' not implemented.",
        )),
        // Tools look for lsyncd's spelling.
        other => Err(complaint_about(
            "inotifyMode",
            format!("'{other}' not a valid inotfiyMode."),
        )),
    }
}

fn check_kind(name: &str, kind: Kind, value: &Value) -> Result<()> {
    let nul = |text: &mlua::LuaString| text.as_bytes().contains(&0);
    if value.as_string().is_some_and(nul) {
        let text = format!("setting \"{name}\" contains a NUL byte.");
        return Err(complaint_about(name, text));
    }
    let right = match kind {
        _ if !truthy(value) => true,
        Kind::Switch => true,
        Kind::Number => number_of(value).is_some(),
        Kind::Text => text_of(value).is_some(),
        Kind::Words => words(value).is_some(),
    };
    if right {
        return Ok(());
    }
    if name == "logfacility" {
        return Err(bare_complaint(
            name,
            "Logging facility must be a number or string",
        ));
    }
    let wanted = match kind {
        Kind::Number => "number",
        Kind::Words => "text or a list of texts",
        _ => "text",
    };
    Err(complaint_about(
        name,
        format!(
            "setting \"{name}\" must be a {wanted}, not {}.",
            kind_of(value)
        ),
    ))
}

/// A text as one word or several with blanks between them, or a list of texts.
fn words(value: &Value) -> Option<Vec<String>> {
    let split = |text: Vec<u8>| -> Vec<String> {
        lossy(text).split_whitespace().map(str::to_owned).collect()
    };
    match value {
        Value::Table(list) => {
            let mut words = Vec::new();
            for item in list.sequence_values::<Value>() {
                words.extend(split(text_of(&item.ok()?)?));
            }
            Some(words)
        }
        value => Some(split(text_of(value)?)),
    }
}

fn unknown(name: &str) -> mlua::Error {
    let mut text = format!("setting \"{name}\" unknown.");
    if name == "delay" {
        text.push_str(" A delay is set in each sync{}.");
    } else if let Some(similar) = nearest(name, KNOWN.iter().map(|(known, _)| *known)) {
        text.push_str(&format!(" Did you mean \"{similar}\"?"));
    }
    complaint_about(name, text)
}

fn lossy(text: Vec<u8>) -> String {
    String::from_utf8_lossy(&text).into_owned()
}

/// Where the control socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlSocket {
    /// In the usual place, if it can be had.
    Default,
    /// Here, or the daemon does not start.
    At(PathBuf),
    /// Nowhere: `controlSocket = false`.
    None,
}

/// What SIGHUP does after the configuration was read again: the setting `hup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hup {
    /// `"all"`: every sync runs its startup transfer.
    All,
    /// `"changed"`: only syncs that are new or have changed do; the others go on untouched.
    Changed,
}

/// The settings of a daemon, after the configuration ran and the command line had its say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the control socket is.
    pub control_socket: ControlSocket,
    /// What SIGHUP does.
    pub hup: Hup,
    /// Failing startup transfers are tried again instead of ending the daemon.
    pub insist: bool,
    /// Words as `-log` takes them.
    pub log: Vec<String>,
    /// Facility of syslog.
    pub log_facility: Facility,
    /// Log to this file.
    pub log_file: Option<PathBuf>,
    /// Tag in syslog; `lsyncd` if not set.
    pub log_ident: Option<String>,
    /// At most so many children at a time, all syncs together.
    pub max_processes: Option<usize>,
    /// Where metrics go, for a textfile collector.
    pub metrics_file: Option<PathBuf>,
    /// Where metrics and the status page can be asked for.
    pub metrics_listen: Option<SocketAddr>,
    /// At most so many comparisons of a whole source at a time.
    pub max_startups: usize,
    /// Of all children.
    pub priority: Priority,
    /// A file that is open for writing for longer is sent as it is, and again each such time.
    /// `None`: not before it is closed, and truncations by path go unnoticed, as in lsyncd.
    pub max_staleness: Option<Duration>,
    /// Which writes are told.
    pub mode: Mode,
    /// Stay in the foreground.
    pub nodaemon: bool,
    /// End when the startup transfers are done.
    pub onepass: bool,
    /// Where the daemon's pid goes.
    pub pid_file: Option<PathBuf>,
    /// How often that is compared which could not be watched.
    pub rescan_interval: Duration,
    /// Where things are remembered over restarts.
    pub state_dir: Option<PathBuf>,
    /// Where the status report goes.
    pub status_file: Option<PathBuf>,
    /// At least so long between two status reports.
    pub status_interval: Duration,
    /// Children get this long to end by themselves when the daemon stops.
    pub stop_timeout: Duration,
}

impl Settings {
    /// Makes the names of files absolute: a daemon leaves the directory it was started in.
    pub fn relative_to(mut self, directory: &Path) -> Settings {
        for path in [
            &mut self.log_file,
            &mut self.metrics_file,
            &mut self.pid_file,
            &mut self.state_dir,
            &mut self.status_file,
        ] {
            *path = path.take().map(|path| directory.join(path));
        }
        if let ControlSocket::At(path) = &mut self.control_socket {
            *path = directory.join(&*path);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(given: &str) -> std::result::Result<Settings, String> {
        let lua = crate::sys::lua();
        let table = SettingsTable::new(&lua).unwrap();
        let given = lua.load(given).eval().unwrap();
        table
            .take(&given)
            .and_then(|()| table.typed(10.0))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn lists_switch_on_and_loose_values_count() {
        let settings = typed("{ 'nodaemon', insist = 1, statusInterval = '20' }").unwrap();
        assert!(settings.nodaemon && settings.insist && !settings.onepass);
        assert_eq!(settings.status_interval, Duration::from_secs(20));
        assert_eq!(
            typed("{}").unwrap().status_interval,
            Duration::from_secs(10)
        );
    }

    #[test]
    fn places_to_be_asked_at() {
        let socket = |given| typed(given).unwrap().control_socket;
        assert_eq!(socket("{}"), ControlSocket::Default);
        assert_eq!(socket("{ controlSocket = false }"), ControlSocket::None);
        assert_eq!(
            socket("{ controlSocket = '/run/x' }"),
            ControlSocket::At("/run/x".into())
        );
        let listen = |address: &str| typed(&format!("{{ metricsListen = '{address}' }}"));
        let port = |address| listen(address).unwrap().metrics_listen.unwrap().port();
        assert_eq!(port("127.0.0.1:9180"), 9180);
        assert_eq!(port("[::1]:1"), 1);
        assert_eq!(port("localhost:9"), 9);
        assert!(listen("0.0.0.0:9180").unwrap_err().contains("loopback"));
        assert!(listen("9180").unwrap_err().contains("127.0.0.1:9180"));
    }

    #[test]
    fn log_words_are_one_text_or_many() {
        assert_eq!(typed("{ log = 'Exec' }").unwrap().log, ["Exec"]);
        assert_eq!(
            typed("{ log = 'Exec Delay' }").unwrap().log,
            ["Exec", "Delay"]
        );
        assert_eq!(
            typed("{ log = { 'all', 'Exec' } }").unwrap().log,
            ["all", "Exec"]
        );
        assert!(typed("{}").unwrap().log.is_empty());
    }

    #[test]
    fn wrong_keys_and_values_are_told() {
        let text = |given| typed(given).unwrap_err();
        assert!(text("{ foo = 1 }").contains("setting \"foo\" unknown."));
        assert!(text("{ 'nodaemn' }").contains("Did you mean \"nodaemon\"?"));
        assert!(text("{ statusIntervall = 1 }").contains("\"statusInterval\""));
        assert!(text("{ log = 'exec' }").contains("'exec' is not a valid logging category"));
        assert!(text("{ log = { {} } }").contains("must be a text or a list of texts"));
        assert!(text("{ logfile = {} }").contains("setting \"logfile\" must be a text"));
        assert!(text("{ maxProcesses = 0 }").contains("\"maxProcesses\""));
        assert!(text("{ logfacility = 'x' }").contains("Logging facility 'x' unknown."));
        assert!(text("{ inotifyMode = 'x' }").contains("'x' not a valid inotfiyMode."));
    }
}
