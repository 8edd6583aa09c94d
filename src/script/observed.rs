//! The observed descriptors: file descriptors of user code in the daemon's event loop.
//!
//! lsyncd uses pselect(2), which is level-triggered; the daemon's epoll(7) is edge-triggered. A
//! descriptor is therefore registered again after each call.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::RawFd;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use mlua::{Function, Result};
use nix::errno::Errno;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::config::config_error;
use crate::log;
use crate::script::watchdog::{self, Watchdog};
use crate::sys;

/// The first token of observed descriptors. The rest of a token is the descriptor.
const FIRST_TOKEN: usize = 1 << 31;

/// The highest standard descriptor. Standard descriptors are replaced, not closed, so that no other
/// file gets their numbers.
const MAX_STANDARD_FD: RawFd = 2;

/// The observed descriptors of a configuration.
pub struct Observed {
    registry: Registry,
    entries: RefCell<BTreeMap<RawFd, ObservedFd>>,
    /// The descriptors that became ready since [`Observed::call`], for reading and for writing.
    ready: RefCell<Vec<(RawFd, bool, bool)>>,
}

struct ObservedFd {
    readable: Option<Function>,
    writable: Option<Function>,
    /// Device and inode, which identify the open file.
    identity: (u64, u64),
}

impl ObservedFd {
    fn interest(&self) -> Option<Interest> {
        match (&self.readable, &self.writable) {
            (Some(_), Some(_)) => Some(Interest::READABLE | Interest::WRITABLE),
            (Some(_), None) => Some(Interest::READABLE),
            (None, Some(_)) => Some(Interest::WRITABLE),
            (None, None) => None,
        }
    }
}

impl Observed {
    /// Returns an empty set that uses this registry.
    pub fn new(registry: Registry) -> Observed {
        Observed {
            registry,
            entries: RefCell::default(),
            ready: RefCell::default(),
        }
    }

    /// Records an event, if it belongs to an observed descriptor.
    pub fn note(&self, event: &Event) -> bool {
        let Some(fd) = event.token().0.checked_sub(FIRST_TOKEN) else {
            return false;
        };
        let Ok(fd) = RawFd::try_from(fd) else {
            return false;
        };
        let error = event.is_error();
        let readable = event.is_readable() || event.is_read_closed() || error;
        let writable = event.is_writable() || event.is_write_closed() || error;
        self.ready.borrow_mut().push((fd, readable, writable));
        true
    }

    /// Calls the functions of ready descriptors.
    ///
    /// # Errors
    ///
    /// User code failed.
    pub fn call(&self, watchdog: &Watchdog) -> Result<()> {
        let ready = self.ready.take();
        for (fd, readable, writable) in ready {
            for (is_ready, function) in [
                (
                    readable,
                    ObservedFd::readable as fn(&ObservedFd) -> Option<Function>,
                ),
                (writable, ObservedFd::writable),
            ] {
                let entries = self.entries.borrow();
                let function = entries.get(&fd).and_then(function);
                drop(entries);
                if let (true, Some(function)) = (is_ready, function) {
                    watchdog::call(watchdog, || function.call::<()>(f64::from(fd)))?;
                }
            }
            self.arm_again(fd);
        }
        Ok(())
    }

    /// Suspends the observation while another configuration is loaded.
    pub fn suspend(&self) {
        self.ready.take();
        for &fd in self.entries.borrow().keys() {
            // A descriptor closed by user code is no longer registered.
            let _ = self.registry.deregister(&mut SourceFd(&fd));
        }
    }

    /// Resumes the observation after the other configuration has failed to load.
    pub fn resume(&self) {
        let fds: Vec<RawFd> = self.entries.borrow().keys().copied().collect();
        for fd in fds {
            self.arm_again(fd);
        }
    }

    /// Ends the observation and returns the descriptors, to be closed after the Lua state is
    /// dropped, since user code may close some of them.
    pub fn leave(&self, next: &Observed) -> Leftover {
        let next = next.entries.borrow();
        let entries = self.entries.take().into_iter();
        let left = entries
            .filter(|(fd, _)| *fd > MAX_STANDARD_FD && !next.contains_key(fd))
            .map(|(fd, entry)| (fd, entry.identity));
        Leftover(left.collect())
    }

    /// Observes a descriptor.
    ///
    /// # Errors
    ///
    /// The descriptor is not open, or cannot be observed.
    pub(super) fn observe(
        &self,
        fd: RawFd,
        readable: Option<Function>,
        writable: Option<Function>,
    ) -> Result<()> {
        let fail = |error: io::Error| {
            let reason = log::reason(&error);
            config_error(format!("observefd: descriptor {fd}: {reason}"))
        };
        let entry = ObservedFd {
            readable,
            writable,
            identity: sys::descriptor_identity(fd).map_err(fail)?,
        };
        let known = self.entries.borrow_mut().remove(&fd).is_some();
        if known {
            let _ = self.registry.deregister(&mut SourceFd(&fd));
        }
        if let Err(error) = self.register(fd, &entry) {
            return Err(match error.raw_os_error() {
                Some(libc::EPERM) => config_error(format!(
                    "observefd: descriptor {fd} is a file, which is always ready"
                )),
                Some(libc::EEXIST) => config_error(format!(
                    "observefd: descriptor {fd} is one of the daemon's own"
                )),
                _ => fail(error),
            });
        }
        self.entries.borrow_mut().insert(fd, entry);
        Ok(())
    }

    fn register(&self, fd: RawFd, entry: &ObservedFd) -> io::Result<()> {
        match entry.interest() {
            Some(interest) => {
                let token = Token(FIRST_TOKEN + usize::try_from(fd).unwrap_or(0));
                self.registry.register(&mut SourceFd(&fd), token, interest)
            }
            None => Ok(()),
        }
    }

    /// Registers a descriptor again, so that epoll(7) reports its current state.
    fn arm_again(&self, fd: RawFd) {
        let entries = self.entries.borrow();
        let Some(entry) = entries.get(&fd) else {
            return;
        };
        let _ = self.registry.deregister(&mut SourceFd(&fd));
        let same = sys::descriptor_identity(fd).is_ok_and(|found| found == entry.identity);
        let armed = if same {
            self.register(fd, entry)
        } else {
            Err(Errno::EBADF.into())
        };
        drop(entries);
        if let Err(error) = armed {
            let reason = log::reason(&error);
            log::warn(format_args!(
                "descriptor {fd} was closed while it was observed: {reason}"
            ));
            self.entries.borrow_mut().remove(&fd);
        }
    }

    /// Ends the observation of a descriptor and closes it.
    ///
    /// # Errors
    ///
    /// It is not observed.
    pub(super) fn forget(&self, fd: RawFd) -> Result<()> {
        let Some(entry) = self.entries.borrow_mut().remove(&fd) else {
            return Err(config_error(format!(
                "nonobservefd: descriptor {fd} is not observed"
            )));
        };
        let _ = self.registry.deregister(&mut SourceFd(&fd));
        close(fd, entry.identity);
        Ok(())
    }
}

impl ObservedFd {
    fn readable(&self) -> Option<Function> {
        self.readable.clone()
    }

    fn writable(&self) -> Option<Function> {
        self.writable.clone()
    }
}

/// The descriptors left by a configuration.
pub struct Leftover(Vec<(RawFd, (u64, u64))>);

impl Leftover {
    /// Closes the descriptors that still refer to the same open files.
    pub fn close(self) {
        for (fd, identity) in self.0 {
            close(fd, identity);
        }
    }
}

fn close(fd: RawFd, identity: (u64, u64)) {
    let same = sys::descriptor_identity(fd).is_ok_and(|found| found == identity);
    if !same {
        return;
    }
    if fd > MAX_STANDARD_FD {
        sys::close_descriptor(fd);
    } else if let Err(error) = silence(fd) {
        log::warn(format_args!("descriptor {fd} cannot be closed: {error}"));
    }
}

/// Replaces a standard descriptor by `/dev/null`, so that children do not inherit the observed
/// file.
fn silence(fd: RawFd) -> io::Result<()> {
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    match fd {
        0 => dup2_stdin(&null)?,
        1 => dup2_stdout(&null)?,
        _ => dup2_stderr(&null)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::time::Duration;

    use mio::{Events, Poll};
    use mlua::Lua;
    use nix::unistd::pipe;

    use super::*;

    /// A poll, and a Lua state whose function `called` counts its calls.
    struct Rig {
        poll: Poll,
        lua: Lua,
    }

    impl Rig {
        fn new() -> Rig {
            let (poll, lua) = (Poll::new().unwrap(), crate::sys::lua());
            let count = "calls = 0 function called(fd) calls = calls + 1 end";
            lua.load(count).exec().unwrap();
            Rig { poll, lua }
        }

        fn observed(&self) -> Observed {
            Observed::new(self.poll.registry().try_clone().unwrap())
        }

        fn called(&self) -> Option<Function> {
            self.lua.globals().get("called").unwrap()
        }

        /// Takes one turn and returns how often the function was called in it.
        fn turn(&mut self, observed: &Observed) -> usize {
            let before: usize = self.lua.globals().get("calls").unwrap();
            let mut events = Events::with_capacity(8);
            self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            for event in &events {
                assert!(observed.note(event));
            }
            observed.call(&Watchdog::default()).unwrap();
            self.lua.globals().get::<usize>("calls").unwrap() - before
        }
    }

    fn files() -> (File, File) {
        let (reader, writer): (OwnedFd, OwnedFd) = pipe().unwrap();
        (reader.into(), writer.into())
    }

    /// A condition that calls no function would wake the loop up again and again.
    #[test]
    fn a_function_is_called_as_long_as_its_condition_holds() {
        let mut rig = Rig::new();
        let observed = rig.observed();
        let (mut reader, mut writer) = files();
        observed
            .observe(reader.as_raw_fd(), rig.called(), None)
            .unwrap();
        assert_eq!(rig.turn(&observed), 0);
        writer.write_all(b"a").unwrap();
        assert_eq!([rig.turn(&observed), rig.turn(&observed)], [1, 1]);
        reader.read_exact(&mut [0]).unwrap();
        rig.turn(&observed);
        assert_eq!(rig.turn(&observed), 0);
        drop(writer);
        assert_eq!([rig.turn(&observed), rig.turn(&observed)], [1, 1]);
        observed.forget(reader.as_raw_fd()).unwrap();
        assert_eq!(rig.turn(&observed), 0);
        assert!(sys::descriptor_identity(reader.as_raw_fd()).is_err());
        std::mem::forget(reader);

        let (reader, writer) = files();
        observed
            .observe(writer.as_raw_fd(), None, rig.called())
            .unwrap();
        assert_eq!([rig.turn(&observed), rig.turn(&observed)], [1, 1]);
        drop(reader);
        assert_eq!(rig.turn(&observed), 1);
    }

    #[test]
    fn a_suspended_observation_gives_way_to_another_and_is_resumed() {
        let mut rig = Rig::new();
        let (first, second) = (rig.observed(), rig.observed());
        let (reader, mut writer) = files();
        let fd = reader.as_raw_fd();
        first.observe(fd, rig.called(), None).unwrap();
        writer.write_all(b"a").unwrap();
        first.suspend();
        assert_eq!(rig.turn(&first), 0);
        second.observe(fd, None, None).unwrap();
        first.resume();
        assert_eq!(rig.turn(&first), 1);
    }

    #[test]
    fn descriptors_that_nobody_observes_any_more_are_left() {
        let rig = Rig::new();
        let (old, new) = (rig.observed(), rig.observed());
        let (reader, writer) = files();
        for fd in [2, reader.as_raw_fd(), writer.as_raw_fd()] {
            old.observe(fd, None, None).unwrap();
        }
        new.observe(writer.as_raw_fd(), None, None).unwrap();
        let left = old.leave(&new);
        let left: Vec<RawFd> = left.0.iter().map(|(fd, _)| *fd).collect();
        assert_eq!(left, [reader.as_raw_fd()]);
    }
}
