//! Messages to the service manager (sd_notify(3)), one datagram for each.
//!
//! The manager sets `NOTIFY_SOCKET` to its socket; without it, nothing is sent.
//!
//! | message | when |
//! |---|---|
//! | `READY=1` | all directories are watched and the startup transfers have been started, also after a reload |
//! | `STATUS=…` | a line for `systemctl status`, at most every two seconds |
//! | `STATUS=Failed: …` | the daemon exits because of an error |
//! | `EXTEND_TIMEOUT_USEC=…` | a long crawl is running: extends the start timeout |
//! | `RELOADING=1`, `MONOTONIC_USEC=…` | the configuration is read again |
//! | `STOPPING=1` | the daemon shuts down |
//! | `WATCHDOG=1` | the loop is running; sent at half the interval of `WATCHDOG_USEC` |

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use super::signals::Signal;

/// The minimum time between two `STATUS` lines.
const STATUS_INTERVAL: Duration = Duration::from_secs(2);

/// The time that a running crawl requests with every `STATUS` line.
const EXTENSION: Duration = Duration::from_secs(120);

/// The phase of the daemon for the service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServicePhase {
    /// Directories are being watched; nothing is sent yet.
    Starting,
    /// The startup is complete.
    Ready,
    /// The end, or a reload, waits for what runs.
    ShuttingDown,
}

/// The figures of a status line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Directories watched.
    pub watched: usize,
    /// Entries in the queues of all syncs.
    pub waiting: usize,
    /// Running children.
    pub running: usize,
    /// Syncs in trouble.
    pub troubled: usize,
}

/// The connection to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Systemd {
    manager: Option<Manager>,
}

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// `READY=1` was sent, and no `RELOADING=1` after it.
    ready: bool,
    shown: Option<(ServicePhase, Figures)>,
    shown_at: Option<Instant>,
    /// A line was not sent because the last one was sent too recently.
    owed: bool,
    watchdog: Option<Duration>,
    /// The last `WATCHDOG=1`, at first the start of it all.
    pinged: Instant,
}

impl Systemd {
    /// Returns the connection that the environment describes. An invalid one is ignored: a missing
    /// manager is not a reason to fail.
    pub fn from_environment() -> Systemd {
        let connect = || {
            let address = address(&std::env::var_os("NOTIFY_SOCKET")?)?;
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            let watchdog = watchdog(|name| std::env::var(name).ok());
            Some(Manager::new(socket, address, watchdog))
        };
        Systemd { manager: connect() }
    }

    /// Reports why the daemon fails. The manager shows the text until the next start, also if the
    /// journal does not assign the last lines of a process that ends at once to its unit.
    pub fn failed(&self, reason: &str) {
        // Each line of a message is an assignment.
        let first = reason.lines().next().filter(|line| !line.is_empty());
        if let (Some(manager), Some(reason)) = (&self.manager, first) {
            manager.send(&format!("STATUS=Failed: {reason}"));
        }
    }

    /// Reports that a signal is about to be handled.
    pub fn heard(&mut self, signal: Signal) {
        match signal {
            Signal::HangUp => self.reloading(),
            Signal::Terminate | Signal::Interrupt => self.stopping(),
            _ => {}
        }
    }

    /// Sends due messages at the end of a turn of the loop.
    pub fn turn(&mut self, now: Instant, phase: ServicePhase, figures: impl FnOnce() -> Figures) {
        let Some(manager) = &mut self.manager else {
            return;
        };
        if manager.ping_at().is_some_and(|at| at <= now) {
            manager.pinged = now;
            manager.send("WATCHDOG=1");
        }
        let becomes_ready = phase == ServicePhase::Ready && !manager.ready;
        if becomes_ready {
            manager.ready = true;
            manager.send("READY=1");
        }
        manager.show(now, phase, figures(), becomes_ready);
    }

    /// Returns the time at which the next turn is due at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let manager = self.manager.as_ref()?;
        let show = if manager.owed {
            manager.shown_at.map(|at| at + STATUS_INTERVAL)
        } else {
            None
        };
        match (manager.ping_at(), show) {
            (Some(ping), Some(show)) => Some(ping.min(show)),
            (ping, show) => ping.or(show),
        }
    }

    /// The configuration is about to be read again; [`ServicePhase::Ready`] ends it.
    fn reloading(&mut self) {
        let Some(manager) = &mut self.manager else {
            return;
        };
        // A daemon that is not ready yet is still starting, as far as the manager is concerned.
        if !std::mem::take(&mut manager.ready) {
            return;
        }
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
            i128::from(time.tv_sec()) * 1_000_000 + i128::from(time.tv_nsec()) / 1000
        });
        manager.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// The daemon is about to end.
    fn stopping(&mut self) {
        if let Some(manager) = &mut self.manager {
            manager.send("STOPPING=1");
        }
    }
}

impl Manager {
    fn new(socket: UnixDatagram, address: SocketAddr, watchdog: Option<Duration>) -> Manager {
        Manager {
            socket,
            address,
            ready: false,
            shown: None,
            shown_at: None,
            owed: false,
            watchdog,
            pinged: Instant::now(),
        }
    }

    fn ping_at(&self) -> Option<Instant> {
        Some(self.pinged + self.watchdog? / 2)
    }

    fn show(&mut self, now: Instant, phase: ServicePhase, figures: Figures, at_once: bool) {
        if self.shown == Some((phase, figures)) {
            self.owed = false;
            return;
        }
        let too_soon = self.shown_at.is_some_and(|at| now < at + STATUS_INTERVAL);
        self.owed = too_soon && !at_once;
        if self.owed {
            return;
        }
        self.shown = Some((phase, figures));
        self.shown_at = Some(now);
        let mut text = format!("STATUS={}", line(phase, figures));
        if phase == ServicePhase::Starting {
            text.push_str(&format!("\nEXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()));
        }
        self.send(&text);
    }

    /// Sends a message. Errors are logged; the call does not block.
    fn send(&self, text: &str) {
        let sent: io::Result<usize> = self.socket.send_to_addr(text.as_bytes(), &self.address);
        if let Err(error) = sent {
            log::debug!("cannot notify the service manager: {error}");
        }
    }
}

fn line(phase: ServicePhase, figures: Figures) -> String {
    let Figures {
        watched,
        waiting,
        running,
        troubled,
    } = figures;
    let counted = |count, one, more| format!("{count} {}", if count == 1 { one } else { more });
    let watched = counted(watched, "directory", "directories");
    let running = counted(running, "process", "processes");
    match phase {
        ServicePhase::Starting => format!("Starting: watching {watched} so far"),
        ServicePhase::Ready => {
            let trouble = match troubled {
                0 => String::new(),
                count => format!(
                    "TROUBLE in {}, see lsyncdctl status: ",
                    counted(count, "sync", "syncs")
                ),
            };
            format!("{trouble}Watching {watched}, {waiting} delayed, {running} running")
        }
        ServicePhase::ShuttingDown => format!("Fading: waiting for {running}, {waiting} delayed"),
    }
}

/// A path, or behind an `@` a name in the abstract namespace.
fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(name).ok(),
        _ => None,
    }
}

/// Returns the watchdog interval of the manager, if the `variable` `WATCHDOG_USEC` has one, and
/// `WATCHDOG_PID` is not that of another process.
fn watchdog(variable: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    let number = |name| variable(name)?.parse::<u64>().ok();
    let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let interval = number("WATCHDOG_USEC").filter(|&micros| micros > 0 && for_us)?;
    Some(Duration::from_micros(interval))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Figures = Figures {
        watched: 1,
        waiting: 0,
        running: 0,
        troubled: 0,
    };

    fn pair(watchdog: Option<Duration>) -> (UnixDatagram, Systemd, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let ours = UnixDatagram::bind(&path).unwrap();
        ours.set_nonblocking(true).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        let manager = Manager::new(socket, address(path.as_os_str()).unwrap(), watchdog);
        let notify = Systemd {
            manager: Some(manager),
        };
        (ours, notify, directory)
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 4096];
        let mut all = Vec::new();
        while let Ok(length) = socket.recv(&mut buffer) {
            all.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        all
    }

    #[test]
    fn ready_is_said_once_and_again_after_a_reload() {
        let (socket, mut notify, _directory) = pair(None);
        let start = Instant::now();
        notify.turn(start, ServicePhase::Starting, || NOTHING);
        assert_eq!(
            heard(&socket),
            ["STATUS=Starting: watching 1 directory so far\nEXTEND_TIMEOUT_USEC=120000000"]
        );
        let ready = [
            "READY=1",
            "STATUS=Watching 1 directory, 0 delayed, 0 processes running",
        ];
        notify.turn(start, ServicePhase::Ready, || NOTHING);
        notify.turn(start, ServicePhase::Ready, || NOTHING);
        assert_eq!(heard(&socket), ready);

        // systemd waits for a time that is not before its request.
        let micros = || {
            let time = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
            Duration::from(time).as_micros()
        };
        let begin = micros();
        notify.heard(Signal::HangUp);
        notify.heard(Signal::HangUp);
        let text = heard(&socket);
        let time = text[0].strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let time = time.unwrap_or_else(|| panic!("{text:?}"));
        assert!(
            (begin..=micros()).contains(&time.parse().unwrap()),
            "{time}"
        );
        assert_eq!(text.len(), 1);
        notify.turn(start, ServicePhase::Ready, || NOTHING);
        assert_eq!(heard(&socket), ["READY=1"]);
        for signal in [Signal::User1, Signal::Terminate, Signal::Interrupt] {
            notify.heard(signal);
        }
        assert_eq!(heard(&socket), ["STOPPING=1", "STOPPING=1"]);
        for reason in ["", "no disk\nREADY=1"] {
            notify.failed(reason);
        }
        assert_eq!(heard(&socket), ["STATUS=Failed: no disk"]);
    }

    /// An interval of zero would never let the loop sleep.
    #[test]
    fn the_watchdog_interval_is_for_the_process_that_is_named() {
        let own = std::process::id().to_string();
        for (micros, pid, expected) in [
            (Some("5"), None, Some(Duration::from_micros(5))),
            (
                Some("5"),
                Some(own.as_str()),
                Some(Duration::from_micros(5)),
            ),
            (Some("5"), Some("0"), None),
            (Some("0"), None, None),
            (Some("0"), Some("0"), None),
            (Some("five"), None, None),
            (None, None, None),
        ] {
            let interval = watchdog(|name| {
                let value = if name == "WATCHDOG_USEC" { micros } else { pid };
                value.map(str::to_owned)
            });
            assert_eq!(interval, expected, "{micros:?} {pid:?}");
        }
    }

    #[test]
    fn figures_that_change_too_often_are_sent_later() {
        let (socket, mut notify, _directory) = pair(None);
        let start = Instant::now();
        notify.turn(start, ServicePhase::Ready, || NOTHING);
        assert_eq!(heard(&socket).len(), 2);
        assert_eq!(notify.deadline(), None);

        let busy = Figures {
            waiting: 3,
            running: 1,
            ..NOTHING
        };
        notify.turn(start, ServicePhase::Ready, || busy);
        assert!(heard(&socket).is_empty());
        let due = notify.deadline().unwrap();
        assert_eq!(due, start + STATUS_INTERVAL);
        notify.turn(due, ServicePhase::Ready, || busy);
        assert_eq!(
            heard(&socket),
            ["STATUS=Watching 1 directory, 3 delayed, 1 process running"]
        );
        assert_eq!(notify.deadline(), None);
    }

    #[test]
    fn the_watchdog_hears_of_us_at_half_its_interval() {
        let (socket, mut notify, _directory) = pair(Some(Duration::from_secs(10)));
        let first = notify.deadline().unwrap();
        notify.turn(first, ServicePhase::Ready, || NOTHING);
        assert_eq!(heard(&socket)[0], "WATCHDOG=1");
        let due = notify.deadline().unwrap();
        assert_eq!(due, first + Duration::from_secs(5));
        notify.turn(due - Duration::from_millis(1), ServicePhase::Ready, || {
            NOTHING
        });
        assert!(heard(&socket).is_empty());
        notify.turn(due, ServicePhase::Ready, || NOTHING);
        assert_eq!(heard(&socket), ["WATCHDOG=1"]);
    }

    #[test]
    fn addresses() {
        assert!(address(OsStr::new("@name")).is_some_and(|a| a.as_abstract_name().is_some()));
        assert!(address(OsStr::new("/run/x")).is_some_and(|a| a.as_pathname().is_some()));
        assert!(address(OsStr::new("vsock:2:9")).is_none());
        assert!(address(OsStr::new("")).is_none());
    }

    #[test]
    fn nobody_listens() {
        let mut notify = Systemd::default();
        notify.turn(Instant::now(), ServicePhase::Ready, || NOTHING);
        notify.reloading();
        notify.stopping();
        assert_eq!(notify.deadline(), None);

        let (socket, mut notify, _directory) = pair(None);
        drop(socket);
        notify.turn(Instant::now(), ServicePhase::Ready, || NOTHING);
    }

    #[test]
    fn syncs_in_trouble_come_first() {
        let figures = Figures {
            troubled: 2,
            ..NOTHING
        };
        let text = line(ServicePhase::Ready, figures);
        assert!(text.starts_with("TROUBLE in 2 syncs, see lsyncdctl status: Watching "));
    }
}
