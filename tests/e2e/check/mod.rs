//! Black-box tests of the check gate: malicious files appear in many ways, and none may reach the
//! target.
//!
//! The scanner is a shell script that rejects files containing `EVIL`; `clamav` runs the real one
//! if it is installed. That a file does *not* arrive is verified when a harmless file that was
//! written later has arrived.
//!
//! | file | what it is about |
//! |---|---|
//! | offered | malicious files at startup, by rename, hard link, growth, symlink |
//! | attacks | malicious files from a user who knows how the gate works |
//! | faults | failures while files are checked: space, directories, processes, sources |
//! | scanners | scanners that hang, fail and recover |
//! | verdicts | what happens to rejected files, and how they are reported |
//! | swaps | names whose file type changes during a transfer |
//! | targets | one check for many targets |
//! | churn | random changes, with a scanner that fails now and then |
//! | clamav | a real scanner |

mod attacks;
mod churn;
mod clamav;
mod faults;
mod offered;
mod scanners;
mod swaps;
mod targets;
mod verdicts;

use std::fs;
use std::path::Path;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;

/// Answers like `clamdscan`, and records the names it gets in `asked`. It fails while a file `down`
/// exists, and does not end while a file `hang` exists.
const SCANNER: &str = r#"for file; do echo "${file##*/}" >> @DIR@/asked; done
while test -e @DIR@/hang; do sleep 0.05; done
test -e @DIR@/down && { echo "cannot connect" >&2; exit 2; }
status=0
for file; do
  if grep -q EVIL -- "$file"; then echo "$file: Evil.Test FOUND"; status=1; fi
done
exit $status
"#;

/// The key of `check` that runs the stand-in.
const COMMAND: &str = r#"command = { "@DIR@/scan" }"#;

/// Returns a configuration with these keys in `check`.
fn config(check: &str) -> String {
    with_check(&format!("{{ {check} }}"))
}

fn with_check(check: &str) -> String {
    format!(
        r#"
settings{{ insist = true, statusFile = "@DIR@/status", statusInterval = 0,
  controlSocket = "@DIR@/sock", metricsFile = "@DIR@/metrics" }}
sync{{ default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.2,
  check = {check} }}
"#
    )
}

/// Returns a directory with the stand-in.
fn site() -> Dir {
    let dir = Dir::new();
    dir.script("scan", SCANNER);
    dir
}

fn start<'d>(dir: &'d Dir, check: &str) -> Running<'d> {
    Daemon::new(dir, &config(check)).start()
}

/// Writes a file and waits until it has arrived, with everything that was written before.
fn sentinel(dir: &Dir, daemon: &mut Running<'_>, name: &str) {
    dir.write(name, "harmless");
    arrives(dir, daemon, name, "harmless");
}

fn arrives(dir: &Dir, daemon: &mut Running<'_>, name: &str, content: &str) {
    daemon.wait_for(&format!("{name} has {content}"), |_| {
        fs::read(dir.trg(name)).is_ok_and(|found| found == content.as_bytes())
    });
}

/// Asserts that no file below the target contains `EVIL`.
fn assert_clean(dir: &Dir) {
    assert_clean_in(dir, "trg");
}

fn assert_clean_in(dir: &Dir, target: &str) {
    // A file that disappears meanwhile has not stayed.
    let mut open = vec![dir.path(target)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.symlink_metadata() {
                Ok(stat) if stat.is_dir() => open.push(path),
                Ok(stat) if stat.is_file() => assert!(!is_evil(&path), "{path:?} has left"),
                _ => {}
            }
        }
    }
}

fn is_evil(path: &Path) -> bool {
    fs::read(path).is_ok_and(|text| text.windows(4).any(|word| word == b"EVIL"))
}

/// Returns the names of the files that the stand-in has checked.
fn asked(dir: &Dir) -> Vec<String> {
    let text = fs::read_to_string(dir.path("asked")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
