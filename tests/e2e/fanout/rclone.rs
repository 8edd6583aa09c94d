//! default.rclone to a directory and to a WebDAV server, with the real rclone if it is installed.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{Dir, poll, program, skip};

/// Names with special characters of rclone's patterns.
const NAMES: [&str; 7] = [
    "a*b",
    "q?",
    "[x]",
    "{y,z}",
    "back\\slash",
    "two\nlines",
    "end ",
];

fn config(target: &str) -> String {
    format!(
        r#"settings{{ insist = true, stopTimeout = 1 }}
sync{{ default.rclone, source = "@SRC@", target = "{target}", delay = 0.3, exclude = {{ "*.tmp", "cache/" }} }}
"#
    )
}

fn exercise(dir: &Dir, daemon: &mut Running<'_>) {
    let trg = |name: &str| dir.path("trg").join(name);
    daemon.wait_log("Startup of");
    for name in NAMES {
        dir.write(name, "hello");
    }
    dir.mkdir("d/e");
    dir.write("d/e/f", "1");
    dir.write("d/x.tmp", "1");
    dir.mkdir("cache");
    dir.write("cache/f", "1");
    daemon.wait_for("all is there", |_| {
        NAMES.iter().all(|name| trg(name).exists()) && trg("d/e/f").exists()
    });
    assert!(!trg("d/x.tmp").exists() && !trg("cache").exists());
    fs::write(trg("untouched"), "of others").unwrap();
    fs::rename(dir.src("d"), dir.src("g")).unwrap();
    fs::remove_file(dir.src("a*b")).unwrap();
    dir.write("q?", "changed");
    daemon.wait_for("changes are there", |_| {
        trg("g/e/f").exists()
            && !trg("d/e/f").exists()
            && !trg("a*b").exists()
            && fs::read(trg("q?")).is_ok_and(|text| text == b"changed")
    });
    assert!(trg("untouched").exists(), "only what changed is looked at");
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn rclone_mirrors_to_a_directory() {
    if program("rclone").is_none() {
        return skip("rclone is not installed");
    }
    let dir = Dir::new();
    dir.write("before", "1");
    let mut daemon = Daemon::new(&dir, &config("@TRG@")).start();
    daemon.wait_for("startup", |_| dir.path("trg/before").exists());
    exercise(&dir, &mut daemon);
}

/// Killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn rclone_mirrors_to_a_webdav_server() {
    let Some(rclone) = program("rclone") else {
        return skip("rclone is not installed");
    };
    let dir = Dir::new();
    dir.write("before", "1");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let server = Command::new(rclone)
        .args(["serve", "webdav", "--addr", &address.to_string()])
        .arg(dir.path("trg"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(server);
    assert!(poll(|| TcpStream::connect(address).is_ok()));
    let target = format!(":webdav,url='http://{address}':");
    let mut daemon = Daemon::new(&dir, &config(&target)).start();
    daemon.wait_for("startup", |_| dir.path("trg/before").exists());
    exercise(&dir, &mut daemon);
}

#[test]
fn rclone_is_called_with_lists_of_files() {
    let dir = Dir::new();
    std::os::unix::fs::symlink(
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/bin/rclone"),
        dir.path("bin/rclone"),
    )
    .unwrap();
    let config =
        config("store:bucket").replace("delay", "rclone = { options = { '--fast-list' } }, delay");
    let mut daemon = Daemon::new(&dir, &config).fake_first().start_and_settle();
    dir.write("f{1}", "1");
    daemon.wait_for("a call for the change", |_| {
        dir.text("rclone.calls").contains("f\\{1\\}")
    });
    let said = dir.text("rclone.calls");
    let expected = dir.expand("sync --filter-from - --links --fast-list @SRC@/ store:bucket");
    assert_eq!(said.matches(&expected).count(), 2, "{said}");
    assert!(
        said.contains("- *.tmp\n- *.tmp/**\n- cache/**\n+ **\n"),
        "{said}"
    );
    assert!(said.contains("+ /f\\{1\\}\n+ /f\\{1\\}/**\n"), "{said}");
    assert_eq!(daemon.terminate(), Some(143));
}
