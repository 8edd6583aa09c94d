//! The private directory in which shared ssh connections have their sockets (ssh_config(5),
//! ControlPath), and the end of these connections.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Addresses of sockets are 107 bytes at most (unix(7)), of which ssh takes 18 for a name it
/// uses while it connects.
const LONGEST: usize = 80;

/// The connections get so long to end, all together.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sockets for the connections of one configuration. Dropping this ends them.
#[derive(Default)]
pub struct Sockets {
    directory: RefCell<Option<PathBuf>>,
    count: Cell<usize>,
}

impl Sockets {
    /// The place for another socket; `None` if there is no private place to be had.
    pub fn next(&self) -> Option<PathBuf> {
        let mut directory = self.directory.borrow_mut();
        if directory.is_none() {
            *directory = make_directory();
        }
        self.count.set(self.count.get() + 1);
        Some(directory.as_ref()?.join(self.count.get().to_string()))
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let Some(directory) = self.directory.take() else {
            return;
        };
        let sockets = fs::read_dir(&directory).into_iter().flatten().flatten();
        let mut enders: Vec<_> = sockets
            .filter_map(|socket| {
                Command::new("ssh")
                    .arg("-S")
                    .arg(socket.path())
                    // The socket says which host; ssh wants one named.
                    .args(["-F", "none", "-O", "exit", "host"])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .ok()
            })
            .collect();
        let until = Instant::now() + PATIENCE;
        for ender in &mut enders {
            while matches!(ender.try_wait(), Ok(None)) {
                if Instant::now() >= until {
                    // A connection that cannot be told ends when it has been idle for long.
                    let _ = ender.kill();
                    let _ = ender.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // Nothing is lost if it stays.
        let _ = fs::remove_dir_all(&directory);
    }
}

/// A directory only this user can enter.
fn make_directory() -> Option<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = runtime.into_iter().chain(["/run".into(), "/tmp".into()]);
    places
        .filter(|place| place.is_absolute() && place.as_os_str().len() + 20 < LONGEST)
        .find_map(|place| nix::unistd::mkdtemp(&place.join("lsyncd-XXXXXX")).ok())
}
