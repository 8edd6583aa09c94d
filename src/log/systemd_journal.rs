//! Standard output and error as streams of systemd's journal.
//!
//! systemd names the stream's socket in `JOURNAL_STREAM` as `DEVICE:INODE` (systemd.exec(5)). A
//! line that begins with `<N>` gets the syslog level N there (sd-daemon(3)).

use std::os::fd::AsFd;
use std::sync::OnceLock;

use nix::sys::stat::fstat;

/// Returns true if standard output and standard error are streams of the journal.
pub(super) fn streams() -> (bool, bool) {
    static STREAMS: OnceLock<(bool, bool)> = OnceLock::new();
    *STREAMS.get_or_init(|| match std::env::var("JOURNAL_STREAM") {
        Ok(name) => (is(std::io::stdout(), &name), is(std::io::stderr(), &name)),
        Err(_) => (false, false),
    })
}

fn is(stream: impl AsFd, name: &str) -> bool {
    fstat(stream).is_ok_and(|stat| format!("{}:{}", stat.st_dev, stat.st_ino) == name)
}

/// Returns a message in the journal's format. Each of its lines is a separate entry with its level.
pub(super) fn lines(priority: i32, category: &str, text: &str) -> String {
    let mut all = String::with_capacity(text.len() + 16);
    for (number, line) in text.lines().enumerate() {
        all.push_str(&match number {
            0 => format!("<{priority}>{category}: {line}\n"),
            _ => format!("<{priority}>{line}\n"),
        });
    }
    if all.is_empty() {
        all = format!("<{priority}>{category}: \n");
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn every_line_has_its_level() {
        assert_eq!(lines(4, "Warn", "a"), "<4>Warn: a\n");
        assert_eq!(lines(5, "Normal", "a\nb"), "<5>Normal: a\n<5>b\n");
        assert_eq!(lines(3, "Error", ""), "<3>Error: \n");
    }

    #[test]
    fn a_stream_is_known_by_its_inode() {
        let file = tempfile::tempfile().unwrap();
        let stat = file.metadata().unwrap();
        assert!(is(&file, &format!("{}:{}", stat.dev(), stat.ino())));
        assert!(!is(&file, &format!("{}:{}", stat.dev(), stat.ino() + 1)));
        assert!(!is(&file, ""));
    }
}
