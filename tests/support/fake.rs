//! A recording stand-in for rsync: tests/support/bin/recording-rsync, linked into the work directory.
//!
//! It is linked, not written: a script that was just written cannot be run while a
//! concurrently forked process still has it open for writing (`ETXTBSY`).

use std::fs;
use std::os::unix::fs::symlink;

use super::daemon::Running;
use super::dir::Dir;

/// A sync whose transfers the stand-in records.
pub const RECORDED: &str = r#"
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3,
    rsync = { binary = "@RSYNC@" },
}
"#;

/// The same with transfers that may be let through, see [`Fake::passing`].
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
    /// Did it end?
    pub done: bool,
    /// How many calls ran when this one began, itself included.
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

    /// A stand-in that records and then lets the real rsync do the work.
    pub fn passing(dir: &'d Dir) -> Self {
        let fake = Self::new(dir);
        dir.put("fake/real", "");
        fake
    }

    /// Makes a change and comes back when the transfer of it runs, held.
    pub fn hold_a_transfer(&self, daemon: &mut Running<'_>) {
        let before = self.calls().len();
        self.hold();
        self.dir.write("f", "1");
        daemon.wait_for("a transfer runs", |_| self.calls().len() == before + 1);
    }

    /// Exit code of each call, the last for all that follow.
    pub fn exits(&self, codes: &[u8]) {
        self.dir.put("fake/exit", lines(codes));
    }

    /// Signal each call ends itself by (0: none), the last for all that follow.
    pub fn signals(&self, numbers: &[u8]) {
        self.dir.put("fake/signal", lines(numbers));
    }

    /// From now on no call ends.
    pub fn hold(&self) {
        self.dir.put("fake/hold", "");
    }

    /// Lets held calls end.
    pub fn release(&self) {
        fs::remove_file(self.dir.path("fake/hold")).expect("fake was held");
    }

    /// All calls whose input was read, in the order they began.
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

    /// Number of calls that ended.
    pub fn ended(&self) -> usize {
        self.calls().iter().filter(|call| call.done).count()
    }
}

impl Call {
    pub fn has(&self, word: &str) -> bool {
        self.argv.iter().any(|arg| arg == word)
    }

    /// Is this name in the list on standard input? Lists are separated by NUL.
    pub fn lists(&self, name: &str) -> bool {
        self.stdin
            .split(|&byte| byte == 0)
            .any(|listed| listed == name.as_bytes())
    }
}

fn lines(numbers: &[u8]) -> String {
    numbers.iter().map(|n| format!("{n}\n")).collect()
}
