//! Ends a test program with a hanging test, because cargo has no time limit.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use super::dir::limit;

/// The running tests: name, work directory, start.
static TESTS: Mutex<BTreeMap<u64, (String, PathBuf, Instant)>> = Mutex::new(BTreeMap::new());

/// The duration of a test is limited to this multiple of the limit of one condition.
const LIMITS: u32 = 8;

/// Registers a test as long as it has a work directory.
pub struct Watched(u64);

impl Watched {
    pub fn new(root: &Path) -> Self {
        static WATCHDOG: Once = Once::new();
        WATCHDOG.call_once(|| drop(thread::spawn(watch)));
        let name = thread::current().name().unwrap_or("unnamed").to_owned();
        let mut tests = TESTS.lock().unwrap();
        let number = tests.last_key_value().map_or(0, |(last, _)| last + 1);
        tests.insert(number, (name, root.to_owned(), Instant::now()));
        Watched(number)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        TESTS.lock().unwrap().remove(&self.0);
    }
}

/// Ends the program when a test has run for too long, and prints what its processes wait for. The
/// line of the test has the format of a failed test.
fn watch() {
    loop {
        thread::sleep(Duration::from_secs(5));
        let tests = TESTS.lock().unwrap();
        let long = |begun: &Instant| begun.elapsed() > limit() * LIMITS;
        let Some((name, root, _)) = tests.values().find(|(_, _, begun)| long(begun)) else {
            continue;
        };
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let waits = processes.map(|process| describe(&process.path(), root));
        let waits = waits.collect::<String>();
        // The harness captures the output of `print`, also in threads.
        let _ = writeln!(
            io::stdout(),
            "\ntest {name} ... FAILED\n{name} hangs, the program ends:\n{waits}"
        );
        std::process::exit(101);
    }
}

/// Describes a process of the test: its command, and the wait state of each thread.
fn describe(process: &Path, root: &Path) -> String {
    let read = |path: PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    };
    let is_own = process.file_name() == Some(std::process::id().to_string().as_ref());
    let root = root.to_string_lossy();
    let (command, environment) = (read(process.join("cmdline")), read(process.join("environ")));
    if !is_own && !command.contains(&*root) && !environment.contains(&*root) {
        return String::new();
    }
    let mut text = format!("{} {command}\n", process.display());
    let tasks = fs::read_dir(process.join("task"));
    for task in tasks.into_iter().flatten().flatten() {
        let task = task.path();
        let [name, wait, call] = ["comm", "wchan", "syscall"].map(|file| read(task.join(file)));
        let _ = writeln!(text, "  {} {wait} {}", name.trim(), call.trim());
    }
    text
}
