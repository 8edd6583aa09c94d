//! ClamAV with a signature of the test; skipped if it is not installed.

use std::fs;
use std::process::{Child, Command, Stdio};

use super::{arrives, assert_clean, sentinel, site, start};
use crate::support::dir::{Dir, poll, program, skip};

const MISSING: &str = "no ClamAV (clamd and clamdscan)";

/// A clamd with one signature.
struct Clamd(Child);

impl Clamd {
    fn start(dir: &Dir) -> Clamd {
        let clamd = program("clamd").expect("clamd");
        let child = Command::new(clamd)
            .args(["-c", dir.path("clamd.conf").to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("clamd");
        let clamd = Clamd(child);
        assert!(poll(|| dir.path("clamd.sock").exists()), "clamd listens");
        clamd
    }

    fn end(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Clamd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn clamav_rejects_a_file_with_a_known_signature() {
    if program("clamd").is_none() || program("clamdscan").is_none() {
        return skip(MISSING);
    }
    let dir = site();
    fs::create_dir(dir.path("db")).unwrap();
    let hex: String = b"MALICIOUS-STRING"
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    dir.put("db/t.ndb", format!("Test.Ndb:0:*:{hex}\n"));
    let conf = "DatabaseDirectory @DIR@/db\nLocalSocket @DIR@/clamd.sock\nForeground yes\n\
        FixStaleSocket yes\n";
    dir.put("clamd.conf", dir.expand(conf));
    let evil = "EVIL MALICIOUS-STRING";
    dir.write("evil", evil);
    dir.write("good", "good");
    let clamd = Clamd::start(&dir);
    let command = r#"command = { "clamdscan", "--fdpass", "--no-summary", "--stdout",
        "--config-file=@DIR@/clamd.conf" }"#;
    let mut daemon = start(&dir, command);
    daemon.wait_log("/evil was rejected: Test.Ndb.UNOFFICIAL FOUND");
    daemon.wait_log("finished.");
    arrives(&dir, &mut daemon, "good", "good");
    dir.write("-evil\nname*", evil);
    dir.write("-good\nname*", "good");
    arrives(&dir, &mut daemon, "-good\nname*", "good");
    sentinel(&dir, &mut daemon, "s");
    assert_clean(&dir);

    clamd.end();
    dir.write("evil2", evil);
    dir.write("late", "good");
    daemon.wait_log("/late is held: the scanner failed with exit code 2");
    assert!(!dir.trg("late").exists());
    let _clamd = Clamd::start(&dir);
    arrives(&dir, &mut daemon, "late", "good");
    sentinel(&dir, &mut daemon, "s2");
    assert_clean(&dir);
}
