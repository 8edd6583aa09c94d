//! A recording stand-in for rsync: tests/support/bin/recording-rsync, linked into the work directory.
//!

use std::fs;
use std::os::unix::fs::symlink;

use super::daemon::Running;
use super::dir::Dir;

/// A sync with the stand-in.
pub const RECORDED: &str = r#"
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3,
    rsync = { binary = "@RSYNC@" },
}
"#;

/// A sync with the stand-in that can call the real rsync, see [`Fake::passing`].
pub const HELD: &str = r#"
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3,
    rsync = { archive = true, binary = "@RSYNC@" },
}
"#;

/// The stand-in of one work directory. A configuration names it `@RSYNC@`.
pub struct Fake<'d> {
    dir: &'d Dir,
}

/// One recorded call.
pub struct Call {
    pub argv: Vec<String>,
    pub stdin: Vec<u8>,
    /// True if the call has ended.
    pub done: bool,
    /// The number of running calls when this one began, including itself.
    pub concurrent: usize,
}

impl<'d> Fake<'d> {
    pub fn new(dir: &'d Dir) -> Self {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/support/bin/recording-rsync"
        );
        symlink(script, dir.path("bin/rsync")).expect("link to the fake rsync");
        Fake { dir }
    }

    /// Returns a stand-in that records and then calls the real rsync.
    pub fn passing(dir: &'d Dir) -> Self {
        let fake = Self::new(dir);
        dir.put("fake/real", "");
        fake
    }

    /// Makes a change, and waits until its transfer runs and is held.
    pub fn hold_a_transfer(&self, daemon: &mut Running<'_>) {
        let before = self.calls().len();
        self.hold();
        self.dir.write("f", "1");
        daemon.wait_for("a transfer runs", |_| self.calls().len() == before + 1);
    }

    /// Sets the exit code of each call; the last one is for all further calls.
    pub fn exits(&self, codes: &[u8]) {
        self.dir.put("fake/exit", lines(codes));
    }

    /// Sets the signal that ends each call (0: none); the last one is for all further calls.
    pub fn signals(&self, numbers: &[u8]) {
        self.dir.put("fake/signal", lines(numbers));
    }

    /// Holds all calls from now on.
    pub fn hold(&self) {
        self.dir.put("fake/hold", "");
    }

    /// Lets held calls end.
    pub fn release(&self) {
        fs::remove_file(self.dir.path("fake/hold")).expect("fake was held");
    }

    /// Returns all calls whose input was read, in the order of their start.
    pub fn calls(&self) -> Vec<Call> {
        (1..)
            .map(|n| self.dir.path(format!("rec/{n}")))
            .take_while(|call| call.join("started").exists())
            .map(|call| Call {
                argv: fs::read(call.join("argv"))
                    .unwrap_or_default()
                    .split(|&byte| byte == 0)
                    .map(|word| String::from_utf8_lossy(word).into_owned())
                    .filter(|word| !word.is_empty())
                    .collect(),
                stdin: fs::read(call.join("stdin")).unwrap_or_default(),
                done: call.join("done").exists(),
                concurrent: fs::read_to_string(call.join("concurrent"))
                    .ok()
                    .and_then(|text| text.trim().parse().ok())
                    .unwrap_or(0),
            })
            .collect()
    }

    /// Returns the number of calls that have ended.
    pub fn ended(&self) -> usize {
        self.calls().iter().filter(|call| call.done).count()
    }
}

impl Call {
    pub fn has(&self, word: &str) -> bool {
        self.argv.iter().any(|arg| arg == word)
    }

    /// Returns true if the list on standard input contains this name. Names are separated by NUL.
    pub fn lists(&self, name: &str) -> bool {
        self.stdin
            .split(|&byte| byte == 0)
            .any(|listed| listed == name.as_bytes())
    }
}

fn lines(numbers: &[u8]) -> String {
    numbers.iter().map(|n| format!("{n}\n")).collect()
}
