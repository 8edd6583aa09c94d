//! Black-box tests of the check gate: malicious files are offered in every way one can think of,
//! and none may appear at the target.
//!
//! Scanners are stand-ins, shell scripts that reject what contains `EVIL`; `clamav` is the real
//! one, where it is installed. That something does *not* arrive is looked at when a harmless file
//! that was written after it has.
//!
//! | file | what it is about |
//! |---|---|
//! | offered | at startup, by rename, hard link, growth, symlink, hostile names |
//! | attacks | the same by one who knows how it works |
//! | faults | what breaks while files are checked: space, places, processes, sources |
//! | scanners | that hang, fail, are down, come back, and are not asked twice |
//! | verdicts | what becomes of rejected files, and what is told of them |
//! | swaps | names that become something else under a transfer |
//! | targets | one check for many targets |
//! | churn | random changes, with a scanner that is down now and then |
//! | clamav | a real scanner with a signature of our own |

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
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;

/// Answers as `clamdscan` does, and notes down what it was asked about. While a file `down` is
/// there it fails, while a file `hang` is there it does not end.
const SCANNER: &str = r#"#!/bin/sh
for file; do echo "${file##*/}" >> @DIR@/asked; done
while test -e @DIR@/hang; do sleep 0.05; done
test -e @DIR@/down && { echo "cannot connect" >&2; exit 2; }
status=0
for file; do
  if grep -q EVIL -- "$file"; then echo "$file: Evil.Test FOUND"; status=1; fi
done
exit $status
"#;

/// The words of a check by the stand-in.
const COMMAND: &str = r#"command = { "@DIR@/scan" }"#;

/// A configuration with these words in `check`.
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

/// A directory with the stand-in.
fn site() -> Dir {
    let dir = Dir::new();
    script(&dir, "scan", SCANNER);
    dir
}

fn script(dir: &Dir, name: &str, text: &str) {
    let path = dir.put(name, dir.expand(text));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn start<'d>(dir: &'d Dir, check: &str) -> Running<'d> {
    Daemon::new(dir, &config(check)).start()
}

/// Waits until a file that is written now has arrived, with all that came before it.
fn sentinel(dir: &Dir, daemon: &mut Running<'_>, name: &str) {
    dir.write(name, "harmless");
    arrives(dir, daemon, name, "harmless");
}

fn arrives(dir: &Dir, daemon: &mut Running<'_>, name: &str, content: &str) {
    daemon.wait_for(&format!("{name} has {content}"), |_| {
        fs::read(dir.trg(name)).is_ok_and(|found| found == content.as_bytes())
    });
}

/// Nothing below the target has the word in it.
fn assert_clean(dir: &Dir) {
    assert_clean_in(dir, "trg");
}

fn assert_clean_in(dir: &Dir, target: &str) {
    // What goes meanwhile has not stayed.
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

/// What the stand-in was asked about, by name.
fn asked(dir: &Dir) -> Vec<String> {
    let text = fs::read_to_string(dir.path("asked")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
