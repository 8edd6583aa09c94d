//! A small host: `/data`, `/backup`, `/etc/lsyncd`, `/var/log/lsyncd` and an `ssh` to
//! `backup.example.org`, all below one temporary directory, and a daemon.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::daemon::binary;
use crate::support::dir::limit;
use crate::support::script::write_script;

/// The directories that texts name, each of which is below the temporary directory.
const PLACES: &[&str] = &[
    "/data/",
    "/backup/",
    "/etc/lsyncd/",
    "/var/log/lsyncd/",
    "/opt/",
];

/// The directories and the daemon.
pub struct Site {
    root: PathBuf,
    _guard: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Site {
    /// Creates the sources `/data/www` and `/data/wiki`, each with `hello` and `public/hello`.
    pub fn new() -> Site {
        let guard = tempfile::Builder::new().prefix("lm").tempdir().unwrap();
        let root = guard.path().canonicalize().unwrap();
        for place in PLACES
            .iter()
            .chain(&["/bin/", "/backup/www/", "/backup/wiki/"])
        {
            fs::create_dir_all(root.join(&place[1..])).unwrap();
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manual/ssh");
        symlink(script, root.join("bin/ssh")).unwrap();
        let site = Site {
            root,
            _guard: guard,
            daemon: None,
        };
        for file in ["hello", "public/hello"] {
            site.write(&format!("/data/www/{file}"), "hello");
            site.write(&format!("/data/wiki/{file}"), "hello");
        }
        site
    }

    /// Returns a path of the site.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(&path[1..])
    }

    /// Replaces the directories in a text by those of the site.
    pub fn expand(&self, text: &str) -> String {
        let root = self.root.to_str().unwrap();
        PLACES.iter().fold(text.to_owned(), |text, place| {
            text.replace(place, &format!("{root}{place}"))
        })
    }

    /// Writes a file and its parent directories.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn script(&self, path: &str, text: &str) {
        write_script(&self.path(path), &self.expand(text));
    }

    /// Returns the contents of a file, or nothing if it does not exist.
    pub fn text(&self, path: &str) -> String {
        let text = fs::read(self.path(path)).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Starts the daemon with a configuration, in the foreground.
    pub fn start(&mut self, config: &str, args: &[&str]) {
        let file = self.root.join("lsyncd.conf.lua");
        fs::write(&file, self.expand(config)).unwrap();
        let output = File::create(self.root.join("output")).unwrap();
        let path = std::env::var("PATH").unwrap();
        let daemon = Command::new(binary())
            .arg("-nodaemon")
            .args(args)
            .arg(file)
            .env("PATH", format!("{}/bin:{path}", self.root.display()))
            .env("HOME", &self.root)
            .env("LC_ALL", "C")
            .env_remove("RSYNC_RSH")
            // The directory does not exist, so there is no socket unless the test configures one.
            .env("RUNTIME_DIRECTORY", self.root.join("no-runtime-directory"))
            .env_remove("XDG_RUNTIME_DIR")
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        self.daemon = Some(daemon);
    }

    /// Returns the output of the daemon.
    pub fn said(&self) -> String {
        self.text("/output")
    }

    /// Waits for a condition. Fails at once if the daemon ends before.
    pub fn wait(&mut self, what: &str, mut is_so: impl FnMut(&Site) -> bool) {
        let end = Instant::now() + limit();
        while !is_so(self) {
            if let Some(status) = self.daemon.as_mut().and_then(|d| d.try_wait().unwrap()) {
                panic!("ended with {status} before {what}:\n{}", self.said());
            }
            assert!(Instant::now() < end, "no {what}:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the output contains a text.
    pub fn wait_said(&mut self, text: &str) {
        let text = self.expand(text);
        self.wait(&format!("\"{text}\""), |site| site.said().contains(&text));
    }

    /// Sends TERM and waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().unwrap();
        kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM).unwrap();
        daemon.wait().unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Returns all files below a directory.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                _ => files.push(entry.path()),
            }
        }
    }
    files
}

/// Returns the path of a file of this project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
