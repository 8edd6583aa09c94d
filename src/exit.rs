//! All exit codes of the daemon, see lsyncd(1), EXIT STATUS.

/// The result of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Version printed, onepass finished, or the launcher of a detached daemon.
    Done,
    /// Anything that went wrong: command line, configuration, critical exit codes.
    Failure,
    /// Ended by this signal after all children did: 128 + number.
    Signal(i32),
    /// The exit code of `terminate(n)` in the configuration, modulo 256.
    Asked(i64),
}

impl Exit {
    /// The status the parent process sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failure => 255,
            Exit::Signal(number) => (128 + number).rem_euclid(256) as u8,
            Exit::Asked(code) => code.rem_euclid(256) as u8,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
