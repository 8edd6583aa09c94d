//! lsyncd's command line: long options with one dash or two, no short ones, no `--opt=value`.
//!
//! The command line is parsed here because argument libraries do not support long options with one
//! dash. Parsing stops at the first error.
//!
//! * `error`: an invalid command line;
//! * `help`: the texts of `-help` and `-monitor`.

mod error;
mod help;

pub use error::Error;
pub use help::{help, monitors};

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::log::Selection;

/// The request of a command line.
#[derive(Debug, PartialEq)]
pub enum Invocation {
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
    /// Write a configuration.
    Init(Box<Options>, Init),
}

/// The words of `-init`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Init {
    /// Source and target; without them, questions are asked.
    pub directories: Option<[OsString; 2]>,
    /// The file to write.
    pub config: Option<PathBuf>,
    /// `-delete`: files on the target that are not in the source are deleted.
    pub delete: bool,
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

impl Inspect {
    /// Returns the name of the option, without its dash.
    fn option(&self) -> &'static str {
        match self {
            Inspect::Check { .. } => "check",
            Inspect::Explain(_) => "explain",
            Inspect::Preview { .. } => "preview",
        }
    }
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

/// Parses the arguments of the program.
///
/// # Errors
///
/// The first error. An invalid category of `-log` anywhere takes precedence over `-help`, and
/// `-help` anywhere over other errors.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Invocation, Error> {
    let words: Vec<OsString> = words.into_iter().collect();
    let log = categories(&words)?;
    if words.iter().any(|word| option_name(word) == Some(b"help")) {
        return Ok(Invocation::Help);
    }
    let mut options = Options {
        log,
        ..Options::default()
    };
    let (mut json, mut all, mut connect, mut inspect) = (false, false, false, None);
    let (mut init, mut delete) = (None, false);
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
            b"delete" => delete = true,
            b"delay" => options.delay = next("delay", 1)?.pop(),
            b"direct" => {
                let [source, target] = pair(next("direct", 2)?);
                add_sync(&mut options, SyncOption::Direct(source, target))?;
            }
            b"explain" => inspect = next("explain", 1)?.pop().map(Inspect::Explain),
            b"init" => init = Some(init_words(&mut rest)?),
            b"insist" => options.insist = true,
            b"json" => json = true,
            b"keys" => return Ok(Invocation::Keys),
            b"log" => drop(next("log", 1)?),
            b"logfile" => options.logfile = next("logfile", 1)?.pop(),
            b"monitor" => match rest.next() {
                Some(monitor) => options.monitor = Some(monitor),
                None => return Ok(Invocation::Monitors),
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
            b"version" => return Ok(Invocation::Version),
            _ => return Err(Error::Unknown(word)),
        }
    }
    if let Some(init) = init {
        if options.has_work() || inspect.is_some() {
            return Err(Error::InitAlone);
        }
        return Ok(Invocation::Init(Box::new(options), Init { delete, ..init }));
    }
    if delete {
        return Err(Error::OnlyDelete);
    }
    let runs_scripts =
        !options.scripts.is_empty() && inspect.is_none() && !json && !all && !connect;
    if !options.has_work() && !runs_scripts {
        return match inspect {
            Some(inspect) => Err(Error::NothingToInspect(inspect.option())),
            None => Ok(Invocation::Help),
        };
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
        Some(inspect) => Invocation::Inspect(options, inspect),
        None => Invocation::Run(options),
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

/// Returns the name after one or two dashes; `None` if the word is not an option.
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

/// Takes the words up to the next option.
fn init_words(
    rest: &mut std::iter::Peekable<impl Iterator<Item = OsString>>,
) -> Result<Init, Error> {
    let mut words = Vec::new();
    while let Some(word) = rest.next_if(|word| option_name(word).is_none()) {
        words.push(word);
    }
    if words.len() == 1 || words.len() > 3 {
        return Err(Error::InitWords);
    }
    let config = words.drain(2.min(words.len())..).next().map(PathBuf::from);
    Ok(Init {
        directories: words.try_into().ok(),
        config,
        delete: false,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Result<Invocation, Error> {
        parse(words.iter().map(OsString::from))
    }

    fn options(words: &[&str]) -> Options {
        match run(words) {
            Ok(Invocation::Run(options)) => *options,
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
        assert_eq!(run(&["-foo", "-version", "-help"]), Ok(Invocation::Help));
        assert_eq!(run(&[]), Ok(Invocation::Help));
        assert_eq!(run(&["-nodaemon"]), Ok(Invocation::Help));
        let nothing = |option| Err(Error::NothingToInspect(option));
        assert_eq!(run(&["-check"]), nothing("check"));
        assert_eq!(run(&["-script", "s", "-check"]), nothing("check"));
        assert_eq!(run(&["-explain", "/", "-script", "s"]), nothing("explain"));
        assert_eq!(run(&["-preview", "-all"]), nothing("preview"));
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
    fn init_takes_source_target_and_file() {
        let init = |words: &[&str]| match run(words) {
            Ok(Invocation::Init(options, init)) => (options, init),
            other => panic!("{other:?}"),
        };
        assert_eq!(init(&["-init"]).1, Init::default());
        let (options, given) = init(&["-delay", "2", "-init", "s", "t", "c.lua", "-delete"]);
        assert_eq!(options.delay, Some("2".into()));
        let expected = Init {
            directories: Some(["s".into(), "t".into()]),
            config: Some("c.lua".into()),
            delete: true,
        };
        assert_eq!(given, expected);
        assert_eq!(run(&["-init", "s"]), Err(Error::InitWords));
        assert_eq!(run(&["-init", "s", "t", "c", "d"]), Err(Error::InitWords));
        assert_eq!(run(&["c", "-init", "s", "t"]), Err(Error::InitAlone));
        assert_eq!(run(&["-init", "-check"]), Err(Error::InitAlone));
        assert_eq!(run(&["c", "-delete"]), Err(Error::OnlyDelete));
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
