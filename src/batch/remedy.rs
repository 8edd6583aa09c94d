//! Remedies for failures that rsync or ssh reports.

/// Parts of error lines in lower case, all of which the line contains, and the remedy. The first
/// entry that matches counts.
const REMEDIES: &[(&[&str], &str)] = &[
    (
        &["host key verification failed"],
        "log in once with ssh as the user of the daemon, compare the fingerprint and confirm it; \
         or add the key of the host to ~/.ssh/known_hosts of that user",
    ),
    (
        &["host key for ", "has changed"],
        "if the host was reinstalled, remove its old key as the user of the daemon (ssh-keygen -R \
         HOST), log in once and compare the fingerprint; if not, another host may answer",
    ),
    (
        &["permission denied (publickey"],
        "add the public key of the user of the daemon to ~/.ssh/authorized_keys on the target \
         (ssh-copy-id); a key without a default name is named with ssh = { identityFile = ... } or \
         rsync = { rsh = \"ssh -i FILE\" }",
    ),
    (
        &["permission denied (", ")."],
        "ssh cannot ask for a password in the background: set up a key without one (ssh-keygen, \
         ssh-copy-id)",
    ),
    (
        &["too many authentication failures"],
        "name the key: ssh = { identityFile = ..., options = { IdentitiesOnly = \"yes\" } }",
    ),
    (
        &["password file must not be other-accessible"],
        "remove the access of other users to the password file: chmod 600 FILE",
    ),
    (
        &["password file must be owned by root"],
        "give the password file to root: chown root FILE",
    ),
    (
        &["password", "could not open"],
        "create the password file, readable for the user of the daemon only: chmod 600 FILE",
    ),
    (
        &["rsync", "not found"],
        "install rsync on the target, or set its path: rsync = { rsync_path = ... }",
    ),
    (
        &["failed to exec"],
        "install the program, or set its path: rsync = { binary = ... }, rsync = { rsh = ... }",
    ),
    (
        &["read-only file system"],
        "mount the file system of the target read-write; the kernel's log (dmesg) says why it is \
         not",
    ),
    (
        &["no space left on device"],
        "free space on the target (df -h, df -i); the transfer is retried",
    ),
    (
        &["disk quota exceeded"],
        "raise the quota of the target's user, or free space; the transfer is retried",
    ),
    (
        &["unknown module"],
        "name a module of the target's rsyncd.conf; rsync HOST:: lists them",
    ),
    (
        &["auth failed on module"],
        "compare the user in the target (rsync://USER@HOST/...) and rsync = { password_file = ... } \
         with \"auth users\" and \"secrets file\" of the module",
    ),
    (
        &["module is read only"],
        "set \"read only = false\" for the module in the target's rsyncd.conf",
    ),
    (
        &["chroot failed"],
        "create the path of the module on the target",
    ),
    (
        &["chdir failed"],
        "create the path of the module on the target",
    ),
    (
        &["mkdir", "no such file or directory"],
        "create the directory above the target, or set rsync = { _extra = { \"--mkpath\" } }",
    ),
    (
        &["permission denied (13)"],
        "give the target's user write access (chown, chmod), or use another user",
    ),
    (
        &["operation not permitted"],
        "the target's user has no permission for this; only root can change owners",
    ),
    (
        &["could not resolve hostname"],
        "correct the name of the host, or add it to DNS or /etc/hosts",
    ),
    (
        &["name or service not known"],
        "correct the name of the host, or add it to DNS or /etc/hosts",
    ),
    (
        &["connection refused"],
        "start sshd or the rsync daemon on the target, or correct the port",
    ),
    (
        &["no route to host"],
        "check network and firewall between both hosts",
    ),
    (
        &["connection timed out"],
        "check network and firewall between both hosts",
    ),
    (
        &["is your shell clean"],
        "the login of the target's user prints text before rsync starts; remove output from its \
         .bashrc and similar files for sessions without a terminal",
    ),
];

/// Returns what to do about an error line of rsync or ssh; `None` if nothing is known.
pub fn remedy(line: &[u8]) -> Option<&'static str> {
    let line = String::from_utf8_lossy(line).to_ascii_lowercase();
    let mut known = REMEDIES.iter();
    let found = known.find(|(parts, _)| parts.iter().all(|part| line.contains(part)));
    found.map(|(_, remedy)| *remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_errors_have_a_remedy() {
        for (line, part) in [
            ("Host key verification failed.", "confirm it"),
            (
                "Host key for h has changed and you have requested strict checking.",
                "ssh-keygen -R",
            ),
            ("u@h: Permission denied (publickey).", "ssh-copy-id"),
            ("u@h: Permission denied (password).", "without one"),
            (
                "ERROR: password file must not be other-accessible",
                "chmod 600",
            ),
            ("bash: line 1: rsync: command not found", "rsync_path"),
            ("sh: 1: rsync: not found", "rsync_path"),
            (
                "rsync: [Receiver] mkdir \"/t\" failed: Read-only file system (30)",
                "read-write",
            ),
            (
                "rsync: [receiver] write failed on \"/t/f\": No space left on device (28)",
                "df -h",
            ),
            ("@ERROR: Unknown module 'm'", "rsync HOST::"),
            ("@ERROR: auth failed on module m", "secrets file"),
            ("ERROR: module is read only", "read only = false"),
            (
                "rsync: [Receiver] mkdir \"/a/b\" failed: No such file or directory (2)",
                "--mkpath",
            ),
            (
                "rsync: [generator] mkdir \"/t\" failed: Permission denied (13)",
                "chown",
            ),
            (
                "ssh: connect to host x port 22: Connection refused",
                "the port",
            ),
        ] {
            let remedy = remedy(line.as_bytes());
            assert!(remedy.is_some_and(|text| text.contains(part)), "{line}");
        }
        assert_eq!(remedy(b"rsync: connection unexpectedly closed"), None);
        assert_eq!(remedy(b""), None);
    }
}
