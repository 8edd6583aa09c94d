//! Shared ssh connections: one connection for all transfers and moves of a sync, by ControlMaster
//! (ssh_config(5)). The first process opens it, and a broken one is opened again.
//!
//! If no remote shell is configured, rsync gets it by `RSYNC_RSH` (rsync(1)) and its arguments do
//! not change.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use mlua::{Lua, Result, Table, Value};

use super::quoting::{push_rsh_word, split_rsh};
use super::{is_ssh, remote_shell};
use crate::batch::{is_remote, probe};
use crate::config::target::destination;
use crate::config::{config_error_about, text_of};
use crate::process::{SshControl, program};

/// ssh options that configure connection sharing themselves.
const CONFLICTING_OPTIONS: &[&str] = &["control", "-S", "-M", "-O"];

/// The time after which an idle connection is closed, for example after a crash of the daemon.
const CONTROL_PERSIST: &str = "ControlPersist=600";

/// Makes a prepared sync share a connection. Returns the environment variables of its rsync.
/// Nothing changes if the sync has no host or its configuration conflicts.
///
/// # Errors
///
/// The table `ssh` or its key `reuse` has the wrong type.
pub fn share(lua: &Lua, config: &Table, sockets: &SshControl) -> Result<Vec<(OsString, OsString)>> {
    let nothing = Vec::new();
    let ssh = match config.get("ssh")? {
        Value::Table(ssh) => Some(ssh),
        Value::Nil | Value::Boolean(false) => None,
        _ => {
            return Err(config_error_about(
                "ssh",
                "Parameter \"ssh\" must be a table.",
            ));
        }
    };
    if !wants(ssh.as_ref())? || !is_over_ssh(config)? {
        return Ok(nothing);
    }
    let Value::Table(rsync) = config.get("rsync")? else {
        return Ok(nothing);
    };
    let binary = text_of(&rsync.get("binary")?).unwrap_or_else(|| b"rsync".to_vec());
    let Value::Table(computed) = rsync.get("_computed")? else {
        return Ok(nothing);
    };
    if probe::Binary::plain(&binary).is_none() {
        return Ok(nothing);
    }
    let words = texts(&computed)?;
    let told = remote_shell(&words).map(<[u8]>::to_vec);
    let environment = std::env::var_os("RSYNC_RSH").filter(|text| !text.is_empty());
    let base = told
        .clone()
        .or_else(|| environment.map(OsString::into_vec))
        .unwrap_or_else(|| b"ssh".to_vec());
    let Some(shell) = split_rsh(&base).filter(|shell| may_share(shell)) else {
        return Ok(nothing);
    };
    let Some(socket) = sockets.next() else {
        return Ok(nothing);
    };
    let options = options(&socket, &shell);
    if let Some(ssh) = &ssh {
        share_moves(lua, ssh, &options)?;
    }
    let mut text = base.clone();
    for option in &options {
        text.push(b' ');
        push_rsh_word(&mut text, option);
    }
    if told.is_none() {
        return Ok(vec![("RSYNC_RSH".into(), OsString::from_vec(text))]);
    }
    // The last `--rsh` counts.
    computed.raw_push(lua.create_string([b"--rsh=", text.as_slice()].concat())?)?;
    Ok(nothing)
}

fn wants(ssh: Option<&Table>) -> Result<bool> {
    let Some(ssh) = ssh else {
        return Ok(true);
    };
    match ssh.get("reuse")? {
        Value::Nil => Ok(true),
        Value::Boolean(reuse) => Ok(reuse),
        _ => Err(config_error_about(
            "reuse",
            "Parameter \"ssh.reuse\" must be true or false.",
        )),
    }
}

/// Returns true for `HOST:DIRECTORY`, false for `HOST::MODULE` of an rsync daemon.
fn is_over_ssh(config: &Table) -> Result<bool> {
    let target = destination(config)?.unwrap_or_default();
    // An IPv6 address in brackets contains colons.
    let behind = match target.iter().position(|&byte| byte == b']') {
        Some(end) if target.contains(&b'[') => &target[end..],
        _ => &target[..],
    };
    let colon = behind.iter().position(|&byte| byte == b':' || byte == b'/');
    let daemon = target.starts_with(b"rsync://")
        || colon.is_some_and(|colon| behind[colon..].starts_with(b"::"));
    Ok(is_remote(&target) && !daemon)
}

fn texts(list: &Table) -> Result<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    for word in list.sequence_values::<Value>() {
        words.extend(text_of(&word?));
    }
    Ok(words)
}

/// Returns true if this command is ssh itself and has no options for sharing. A script gets
/// unchanged arguments.
fn may_share(shell: &[Vec<u8>]) -> bool {
    let Some((program, words)) = shell.split_first() else {
        return false;
    };
    let contradicts = |word: &Vec<u8>| {
        let word = String::from_utf8_lossy(word);
        CONFLICTING_OPTIONS.iter().any(|text| {
            if text.starts_with('-') {
                word.starts_with(text)
            } else {
                word.to_ascii_lowercase().contains(text)
            }
        })
    };
    is_ssh(program) && !is_script(program) && !words.iter().any(contradicts)
}

fn is_script(program: &[u8]) -> bool {
    let mut head = [0; 2];
    let read = program::find(program).and_then(|path| {
        let mut file = File::open(path).ok()?;
        file.read_exact(&mut head).ok()
    });
    read.is_none() || &head == b"#!"
}

/// Returns the ssh options for sharing. ServerAliveInterval is added unless it is set, so that a
/// dead host does not block later transfers.
fn options(socket: &Path, shell: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let path = [b"ControlPath=", socket.as_os_str().as_bytes()].concat();
    let mut options = vec![b"ControlMaster=auto".to_vec(), path, CONTROL_PERSIST.into()];
    let said = |word: &Vec<u8>| {
        let word = String::from_utf8_lossy(word).to_ascii_lowercase();
        word.contains("serveralive")
    };
    if !shell.iter().any(said) {
        options.push(b"ServerAliveInterval=20".to_vec());
    }
    options
        .into_iter()
        .flat_map(|option| [b"-o".to_vec(), option])
        .collect()
}

/// Puts the options in front of those for moves.
fn share_moves(lua: &Lua, ssh: &Table, options: &[Vec<u8>]) -> Result<()> {
    let Value::Table(computed) = ssh.get("_computed")? else {
        return Ok(());
    };
    let mut shell = vec![text_of(&ssh.get("binary")?).unwrap_or_default()];
    shell.extend(texts(&computed)?);
    if may_share(&shell) {
        for (at, option) in options.iter().enumerate() {
            computed.raw_insert(at as i64 + 1, lua.create_string(option)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<u8>> {
        text.split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect()
    }

    #[test]
    fn what_the_user_says_of_sharing_counts() {
        for text in [
            "ssh -o ControlMaster=no",
            "ssh -o controlpath=/x",
            "ssh -S none",
            "ssh -M",
            "rsh",
            "my-ssh -p 22",
        ] {
            assert!(!may_share(&words(text)), "{text}");
        }
        if program::find(b"ssh").is_some() {
            assert!(may_share(&words("ssh -p 22 -i /key")));
        }
        assert!(!may_share(&[]));
    }

    #[test]
    fn signs_of_life_are_asked_for_once() {
        let count = |shell| options(Path::new("/run/x/1"), &words(shell)).len();
        assert_eq!(count("ssh"), 8);
        assert_eq!(count("ssh -o ServerAliveInterval=5"), 6);
    }

    #[test]
    fn hosts_behind_ssh_are_distinguished_from_rsync_daemons() {
        let lua = Lua::new();
        let over = |target: &str| {
            let config = lua.create_table().unwrap();
            config.set("target", target).unwrap();
            is_over_ssh(&config).unwrap()
        };
        for target in ["h:/t", "u@h:t", "[::1]:/t", "h:/a::b"] {
            assert!(over(target), "{target}");
        }
        for target in ["/t/", "h::m/t", "rsync://h/m", "./a:b", "[::1]::m"] {
            assert!(!over(target), "{target}");
        }
    }
}
