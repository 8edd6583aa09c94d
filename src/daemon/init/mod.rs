//! `-init`: asks for source and target, tests them, and writes a configuration.
//!
//! * `questions`: questions on standard output, answers from standard input;
//! * `answers`: checks of source, target and file;
//! * `template`: the text of the configuration;
//! * `new_file`: the file. No file is overwritten, and none is written before the test.
//!
//! With source and target on the command line nothing is asked; options replace defaults.

mod answers;
mod new_file;
mod questions;
mod template;

use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use self::answers::{Answers, Destination};
use self::new_file::NewFile;
use self::questions::Questions;
use super::inspect;
use crate::cli::{Init, Options};
use crate::config::parse_number;
use crate::exit::Exit;
use crate::log::{self, escape};
use crate::safe_path::ScratchDir;

/// The default delay of a sync in seconds.
const DELAY: f64 = 5.0;

/// Writes a configuration.
pub fn init(options: Options, words: Init) -> Exit {
    match Dialogue::new(options).and_then(|dialogue| dialogue.run(words)) {
        Ok(exit) => exit,
        Err(text) => {
            log::error(text);
            Exit::Failure
        }
    }
}

/// The common state of all questions.
struct Dialogue {
    options: Options,
    delay: f64,
    directory: PathBuf,
    questions: Questions<io::StdinLock<'static>>,
}

impl Dialogue {
    fn new(options: Options) -> Result<Dialogue, String> {
        let delay = match &options.delay {
            None => DELAY,
            Some(text) => parse_number(&text.to_string_lossy())
                .filter(|delay| *delay >= 0.0)
                .ok_or_else(|| format!("-delay needs a number, not '{}'", text.display()))?,
        };
        let directory = std::env::current_dir()
            .map_err(|error| format!("the current directory: {}", log::reason(&error)))?;
        Ok(Dialogue {
            options,
            delay,
            directory,
            questions: Questions::new(io::stdin().lock()),
        })
    }

    fn run(mut self, words: Init) -> Result<Exit, String> {
        let is_asking = words.directories.is_none();
        let (answers, mut file) = match &words.directories {
            Some([source, target]) => self.given(source.as_bytes(), target.as_bytes(), &words)?,
            None => self.asked(&words)?,
        };
        let is_plain = matches!(answers.destination, Destination::Plain(_));
        if is_plain && !answers.ssh_words.is_empty() {
            log::warn("-sshopts is for a target HOST:DIRECTORY only.");
        }
        let text = template::configuration(&answers);
        let exit = self.test(&file, &text)?;
        if exit != Exit::Done {
            let question = "Write the configuration nevertheless?";
            if !is_asking || !self.questions.yes_or_no(question)? {
                return Err(format!(
                    "The target cannot be used yet, so {} is not written.",
                    file.shown()
                ));
            }
        }
        file.write(&text)?;
        print!("{}", next_steps(file.path()));
        Ok(exit)
    }

    /// The answers of the command line.
    fn given(
        &self,
        source: &[u8],
        target: &[u8],
        words: &Init,
    ) -> Result<(Answers, NewFile), String> {
        let answers = Answers {
            source: answers::source(source, &self.directory)?,
            destination: answers::destination(target, &self.directory)?,
            delete: words.delete,
            delay: self.delay,
            ssh_words: self.options.ssh_options.clone(),
            logfile: self.logfile(),
        };
        let path = match &words.config {
            Some(path) => self.directory.join(path),
            None => default_file(),
        };
        Ok((answers, prepare(&path)?))
    }

    /// The answers of the user.
    fn asked(&mut self, words: &Init) -> Result<(Answers, NewFile), String> {
        let directory = &self.directory;
        let questions = &mut self.questions;
        let source = questions.ask("Directory to mirror", "", |answer| {
            answers::source(&answers::without_tilde(answer), directory)
        })?;
        let question = "Target: a directory, or HOST:DIRECTORY";
        let destination = questions.ask(question, "", |answer| {
            answers::destination(&answers::without_tilde(answer), directory)
        })?;
        let question = "Delete files on the target that are not in the source?";
        let delete = words.delete || questions.yes_or_no(question)?;
        let mut ssh_words = self.options.ssh_options.clone();
        if ssh_words.is_empty() && matches!(destination, Destination::Shell { .. }) {
            let question = "Options for ssh, such as -i /root/.ssh/lsyncd; empty for none";
            ssh_words =
                questions.ask(question, "", |answer| Ok(crate::cli::split_quoted(answer)))?;
        }
        let default = words.config.clone().unwrap_or_else(default_file);
        let shown = escape(default.as_os_str().as_bytes()).into_owned();
        let file = questions.ask("File to write", &shown, |answer| {
            let path = if answer == shown.as_bytes() {
                default.clone()
            } else {
                PathBuf::from(std::ffi::OsString::from_vec(answers::without_tilde(answer)))
            };
            prepare(&directory.join(path))
        })?;
        let answers = Answers {
            source,
            destination,
            delete,
            delay: self.delay,
            ssh_words,
            logfile: self.logfile(),
        };
        Ok((answers, file))
    }

    /// The file of `-logfile`.
    fn logfile(&self) -> Option<Vec<u8>> {
        let given = self.options.logfile.as_ref()?;
        Some(self.directory.join(given).into_os_string().into_vec())
    }

    /// Prints the results of `-check -connect` for the configuration, which has not been written
    /// yet.
    fn test(&self, file: &NewFile, text: &str) -> Result<Exit, String> {
        println!("Testing the target ...");
        let failed = |error: io::Error| format!("a temporary file: {}", log::reason(&error));
        let scratch = ScratchDir::create(&std::env::temp_dir(), "lsyncd-init-").map_err(failed)?;
        let draft = scratch.path().join("lsyncd.conf.lua");
        let text = [file.text_before(), text.as_bytes()].concat();
        let written = fs::write(&draft, text).and_then(|()| fs::canonicalize(&draft));
        let loaded = written.map_err(failed).and_then(|draft| {
            let options = Options {
                config: Some(draft.clone()),
                nodaemon: true,
                log: self.options.log.clone(),
                ..Options::default()
            };
            inspect::load(options).map_err(|failure| {
                let text = failure.lines.join("\n");
                text.replace(&draft.display().to_string(), &file.shown())
            })
        });
        // An empty directory that is left does no harm.
        let _ = scratch.remove();
        let (text, exit) = inspect::connected(&loaded?);
        print!("{text}");
        Ok(exit)
    }
}

/// Returns the file. The directory of the service's configuration is created if it is missing.
fn prepare(path: &Path) -> Result<NewFile, String> {
    if let Some(directory) = path.parent().filter(|_| path == default_file()) {
        std::fs::create_dir_all(directory).map_err(|error| {
            format!(
                "{}: {}",
                escape(directory.as_os_str().as_bytes()),
                log::reason(&error)
            )
        })?;
    }
    NewFile::prepare(path)
}

/// Returns the configuration of the service of this user.
fn default_file() -> PathBuf {
    let file = "lsyncd/lsyncd.conf.lua";
    if rustix::process::geteuid().is_root() {
        return Path::new("/etc").join(file);
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(Path::new(&variable("HOME")?).join(".config")));
    base.unwrap_or_default().join(file)
}

/// Returns what to do with a configuration that was written.
fn next_steps(path: &Path) -> String {
    let shown = escape(path.as_os_str().as_bytes());
    let mut text = format!(
        "{shown} is written. Next:\n    \
         lsyncd -preview {shown}\n    \
         lsyncd -nodaemon {shown}\n"
    );
    if path == default_file() {
        let service = if rustix::process::geteuid().is_root() {
            "systemctl restart lsyncd"
        } else {
            "systemctl --user enable --now lsyncd"
        };
        text.push_str(&format!("or, as a service:\n    {service}\n"));
    }
    text
}
