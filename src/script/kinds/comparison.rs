//! The dry run of rsync that compares the source and the target of a sync, as its transfers would
//! make them equal.

use std::ffi::OsString;
use std::sync::PoisonError;

use mlua::{Result, Table, Value};

use super::transfer::{binary, filter_lines, lists_first, rsync_target, whole_words};
use crate::batch::probe::Binary;
use crate::batch::{BatchEntry, BatchRequest, Change, ListMode, dry_run};
use crate::config::Delete;
use crate::log;
use crate::process::{Command, Output, Stdin};
use crate::script::runtime::Script;
use crate::script::sync_handle::SyncHandle;
use crate::sync::Sync;

/// The scope of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComparisonScope {
    /// The whole source.
    Everything,
    /// A path of the source, and everything below it.
    Below(Vec<u8>),
    /// These paths alone.
    Paths(Vec<ListedPath>),
    /// These files, which pass the filter, each followed by a zero byte.
    Files(Vec<u8>),
}

/// A path of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPath {
    /// The path, with a leading slash; that of a directory ends with one.
    pub path: Vec<u8>,
    /// The path does not exist in the source.
    pub is_gone: bool,
}

/// A dry run and its properties in a report.
pub struct Comparison {
    /// The command.
    pub command: Command,
    /// The target in rsync's form.
    pub target: Vec<u8>,
    /// The filter rules.
    pub filters: Vec<Vec<u8>>,
}

impl Script {
    /// Returns the dry run that compares this part of a sync.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be compared, for the user.
    pub fn comparison(
        &self,
        handle: &SyncHandle,
        scope: &ComparisonScope,
        by_content: bool,
    ) -> std::result::Result<Comparison, String> {
        let kind = self.kind(handle);
        if !matches!(kind, Some("rsync" | "rsyncssh" | "direct")) {
            let kind = kind.map_or("user code".to_owned(), |kind| format!("default.{kind}"));
            return Err(format!(
                "{kind} cannot be compared, only what rsync can send"
            ));
        }
        if !handle.is_connected() {
            return Err("its tunnel is not connected".to_owned());
        }
        self.dry_run(handle, scope, by_content)
            .map_err(|error| error.to_string())
    }

    /// Returns the target of transfers in rsync's form.
    ///
    /// # Errors
    ///
    /// The reason why there is none.
    pub fn target(&self, handle: &SyncHandle) -> std::result::Result<Vec<u8>, String> {
        rsync_target(&self.lua, &handle.config).map_err(|error| error.to_string())
    }

    /// Returns a call of the sync's rsync with arguments that `arguments` makes of its options and
    /// its source.
    ///
    /// # Errors
    ///
    /// The reason why rsync cannot be called.
    pub fn prune_command(
        &self,
        handle: &SyncHandle,
        arguments: impl FnOnce(&[Vec<u8>], &[u8]) -> Vec<Vec<u8>>,
    ) -> std::result::Result<Command, String> {
        let told = |error: mlua::Error| error.to_string();
        let rsync: Table = handle.config.get("rsync").map_err(told)?;
        let program = binary(&rsync).map_err(told)?;
        if Binary::plain(&program).is_none() {
            return Err("rsync.binary is a wrapper".to_owned());
        }
        let options = whole_words(&handle.config).map_err(told)?;
        let sync = handle.sync.borrow();
        let mut args = arguments(&options, &sync.config.source);
        let mut environment: Vec<(OsString, OsString)> = sync.environment().to_vec();
        self.context
            .sockets
            .keep_private(&mut args, &mut environment);
        Ok(Command {
            program,
            args,
            stdin: Stdin::Null,
            output: Output::Lines,
            environment,
            priority: sync.config.priority.or(self.settings.priority),
        })
    }

    fn dry_run(
        &self,
        handle: &SyncHandle,
        scope: &ComparisonScope,
        by_content: bool,
    ) -> Result<Comparison> {
        let config = &handle.config;
        let rsync: Table = config.get("rsync")?;
        let options = whole_words(config)?;
        let program = binary(&rsync)?;
        let target = rsync_target(&self.lua, config)?;
        let delete_excluded = rsync.get::<Value>("delete_excluded")? == Value::Boolean(true);
        let lists_first = lists_first(&self.lua, config, &handle.sync.borrow(), &options)?;

        // No Lua code may run from here on, since the sync is borrowed.
        let mut sync = handle.sync.borrow_mut();
        let sync = &mut *sync;
        let protected = sync.protected_patterns();
        // With other values, the target may have files that the source lacks.
        let delete = sync.config.delete == Delete::Always && protected.is_some();
        let call = ComparisonCall {
            delete,
            delete_excluded: delete_excluded && !sync.misses_mounts(),
            protected: protected.unwrap_or_default(),
            options,
            binary: &program,
            target: &target,
        };
        let (args, stdin) = match scope {
            ComparisonScope::Everything => call.everything(sync, lists_first),
            ComparisonScope::Below(path) => call.below(sync, path),
            ComparisonScope::Files(names) => call.files(sync, names),
            ComparisonScope::Paths(paths) => {
                let entries = paths.iter().map(|listed| {
                    let change = if listed.is_gone {
                        Change::Delete
                    } else {
                        Change::Create
                    };
                    entry(change, &listed.path)
                });
                call.listed(sync, &entries.collect::<Vec<_>>())
            }
        };
        let mut args = dry_run::words(&args, by_content);
        let mut environment: Vec<(OsString, OsString)> = sync.environment().to_vec();
        let sockets = &self.context.sockets;
        sockets.keep_private(&mut args, &mut environment);
        let filters = filter_lines(sync);
        let command = Command {
            program,
            args,
            stdin: stdin.map_or(Stdin::Null, Stdin::Bytes),
            output: Output::Lines,
            environment,
            priority: sync.config.priority.or(self.settings.priority),
        };
        if log::enabled("Exec") {
            let words = command.args.iter().map(|word| log::escape(word));
            let words: Vec<_> = words.map(|word| format!("[{word}]")).collect();
            let program = log::escape(&command.program);
            log::say("Exec", format_args!("{program} {}", words.join(" ")));
        }
        Ok(Comparison {
            command,
            target,
            filters,
        })
    }
}

/// The properties of the transfer that a dry run imitates.
struct ComparisonCall<'a> {
    delete: bool,
    delete_excluded: bool,
    protected: Vec<Vec<u8>>,
    options: Vec<Vec<u8>>,
    binary: &'a [u8],
    target: &'a [u8],
}

/// Arguments and standard input.
type ComparisonWords = (Vec<Vec<u8>>, Option<Vec<u8>>);

impl ComparisonCall<'_> {
    /// Returns the call that compares the whole source.
    fn everything(self, sync: &mut Sync, lists_first: bool) -> ComparisonWords {
        // What the checks have blocked is not compared.
        let protected = self.protected.iter();
        let mut words: Vec<_> = protected
            .map(|pattern| [b"--filter=- ", &pattern[..]].concat())
            .collect();
        let input = {
            let filter = sync.filter.read().unwrap_or_else(PoisonError::into_inner);
            filter.rsync_input()
        };
        let (option, rules) = input.map(|input| (input.option, input.text)).unzip();
        words.extend(option.map(|option| option.as_bytes().to_vec()));
        if self.delete {
            words.extend([b"--delete".to_vec(), b"--ignore-errors".to_vec()]);
            if self.delete_excluded {
                words.push(b"--delete-excluded".to_vec());
            }
        }
        if lists_first {
            words.push(b"--no-inc-recursive".to_vec());
        }
        sync.list_strategy().take_out(&self.options, &mut words);
        words.extend(self.options);
        words.extend([
            b"-r".to_vec(),
            sync.config.source.clone(),
            self.target.to_vec(),
        ]);
        (words, rules)
    }

    /// Returns the call that compares a path and everything below it.
    fn below(mut self, sync: &mut Sync, path: &[u8]) -> ComparisonWords {
        // The Delete of a directory that exists stands for its contents, with `--delete` only.
        let is_extra_compared = self.delete;
        self.delete = true;
        let entries = [entry(Change::Delete, path), entry(Change::Create, path)];
        let (mut words, stdin) = self.listed(sync, &entries);
        if !is_extra_compared {
            words.retain(|word| word != b"--delete");
        }
        (words, stdin)
    }

    /// Returns the call that compares files by name.
    fn files(self, sync: &mut Sync, names: &[u8]) -> ComparisonWords {
        let list = ["--from0", "--files-from=-", "--ignore-missing-args"];
        let mut words: Vec<Vec<u8>> = list.map(Into::into).into();
        words.extend(self.options);
        words.extend([sync.config.source.clone(), self.target.to_vec()]);
        (words, Some(names.to_vec()))
    }

    /// Returns the call that compares listed paths.
    fn listed(&self, sync: &mut Sync, entries: &[BatchEntry<'_>]) -> ComparisonWords {
        let protected = self.protected.iter();
        let protected = protected.map(|pattern| [b"- ", &pattern[..]].concat());
        let filters: Vec<_> = protected.chain(filter_lines(sync)).collect();
        let source = sync.config.source.clone();
        let request = BatchRequest {
            source: &source,
            target: self.target,
            options: &self.options,
            binary: self.binary,
            delete: self.delete,
            filters: &filters,
            delete_excluded: self.delete_excluded,
            last_transfer: None,
            by_content: false,
            list: ListMode::Filter,
        };
        let transfer = sync.list_strategy().prepare(&request, entries.to_vec());
        (transfer.args, Some(transfer.list))
    }
}

fn entry(change: Change, path: &[u8]) -> BatchEntry<'_> {
    BatchEntry {
        change,
        path,
        to: None,
    }
}
