//! The daemon process, from the command line to the exit code.
//!
//! * `event_loop`: a turn of the event loop, and the way from and to its components;
//! * `context`: the state beyond a configuration;
//! * `watching`: the watched side, from the kernel to the queues; its components:
//! * `event_router`: watcher events to the queues of syncs;
//! * `source_monitor`, `sources`: lost sources;
//! * `source_monitor_tests`: tests of the former;
//! * `watch_limit`: missing watches;
//! * `sending`: the sending side, from the queues to processes and back; its components:
//! * `dispatcher`: calls of the actions of due syncs;
//! * `comparison_progress`: log lines about comparisons that take long;
//! * `rsync_probe`: abilities of rsync binaries;
//! * `reload`, `shutdown`, `onepass`, `startup_progress`: the stages of a configuration;
//! * `report`: the reported state;
//! * `inspect`: `-check`, `-explain` and `-preview`;
//! * `init`: `-init`;
//! * `os`: detaching, pid file, signals, service manager.
//!
//! The room may call all others, and none calls it. Nothing on the loop's thread may block or take
//! long; such work runs in child processes and threads.

mod comparison_progress;
mod context;
mod dispatcher;
mod event_loop;
mod event_router;
mod init;
mod inspect;
mod onepass;
pub mod os;
mod reload;
mod report;
mod rsync_probe;
mod sending;
mod shutdown;
mod source_monitor;
mod sources;
mod startup_progress;
mod watch_limit;
mod watching;

use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;

use nix::errno::Errno;

use self::context::Context;
use self::event_loop::EventLoop;
use self::os::detach;
use self::os::pid_file::PidFile;
use self::os::signals;
use self::os::systemd::Systemd;
use crate::cli::{self, Invocation, Options};
use crate::config::Settings;
use crate::exit::Exit;
use crate::log;
use crate::script::{Environment, LoadError, Script};
use crate::state::{self, StateDir};
use crate::sync::Backoff;
use crate::watch::Watcher;

/// Runs the program with the words behind its name.
pub fn main(words: impl IntoIterator<Item = OsString>) -> Exit {
    signals::hold();
    let request = cli::parse(words);
    if !matches!(request, Ok(Invocation::Run(_))) {
        signals::release();
    }
    match request {
        Ok(Invocation::Help) => {
            print!("{}", cli::help());
            Exit::Failure
        }
        Ok(Invocation::Monitors) => {
            print!("{}", cli::monitors());
            Exit::Failure
        }
        Ok(Invocation::Version) => {
            println!("Version: {}", crate::VERSION);
            Exit::Done
        }
        Ok(Invocation::Keys) => {
            println!("{}", crate::config::keys::schema());
            Exit::Done
        }
        Ok(Invocation::Inspect(options, what)) => {
            log::install(options.log.clone(), None);
            advise(&options);
            inspect::inspect(*options, &what)
        }
        Ok(Invocation::Init(options, words)) => {
            log::install(options.log.clone(), None);
            init::init(*options, words)
        }
        Ok(Invocation::Run(options)) => {
            let modules = std::env::var("RUST_LOG").ok();
            log::install(options.log.clone(), modules.as_deref());
            advise(&options);
            let (exit, reason) = match mirror(*options) {
                Ok(exit) => (exit, log::last_error()),
                Err(failure) => {
                    failure.lines.iter().for_each(log::error);
                    let first = failure.lines.into_iter().next();
                    (failure.exit, first.unwrap_or_default())
                }
            };
            if exit == Exit::Failure {
                Systemd::from_environment().failed(&reason);
            }
            crate::process::wait_for_closed_sockets();
            ::log::logger().flush();
            exit
        }
        Err(error) => {
            log::install(Default::default(), None);
            log::error(error);
            Exit::Failure
        }
    }
}

/// Logs words of the command line that have no effect.
fn advise(options: &Options) {
    if options.runner.is_some() {
        log::warn(
            "-runner is ignored: in lsyncd 2 it replaced the Lua part, which is built in here. \
             To run Lua before the configuration, use -script.",
        );
    }
    let over_ssh = |sync: &cli::SyncOption| matches!(sync, cli::SyncOption::Rsyncssh(..));
    if !options.ssh_options.is_empty() && !options.syncs.iter().any(over_ssh) {
        log::warn(
            "-sshopts is for -rsyncssh only. In a configuration, write ssh = { _extra = { ... } }.",
        );
    }
}

fn failure(text: impl ToString) -> LoadError {
    LoadError {
        lines: vec![text.to_string()],
        exit: Exit::Failure,
    }
}

/// Loads the configuration, detaches unless disabled, and mirrors until the end.
fn mirror(options: Options) -> Result<Exit, LoadError> {
    let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let environment = Environment { options, directory };
    let mut context = Context::new().map_err(|error| failure(format!("cannot start: {error}")))?;
    let script = Script::load(&environment, &context.children, context.clock, Vec::new())?;
    if !environment.options.has_work() {
        print!("{}", cli::help());
        return Ok(Exit::Failure);
    }
    if script.syncs().is_empty() {
        return Err(failure("Nothing to watch!"));
    }

    let pid_file = start(&script.settings, &environment.options)?;
    context.open_state(&script.settings);
    if let Some(state) = &context.state {
        adopt_state(state, &script);
    }
    let temporary = temporary_state(&environment.options, &script);
    let exit = match context.open_server(&script.settings) {
        Ok(()) => work(&environment, &mut context, script),
        Err(text) => Err(failure(text)),
    };
    context.history.finish();
    context.reports.finish();
    if let Some(state) = &context.state {
        state::remove_all(state.path(), temporary.iter().map(String::as_str));
    }
    if let Some(pid_file) = pid_file {
        pid_file.remove();
    }
    exit
}

/// Finds the state of syncs that had another name.
fn adopt_state(state: &StateDir, script: &Script) {
    let syncs = script.syncs();
    let syncs: Vec<_> = syncs.iter().map(|handle| handle.sync.borrow()).collect();
    let configs: Vec<_> = syncs.iter().map(|sync| &sync.config).collect();
    state.adopt_renamed(&configs);
}

/// The state directories that do not outlive the process: those of syncs that are in no
/// configuration but on the command line.
fn temporary_state(options: &Options, script: &Script) -> Vec<String> {
    if options.config.is_some() || !options.scripts.is_empty() {
        return Vec::new();
    }
    let syncs = script.syncs();
    let keys = syncs.iter().map(|m| state::key(&m.sync.borrow().config));
    keys.collect()
}

/// Mirrors until the end.
fn work(
    environment: &Environment,
    context: &mut Context,
    script: Script,
) -> Result<Exit, LoadError> {
    let watcher = new_watcher(context, &script, script.settings.insist)?;
    script.run()?;
    Ok(EventLoop::new(context, environment, Rc::new(script), watcher).run())
}

/// Returns a watcher for a configuration. With `patient`, it waits for an inotify instance while
/// the user has too many.
///
/// # Errors
///
/// inotify_init(2) failed, or a signal has ended the wait; that is not an error to be logged.
fn new_watcher(
    context: &mut Context,
    script: &Script,
    patient: bool,
) -> Result<Watcher, LoadError> {
    let mut waits = Backoff::new(None);
    loop {
        let error = match context.watcher(
            script.settings.watch,
            script.mode(),
            script.settings.max_staleness,
        ) {
            Ok(watcher) => return Ok(watcher),
            Err(error) => error,
        };
        let number = error.raw_os_error().unwrap_or_default();
        let reason = log::reason(&error);
        let mut problem = failure(format!(
            "Cannot access inotify monitor! ( {number} : {reason} )"
        ));
        if number == Errno::EMFILE as i32 {
            let advice = "Consider increasing the sysctl fs.inotify.max_user_instances";
            problem.lines.push(advice.into());
        }
        if !patient {
            return Err(problem);
        }
        let wait = waits.fail();
        problem
            .lines
            .push(format!("Trying again in {} s.", wait.as_secs()));
        problem.lines.iter().for_each(log::error);
        if let Some(signal) = context.sleep(wait) {
            return Err(LoadError {
                lines: Vec::new(),
                exit: Exit::Signal(signal),
            });
        }
    }
}

/// Writes the line every log begins with, detaches and writes the pid file.
fn start(settings: &Settings, options: &Options) -> Result<Option<PidFile>, LoadError> {
    select(settings, options);
    open_log(settings, true)?;
    if settings.nodaemon {
        log::normal("--- Startup ---");
        return Ok(None);
    }
    log::normal("--- Startup, daemonizing ---");
    open_log(settings, false)?;
    detach::detach().map_err(|error| failure(format!("cannot detach: {error}")))?;
    let Some(path) = &settings.pid_file else {
        return Ok(None);
    };
    PidFile::acquire(path).map(Some).map_err(failure)
}

/// Selects the log messages from the settings and the command line, which has precedence.
fn select(settings: &Settings, options: &Options) {
    let mut selection = log::Selection::default();
    for word in &settings.log {
        // Invalid words were refused with the configuration.
        let _ = selection.add(word);
    }
    selection.merge(options.log.clone());
    log::install(selection, None);
    log::say("Debug", format_args!("settings: {settings:?}"));
}

fn open_log(settings: &Settings, console: bool) -> Result<(), LoadError> {
    let to_syslog = !settings.nodaemon && settings.log_file.is_none();
    log::open(log::Channels {
        console,
        file: settings.log_file.clone(),
        json: settings.log_json,
        syslog: to_syslog.then(|| log::Syslog {
            ident: settings
                .log_ident
                .clone()
                .unwrap_or_else(|| "lsyncd".into()),
            facility: settings.log_facility,
        }),
    })
    .map_err(failure)
}
