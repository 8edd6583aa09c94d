//! The command line options `-check`, `-explain` and `-preview`.
//!
//! * `connect`: logins at the targets, for `-check -connect`;
//! * `explain`: the decision about one path, for `-explain`;
//! * `preflight`: files and programs that a start would fail to use;
//! * `preview`: the effects of the startup transfers, for `-preview`;
//! * `startup_call`: the startup transfer of a sync.
//!
//! The configuration is loaded as for a start, including its Lua code. No watch is set, no file is
//! written and no signal is sent. Processes are started for `-preview` and `-connect` only.

pub mod connect;
pub(super) mod explain;
mod preflight;
mod preview;
mod startup_call;

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::connect::ConnectResult;
pub(super) use self::connect::RsyncTarget;
use self::preflight::Programs;
use super::context::Context;
use super::watch_limit;
use crate::batch;
use crate::cli::{Inspect, Options};
use crate::config::Delete;
use crate::exit::Exit;
use crate::log;
use crate::log::escape;
use crate::script::{Environment, LoadError, Script, SyncHandle};
use crate::status::number_format::counted;
use crate::watch::WatchChoice;

/// Loads the configuration and writes the answer to standard output.
pub fn inspect(options: Options, what: &Inspect) -> Exit {
    let loaded = load(options);
    end_by_signals();
    let (text, exit) = match (what, loaded) {
        (Inspect::Check { json: true, .. } | Inspect::Preview { json: true, .. }, Err(failure)) => {
            (broken(&failure), failure.exit)
        }
        (_, Err(failure)) => {
            for line in &failure.lines {
                log::error(line);
            }
            return failure.exit;
        }
        (&Inspect::Check { json, connect }, Ok(loaded)) => checked(&loaded, json, connect),
        (Inspect::Explain(path), Ok(loaded)) => {
            (explain::explained(&loaded.script, path), Exit::Done)
        }
        (&Inspect::Preview { json, all }, Ok(loaded)) => previewed(&loaded.script, json, all),
    };
    // A reader that has closed the pipe is not an error.
    let _ = io::stdout().write_all(text.as_bytes());
    exit
}

/// Returns the answer to `-check -connect`, and the exit code.
pub(super) fn connected(loaded: &Loaded) -> (String, Exit) {
    end_by_signals();
    checked(loaded, false, true)
}

/// Restores the default action of the signals that end a program, which loading has changed.
fn end_by_signals() {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let is_on = Arc::new(AtomicBool::new(true));
        // It fails for a signal that has no default action only.
        let _ = signal_hook::flag::register_conditional_default(signal, is_on);
    }
}

/// Returns the previews of all syncs. A text is printed sync by sync: each may take long.
fn previewed(script: &Script, json: bool, all: bool) -> (String, Exit) {
    let mut previews = Vec::new();
    for handle in script.syncs() {
        let preview = preview::preview(script, &handle, all);
        if !json {
            let _ = io::stdout().write_all(preview.text().as_bytes());
        }
        previews.push(preview);
    }
    let ok = previews.iter().all(preview::Preview::is_ok);
    let exit = if ok { Exit::Done } else { Exit::Failure };
    if !json {
        return (preview::summary(&previews), exit);
    }
    let answer = Explanation::Preview {
        ok,
        syncs: previews,
    };
    (answer.line(), exit)
}

/// A loaded configuration with the problems found in it.
pub(super) struct Loaded {
    script: Script,
    /// Problems with the programs of each sync, in the order of the syncs.
    problems: Vec<Vec<String>>,
}

/// Loads the configuration, and looks for problems.
pub(super) fn load(options: Options) -> Result<Loaded, LoadError> {
    let directory = std::env::current_dir().unwrap_or_else(|_| "/".into());
    let environment = Environment { options, directory };
    let context =
        Context::new().map_err(|error| super::failure(format!("cannot start: {error}")))?;
    let script = Script::load(&environment, &context.children, context.clock, Vec::new())?;
    if script.syncs().is_empty() {
        return Err(super::failure("Nothing to watch!"));
    }
    // Layer 3 texts are parsed here and replaced by functions.
    let syncs = script.syncs();
    let problems = syncs
        .iter()
        .map(|handle| problems(&script, handle))
        .collect();
    script.run()?;
    Ok(Loaded { script, problems })
}

/// The maximum time in which the directories of all sources are counted.
const COUNT_TIME: Duration = Duration::from_secs(5);

/// The properties of one sync, for text and JSON output.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    name: String,
    kind: &'static str,
    source: String,
    target: Option<String>,
    delay: f64,
    delete: &'static str,
    filters: Vec<String>,
    excludes: Vec<String>,
    max_processes: usize,
    problems: Vec<String>,
    /// The result of `-connect`.
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<ConnectResult>,
}

fn facts(loaded: &Loaded) -> Vec<Facts> {
    let syncs = loaded.script.syncs();
    let pairs = syncs.iter().zip(&loaded.problems);
    pairs
        .map(|(handle, problems)| fact(&loaded.script, handle, problems.clone()))
        .collect()
}

fn fact(script: &Script, handle: &SyncHandle, problems: Vec<String>) -> Facts {
    let kind = script.kind(handle);
    let target = handle.destination();
    let sync = handle.sync.borrow();
    let filter = sync.filter.read().unwrap_or_else(PoisonError::into_inner);
    Facts {
        name: sync.config.name.clone(),
        kind: kind.unwrap_or("user"),
        source: escape(&sync.config.source).into_owned(),
        target: target.map(|target| escape(&target).into_owned()),
        delay: sync.config.delay.unwrap_or_default().as_secs_f64(),
        delete: match sync.config.delete {
            Delete::Always => "always",
            Delete::Never => "never",
            Delete::Startup => "at startup",
            Delete::Running => "while running",
        },
        filters: filter
            .rules()
            .map(|rule| escape(&rule).into_owned())
            .collect(),
        excludes: filter
            .excludes()
            .map(|text| escape(text).into_owned())
            .collect(),
        max_processes: sync.config.max_processes,
        problems,
        connection: None,
    }
}

/// Returns problems that are not configuration errors but prevent the sync from working.
fn problems(script: &Script, handle: &SyncHandle) -> Vec<String> {
    let programs = Programs::new(&script.settings);
    let wanted = script.programs(handle);
    let mut problems: Vec<String> = wanted
        .iter()
        .filter_map(|program| programs.problem(program))
        .collect();
    if matches!(script.kind(handle), Some("rsync" | "rsyncssh")) {
        let target = handle.destination();
        let local = target.as_deref().filter(|target| !batch::is_remote(target));
        let (rsync, ssh) = (script.rsync_options(handle), script.ssh_words(handle));
        problems.extend(preflight::of_transfers(&rsync, &ssh, local));
    }
    problems
}

/// Returns the answer to `-check`, and the exit code.
fn checked(loaded: &Loaded, json: bool, connect: bool) -> (String, Exit) {
    let mut facts = facts(loaded);
    if connect {
        for (fact, handle) in facts.iter_mut().zip(loaded.script.syncs()) {
            fact.connection = connect::connection(&loaded.script, &handle);
        }
    }
    let unusable = facts.iter().filter_map(|fact| fact.connection.as_ref());
    let unusable = unusable.filter(|connection| !connection.is_ok()).count();
    let exit = if unusable == 0 {
        Exit::Done
    } else {
        Exit::Failure
    };
    if json {
        return (checked_json(loaded, facts, unusable == 0), exit);
    }
    (checked_text(loaded, &facts, unusable), exit)
}

fn checked_text(loaded: &Loaded, facts: &[Facts], unusable: usize) -> String {
    let settings = settings_problems(&loaded.script);
    let mut text = if settings.is_empty() {
        String::new()
    } else {
        "settings\n".to_owned()
    };
    for problem in &settings {
        push_line(&mut text, "WARNING", problem);
    }
    text.extend(facts.iter().map(block));
    let syncs = counted(facts.len(), "sync");
    let warnings = match warnings(&settings, facts) {
        0 => String::new(),
        count => format!(", {}", counted(count, "warning")),
    };
    let unusable = match unusable {
        0 => String::new(),
        count => format!(", but {} cannot be used", counted(count, "target")),
    };
    format!("{text}The configuration is fine: {syncs}{warnings}{unusable}.\n")
}

/// Returns the problems that concern no single sync.
fn settings_problems(script: &Script) -> Vec<String> {
    let settings = &script.settings;
    let mut problems = preflight::of_settings(settings);
    if let Some(limit) = watch_limit::kernel_limit()
        && settings.watch == WatchChoice::Inotify
    {
        let syncs = script.syncs();
        let scopes: Vec<_> = syncs
            .iter()
            .map(|handle| handle.sync.borrow().scope())
            .collect();
        problems.extend(watch_limit::preflight(&scopes, limit, COUNT_TIME));
    }
    problems
}

/// Returns the number of warnings, including logged ones.
fn warnings(settings: &[String], facts: &[Facts]) -> usize {
    let of_syncs: usize = facts.iter().map(|fact| fact.problems.len()).sum();
    log::warnings() + settings.len() + of_syncs
}

fn push_line(text: &mut String, key: &str, value: &str) {
    text.push_str(&format!("    {key:<9}{value}\n"));
}

fn block(fact: &Facts) -> String {
    let target = fact.target.as_deref();
    let mut text = format!("{}: {}\n", fact.name, fact.kind);
    let mut line = |key: &str, value: &str| push_line(&mut text, key, value);
    line("source", &fact.source);
    line("target", target.unwrap_or("(what its functions do)"));
    line("delay", &format!("{} s", fact.delay));
    line("delete", fact.delete);
    for (key, values) in [
        ("filter", &fact.filters),
        ("exclude", &fact.excludes),
        ("WARNING", &fact.problems),
    ] {
        for value in values {
            line(key, value);
        }
    }
    for (key, value) in fact.connection.iter().flat_map(ConnectResult::lines) {
        line(key, value);
    }
    text
}

/// Settings in the JSON answer, by their configuration names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SettingsFacts {
    logfile: Option<String>,
    pidfile: Option<String>,
    status_file: Option<String>,
    status_interval: f64,
    insist: bool,
    nodaemon: bool,
    onepass: bool,
}

/// The JSON answer.
#[derive(Serialize)]
#[serde(untagged)]
enum Explanation<'a> {
    Right {
        ok: bool,
        settings: SettingsFacts,
        syncs: Vec<Facts>,
        /// Problems with the settings.
        problems: Vec<String>,
        /// The number of all warnings: logged ones, those of settings and those of syncs.
        warnings: usize,
    },
    Preview {
        ok: bool,
        syncs: Vec<preview::Preview>,
    },
    Wrong {
        ok: bool,
        errors: &'a [String],
    },
}

impl Explanation<'_> {
    /// Returns the answer as one line of JSON.
    fn line(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        format!("{text}\n")
    }
}

fn checked_json(loaded: &Loaded, syncs: Vec<Facts>, ok: bool) -> String {
    let settings = &loaded.script.settings;
    let shown = |path: &Option<PathBuf>| {
        let path = path.as_ref()?;
        Some(escape(path.as_os_str().as_bytes()).into_owned())
    };
    let problems = settings_problems(&loaded.script);
    let answer = Explanation::Right {
        ok,
        warnings: warnings(&problems, &syncs),
        problems,
        settings: SettingsFacts {
            logfile: shown(&settings.log_file),
            pidfile: shown(&settings.pid_file),
            status_file: shown(&settings.status_file),
            status_interval: settings.status_interval.as_secs_f64(),
            insist: settings.insist,
            nodaemon: settings.nodaemon,
            onepass: settings.onepass,
        },
        syncs,
    };
    answer.line()
}

fn broken(failure: &LoadError) -> String {
    let answer = Explanation::Wrong {
        ok: false,
        errors: &failure.lines,
    };
    answer.line()
}
