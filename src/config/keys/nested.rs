//! The keys of the tables in a sync, and of `tunnel{}`.

use super::ValueType as T;
use super::{Key, Kinds, RSYNC, keys};

/// The keys of `guard = { … }`.
pub const GUARD: &[Key] = keys! {
    "mount": T::Switch, "false", V3;
        "Require that the source, or a directory above it other than `/`, is a mount point.";
    "marker": T::Name, "", V3;
        "Name that must exist in the source.";
    "maxDelete": T::Anything, "", V3;
        "Number of deletions on the target, or percentage such as `\"50%\"`, above which a transfer is \
         not started.";
};

/// The keys of `verify = { … }`.
pub const VERIFY: &[Key] = keys! {
    "at": T::Crontab, "required", V3;
        "Times of comparisons: a rule of crontab(5) or a list of rules. A rule may have a field \
         for seconds in front.";
    "content": T::Switch, "false", V3;
        "Compare contents, not only sizes, times and attributes.";
    "sample": T::Text, "`100%`", V3;
        "Percentage of files whose contents are compared, such as `\"10%\"`. Each comparison \
         selects other files: with 10 %, ten comparisons cover all files. Sizes, times and \
         attributes of all files are always compared.";
    "repair": T::Switch, "false", V3;
        "Repair the differences: transfer or delete the paths that differ.";
};

/// The keys of `check = { … }`: those of one command, then those of the sync.
pub const CHECK: &[Key] = keys! {
    "command": T::Command, "", V3;
        "Program and arguments. The names of the files are appended. They are absolute, so none \
         begins with `-`.";
    "stdin": T::Switch, "false", V3;
        "Pass the names on standard input, each followed by a zero byte.";
    "ok": T::Numbers, "`{ 0 }`", V3;
        "Exit codes that approve all files of the call.";
    "reject": T::Numbers, "`{ 1 }`", V3;
        "Exit codes that reject at least one file of the call. Any other code, a signal and a \
         timeout are failures.";
    "timeout": T::Interval, "60", V3;
        "Maximum duration of a call in seconds, for up to 64 files.";
    "parallel": T::Count, "2", V3;
        "Maximum number of calls at the same time.";
    "onReject": T::Rejection, "`\"hold\"`", V3;
        "Treatment of a rejected file. `\"hold\"`: source and target stay unchanged; \
         `\"delete-target\"`: the file is deleted on the target; `\"quarantine\"`: the file is \
         moved to the directory `quarantine`. A function or a command is called.";
    "quarantine": T::Path, "", V3;
        "Directory for `onReject = \"quarantine\"`.";
    "staging": T::Path, "beside the source", V3;
        "Private directory for approved files. It takes as much space as the source if the file system \
         cannot share blocks.";
};

/// The keys of one command among several in `check`.
pub const SCANNER: &[Key] = CHECK.split_at(6).0;

/// The keys of `startup = { … }`.
pub const STARTUP: &[Key] = keys! {
    "rsync": T::Table(RSYNC), "", V3;
        "Options of rsync, as in the sync. Words of its `_extra` are appended.";
};

/// The keys of `rsync = { bwlimit = { … } }`, beside its entries.
pub const BANDWIDTH: &[Key] = keys! {
    "restart": T::Switch, "false", V3;
        "End and repeat running transfers when the limit changes.";
};

/// The keys of an entry of `rsync = { bwlimit = { … } }`.
pub const BANDWIDTH_ENTRY: &[Key] = keys! {
    "at": T::Text, "required", V3;
        "Times at which the limit takes effect: a rule of [crontab](#crontab).";
    "limit": T::Text, "required", V3;
        "Bandwidth limit in KiB per second. 0: no limit.";
};

/// The keys of `backup = { … }`.
pub const BACKUP: &[Key] = keys! {
    "dir": T::Path, "required", V3;
        "Directory on the target host: an absolute path, or one relative to the target.";
    "keep": T::Text, "", V3;
        "Age at which backups are removed, in days or weeks: `\"30d\"`, `\"4w\"`. Without it, \
         backups are not removed.";
};

/// The keys of `rclone = { … }`.
pub const RCLONE: &[Key] = keys! {
    "binary": T::Text, "`rclone`", V3;
        "Program to run.";
    "options": T::Words, "", V3;
        "Arguments of each call, such as `--transfers`.";
};

/// The keys of `ssh = { … }`.
pub const SSH: &[Key] = keys! {
    "binary": T::Text, "`ssh`", V2_2, Kinds::RSYNCSSH;
        "Program to run.";
    "identityFile": T::Text, "", V2_2, Kinds::RSYNCSSH;
        "`-i`: file with the private key.";
    "options": T::SshOptions, "", V2_2, Kinds::RSYNCSSH;
        "`-o`: options of ssh_config(5), such as `{ Compression = \"yes\" }`.";
    "port": T::Text, "", V2_2, Kinds::RSYNCSSH;
        "`-p`: port.";
    "reuse": T::Switch, "true", V3, Kinds::RSYNC.and(Kinds::RSYNCSSH);
        "All transfers and renames of the sync share one connection (ssh's ControlMaster). No \
         effect if the configuration sets connection sharing itself, or names a program other than \
         plain ssh. It requires a [private directory](security.md#its-own-files).";
    "_extra": T::Words, "", V2_2, Kinds::RSYNCSSH;
        "Further arguments, one word each: `{ \"-4\", \"-F\", \"/etc/lsyncd/ssh_config\" }`. A \
         text with several options, such as `\"-i /key -p 22\"`, is split at blanks.";
};

/// The keys of `tunnel{}`.
pub const TUNNEL: &[Key] = keys! {
    "command": T::TunnelCommand, "required", V2_3;
        "Command to run; in a text, `\"` groups words. `^localport` and `^localhost` are replaced.";
    "mode": T::OneOf(&["command", "pool"]), "`\"command\"`", V2_3;
        "`pool`: each process gets a free port, and each transfer uses one of the processes, by \
         `^localport` in `target`.";
    "name": T::Text, "`Tunnel1`, `Tunnel2`, …", V2_3;
        "Name in log and status file.";
    "parallel": T::Number, "1", V2_3;
        "Number of processes to keep running.";
    "distribution": T::OneOf(&["rr"]), "`\"rr\"`", V2_3;
        "Distribution of transfers over the processes: round robin.";
    "readyDelay": T::Seconds, "5", V2_3;
        "Seconds after which a running process counts as up, at least 0.1.";
    "retryDelay": T::Seconds, "10", V2_3;
        "Seconds until the next attempt after a failure, at least 0.1.";
    "localhost": T::Text, "`localhost`", V2_3;
        "Value of `^localhost`.";
    "checkCommand": T::Anything, "", V2_3;
        "No effect, as in lsyncd.";
    "checkExitCodes": T::Anything, "", V2_3;
        "No effect, as in lsyncd.";
    "checkMaxFailed": T::Anything, "", V2_3;
        "No effect, as in lsyncd.";
};
