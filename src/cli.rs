//! lsyncd's command line: long options with one dash or two, no short ones, no `--opt=value`.
//!
//! The words are hand-parsed because no argument library reads single-dash long
//! options. Parsing stops at the first trouble, left to right.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::config::nearest;
use crate::log::Selection;

/// The version shown by `-version`, `-help` and `lsyncd_version`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The request of a command line.
#[derive(Debug, PartialEq)]
pub enum Request {
    /// Print the help text; exit 255, as lsyncd does.
    Help,
    /// Print the version; exit 0.
    Version,
    /// Print all keys of a configuration; exit 0.
    Keys,
    /// Print the supported monitors; exit 255.
    Monitors,
    /// Run the daemon.
    Run(Box<Options>),
    /// Load the configuration and answer a question about it.
    Inspect(Box<Options>, Inspect),
}

/// A question about a configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum Inspect {
    /// `-check`: report problems, watched directories and destinations.
    Check {
        /// `-json`: answer in JSON.
        json: bool,
        /// `-connect`: test the targets as well.
        connect: bool,
    },
    /// `-explain PATH`: report the syncs and rules that apply to a path.
    Explain(OsString),
    /// `-preview`: report what the first transfers would do.
    Preview {
        /// `-json`: answer in JSON.
        json: bool,
        /// `-all`: name all files.
        all: bool,
    },
}

/// The options of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// The configuration file, relative to the start directory.
    pub config: Option<PathBuf>,
    /// Syncs of the command line, in order. Excludes a configuration file.
    pub syncs: Vec<SyncOption>,
    /// Lua files to run before the configuration, in order.
    pub scripts: Vec<PathBuf>,
    /// The log categories.
    pub log: Selection,
    /// `-delay`, as text in Lua's number syntax.
    pub delay: Option<OsString>,
    /// `-insist`.
    pub insist: bool,
    /// `-logfile`.
    pub logfile: Option<OsString>,
    /// `-monitor NAME`, for syncs made on the command line.
    pub monitor: Option<OsString>,
    /// `-nodaemon`.
    pub nodaemon: bool,
    /// `-onepass`.
    pub onepass: bool,
    /// `-pidfile`.
    pub pidfile: Option<OsString>,
    /// `-runner`: accepted for compatibility and ignored.
    pub runner: Option<OsString>,
    /// `-sshopts`: arguments of ssh for `-rsyncssh` syncs.
    pub ssh_options: Vec<Vec<u8>>,
}

impl Options {
    /// Returns true if there is a configuration file or a sync. Otherwise the `-script` files run
    /// and the help text follows.
    pub fn has_work(&self) -> bool {
        self.config.is_some() || !self.syncs.is_empty()
    }
}

/// A sync of the command line.
#[derive(Clone, Debug, PartialEq)]
pub enum SyncOption {
    /// `-direct SRC TRG`
    Direct(OsString, OsString),
    /// `-rsync SRC TRG`
    Rsync(OsString, OsString),
    /// `-rsyncssh SRC HOST TARGETDIR`
    Rsyncssh(OsString, OsString, OsString),
}

/// An invalid command line. The texts are lsyncd's.
#[derive(Debug, PartialEq)]
pub enum Error {
    /// An unknown option, as given.
    Unknown(OsString),
    /// An option without its arguments: its name without dashes and their number.
    Missing(&'static str, usize),
    /// Both a configuration file and a sync option such as `-rsync`.
    SyncsAndConfig,
    /// More than one configuration file.
    TwoConfigs,
    /// `-json` without `-check` or `-preview`.
    OnlyJson,
    /// `-all` without `-preview`.
    OnlyAll,
    /// `-connect` without `-check`.
    OnlyConnect,
    /// An unknown category of `-log`.
    Category(String),
}

/// The names of all options, those first that are meant most often.
const OPTIONS: &[&str] = &[
    "version", "nodaemon", "help", "log", "insist", "delay", "rsync", "pidfile", "logfile",
    "check", "explain", "onepass", "direct", "rsyncssh", "script", "sshopts", "json", "keys",
    "monitor", "preview", "all", "connect",
];

/// Returns the option that a word was most likely meant to be.
fn similar_option(word: &str) -> Option<&'static str> {
    let name = word.to_ascii_lowercase().replace(['-', '_'], "");
    let name = name.split('=').next().filter(|name| !name.is_empty())?;
    let mut options = OPTIONS.iter().copied();
    let begins = options.find(|option| option.starts_with(name));
    let similar = || nearest(name, OPTIONS.iter().copied());
    let part = || OPTIONS.iter().copied().find(|option| option.contains(name));
    begins.or_else(similar).or_else(part)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unknown(word) => {
                write!(f, "unknown option command line option {}", word.display())?;
                match similar_option(&word.to_string_lossy()) {
                    Some(option) => write!(f, "\n      Did you mean -{option}?"),
                    None => Ok(()),
                }
            }
            Error::Missing(option, count) => write!(f, "{option} needs {count} arguments"),
            Error::SyncsAndConfig => {
                f.write_str("There cannot be command line syncs and a config file together.")
            }
            Error::TwoConfigs => {
                f.write_str("There can only be one config file in the command line.")
            }
            Error::OnlyJson => f.write_str("-json goes with -check and -preview only."),
            Error::OnlyConnect => f.write_str("-connect goes with -check only."),
            Error::OnlyAll => f.write_str("-all goes with -preview only."),
            Error::Category(word) => f.write_str(word),
        }
    }
}

impl std::error::Error for Error {}

/// Parses the arguments of the program.
///
/// # Errors
///
/// The first error. An invalid category of `-log` anywhere takes precedence over `-help`, and
/// `-help` anywhere over other errors.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Request, Error> {
    let words: Vec<OsString> = words.into_iter().collect();
    let log = categories(&words)?;
    if words.iter().any(|word| option_name(word) == Some(b"help")) {
        return Ok(Request::Help);
    }
    let mut options = Options {
        log,
        ..Options::default()
    };
    let (mut json, mut all, mut connect, mut inspect) = (false, false, false, None);
    let mut rest = words.into_iter().peekable();
    while let Some(word) = rest.next() {
        let Some(name) = option_name(&word) else {
            take_config(&mut options, word)?;
            continue;
        };
        let mut next = |option, count| take(&mut rest, option, count);
        match name {
            b"all" => all = true,
            b"check" => {
                inspect = Some(Inspect::Check {
                    json: false,
                    connect: false,
                });
            }
            b"connect" => connect = true,
            b"delay" => options.delay = next("delay", 1)?.pop(),
            b"direct" => {
                let [source, target] = pair(next("direct", 2)?);
                add_sync(&mut options, SyncOption::Direct(source, target))?;
            }
            b"explain" => inspect = next("explain", 1)?.pop().map(Inspect::Explain),
            b"insist" => options.insist = true,
            b"json" => json = true,
            b"keys" => return Ok(Request::Keys),
            b"log" => drop(next("log", 1)?),
            b"logfile" => options.logfile = next("logfile", 1)?.pop(),
            b"monitor" => match rest.next() {
                Some(monitor) => options.monitor = Some(monitor),
                None => return Ok(Request::Monitors),
            },
            b"nodaemon" => options.nodaemon = true,
            b"onepass" => options.onepass = true,
            b"pidfile" => options.pidfile = next("pidfile", 1)?.pop(),
            b"preview" => {
                inspect = Some(Inspect::Preview {
                    json: false,
                    all: false,
                });
            }
            b"rsync" => {
                let [source, target] = pair(next("rsync", 2)?);
                add_sync(&mut options, SyncOption::Rsync(source, target))?;
            }
            b"rsyncssh" => {
                let mut words = next("rsyncssh", 3)?;
                let directory = words.pop().unwrap_or_default();
                let [source, host] = pair(words);
                add_sync(&mut options, SyncOption::Rsyncssh(source, host, directory))?;
            }
            b"runner" => options.runner = next("runner", 1)?.pop(),
            b"script" => options
                .scripts
                .extend(next("script", 1)?.into_iter().map(PathBuf::from)),
            b"sshopts" => {
                for word in next("sshopts", 1)? {
                    options.ssh_options = split_quoted(word.as_bytes());
                }
            }
            b"version" => return Ok(Request::Version),
            _ => return Err(Error::Unknown(word)),
        }
    }
    let runs_scripts =
        !options.scripts.is_empty() && inspect.is_none() && !json && !all && !connect;
    if !options.has_work() && !runs_scripts {
        return Ok(Request::Help);
    }
    let inspect = match inspect {
        Some(Inspect::Check { .. }) if !all => Some(Inspect::Check { json, connect }),
        _ if connect => return Err(Error::OnlyConnect),
        Some(Inspect::Preview { .. }) => Some(Inspect::Preview { json, all }),
        _ if all => return Err(Error::OnlyAll),
        _ if json => return Err(Error::OnlyJson),
        other => other,
    };
    let options = Box::new(options);
    Ok(match inspect {
        Some(inspect) => Request::Inspect(options, inspect),
        None => Request::Run(options),
    })
}

/// Returns the log categories. As in lsyncd, `-log` is looked for in all words.
fn categories(words: &[OsString]) -> Result<Selection, Error> {
    let mut log = Selection::default();
    for pair in words.windows(2) {
        if option_name(&pair[0]) == Some(b"log") {
            log.add(&pair[1].to_string_lossy())
                .map_err(|error| Error::Category(error.to_string()))?;
        }
    }
    Ok(log)
}

/// Returns the name after one or two dashes; `None` if the word is no option.
fn option_name(word: &OsStr) -> Option<&[u8]> {
    let bytes = word.as_bytes();
    let name = bytes.strip_prefix(b"-")?;
    Some(name.strip_prefix(b"-").unwrap_or(name))
}

fn take(
    rest: &mut impl Iterator<Item = OsString>,
    option: &'static str,
    count: usize,
) -> Result<Vec<OsString>, Error> {
    let words: Vec<OsString> = rest.take(count).collect();
    if words.len() < count {
        return Err(Error::Missing(option, count));
    }
    Ok(words)
}

fn pair(words: Vec<OsString>) -> [OsString; 2] {
    let mut words = words.into_iter();
    [
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    ]
}

fn take_config(options: &mut Options, word: OsString) -> Result<(), Error> {
    if !options.syncs.is_empty() {
        return Err(Error::SyncsAndConfig);
    }
    if options.config.is_some() {
        return Err(Error::TwoConfigs);
    }
    options.config = Some(PathBuf::from(word));
    Ok(())
}

fn add_sync(options: &mut Options, sync: SyncOption) -> Result<(), Error> {
    if options.config.is_some() {
        return Err(Error::SyncsAndConfig);
    }
    options.syncs.push(sync);
    Ok(())
}

/// Splits a text at white space. `'` and `"` group words if they are at the edges of a word, and
/// are removed (the rule of `-sshopts` and of `lsyncd.splitQuotedString`). White space within
/// quotes becomes one blank.
pub fn split_quoted(text: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut pieces = text
        .split(|&byte| is_space(byte))
        .filter(|piece| !piece.is_empty());
    while let Some(piece) = pieces.next() {
        let quote = piece[0];
        if !matches!(quote, b'\'' | b'"') {
            words.push(piece.to_vec());
            continue;
        }
        let mut word = piece[1..].to_vec();
        let mut closed = word.last() == Some(&quote);
        while !closed {
            let Some(more) = pieces.next() else {
                println!(
                    "Missing matching quote for {}",
                    OsString::from_vec(piece.to_vec()).display()
                );
                break;
            };
            word.push(b' ');
            word.extend_from_slice(more);
            closed = word.last() == Some(&quote);
        }
        if closed {
            word.pop();
        }
        words.push(word);
    }
    words
}

/// Returns true for white space of isspace(3) in the C locale.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'\x0b'
}

/// Returns the text of `-help`.
pub fn help() -> String {
    format!(
        "\
lsyncd version: {VERSION}

USAGE:
  mirror as a configuration file says:
    lsyncd [OPTIONS] CONFIG

  mirror with rsync:
    lsyncd [OPTIONS] -rsync SRC TRG

  mirror with rsync, and rename on the target over ssh:
    lsyncd [OPTIONS] -rsyncssh SRC HOST TARGETDIR

  mirror between local directories:
    lsyncd [OPTIONS] -direct SRC TRG

OPTIONS:
  -all             with -preview: print all names
  -check           load the configuration, print its syncs, and exit
  -connect         with -check: log in at the targets, test rsync and directories
  -delay SECS      set the delay of every sync; overrides the configuration
  -explain PATH    print the target of this path and the rule that decides
  -help            print this text
  -insist          retry failed startup transfers instead of exiting
  -json            with -check and -preview: print JSON
  -keys            print all configuration keys as JSON, and exit
  -log all         log everything
  -log scarce      log warnings and errors only
  -log CATEGORY    also log this category
  -logfile FILE    log to this file
  -monitor [NAME]  select the event monitor; without a name, list them
  -nodaemon        stay in the foreground and log to the terminal
  -onepass         run the startup transfers, then exit
  -pidfile FILE    write the daemon's process id to this file
  -preview         print what the first transfers would send, change and
                   delete, and change nothing
  -runner FILE     accepted and ignored, for compatibility
  -script FILE     run this Lua file before the configuration
  -sshopts WORDS   options for the ssh of -rsyncssh
  -version         print the version

LICENSE:
  GPLv2 (GNU General Public License, version 2) or any later version.

SEE:
  man lsyncd, man lsyncd.conf.lua, man lsyncdctl
"
    )
}

/// Returns the text of `-monitor` without a name.
pub fn monitors() -> &'static str {
    "This build supports these event monitors:\n   inotify\n\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Result<Request, Error> {
        parse(words.iter().map(OsString::from))
    }

    fn options(words: &[&str]) -> Options {
        match run(words) {
            Ok(Request::Run(options)) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_may_follow_the_configuration_with_one_dash_or_two() {
        let options = options(&["c.lua", "--nodaemon", "-delay", "0.5", "-pidfile", "/p"]);
        assert_eq!(options.config, Some("c.lua".into()));
        assert!(options.nodaemon);
        assert_eq!(options.delay, Some("0.5".into()));
        assert_eq!(options.pidfile, Some("/p".into()));
    }

    #[test]
    fn syncs_are_kept_in_order() {
        let options = options(&["-rsync", "a", "b", "--rsyncssh", "c", "h", "d"]);
        assert_eq!(
            options.syncs,
            [
                SyncOption::Rsync("a".into(), "b".into()),
                SyncOption::Rsyncssh("c".into(), "h".into(), "d".into()),
            ]
        );
    }

    #[test]
    fn help_wins_over_everything_and_no_work_means_help() {
        assert_eq!(run(&["-foo", "-version", "-help"]), Ok(Request::Help));
        assert_eq!(run(&[]), Ok(Request::Help));
        assert_eq!(run(&["-nodaemon"]), Ok(Request::Help));
        assert_eq!(run(&["-script", "s", "-check"]), Ok(Request::Help));
        assert_eq!(run(&["-explain", "/", "-script", "s"]), Ok(Request::Help));
        assert!(!options(&["-script", "s", "-nodaemon"]).has_work());
        assert!(options(&["-script", "s", "c"]).has_work());
    }

    #[test]
    fn the_first_trouble_stops() {
        let text = |words: &[&str]| run(words).unwrap_err().to_string();
        assert_eq!(
            text(&["-foo", "-bar"]),
            "unknown option command line option -foo"
        );
        assert_eq!(text(&["-rsync", "a"]), "rsync needs 2 arguments");
        assert_eq!(text(&["-logfile"]), "logfile needs 1 arguments");
        assert_eq!(
            text(&["c", "-rsync", "a", "b"]),
            "There cannot be command line syncs and a config file together."
        );
        assert_eq!(
            text(&["c", "d"]),
            "There can only be one config file in the command line."
        );
        assert_eq!(
            text(&["---nodaemon"]),
            "unknown option command line option ---nodaemon\n      Did you mean -nodaemon?"
        );
        for words in [
            &["-log", "foo", "c"][..],
            &["-foo", "--log", "foo"],
            &["-help", "-log", "foo"],
        ] {
            assert_eq!(text(words), "'foo' is not a valid logging category");
        }
        assert_eq!(
            text(&["-foo", "-log"]),
            "unknown option command line option -foo"
        );
        assert_eq!(text(&["c", "-log"]), "log needs 1 arguments");
    }

    #[test]
    fn options_that_do_not_exist_lead_to_those_that_do() {
        for (word, option) in [
            ("-v", "version"),
            ("-n", "nodaemon"),
            ("-pid", "pidfile"),
            ("-daemon", "nodaemon"),
            ("--nodeamon", "nodaemon"),
            ("--delay=5", "delay"),
            ("--log-file", "logfile"),
            ("-V", "version"),
        ] {
            assert_eq!(similar_option(word), Some(option), "{word}");
        }
        for word in ["-foo", "-", "--", "-config"] {
            assert_eq!(similar_option(word), None, "{word}");
        }
    }

    #[test]
    fn quotes_group_words() {
        let words = |text: &str| split_quoted(text.as_bytes());
        assert_eq!(words("-p  22"), [b"-p".to_vec(), b"22".to_vec()]);
        assert_eq!(words("'a b' c"), [b"a b".to_vec(), b"c".to_vec()]);
        assert_eq!(words("x'y z'"), [b"x'y".to_vec(), b"z'".to_vec()]);
        assert_eq!(words("\t\n\r\x0b\x0c "), Vec::<Vec<u8>>::new());
        for space in [" ", "\t", "\n", "\r", "\x0b", "\x0c", " \t\n"] {
            let text = format!("{space}-p{space}22{space}'a{space}b'{space}\"{space}c\"{space}");
            let parts = [&b"-p"[..], b"22", b"a b", b" c"];
            assert_eq!(words(&text), parts, "{space:?}");
        }
    }
}
