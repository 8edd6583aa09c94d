//! The `ssh` table of a sync: the ssh that moves entries on the target, and the remote shell of
//! rsync.
//!
//! * `quoting`: words for the login shell of the target, and for `--rsh` of rsync;
//! * `option_words`: texts of `ssh._extra` that contain several options;
//! * `remote_move`: moves on the target as commands for its login shell;
//! * `sharing`: one connection for all transfers and moves of a sync.

use std::fs;
use std::os::unix::fs::MetadataExt;

use mlua::{Result, Table, Value};

use super::config_error::config_error_about;
use super::{kind_of, text_of, truthy};
use crate::process::program;
use crate::rsync_syntax::{self, RsyncArg};
use quoting::push_rsh_word;

mod option_words;
mod quoting;
pub mod remote_move;
mod sharing;

pub use quoting::{quoted, remote_word, split_rsh};
pub use sharing::share;

/// The default ssh program.
const DEFAULT_PROGRAM: &[u8] = b"ssh";

/// The connection to the host of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshConnection {
    /// The program for moves, looked up in `PATH`.
    pub binary: Vec<u8>,
    /// The arguments before the host.
    pub words: Vec<Vec<u8>>,
    /// The `--rsh=…` argument; `None` if rsync uses the same command by default.
    pub rsh: Option<Vec<u8>>,
}

impl SshConnection {
    /// Reads the `ssh` table. `rsync` are the arguments of rsync, `environment` is the value of
    /// `RSYNC_RSH` (rsync(1)). If the table is empty, moves use the remote shell of rsync.
    ///
    /// # Errors
    ///
    /// A value of the wrong type, or a remote shell with an unclosed quote.
    pub fn new(
        ssh: &Table,
        rsync: &[Vec<u8>],
        environment: Option<&[u8]>,
    ) -> Result<SshConnection> {
        let binary = match text(ssh, "binary")? {
            Some(binary) if !binary.is_empty() => binary,
            _ => DEFAULT_PROGRAM.to_vec(),
        };
        let words = words(ssh)?;
        let told = remote_shell(rsync);
        if words.is_empty() {
            let environment = environment.filter(|text| !text.is_empty());
            return match (told, environment) {
                (Some(told), _) if binary == DEFAULT_PROGRAM => {
                    derived(told, "Parameter \"rsync.rsh\"")
                }
                (None, Some(told)) if binary == DEFAULT_PROGRAM => {
                    derived(told, "RSYNC_RSH in the environment")
                }
                // Moves and rsync are configured separately.
                (Some(_), _) | (None, Some(_)) => Ok(SshConnection {
                    binary,
                    words,
                    rsh: None,
                }),
                (None, None) => {
                    let rsh = (!is_ssh(&binary)).then(|| rsh_option(&binary, &words));
                    Ok(SshConnection { binary, words, rsh })
                }
            };
        }
        let program = if is_ssh(&binary) {
            DEFAULT_PROGRAM
        } else {
            &binary
        };
        let rsh = Some(rsh_option(program, &words));
        Ok(SshConnection { binary, words, rsh })
    }
}

/// Returns the connection for a remote shell command of rsync; `origin` names its source in errors.
fn derived(told: &[u8], origin: &str) -> Result<SshConnection> {
    let wrong = || {
        let text = format!("{origin} must be a command with all its quotes closed.");
        config_error_about("rsh", text)
    };
    let mut words = split_rsh(told).ok_or_else(wrong)?.into_iter();
    Ok(SshConnection {
        binary: words.next().ok_or_else(wrong)?,
        words: words.collect(),
        rsh: None,
    })
}

/// Returns the arguments before the host: identity, options, port, then `_extra`.
fn words(ssh: &Table) -> Result<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    if let Some(file) = text(ssh, "identityFile")? {
        words.extend([b"-i".to_vec(), file]);
    }
    for option in options(ssh)? {
        words.extend([b"-o".to_vec(), option]);
    }
    if let Some(port) = text(ssh, "port")? {
        words.extend([b"-p".to_vec(), port]);
    }
    match ssh.get("_extra")? {
        // As in lsyncd, a text has no effect; a warning is logged.
        Value::Nil | Value::Boolean(false) | Value::String(_) => {}
        Value::Table(extra) => {
            for word in extra.sequence_values::<Value>() {
                let text = text_of(&word?).ok_or_else(wrong_extra)?;
                words.extend(option_words::split(&text));
            }
        }
        _ => return Err(wrong_extra()),
    }
    Ok(words)
}

fn wrong_extra() -> mlua::Error {
    config_error_about(
        "_extra",
        "Parameter \"ssh._extra\" must be a list of texts, one for each word.",
    )
}

/// Returns `KEY=VALUE` for each option, sorted by key, followed by the list part.
fn options(ssh: &Table) -> Result<Vec<Vec<u8>>> {
    let table = match ssh.get("options")? {
        Value::Nil | Value::Boolean(false) => return Ok(Vec::new()),
        Value::Table(table) => table,
        _ => {
            return Err(config_error_about(
                "options",
                "Parameter \"ssh.options\" must be a table, as in options = { User = \"me\" }; \
                 words of ssh's command line belong in _extra = { \"-4\" }.",
            ));
        }
    };
    let mut options = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let named = matches!(key, Value::String(_));
        let key = text_of(&key).unwrap_or_default();
        let value = text_of(&value).ok_or_else(|| {
            let key = String::from_utf8_lossy(&key);
            let kind = kind_of(&value);
            let text = format!(
                "Parameter \"ssh.options.{key}\" must be a text as in ssh_config(5) \
                 (\"yes\" or \"no\" for a switch), not {kind}."
            );
            config_error_about(&key, text)
        })?;
        options.push(if named {
            [key, value].join(&b'=')
        } else {
            value
        });
    }
    options.sort();
    Ok(options)
}

/// Returns a text or number of the table as text.
fn text(ssh: &Table, key: &str) -> Result<Option<Vec<u8>>> {
    let value: Value = ssh.get(key)?;
    if !truthy(&value) {
        return Ok(None);
    }
    text_of(&value).map(Some).ok_or_else(|| {
        let kind = kind_of(&value);
        let text = format!("Parameter \"ssh.{key}\" must be a text or a number, not {kind}.");
        config_error_about(key, text)
    })
}

/// Returns true if the program is the default remote shell of rsync, under any name.
pub(super) fn is_ssh(binary: &[u8]) -> bool {
    let file = |name| {
        let data = fs::metadata(program::find(name)?).ok()?;
        Some((data.dev(), data.ino()))
    };
    binary == DEFAULT_PROGRAM || (file(binary).is_some() && file(binary) == file(DEFAULT_PROGRAM))
}

/// Returns rsync's remote shell: the last `--rsh` or `-e` among its arguments.
pub fn remote_shell(rsync: &[Vec<u8>]) -> Option<&[u8]> {
    let shells = rsync_syntax::parse(rsync).filter_map(|(arg, _)| match arg {
        RsyncArg::Long {
            name: b"rsh",
            value,
        } => value,
        RsyncArg::Letters {
            last: Some((b'e', value)),
            ..
        } => value,
        _ => None,
    });
    shells.last()
}

fn rsh_option(program: &[u8], words: &[Vec<u8>]) -> Vec<u8> {
    let mut option = b"--rsh=".to_vec();
    push_rsh_word(&mut option, program);
    for word in words {
        option.push(b' ');
        push_rsh_word(&mut option, word);
    }
    option
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(ssh: &str, rsync: &[&str]) -> std::result::Result<Vec<String>, String> {
        connection_in(None, ssh, rsync)
    }

    fn connection_in(
        environment: Option<&[u8]>,
        ssh: &str,
        rsync: &[&str],
    ) -> std::result::Result<Vec<String>, String> {
        let lua = crate::sys::lua();
        let table: Table = lua.load(ssh).eval().unwrap();
        let rsync: Vec<Vec<u8>> = rsync.iter().map(|word| word.as_bytes().to_vec()).collect();
        let made =
            SshConnection::new(&table, &rsync, environment).map_err(|error| error.to_string())?;
        let mut all = vec![made.rsh.unwrap_or_default(), made.binary];
        all.extend(made.words);
        let text = |word| String::from_utf8(word).unwrap();
        Ok(all.into_iter().map(text).collect())
    }

    #[test]
    fn words_are_for_ssh_and_for_rsync() {
        let all = "{ port = 22, options = { B = 'b', A = 1 }, identityFile = '/k', \
                    _extra = { '-T', '-4' } }";
        assert_eq!(
            connection(all, &["-lts", "--rsh=foo"]).unwrap(),
            [
                "--rsh=ssh -i /k -o A=1 -o B=b -p 22 -T -4",
                "ssh",
                "-i",
                "/k",
                "-o",
                "A=1",
                "-o",
                "B=b",
                "-p",
                "22",
                "-T",
                "-4"
            ]
        );
        assert_eq!(
            connection("{ _extra = {} }", &["-lts"]).unwrap(),
            ["", "ssh"]
        );
        assert_eq!(
            connection("{ identityFile = \"/my key/it's\" }", &[]).unwrap(),
            ["--rsh=ssh -i '/my key/it''s'", "ssh", "-i", "/my key/it's"]
        );
        assert_eq!(
            connection("{ _extra = { '-i /k -p 22' } }", &[]).unwrap(),
            ["--rsh=ssh -i /k -p 22", "ssh", "-i", "/k", "-p", "22"]
        );
        assert_eq!(
            connection("{ options = { 'A=1' } }", &[]).unwrap(),
            ["--rsh=ssh -o A=1", "ssh", "-o", "A=1"]
        );
    }

    #[test]
    fn another_program_is_for_rsync_too() {
        assert_eq!(
            connection("{ binary = '/opt/my ssh' }", &[]).unwrap(),
            ["--rsh='/opt/my ssh'", "/opt/my ssh"]
        );
        assert_eq!(
            connection("{ binary = '/opt/ssh', port = 7 }", &[]).unwrap(),
            ["--rsh=/opt/ssh -p 7", "/opt/ssh", "-p", "7"]
        );
        assert_eq!(
            connection("{ binary = '/opt/ssh' }", &["--rsh=ssh -p 7"]).unwrap(),
            ["", "/opt/ssh"]
        );
    }

    #[test]
    fn an_ssh_that_is_not_configured_goes_the_way_of_rsync() {
        for words in [
            ["--rsh=x", "--rsh=/b/ssh  -p 7 -i '/a b'"],
            ["-e", "/b/ssh -p 7 -i \"/a b\""],
            ["-ex", "-lte/b/ssh '-p' 7 -i /a' 'b"],
        ] {
            assert_eq!(
                connection("{ binary = 'ssh', _extra = {} }", &words).unwrap(),
                ["", "/b/ssh", "-p", "7", "-i", "/a b"]
            );
        }
        assert!(
            connection("{}", &["--rsh=ssh 'x"])
                .unwrap_err()
                .contains("rsync.rsh")
        );
        assert!(
            connection("{}", &["--rsh= "])
                .unwrap_err()
                .contains("rsync.rsh")
        );
    }

    #[test]
    fn the_environment_counts_where_the_configuration_is_silent() {
        let told = Some(&b"sshpass -p 'a b' ssh -p 7"[..]);
        let moves = ["", "sshpass", "-p", "a b", "ssh", "-p", "7"];
        for ssh in ["{}", "{ binary = 'ssh', _extra = {} }", "{ binary = '' }"] {
            assert_eq!(connection_in(told, ssh, &["-lts"]).unwrap(), moves);
        }
        for empty in [None, Some(&b""[..])] {
            assert_eq!(connection_in(empty, "{}", &[]).unwrap(), ["", "ssh"]);
        }
        let open = connection_in(Some(b"ssh 'x"), "{}", &[]).unwrap_err();
        assert!(open.contains("RSYNC_RSH"), "{open}");
        // The configuration takes precedence over the environment, for rsync and for moves.
        assert_eq!(
            connection_in(told, "{}", &["--rsh=/b/ssh -4"]).unwrap(),
            ["", "/b/ssh", "-4"]
        );
        assert_eq!(
            connection_in(told, "{ port = 9 }", &[]).unwrap(),
            ["--rsh=ssh -p 9", "ssh", "-p", "9"]
        );
        assert_eq!(
            connection_in(told, "{ binary = '/opt/ssh' }", &[]).unwrap(),
            ["", "/opt/ssh"]
        );
    }

    #[test]
    fn wrong_values_are_named() {
        for (ssh, text) in [
            ("{ options = 'Port=22' }", "\"ssh.options\" must be a table"),
            (
                "{ options = { Compression = true } }",
                "\"ssh.options.Compression\"",
            ),
            ("{ _extra = 5 }", "\"ssh._extra\" must be a list"),
            ("{ port = {} }", "\"ssh.port\""),
        ] {
            assert!(connection(ssh, &[]).unwrap_err().contains(text), "{ssh}");
        }
    }
}
