//! The keys of `sync{}`.

use super::ValueType as T;
use super::{BACKUP, Key, Kinds, RCLONE, RSYNC, SSH, STARTUP, VERIFY, keys};

/// The built-in kinds.
const BUILT_IN: Kinds = Kinds::ALL.without(Kinds::OWN);
/// The kinds that run rsync.
const WITH_RSYNC: Kinds = BUILT_IN.without(Kinds::RCLONE);
/// The kinds that connect by ssh.
const WITH_SSH: Kinds = Kinds::RSYNC.and(Kinds::RSYNCSSH);
/// The kinds that do not transfer renamed entries.
const TWO_PROGRAMS: Kinds = Kinds::RSYNCSSH.and(Kinds::DIRECT);
/// The kinds that process renames.
const MOVES: Kinds = Kinds::OWN.and(TWO_PROGRAMS);
/// The kinds with one text for the target.
const NO_SSH: Kinds = Kinds::ALL.without(Kinds::RSYNCSSH);

/// The keys of `sync{}`.
pub const SYNC: &[Key] = keys! {
    "source": T::Text, "required", V2_2;
        "Directory to watch, including everything below it. Symbolic links in its path are \
         followed; symbolic links below it are ordinary entries.";
    "target": T::Text, "required by default.rsync and default.direct", V2_2, NO_SSH;
        "Destination: a directory, `HOST:DIRECTORY`, `HOST::MODULE/DIRECTORY` or \
         `rsync://HOST/MODULE/DIRECTORY`. Not for default.rsyncssh.";
    "targets": T::Targets, "", V3;
        "Several targets in place of `target`, see [Many targets](#many-targets).";
    "targetsFrom": T::Path, "", V3;
        "File with several targets, one on each line.";
    "name": T::Name, "`Sync1`, `Sync2`, …", Ungauged;
        "Name of the sync in log and status file.";
    "delay": T::Delay, "15; default.direct: 1; others: none", V2_2;
        "Seconds during which changes are collected, counted from the first change. `-delay` on \
         the command line overrides it.";
    "maxDelays": T::Number, "1000", V2_2;
        "Number of waiting changes at which the delay ends early. 0 disables the delay.";
    "maxProcesses": T::Count, "1", V2_2;
        "Maximum number of processes of the sync. default.rsyncssh refuses more than 1.";
    "inotifyMode": T::Mode, "that of settings", V3;
        "As in `settings{}`, for this sync.";
    "subdirs": T::Switch, "true", Ungauged;
        "Process changes in subdirectories of the source. `false`: such changes are ignored.";
    "guard": T::Guard, "", V3;
        "Conditions under which nothing is sent: `{ mount = true }`, `{ marker = \".present\" }`, \
         `{ maxDelete = 1000 }` or `\"50%\"`. `false` also disables the default guards. See \
         [faults.md](faults.md#the-source).";
    "waitForSource": T::Switch, "false", V3;
        "Wait for a source that does not exist at the start.";
    "maxPending": T::Count, "2000000", V3;
        "Maximum number of waiting paths. Beyond it, whole directories are queued instead of the \
         changes in them.";
    "nice": T::Number, "that of settings", V3;
        "As in `settings{}`, for the processes of this sync.";
    "ionice": T::Text, "that of settings", V3;
        "As in `settings{}`, for the processes of this sync.";
    "exitcodes": T::ExitCodes, "see [Exit codes](#exit-codes)", V2_2;
        "Meaning of the exit codes of its processes.";
    "crontab": T::Crontab, "", V2_3;
        "Times of full comparisons, see [crontab](#crontab).";
    "tunnel": T::Tunnel, "", V2_3;
        "Process that must be up before anything is sent, see [tunnel{}](#tunnel).";
    "init": T::Init, "full comparison", V2_2;
        "Function to call at the start. `false`: no startup transfer; only later changes are sent. \
         `\"changed\"`: compare only directories that changed while the daemon was stopped, see \
         [tuning.md](tuning.md#starting-without-a-comparison).";
    "verifyEvery": T::Seconds, "604800", V3;
        "With `init = \"changed\"`: number of seconds since the last full comparison after which a \
         start runs one again. 0: never.";
    "full": T::Function, "of the kind", V2_3;
        "Function to call for a full comparison.";
    "action": T::Function, "of the kind", V2_2;
        "Function to call for waiting changes.";
    "collect": T::Function, "of the kind", V2_2;
        "Function to call at the end of a process.";
    "prepare": T::Function, "of the kind", V2_2;
        "Function that receives the configuration before the sync is created.";
    "checkgauge": T::Gauge, "of the kind", V2_2;
        "Table of the accepted keys; false: all keys are accepted.";
    "onCreate": T::Action, "", V2_2, Kinds::OWN;
        "Action for a new entry.";
    "onModify": T::Action, "", V2_2, Kinds::OWN;
        "Action for a file that was written.";
    "onAttrib": T::Action, "", V2_2;
        "Action for a change of times, mode or owner.";
    "onDelete": T::Action, "", V2_2, Kinds::OWN;
        "Action for a deleted entry.";
    "onMove": T::ActionOrSwitch, "", V2_2, MOVES;
        "Action for a rename within the source. Without it, a rename is a Delete and a Create.";
    "onStartup": T::Action, "", V2_2, Kinds::OWN;
        "Action at the start, before any other.";
    "onFull": T::Action, "", V2_3;
        "Action for a full comparison.";
    "onSynced": T::Hook, "", V3;
        "Hook that is called after each successful process; a list is a command. Available for \
         every kind. See [control.md](control.md#hooks).";
    "check": T::Check, "", V3;
        "Check that a file must pass before it is sent. For default.rsync only. See \
         [check.md](check.md).";
    "onFailed": T::Hook, "", V3;
        "Hook that is called at the first failure of a sync, and then not again before \
         `onRecovered`. Available for every kind.";
    "onRecovered": T::Hook, "", V3;
        "Hook that is called when all failures since `onFailed` are resolved and the target has \
         all earlier changes. Available for every kind.";
    "delete": T::Delete, "true", V2_2, BUILT_IN;
        "Deletion of files on the target that are not in the source. true: always; false: never; \
         `\"startup\"`: only by the startup transfer; `\"running\"`: only files that are deleted \
         while the daemon runs. Any other value counts as false, with a warning.";
    "exclude": T::Texts, "", V2_2, BUILT_IN;
        "Patterns of paths that are excluded from transfer and deletion, see \
         [Patterns](#patterns).";
    "excludeFrom": T::Path, "", V2_2, WITH_RSYNC;
        "File with one pattern on each line.";
    "filter": T::Texts, "", V2_2, WITH_RSYNC;
        "List of rules, each `+ PATTERN` or `- PATTERN`. The first matching rule applies. \
         `exclude` is evaluated after the rules.";
    "filterFrom": T::Path, "", V2_2, WITH_RSYNC;
        "File with one rule on each line, evaluated after those of `filter`.";
    "batchSizeLimit": T::Bytes, "", V2_3, WITH_RSYNC;
        "Size in bytes. Each larger file is sent by a separate rsync, in parallel with the rsync \
         for all other files. This requires `maxProcesses` above 1. default.rsyncssh has one \
         process and sends large files last.";
    "rsync": T::Table(RSYNC), "", V2_2, WITH_RSYNC;
        "Options of rsync, see [rsync](#rsync).";
    "startup": T::Table(STARTUP), "", V3, WITH_SSH;
        "Options of rsync that differ in full comparisons: `{ rsync = { … } }`. Not for \
         default.direct, see [rsync](#rsync).";
    "backup": T::Table(BACKUP), "", V3, Kinds::RSYNC;
        "Dated directories for files that are replaced or deleted on the target. For default.rsync \
         only. See [backup](#backup).";
    "rsyncExitCodes": T::ExitCodes, "", V2_2, TWO_PROGRAMS;
        "As `exitcodes`, for the rsync of default.rsyncssh and default.direct.";
    "verify": T::Table(VERIFY), "", V3, WITH_RSYNC;
        "Comparisons of source and target at given times, see \
         [control.md](control.md#comparisons-at-given-times).";
    "rclone": T::Table(RCLONE), "", V3, Kinds::RCLONE;
        "Program and options, see [default.rclone](#defaultrclone).";
    "host": T::Text, "required", V2_2, Kinds::RSYNCSSH;
        "Target host, as `HOST` or `USER@HOST`.";
    "targetdir": T::Text, "required", V2_2, Kinds::RSYNCSSH;
        "Directory on the target host.";
    "ssh": T::Table(SSH), "", V2_2, WITH_SSH;
        "Options of ssh, see [ssh](#ssh).";
    "sshExitCodes": T::ExitCodes, "0 ok, 255 again", V2_2, Kinds::RSYNCSSH;
        "As `exitcodes`, for the ssh of a move.";
};
