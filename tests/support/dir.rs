//! The work directory of one test, waiting for a condition, and skipping.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::script::write_script;
use super::watchdog::Watched;

/// A temporary directory with `src` (watched) and `trg` (the mirror) in it.
///
/// The methods that change files take paths below `src`, as bytes.
pub struct Dir {
    root: PathBuf,
    _guard: TempDir,
    _watched: Watched,
}

/// Adds the value of `LSYNCD_TEST_WATCH` as `watch`, unless the configuration sets it. Line numbers
/// do not change.
fn with_watch(config: &str) -> String {
    match std::env::var("LSYNCD_TEST_WATCH") {
        Ok(watch) if !config.contains("watch =") => {
            format!(r#"settings{{ watch = "{watch}" }} {config}"#)
        }
        _ => config.to_owned(),
    }
}

/// Returns true if the daemon watches its sources with fanotify.
pub fn under_fanotify() -> bool {
    std::env::var("LSYNCD_TEST_WATCH").as_deref() == Ok("fanotify")
}

impl Dir {
    /// Returns true if the daemon takes connections at its control socket `sock`. The file exists
    /// shortly before that.
    pub fn answers(&self) -> bool {
        UnixStream::connect(self.path("sock")).is_ok()
    }

    /// Returns a call of lsyncdctl with the control socket `sock`.
    pub fn ctl(&self, words: &[&str]) -> Command {
        let mut ctl = Command::new(env!("CARGO_BIN_EXE_lsyncdctl"));
        ctl.arg("-socket").arg(self.path("sock")).args(words);
        ctl.stdin(Stdio::null());
        ctl
    }

    pub fn new() -> Self {
        let guard = tempfile::Builder::new()
            .prefix("lsyncd-")
            .tempdir()
            .expect("temporary directory");
        let root = guard.path().canonicalize().expect("its real path");
        for name in ["src", "trg", "bin", "rec", "fake"] {
            fs::create_dir(root.join(name)).expect("subdirectory");
        }
        Dir {
            _watched: Watched::new(&root),
            root,
            _guard: guard,
        }
    }

    /// Returns a path below the work directory.
    pub fn path(&self, name: impl AsRef<[u8]>) -> PathBuf {
        self.root.join(OsStr::from_bytes(name.as_ref()))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Causes more events than a queue of the kernel holds, and leaves no files. The names differ,
    /// because fanotify combines equal events.
    pub fn overflow_queue(&self) {
        let limit = ["inotify", "fanotify"].map(|kind| {
            let path = format!("/proc/sys/fs/{kind}/max_queued_events");
            let text = fs::read_to_string(path).unwrap_or_default();
            text.trim().parse().unwrap_or(16_384)
        });
        for number in 0..limit[0].max(limit[1]) + 1000 {
            let path = self.src(format!("overflow{number}"));
            fs::write(&path, "").expect("a file");
            fs::remove_file(&path).expect("its end");
        }
    }

    /// Returns a path below the source.
    pub fn src(&self, name: impl AsRef<[u8]>) -> PathBuf {
        join(&self.path("src"), name.as_ref())
    }

    /// Returns a path below the target.
    pub fn trg(&self, name: impl AsRef<[u8]>) -> PathBuf {
        join(&self.path("trg"), name.as_ref())
    }

    pub fn write(&self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) {
        let path = self.src(name);
        fs::write(&path, content).unwrap_or_else(|e| panic!("write {path:?}: {e}"));
    }

    pub fn append(&self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) {
        let path = self.src(name);
        OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(content.as_ref()))
            .unwrap_or_else(|e| panic!("append to {path:?}: {e}"));
    }

    /// Like `mkdir -p`.
    pub fn mkdir(&self, name: impl AsRef<[u8]>) {
        let path = self.src(name);
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("mkdir {path:?}: {e}"));
    }

    pub fn mv(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) {
        let (from, to) = (self.src(from), self.src(to));
        fs::rename(&from, &to).unwrap_or_else(|e| panic!("mv {from:?} {to:?}: {e}"));
    }

    /// Removes a file or a tree of the source.
    pub fn rm(&self, name: impl AsRef<[u8]>) {
        remove(&self.src(name));
    }

    pub fn symlink(&self, to: impl AsRef<[u8]>, name: impl AsRef<[u8]>) {
        let path = self.src(name);
        symlink(OsStr::from_bytes(to.as_ref()), &path)
            .unwrap_or_else(|e| panic!("ln -s {path:?}: {e}"));
    }

    pub fn hard_link(&self, old: impl AsRef<[u8]>, new: impl AsRef<[u8]>) {
        let (old, new) = (self.src(old), self.src(new));
        fs::hard_link(&old, &new).unwrap_or_else(|e| panic!("ln {old:?} {new:?}: {e}"));
    }

    pub fn chmod(&self, name: impl AsRef<[u8]>, mode: u32) {
        let path = self.src(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .unwrap_or_else(|e| panic!("chmod {path:?}: {e}"));
    }

    /// Writes a file below the work directory, outside of source and target.
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        let mut content = content.as_ref().to_vec();
        if name == "config.lua"
            && let Ok(text) = std::str::from_utf8(&content)
        {
            content = with_watch(text).into_bytes();
        }
        fs::write(&path, content).unwrap_or_else(|e| panic!("write {path:?}: {e}"));
        path
    }

    /// Writes an executable script below the work directory, with placeholders replaced.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        write_script(&path, &self.expand(text));
        path
    }

    /// Replaces `@SRC@`, `@TRG@`, `@DIR@`, `@RSYNC@` by paths.
    pub fn expand(&self, text: &str) -> String {
        let root = self.root.to_str().expect("temporary path is text");
        text.replace("@SRC@", &format!("{root}/src"))
            .replace("@TRG@", &format!("{root}/trg"))
            .replace("@RSYNC@", &format!("{root}/bin/rsync"))
            .replace("@DIR@", root)
    }

    /// Returns the content of a file below the work directory, or nothing if it does not exist.
    pub fn text(&self, name: &str) -> String {
        fs::read(self.path(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

/// Removes a file, a link or a whole tree.
pub fn remove(path: &Path) {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    result.unwrap_or_else(|e| panic!("rm {path:?}: {e}"));
}

/// Appends a name, which may begin with a slash: `Path::join` would replace the base.
fn join(base: &Path, name: &[u8]) -> PathBuf {
    let mut bytes = base.as_os_str().as_bytes().to_vec();
    bytes.push(b'/');
    bytes.extend_from_slice(name);
    PathBuf::from(OsStr::from_bytes(&bytes))
}

/// Returns the time after which a test gives up waiting.
pub fn limit() -> Duration {
    static LIMIT: OnceLock<Duration> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let seconds = std::env::var("LSYNCD_TEST_LIMIT")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(120);
        Duration::from_secs(seconds)
    })
}

/// Calls `done` until it returns true. Returns false after the limit.
///
/// A slow `done` (a comparison of big trees) is called less often.
pub fn poll(mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit();
    loop {
        let asked = Instant::now();
        if done() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep((asked.elapsed() * 2).max(Duration::from_millis(10)));
    }
}

/// Reports the calling test as skipped.
pub fn skip(reason: &str) {
    let test = std::thread::current()
        .name()
        .unwrap_or("unnamed test")
        .to_owned();
    let line = format!("SKIPPED: {test}: {reason}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("LSYNCD_TEST_SKIPS") {
        let written = File::options()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        written.expect("list of skipped tests");
    }
}

/// Finds a program in `PATH`, `/usr/sbin` and `/sbin`.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|path| {
            fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
}

/// Returns true if a text begins with this shape: `9` is a digit, `A` a letter, `_` a digit or a
/// blank; any other character is itself.
pub fn begins_like(text: &str, shape: &str) -> bool {
    let (text, shape) = (text.as_bytes(), shape.as_bytes());
    text.len() >= shape.len()
        && text.iter().zip(shape).all(|(&byte, &want)| match want {
            b'9' => byte.is_ascii_digit(),
            b'A' => byte.is_ascii_alphabetic(),
            b'_' => byte == b' ' || byte.is_ascii_digit(),
            _ => byte == want,
        })
}
