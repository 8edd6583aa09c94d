//! The processes of tunnels: started, started again after their ends, and ended before the daemon or
//! its configuration is.

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
pub struct TunnelSupervisor {
    children: Rc<RefCell<Children>>,
    closing: Option<Closing>,
}

#[derive(Clone, Copy, Debug)]
struct Closing {
    due: Instant,
    killed: bool,
}

impl TunnelSupervisor {
    /// Returns a supervisor that starts its processes as these children.
    pub fn new(children: Rc<RefCell<Children>>) -> TunnelSupervisor {
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

    /// Starts what a tunnel lacks. Returns true if the tunnel has gone down, or has not been up
    /// since the start.
    pub fn on_turn(&self, tunnel: &impl ConfiguredTunnel, now: Time) -> bool {
        while tunnel.machine().borrow().lacking() > 0 {
            self.start(tunnel, now);
        }
        tunnel.machine().borrow_mut().has_gone_down()
    }

    /// Ends the processes of a tunnel that user code has refused.
    pub fn on_refused(&self, tunnel: &impl ConfiguredTunnel) {
        let children = self.children.borrow();
        for process in tunnel.machine().borrow_mut().refuse() {
            log::say("Tunnel", format_args!("Kill process {}", process.pid));
            // A process that has ended is not the tunnel's any more.
            let _ = children.kill(process.pid, Signal::SIGTERM);
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
            0 => format!("next try in {} s", machine.config.retry_delay.as_secs()),
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
                // A process that has ended is reaped in the next turn.
                let _ = children.kill(process.pid, signal);
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

/// Returns a TCP port that nobody listens on at this moment. It is not reserved: a process that
/// finds it taken ends, and gets another.
fn free_port() -> Option<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    Some(listener.local_addr().ok()?.port())
}
