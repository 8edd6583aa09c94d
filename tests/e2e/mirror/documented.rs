//! The connections that the documents show, against a real sshd and a real rsync daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::ssh::{Sshd, account, rsync_daemon_with};
use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, program};

/// The documents with examples of a port, a key and a password.
const DOCUMENTS: [&str; 2] = ["docs/how-do-i.md", "docs/man/lsyncd.conf.lua.5"];

/// Returns the examples of all documents that contain this text.
fn examples(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for document in DOCUMENTS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        let page = fs::read_to_string(path).unwrap();
        let blocks = page.split("sync {\n").skip(1);
        let blocks = blocks.filter_map(|block| Some(block.split_once("\n}\n")?.0));
        let blocks = blocks.filter(|block| block.contains(text));
        // roff escapes a hyphen.
        let blocks = blocks.map(|block| format!("sync {{\n{}\n}}\n", block.replace("\\-", "-")));
        let before = found.len();
        found.extend(blocks);
        assert!(
            found.len() > before,
            "{document} has no example with {text}"
        );
    }
    found
}

/// Runs an example with the directories of the test.
fn run(dir: &Dir, example: &str) {
    let config = example.replace("source = \"/data/www\"", "source = \"@SRC@\"");
    let config = config.replace("source    = \"/data/www\"", "source    = \"@SRC@\"");
    let config = config.replace("/data/www", "@TRG@");
    let path = std::env::var("PATH").unwrap();
    let mut daemon = Daemon::new(dir, &config)
        .args(&["-delay", "0.3"])
        .env("PATH", &format!("@DIR@/bin:{path}"))
        .start();
    daemon.wait_equal();
    dir.append("f", "more");
    daemon.wait_equal();
    daemon.terminate();
}

#[test]
fn examples_of_a_port_and_a_key_work() {
    let dir = Dir::new();
    let Some(sshd) = Sshd::start(&dir) else {
        return;
    };
    // The host key is in a file of the test.
    let real = program("ssh").unwrap();
    let ssh = format!(
        "exec {} -F none -o UserKnownHostsFile=@DIR@/ssh/known_hosts -o BatchMode=yes \"$@\"\n",
        real.display()
    );
    dir.script("bin/ssh", &ssh);
    dir.write("f", "1");
    let host = format!("{}@127.0.0.1", account().name);
    // roff escapes a hyphen.
    for text in ["p 2222 ", "port = 2222"] {
        for example in examples(text) {
            let example = example.replace("deploy@web2", &host);
            let example = example.replace("2222", &sshd.port.to_string());
            run(&dir, &example.replace("/root/.ssh/lsyncd", "@DIR@/ssh/id"));
        }
    }
}

#[test]
fn examples_of_a_password_work() {
    let dir = Dir::new();
    dir.write("f", "1");
    let secret = |name: &str, text: &str| {
        dir.put(name, text);
        fs::set_permissions(dir.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    };
    secret("secrets", "lsyncd:geheim\n");
    secret("password", "geheim\n");
    let module = "[www]\nauth users = lsyncd\nsecrets file = @DIR@/secrets";
    let Some((_rsync, port)) = rsync_daemon_with(&dir, module) else {
        return;
    };
    for example in examples("password_file") {
        let example = example.replace("@web2/", &format!("@127.0.0.1:{port}/"));
        let example = example.replace("/etc/lsyncd/web2.password", "@DIR@/password");
        run(&dir, &example);
    }
}
