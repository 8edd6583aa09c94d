//! The processes of tunnels: starts them, restarts them after they have ended, and ends them before
//! the daemon exits or changes its configuration.

use std::cell::RefCell;
use std::net::{Ipv4Addr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::machine::{Tunnel, TunnelState};
use crate::log;
use crate::process::{Children, Command, ExitStatus, Output, Pid, SpawnError, Stdin};
use crate::queue::Time;

/// The time between SIGTERM and SIGKILL, and then until a process counts as one that will not end.
const KILL_DELAY: Duration = Duration::from_secs(2);

/// Starts and ends processes.
pub trait TunnelProcesses {
    /// Starts a process.
    ///
    /// # Errors
    ///
    /// As [`Children::spawn`].
    fn spawn(&mut self, command: Command) -> Result<Pid, SpawnError>;

    /// Sends a signal to a process, if it still runs.
    fn kill(&self, pid: Pid, signal: Signal);
}

impl TunnelProcesses for Children {
    fn spawn(&mut self, command: Command) -> Result<Pid, SpawnError> {
        self.spawn(command)
    }

    fn kill(&self, pid: Pid, signal: Signal) {
        // A process that has ended is reaped in the next turn.
        let _ = self.kill(pid, signal);
    }
}

/// A tunnel of the configuration.
pub trait ConfiguredTunnel {
    /// Returns its state machine.
    fn machine(&self) -> &RefCell<Tunnel>;

    /// Returns true if each of its processes gets a local port.
    fn needs_port(&self) -> bool;

    /// Returns program and arguments of one more process.
    fn words(&self, port: Option<u16>, now: Time) -> Vec<Vec<u8>>;
}

/// Starts and ends the processes of tunnels.
pub struct TunnelSupervisor<P = Children> {
    children: Rc<RefCell<P>>,
    closing: Option<Closing>,
}

#[derive(Clone, Copy, Debug)]
struct Closing {
    due: Instant,
    killed: bool,
}

impl<P: TunnelProcesses> TunnelSupervisor<P> {
    /// Returns a supervisor that starts its processes as these children.
    pub fn new(children: Rc<RefCell<P>>) -> TunnelSupervisor<P> {
        TunnelSupervisor {
            children,
            closing: None,
        }
    }

    /// Returns when [`TunnelSupervisor::close`] has to be called again.
    pub fn deadline(&self) -> Option<Instant> {
        self.closing.map(|closing| closing.due)
    }

    /// Lets the tunnels of a configuration be started, also those that have been closed because the
    /// next configuration was invalid.
    pub fn on_start<T: ConfiguredTunnel>(&mut self, tunnels: &[Rc<T>]) {
        self.closing = None;
        for tunnel in tunnels {
            tunnel.machine().borrow_mut().enable();
        }
    }

    /// Starts the missing processes of tunnels. `is_refused` calls user code for a tunnel that is
    /// up. Returns the tunnels that have gone down, or have not been up since the start.
    ///
    /// # Errors
    ///
    /// User code failed.
    pub fn on_turn<T: ConfiguredTunnel, E>(
        &self,
        tunnels: &[Rc<T>],
        is_refused: impl Fn(&T) -> Result<bool, E>,
        now: Time,
    ) -> Result<Vec<Rc<T>>, E> {
        let mut down = Vec::new();
        for tunnel in tunnels {
            tunnel.machine().borrow_mut().turn(now);
            let is_up = tunnel.machine().borrow().is_up();
            if is_up && is_refused(tunnel)? {
                self.refuse(&**tunnel);
            }
            while tunnel.machine().borrow().lacking() > 0 {
                self.start(&**tunnel, now);
            }
            if tunnel.machine().borrow_mut().has_gone_down() {
                down.push(Rc::clone(tunnel));
            }
        }
        Ok(down)
    }

    /// Ends the processes of a tunnel that user code has refused.
    fn refuse(&self, tunnel: &impl ConfiguredTunnel) {
        let children = self.children.borrow();
        for process in tunnel.machine().borrow_mut().refuse() {
            log::say("Tunnel", format_args!("Kill process {}", process.pid));
            children.kill(process.pid, Signal::SIGTERM);
        }
    }

    /// Takes in the end of a process, if it is one of a tunnel.
    pub fn on_ended<T: ConfiguredTunnel>(
        &self,
        tunnels: &[Rc<T>],
        pid: Pid,
        end: ExitStatus,
        now: Time,
    ) {
        let Some(tunnel) = of(tunnels, pid) else {
            return;
        };
        let mut machine = tunnel.machine().borrow_mut();
        machine.ended(pid, now);
        if machine.state() == TunnelState::Disabled {
            return;
        }
        let name = &machine.config.name;
        log::say("Info", format_args!("Tunnel died. Will Restarting{name}"));
        let how = match end {
            ExitStatus::Exit(code) => format!("with exit code {code}"),
            ExitStatus::Signal(number) => format!("by signal {number}"),
        };
        let then = match machine.lacking() {
            0 => format!("next attempt in {} s", machine.config.retry_delay.as_secs()),
            _ => "starting it again".to_owned(),
        };
        log::warn(format_args!("{name}: process {pid} ended {how}, {then}"));
    }

    /// Ends the processes of all tunnels. Returns true if they are gone, or will not end.
    pub fn close<T: ConfiguredTunnel>(&mut self, tunnels: &[Rc<T>], now: Instant) -> bool {
        let killed = match self.closing {
            None => {
                for tunnel in tunnels {
                    let mut machine = tunnel.machine().borrow_mut();
                    let name = &machine.config.name;
                    log::say("Tunnel", format_args!("Shutdown tunnel {name}"));
                    machine.disable();
                }
                self.signal(tunnels, Signal::SIGTERM);
                Some(false)
            }
            Some(closing) if now < closing.due => None,
            Some(closing) if closing.killed => return true,
            Some(_) => {
                self.signal(tunnels, Signal::SIGKILL);
                Some(true)
            }
        };
        if let Some(killed) = killed {
            let due = now + KILL_DELAY;
            self.closing = Some(Closing { due, killed });
        }
        let mut machines = tunnels.iter().map(|tunnel| tunnel.machine().borrow());
        machines.all(|machine| machine.processes().is_empty())
    }

    /// Sends a signal to the processes of all tunnels.
    pub fn signal<T: ConfiguredTunnel>(&self, tunnels: &[Rc<T>], signal: Signal) {
        let children = self.children.borrow();
        for tunnel in tunnels {
            for process in tunnel.machine().borrow().processes() {
                log::say("Tunnel", format_args!("Kill process {}", process.pid));
                children.kill(process.pid, signal);
            }
        }
    }

    fn start(&self, tunnel: &impl ConfiguredTunnel, now: Time) {
        let port = tunnel.needs_port().then(free_port).flatten();
        let mut words = tunnel.words(port, now);
        let program = words.remove(0);
        let shown = log::escape(&program).into_owned();
        if log::enabled("Exec") {
            let words = words.iter().map(|word| format!(" [{}]", log::escape(word)));
            log::say("Exec", format_args!("{shown}{}", words.collect::<String>()));
        }
        let spawned = self.children.borrow_mut().spawn(Command {
            program,
            args: words,
            stdin: Stdin::Inherit,
            output: Output::Lines,
            environment: Vec::new(),
            priority: Default::default(),
        });
        let mut machine = tunnel.machine().borrow_mut();
        let error = match spawned {
            Ok(pid) => return machine.started(pid, port, now),
            Err(error) => error,
        };
        machine.not_started(now);
        let name = &machine.config.name;
        log::say("Warning", format_args!("Starting tunnel failed.{name}"));
        match error {
            SpawnError::NotExecutable(_) => {
                log::error(format_args!("Failed executing [ {shown} ]!"));
            }
            SpawnError::Resources(error) => log::error(format_args!(
                "{name}: cannot start {shown}: {error}; trying again in {} s",
                machine.config.retry_delay.as_secs()
            )),
        }
    }
}

/// Returns the tunnel that a process belongs to.
pub fn of<T: ConfiguredTunnel>(tunnels: &[Rc<T>], pid: Pid) -> Option<&Rc<T>> {
    let has = |tunnel: &&Rc<T>| {
        let machine = tunnel.machine().borrow();
        machine.processes().iter().any(|each| each.pid == pid)
    };
    tunnels.iter().find(has)
}

/// Returns a TCP port without a listener. It is not reserved: a process that finds it in use ends,
/// and gets another port.
fn free_port() -> Option<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    Some(listener.local_addr().ok()?.port())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io;

    use super::*;
    use crate::tunnel::TunnelConfig;

    const SECOND: Time = 1_000_000;

    #[derive(Default)]
    struct FakeProcesses {
        started: Vec<Vec<u8>>,
        signals: RefCell<Vec<(u32, Signal)>>,
        is_refusing: bool,
    }

    impl TunnelProcesses for FakeProcesses {
        fn spawn(&mut self, command: Command) -> Result<Pid, SpawnError> {
            if self.is_refusing {
                return Err(SpawnError::Resources(io::ErrorKind::OutOfMemory.into()));
            }
            self.started.push(command.program);
            Ok(Pid(self.started.len() as u32))
        }

        fn kill(&self, pid: Pid, signal: Signal) {
            self.signals.borrow_mut().push((pid.0, signal));
        }
    }

    struct FakeTunnel(RefCell<Tunnel>);

    impl ConfiguredTunnel for FakeTunnel {
        fn machine(&self) -> &RefCell<Tunnel> {
            &self.0
        }

        fn needs_port(&self) -> bool {
            false
        }

        fn words(&self, _: Option<u16>, _: Time) -> Vec<Vec<u8>> {
            vec![b"ssh".to_vec(), b"-N".to_vec()]
        }
    }

    struct Fixture {
        processes: Rc<RefCell<FakeProcesses>>,
        supervisor: TunnelSupervisor<FakeProcesses>,
        tunnels: [Rc<FakeTunnel>; 1],
    }

    impl Fixture {
        fn new() -> Fixture {
            let machine = Tunnel::new(TunnelConfig {
                name: "Tunnel1".into(),
                parallel: 2,
                ready_delay: Duration::from_secs(5),
                retry_delay: Duration::from_secs(10),
            });
            let processes = Rc::<RefCell<FakeProcesses>>::default();
            Fixture {
                supervisor: TunnelSupervisor::new(Rc::clone(&processes)),
                processes,
                tunnels: [Rc::new(FakeTunnel(RefCell::new(machine)))],
            }
        }

        /// Takes a turn in which user code refuses the tunnel if `is_refused`. Returns true if the
        /// tunnel has gone down.
        fn turn(&self, is_refused: bool, now: Time) -> bool {
            let refuse = |_: &FakeTunnel| Ok::<bool, Infallible>(is_refused);
            let down = self.supervisor.on_turn(&self.tunnels, refuse, now);
            !down.unwrap().is_empty()
        }

        fn state(&self) -> TunnelState {
            self.tunnels[0].machine().borrow().state()
        }

        fn started(&self) -> usize {
            self.processes.borrow().started.len()
        }

        fn signals(&self) -> Vec<(u32, Signal)> {
            self.processes.borrow().signals.take()
        }
    }

    #[test]
    fn what_is_missing_is_started_and_a_failure_waits() {
        let fixture = Fixture::new();
        assert!(fixture.turn(false, 0), "it has not been up yet");
        assert_eq!(
            (fixture.started(), fixture.state()),
            (2, TunnelState::Connecting)
        );
        assert!(!fixture.turn(false, 5 * SECOND));
        assert_eq!((fixture.started(), fixture.state()), (2, TunnelState::Up));
        let ended = |pid, now| {
            let tunnels = &fixture.tunnels;
            fixture
                .supervisor
                .on_ended(tunnels, Pid(pid), ExitStatus::Exit(1), now);
        };
        ended(1, 6 * SECOND);
        ended(2, 6 * SECOND);
        fixture.processes.borrow_mut().is_refusing = true;
        assert!(fixture.turn(false, 6 * SECOND));
        assert_eq!(
            (fixture.started(), fixture.state()),
            (2, TunnelState::RetryTimeout)
        );
        fixture.processes.borrow_mut().is_refusing = false;
        fixture.turn(false, 15 * SECOND);
        assert_eq!(fixture.started(), 2);
        fixture.turn(false, 16 * SECOND);
        assert_eq!(fixture.started(), 4);
    }

    #[test]
    fn a_refused_tunnel_begins_anew() {
        let fixture = Fixture::new();
        fixture.turn(true, 0);
        assert_eq!(
            fixture.signals(),
            [],
            "only a tunnel that is up is asked about"
        );
        fixture.turn(true, 5 * SECOND);
        let term = Signal::SIGTERM;
        assert_eq!(fixture.signals(), [(1, term), (2, term)]);
        assert_eq!(
            (fixture.started(), fixture.state()),
            (4, TunnelState::Connecting)
        );
    }

    #[test]
    fn a_process_that_ignores_the_end_is_killed_and_then_left() {
        let mut fixture = Fixture::new();
        fixture.turn(false, 0);
        let start = Instant::now();
        let (term, kill) = (Signal::SIGTERM, Signal::SIGKILL);
        assert!(!fixture.supervisor.close(&fixture.tunnels, start));
        assert_eq!(fixture.signals(), [(1, term), (2, term)]);
        assert_eq!(fixture.supervisor.deadline(), Some(start + KILL_DELAY));
        fixture
            .supervisor
            .on_ended(&fixture.tunnels, Pid(2), ExitStatus::Exit(0), SECOND);
        assert!(
            !fixture
                .supervisor
                .close(&fixture.tunnels, start + KILL_DELAY)
        );
        assert_eq!(fixture.signals(), [(1, kill)]);
        assert!(
            fixture
                .supervisor
                .close(&fixture.tunnels, start + KILL_DELAY * 2)
        );
    }

    #[test]
    fn a_configuration_that_goes_on_opens_its_tunnels_again() {
        let mut fixture = Fixture::new();
        fixture.turn(false, 0);
        fixture.supervisor.close(&fixture.tunnels, Instant::now());
        fixture.supervisor.on_start(&fixture.tunnels);
        assert_eq!(fixture.supervisor.deadline(), None);
        fixture.turn(false, SECOND);
        assert_eq!(
            (fixture.started(), fixture.state()),
            (4, TunnelState::Connecting)
        );
    }
}
