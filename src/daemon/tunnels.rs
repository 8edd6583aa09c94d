//! Tunnels at work: their processes are started, watched, started again, and ended before the
//! daemon or its configuration is.

use std::net::{Ipv4Addr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::event_loop::EventLoop;
use crate::log;
use crate::process::{Command, ExitStatus, Output, Pid, SpawnError, Stdin};
use crate::queue::Time;
use crate::script::{ScriptContext, TunnelMode, TunnelObject};
use crate::tunnel::TunnelState;

/// A tunnel's processes get this long after TERM before KILL, and as long again to be gone.
const GRACE: Duration = Duration::from_secs(2);

/// How far the end of all tunnels is.
#[derive(Debug, Default)]
pub struct Tunnels {
    closing: Option<Closing>,
}

#[derive(Clone, Copy, Debug)]
struct Closing {
    patience: Instant,
    killed: bool,
}

impl Tunnels {
    /// When the engine has to look again at tunnels that are being closed.
    pub fn patience(&self) -> Option<Instant> {
        self.closing.map(|closing| closing.patience)
    }
}

/// The tunnel a process belongs to.
pub fn of(context: &ScriptContext, pid: Pid) -> Option<Rc<TunnelObject>> {
    let tunnels = context.tunnels.borrow();
    let has = |tunnel: &&Rc<TunnelObject>| {
        let machine = tunnel.machine.borrow();
        machine.processes().iter().any(|each| each.pid == pid)
    };
    tunnels.iter().find(has).cloned()
}

impl EventLoop<'_> {
    /// A configuration that goes on because the next was none has closed its tunnels.
    pub(super) fn enable_tunnels(&self) {
        for tunnel in self.all_tunnels() {
            tunnel.machine.borrow_mut().enable();
            tunnel.was_up.set(None);
        }
    }

    /// Starts what the tunnels lack and tells whom they hold up.
    pub(super) fn poll_tunnels(&mut self) {
        if self.is_shutting_down() {
            return;
        }
        for tunnel in self.all_tunnels() {
            tunnel.machine.borrow_mut().turn(self.now);
            let up = tunnel.machine.borrow().is_up();
            if up && let Err(error) = self.check_tunnel(&tunnel) {
                return self.stop_with_error(&error);
            }
            while tunnel.machine.borrow().lacking() > 0 {
                self.start_tunnel(&tunnel);
            }
            self.tell_blocked(&tunnel);
        }
    }

    fn check_tunnel(&self, tunnel: &TunnelObject) -> mlua::Result<()> {
        if tunnel.is_refused(&self.script.context)? {
            let children = self.context.children.borrow();
            for process in tunnel.machine.borrow_mut().refuse() {
                log::say("Tunnel", format_args!("Kill process {}", process.pid));
                // One that ended meanwhile is none of the tunnel's any more.
                let _ = children.kill(process.pid, Signal::SIGTERM);
            }
        }
        Ok(())
    }

    /// When a tunnel has to be looked at by itself.
    pub(super) fn tunnel_deadline(&self) -> Option<Time> {
        let tunnels = self.script.context.tunnels.borrow();
        let deadlines = tunnels
            .iter()
            .filter_map(|each| each.machine.borrow().deadline());
        deadlines.min()
    }

    /// Takes in the end of a process, if it is one of a tunnel.
    pub(super) fn tunnel_ended(&mut self, pid: Pid, end: ExitStatus) {
        let Some(tunnel) = of(&self.script.context, pid) else {
            return;
        };
        let mut machine = tunnel.machine.borrow_mut();
        machine.ended(pid, self.now);
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

    /// Ends the processes of all tunnels. Says whether they are gone, or will not go.
    pub(super) fn close_tunnels(&mut self) -> bool {
        let now = Instant::now();
        let Some(closing) = self.tunnels.closing else {
            for tunnel in self.all_tunnels() {
                let mut machine = tunnel.machine.borrow_mut();
                let name = &machine.config.name;
                log::say("Tunnel", format_args!("Shutdown tunnel {name}"));
                machine.disable();
            }
            self.signal_tunnels(Signal::SIGTERM);
            self.tunnels.closing = Some(Closing {
                patience: now + GRACE,
                killed: false,
            });
            return !self.has_tunnel_processes();
        };
        if now >= closing.patience {
            if closing.killed {
                return true;
            }
            self.signal_tunnels(Signal::SIGKILL);
            self.tunnels.closing = Some(Closing {
                patience: now + GRACE,
                killed: true,
            });
        }
        !self.has_tunnel_processes()
    }

    /// Sends a signal to the processes of all tunnels.
    pub(super) fn signal_tunnels(&self, signal: Signal) {
        let children = self.context.children.borrow();
        for tunnel in self.all_tunnels() {
            for process in tunnel.machine.borrow().processes() {
                log::say("Tunnel", format_args!("Kill process {}", process.pid));
                // One that ended meanwhile is collected in the next turn.
                let _ = children.kill(process.pid, signal);
            }
        }
    }

    fn all_tunnels(&self) -> Vec<Rc<TunnelObject>> {
        self.script.context.tunnels.borrow().clone()
    }

    fn has_tunnel_processes(&self) -> bool {
        let tunnels = self.script.context.tunnels.borrow();
        let mut machines = tunnels.iter().map(|each| each.machine.borrow());
        machines.any(|machine| !machine.processes().is_empty())
    }

    fn start_tunnel(&mut self, tunnel: &TunnelObject) {
        let port = match tunnel.mode {
            TunnelMode::Command => None,
            TunnelMode::Pool => free_port(),
        };
        let mut words = tunnel.words(port, self.now);
        let program = words.remove(0);
        let shown = log::escape(&program).into_owned();
        let name = tunnel.name();
        if log::enabled("Exec") {
            let words = words.iter().map(|word| format!(" [{}]", log::escape(word)));
            log::say("Exec", format_args!("{shown}{}", words.collect::<String>()));
        }
        let spawned = self.context.children.borrow_mut().spawn(Command {
            program,
            args: words,
            stdin: Stdin::Inherit,
            output: Output::Lines,
            environment: Vec::new(),
            priority: Default::default(),
        });
        let mut machine = tunnel.machine.borrow_mut();
        let error = match spawned {
            Ok(pid) => return machine.started(pid, port, self.now),
            Err(error) => error,
        };
        machine.not_started(self.now);
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

    /// Each time a tunnel goes down, and at the start.
    fn tell_blocked(&self, tunnel: &Rc<TunnelObject>) {
        let up = tunnel.machine.borrow().is_up();
        let was_up = tunnel.was_up.replace(Some(up));
        if up || was_up == Some(false) {
            return;
        }
        for handle in &self.syncs {
            let own = handle.tunnel.as_ref();
            if own.is_some_and(|own| Rc::ptr_eq(own, tunnel)) {
                let name = &handle.sync.borrow().config.name;
                log::say(
                    "Tunnel",
                    format_args!("Tunnel for Sync {name} not ready. Blocking events"),
                );
            }
        }
    }
}

/// A TCP port that nobody listens on at this moment. It is not reserved: a process that finds
/// it taken ends, and gets another.
fn free_port() -> Option<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    Some(listener.local_addr().ok()?.port())
}
