//! The typed values of `settings{}`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlua::{Result, Value};

use super::config_error::{bare_config_error, config_error_about};
use super::priority::priority;
use super::settings_table::{SettingsTable, lossy};
use super::text_of;
use crate::log::Facility;
use crate::log::Selection;
use crate::log::UnknownFacility;
use crate::process::Priority;
use crate::watch::{InotifyMode, WatchChoice};

/// The default maximum number of concurrent full comparisons. Each reads two trees completely.
const MAX_STARTUPS: usize = 4;
/// The default of `stopTimeout` in seconds, below systemd's limit of 90 s.
const STOP_TIMEOUT_SECONDS: f64 = 60.0;

/// The default of `transferLogSize` in MiB.
const TRANSFER_LOG_MIB: f64 = 4.0;

/// The default of `reports`.
const REPORTS: f64 = 100.0;

/// The maximum of `reports`. All are read for each new one.
const MAX_REPORTS: f64 = 10_000.0;

/// The maximum of `transferLogSize` in MiB. The log is read as a whole.
const MAX_TRANSFER_LOG_MIB: f64 = 128.0;

/// The default of `maxStaleness` in seconds.
const MAX_STALENESS_SECONDS: f64 = 60.0;

/// The default of `rescanInterval` in seconds.
const RESCAN_SECONDS: f64 = 60.0;

/// The location of the control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlSocket {
    /// The default path, if it is usable.
    Default,
    /// This path. If it is not usable, the daemon does not start.
    At(PathBuf),
    /// No socket: `controlSocket = false`.
    None,
}

/// The effect of SIGHUP after the configuration was read: the setting `hup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hup {
    /// `"all"`: every sync runs its startup transfer.
    All,
    /// `"changed"`: only new and changed syncs do; the others are not affected.
    Changed,
}

/// The settings of a daemon, with the command line applied.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The location of the control socket.
    pub control_socket: ControlSocket,
    /// The effect of SIGHUP.
    pub hup: Hup,
    /// Failed startup transfers are retried and do not end the daemon.
    pub insist: bool,
    /// Log categories, as for `-log`.
    pub log: Vec<String>,
    /// The facility of syslog.
    pub log_facility: Facility,
    /// The log file.
    pub log_file: Option<PathBuf>,
    /// Log messages are JSON objects.
    pub log_json: bool,
    /// The tag in syslog; `lsyncd` if not set.
    pub log_ident: Option<String>,
    /// The maximum number of children of all syncs.
    pub max_processes: Option<usize>,
    /// The metrics file, for a textfile collector.
    pub metrics_file: Option<PathBuf>,
    /// The address of metrics and status page.
    pub metrics_listen: Option<SocketAddr>,
    /// The maximum number of concurrent full comparisons.
    pub max_startups: usize,
    /// The priority of all children.
    pub priority: Priority,
    /// The time after which a file that stays open for writing is sent, repeatedly. `None`: it is
    /// sent when it is closed, and truncations by path are not noticed, as in lsyncd.
    pub max_staleness: Option<Duration>,
    /// The writes that count as changes.
    pub mode: InotifyMode,
    /// The backend that watches the sources.
    pub watch: WatchChoice,
    /// The maximum size of the transfer log of each sync in bytes; 0 if there is none.
    pub transfer_log_size: usize,
    /// The maximum number of reports that are kept; 0 if none are.
    pub reports: u64,
    /// Stay in the foreground.
    pub nodaemon: bool,
    /// End when the startup transfers are done.
    pub onepass: bool,
    /// The pid file.
    pub pid_file: Option<PathBuf>,
    /// The interval of comparisons of unwatched directories.
    pub rescan_interval: Duration,
    /// The time without I/O after which a transfer is terminated and repeated; `None` for never.
    pub stall_timeout: Option<Duration>,
    /// The directory of saved state.
    pub state_dir: Option<PathBuf>,
    /// The status file.
    pub status_file: Option<PathBuf>,
    /// The minimum time between two status reports.
    pub status_interval: Duration,
    /// The time children get to end when the daemon stops.
    pub stop_timeout: Duration,
}

impl Settings {
    /// Makes file names absolute, since a daemon leaves the directory it was started in.
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

impl SettingsTable {
    /// Returns the typed settings.
    ///
    /// # Errors
    ///
    /// An invalid value.
    pub fn typed(&self, default_interval: f64) -> Result<Settings> {
        self.check_types()?;
        let path = |key| -> Result<Option<PathBuf>> { Ok(self.text(key)?.map(PathBuf::from)) };
        Ok(Settings {
            control_socket: self.control_socket()?,
            hup: self.hup()?,
            insist: self.switch("insist")?,
            log: self.log()?,
            log_facility: self.facility()?,
            log_file: path("logfile")?,
            log_json: text_of(&self.value("logformat")?).as_deref() == Some(b"json"),
            log_ident: self
                .text("logident")?
                .map(|ident| ident.to_string_lossy().into_owned()),
            max_processes: self.count("maxProcesses")?,
            metrics_file: path("metricsFile")?,
            metrics_listen: self.metrics_listen()?,
            max_startups: self.count("maxStartups")?.unwrap_or(MAX_STARTUPS),
            priority: priority(&self.value("nice")?, &self.value("ionice")?)?,
            max_staleness: self.limit("maxStaleness", MAX_STALENESS_SECONDS)?,
            mode: self.mode()?,
            watch: self.watch()?,
            nodaemon: self.switch("nodaemon")?,
            onepass: self.switch("onepass")?,
            pid_file: self.optional_path("pidfile")?,
            rescan_interval: self.seconds("rescanInterval", RESCAN_SECONDS)?,
            stall_timeout: self.limit("stallTimeout", 0.0)?,
            state_dir: path("stateDir")?,
            status_file: self.optional_path("statusFile")?,
            status_interval: self.seconds("statusInterval", default_interval)?,
            stop_timeout: self.seconds("stopTimeout", STOP_TIMEOUT_SECONDS)?,
            transfer_log_size: self.transfer_log_size()?,
            reports: self.reports()?,
        })
    }

    /// Returns the log categories of the settings. Of `all` and `scarce` the last one counts; the
    /// command line is applied later.
    fn log(&self) -> Result<Vec<String>> {
        let words = self.words("log")?;
        for word in &words {
            Selection::default()
                .add(word)
                .map_err(|error| config_error_about("log", error.to_string()))?;
        }
        Ok(words)
    }

    /// Returns the status file. As in lsyncd, an empty name means no file; see
    /// [`SettingsTable::warnings`].
    fn optional_path(&self, key: &str) -> Result<Option<PathBuf>> {
        let text = self.text(key)?;
        Ok(text.filter(|text| !text.is_empty()).map(PathBuf::from))
    }

    /// Returns warnings about values that lsyncd accepts and that have no effect.
    ///
    /// # Errors
    ///
    /// Errors of Lua only.
    pub fn warnings(&self) -> Result<Vec<mlua::Error>> {
        let mut warnings = Vec::new();
        for (key, what) in [("statusFile", "status"), ("pidfile", "pid")] {
            if self.text(key)?.is_some_and(|text| text.is_empty()) {
                let text = format!("setting \"{key}\" is empty: there is no {what} file.");
                warnings.push(bare_config_error(key, text));
            }
        }
        Ok(warnings)
    }

    /// Returns a time. As in lsyncd, a negative one means zero.
    fn seconds(&self, key: &str, default: f64) -> Result<Duration> {
        let seconds = self.number(key)?.unwrap_or(default);
        Ok(Duration::from_secs_f64(seconds.clamp(0.0, 1e9)))
    }

    /// Returns a time that is not limited if it is zero.
    fn limit(&self, key: &str, default: f64) -> Result<Option<Duration>> {
        let limit = self.seconds(key, default)?;
        Ok((!limit.is_zero()).then_some(limit))
    }

    /// Returns the size of the transfer log in bytes. As with other sizes, a negative one means
    /// zero.
    fn transfer_log_size(&self) -> Result<usize> {
        let mebibytes = self.number("transferLogSize")?.unwrap_or(TRANSFER_LOG_MIB);
        Ok((mebibytes.clamp(0.0, MAX_TRANSFER_LOG_MIB) * f64::from(1 << 20)) as usize)
    }

    /// Returns the number of kept reports. As with sizes, a negative one means zero.
    fn reports(&self) -> Result<u64> {
        let count = self.number("reports")?.unwrap_or(REPORTS);
        Ok(count.ceil().clamp(0.0, MAX_REPORTS) as u64)
    }

    fn facility(&self) -> Result<Facility> {
        let unknown = |error: UnknownFacility| bare_config_error("logfacility", error.to_string());
        match self.value("logfacility")? {
            Value::Integer(number) => Facility::from_number(number).map_err(unknown),
            value => match text_of(&value) {
                None => Ok(Facility::USER),
                Some(name) => Facility::from_name(&lossy(name)).map_err(unknown),
            },
        }
    }

    fn hup(&self) -> Result<Hup> {
        Ok(match text_of(&self.value("hup")?).as_deref() {
            Some(b"changed") => Hup::Changed,
            _ => Hup::All,
        })
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

    /// Returns the address of metrics and status page. It must be a loopback address, since there
    /// is no authentication.
    fn metrics_listen(&self) -> Result<Option<SocketAddr>> {
        let Some(text) = self.text("metricsListen")? else {
            return Ok(None);
        };
        let text = text.to_string_lossy().into_owned();
        let numbers = text.replacen("localhost:", "127.0.0.1:", 1);
        match numbers.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Some(address)),
            Ok(_) => Err(config_error_about(
                "metricsListen",
                format!(
                    "setting \"metricsListen\" must be a loopback address like 127.0.0.1:9180, \
                     not \"{text}\". Use a proxy for access from other hosts."
                ),
            )),
            Err(_) => Err(config_error_about(
                "metricsListen",
                format!(
                    "setting \"metricsListen\" must be an address and a port like \
                     127.0.0.1:9180 or [::1]:9180, not \"{text}\"."
                ),
            )),
        }
    }

    fn watch(&self) -> Result<WatchChoice> {
        let text = text_of(&self.value("watch")?);
        Ok(match text.as_deref() {
            Some(b"auto") => WatchChoice::Auto,
            Some(b"fanotify") => WatchChoice::Fanotify,
            _ => WatchChoice::Inotify,
        })
    }

    fn mode(&self) -> Result<InotifyMode> {
        match text_of(&self.value("inotifyMode")?).as_deref() {
            None => Ok(InotifyMode::default()),
            Some(text) => mode_of(&lossy(text.to_vec())),
        }
    }
}

/// Parses the setting `inotifyMode`.
///
/// # Errors
///
/// An unknown mode.
pub fn mode_of(text: &str) -> Result<InotifyMode> {
    match text {
        "" | "CloseWrite" => Ok(InotifyMode::CloseWrite),
        "Modify" => Ok(InotifyMode::Modify),
        "CloseWrite or Modify" => Ok(InotifyMode::CloseWriteOrModify),
        "CloseWrite after Modify" => Err(config_error_about(
            "inotifyMode",
            "'CloseWrite after Modify' not implemented.",
        )),
        // Tools search for lsyncd's spelling of this message.
        other => Err(config_error_about(
            "inotifyMode",
            format!("'{other}' not a valid inotfiyMode."),
        )),
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
    fn stalled_transfers_are_ended_only_if_asked_for() {
        let timeout = |given| typed(given).map(|settings| settings.stall_timeout);
        assert_eq!(timeout("{}"), Ok(None));
        assert_eq!(timeout("{ stallTimeout = 0 }"), Ok(None));
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(timeout("{ stallTimeout = '3600' }"), Ok(hour));
        let refused = timeout("{ stallTimeout = -1 }").unwrap_err();
        assert!(refused.contains("\"stallTimeout\""), "{refused}");
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
    fn what_lsyncd_takes_is_taken() {
        let settings =
            typed("{ statusFile = '', statusInterval = -1, maxProcesses = 1.5 }").unwrap();
        assert_eq!(settings.status_file, None);
        assert_eq!(settings.status_interval, Duration::ZERO);
        assert_eq!(settings.max_processes, Some(2));
        assert!(typed("{ logfile = '' }").unwrap_err().contains("empty"));
        assert!(
            typed("{ stopTimeout = -1 }")
                .unwrap_err()
                .contains("stopTimeout")
        );
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
}
