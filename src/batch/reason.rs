//! Finds the line of a child's error output that explains its failure.
//!
//! rsync and ssh also print banners and warnings before the error, and consequences after it.

/// The maximum length of a quoted line.
const MAX_LENGTH: usize = 500;

/// The relevance of a line for a failure, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// An error in a form that rsync, ssh or a shell prints.
    Error,
    /// Any other line with a word for a failure.
    Failure,
    /// A message of one side that follows from the failure of the other.
    Consequence,
    /// A line with none of these words.
    Other,
    /// rsync's last line, which repeats the exit code.
    Trailer,
    /// A warning: work continues after it.
    Warning,
}

/// Prefixes of errors of rsync, ssh and shells.
const ERRORS: [&str; 18] = [
    "@error",
    "bash: ",
    "dash: ",
    "error: ",
    "error in ",
    "fatal: ",
    "host key for ",
    "host key verification failed",
    "kex_exchange_identification: ",
    "no route to host",
    "permission denied",
    "protocol version mismatch",
    "received disconnect ",
    "rsync: ",
    "sh: ",
    "ssh: ",
    "unable to negotiate ",
    "zsh: ",
];

/// Parts of errors of rsync and ssh that have a name in front.
const ERROR_PARTS: [&str; 5] = [
    ": permission denied (",
    "] io timeout after ",
    "command not found",
    "no space left on device",
    "too many authentication failures",
];

const FAILURES: [&str; 27] = [
    "aborted",
    "bad ",
    "can't",
    "cannot",
    "connection closed",
    "connection reset",
    "could not",
    "denied",
    "does not",
    "error",
    "exceeded",
    "expired",
    "fail",
    "invalid",
    "is required",
    "must not",
    "no such",
    "not allowed",
    "not available",
    "not found",
    "not permitted",
    "refused",
    "rejected",
    "timed out",
    "unable",
    "unknown",
    "unreachable",
];

const CONSEQUENCES: [&str; 4] = [
    "broken pipe",
    "connection unexpectedly closed",
    "skipping file deletion",
    "writefd_unbuffered failed",
];

/// Prefixes and parts of lines after which work continues.
const WARNINGS: [&str; 15] = [
    "add the host to the list of known hosts",
    "authentication agent",
    "could not chdir to home directory",
    "could not create directory",
    "debug1: ",
    "debug2: ",
    "debug3: ",
    "forwarding request failed",
    "has vanished: ",
    "locale",
    "please try again",
    "pseudo-terminal will not be allocated",
    "skipping non-regular file",
    "warning",
    "will try again",
];

fn rank(line: &[u8]) -> Rank {
    let text = String::from_utf8_lossy(line).to_ascii_lowercase();
    let text = text.trim();
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    let begins = |parts: &[&str]| parts.iter().any(|part| text.starts_with(part));
    if text.starts_with("rsync error: ") {
        Rank::Trailer
    } else if has(&CONSEQUENCES) {
        Rank::Consequence
    } else if begins(&["rsync: ", "@error"]) {
        // Names of files may contain any word.
        Rank::Error
    } else if has(&WARNINGS) {
        Rank::Warning
    } else if begins(&ERRORS) || has(&ERROR_PARTS) {
        Rank::Error
    } else if has(&FAILURES) {
        Rank::Failure
    } else {
        Rank::Other
    }
}

/// Returns the most relevant line, the first one of equal relevance; an empty line if there is
/// none.
pub fn reason<'a>(lines: impl Iterator<Item = &'a [u8]>) -> &'a [u8] {
    let (mut best, mut last_other) = (None, None);
    let mut is_closed = false;
    // ssh ends its lines with a carriage return as well.
    let lines = lines.map(<[u8]>::trim_ascii_end);
    for line in lines.filter(|line| !line.is_empty()) {
        let rank = rank(line);
        match rank {
            Rank::Consequence | Rank::Trailer => is_closed = true,
            // The last line of the other side before it closed the connection.
            Rank::Other if !is_closed => last_other = Some(line),
            _ => {}
        }
        if best.is_none_or(|(least, _)| rank < least) {
            best = Some((rank, line));
        }
    }
    let line = match (best, last_other) {
        (Some((Rank::Consequence, _)), Some(other)) => other,
        (best, _) => best.map(|(_, line)| line).unwrap_or_default(),
    };
    &line[..line.len().min(MAX_LENGTH)]
}

/// Parts of the lines that say that the connection to the other side was lost.
const LOST: [&[u8]; 3] = [
    b"Broken pipe (",
    b"Connection reset by peer (",
    b"connection unexpectedly closed",
];

/// Returns true if the connection was lost and no line of the error output has another reason. What
/// the other side had to say is lost with the connection, and rsync may exit with code 2 then.
pub fn is_connection_lost<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let line = reason(lines);
    let mut lost = LOST.iter();
    lost.any(|part| line.windows(part.len()).any(|found| found == *part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_reasons_are_no_lost_connection() {
        let lost = |line: &str| is_connection_lost([line.as_bytes()].into_iter());
        assert!(lost("rsync: [sender] write error: Broken pipe (32)"));
        assert!(!lost(
            "rsync: --delete-missing-args: unknown option, and more words"
        ));
        assert!(!lost(""));
    }

    fn reason_of(text: &str) -> String {
        let line = reason(text.as_bytes().split(|&byte| byte == b'\n'));
        String::from_utf8_lossy(line).into_owned()
    }

    #[test]
    fn what_ends_a_line_is_no_part_of_the_reason() {
        let text = "ssh: Could not resolve hostname nohost: Name or service not known\r\n";
        assert_eq!(reason_of(text), text.trim_end());
    }

    const CLOSED: &str = "rsync: connection unexpectedly closed (0 bytes received so far) [sender]";
    const TRAILER: &str = "rsync error: unexplained error (code 255) at io.c(232) [sender=3.2.7]";

    #[test]
    fn errors_are_found_among_warnings_and_consequences() {
        let before = [
            "Welcome!",
            "Warning: Permanently added '[h]:22' (ED25519) to the list of known hosts.",
            "Failed to add the host to the list of known hosts (/root/.ssh/known_hosts).",
            "Could not create directory '/var/www/.ssh'.",
            "Could not chdir to home directory /home/u: No such file or directory",
            "** WARNING: connection is not using a post-quantum key exchange algorithm.",
            "bash: warning: setlocale: LC_ALL: cannot change locale (de_DE.UTF-8)",
            "X11 forwarding request failed on channel 0",
            "Permission denied, please try again.",
            "rsync warning: some files vanished before they could be transferred (code 24)",
            "Unauthorized access to this system will be prosecuted. Violations are denied.",
        ];
        let errors = [
            "ssh: connect to host x port 22: Connection refused",
            "ssh: Could not resolve hostname x: Name or service not known",
            "root@localhost: Permission denied (publickey,password).",
            "Host key for h has changed and you have requested strict checking.",
            "Host key verification failed.",
            "kex_exchange_identification: Connection closed by remote host",
            "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures",
            "Unable to negotiate with 10.0.0.1 port 22: no matching host key type found.",
            "bash: line 1: rsync: command not found",
            "@ERROR: Unknown module 'warning'",
            "@ERROR: auth failed on module m",
            "ERROR: password file must not be other-accessible",
            "rsync: --dele: unknown option",
            "rsync: [sender] failed to connect to h (10.0.0.1): Connection timed out (110)",
            "rsync: [generator] mkdir \"/locale/warning\" failed: Permission denied (13)",
            "rsync: [receiver] write failed on \"/t/f\": No space left on device (28)",
            "[sender] io timeout after 30 seconds -- exiting",
            "protocol version mismatch -- is your shell clean?",
        ];
        for error in errors {
            for warning in before {
                let text = format!("{warning}\n{error}\n{CLOSED}\n{TRAILER}");
                assert_eq!(reason_of(&text), error, "{text}");
            }
            assert_eq!(reason_of(&format!("{TRAILER}\n{error}")), error);
            let all = format!("{}\n{error}\n{CLOSED}", before.join("\n"));
            assert_eq!(reason_of(&all), error, "{all}");
        }
    }

    #[test]
    fn the_first_of_several_errors_counts() {
        let text = "rsync: [sender] link_stat \"/a\" failed: No such file or directory (2)\n\
            rsync: [sender] link_stat \"/b\" failed: No such file or directory (2)";
        assert!(reason_of(text).contains("\"/a\""));
    }

    #[test]
    fn without_an_error_the_next_best_line_counts() {
        let warning = "Warning: Permanently added 'h' (RSA) to the list of known hosts.";
        for (text, expected) in [
            (format!("{warning}\n{CLOSED}\n{TRAILER}"), CLOSED),
            (
                format!("Hello\nquota is used up\n{CLOSED}\n{TRAILER}\nBye"),
                "quota is used up",
            ),
            (
                format!("Hello\nBad owner or permissions on /root/.ssh/config\n{CLOSED}"),
                "Bad owner or permissions on /root/.ssh/config",
            ),
            (
                format!("sudo: a password is required\n{CLOSED}\n{TRAILER}"),
                "sudo: a password is required",
            ),
            (
                format!("This account is currently not available.\n{CLOSED}"),
                "This account is currently not available.",
            ),
            (format!("{warning}\n{TRAILER}"), TRAILER),
            (format!("{warning}\n"), warning),
            (format!("quota is used up\n{TRAILER}"), "quota is used up"),
            (
                format!("--delete does not work without --recursive (-r)\n{TRAILER}"),
                "--delete does not work without --recursive (-r)",
            ),
            ("\nsorry\nno".to_owned(), "sorry"),
            (String::new(), ""),
        ] {
            assert_eq!(reason_of(&text), expected, "{text}");
        }
        assert_eq!(reason_of(&"x".repeat(900)).len(), MAX_LENGTH);
    }
}
