//! The keys of `settings{}`.

use super::ValueType as T;
use super::{Key, keys};

/// The keys of `settings{}`.
pub const SETTINGS: &[Key] = keys! {
    "logfile": T::Path, "", V2_2;
        "File to which messages are appended. It may be rotated at any time without a signal. \
         Without it, a background daemon logs to syslog.";
    "logident": T::Text, "`lsyncd`", V2_2;
        "Tag of messages in syslog.";
    "logfacility": T::Text, "`user`", V2_2;
        "Facility of messages in syslog, such as `daemon` or `local0`.";
    "logformat": T::OneOf(&["text", "json"]), "`text`", V3;
        "Format of the log: lsyncd's text lines, or one JSON object per line with `time`, \
         `category` and `message`. Errors that occur before the log is opened are text lines.";
    "pidfile": T::OptionalPath, "", V2_2;
        "File for the process id of the daemon. It is locked while the daemon runs. It is not \
         written with `nodaemon`.";
    "nodaemon": T::Switch, "false", V2_2;
        "Stay in the foreground and also log to the terminal.";
    "statusFile": T::OptionalPath, "", V2_2;
        "File that lists pending changes and watched directories. Its format is JSON if its name \
         ends in `.json`.";
    "statusInterval": T::SignedSeconds, "10", V2_2;
        "Seconds between two updates of `statusFile` and `metricsFile`. 0: update at every \
         event.";
    "controlSocket": T::PathOrFalse, "automatic", V3;
        "Path of the control socket for `lsyncdctl`; false: no socket. See \
         [control.md](control.md#default-path-of-the-control-socket) for the default.";
    "metricsFile": T::Path, "", V3;
        "File for metrics, for node_exporter's textfile collector, which requires a name that ends \
         in `.prom`.";
    "metricsListen": T::Text, "", V3;
        "Loopback address and port for metrics and a status page, such as `127.0.0.1:9180`.";
    "insist": T::Switch, "false", V2_2;
        "Retry a failed startup transfer instead of exiting with 255. Later failures are always \
         retried.";
    "inotifyMode": T::Mode, "`CloseWrite`", V2_2;
        "Event that marks a file as changed: `CloseWrite`, when a writer closes it; `Modify`, at \
         each write. `Modify` is for files that are never closed, such as logs.";
    "watch": T::OneOf(&["auto", "inotify", "fanotify"]), "`inotify`", V3;
        "Kernel interface that watches the sources: `inotify` uses one watch for each directory; \
         `fanotify` uses one mark for each file system and requires root; `auto` uses fanotify for \
         whole file systems, for sources of 20,000 directories or more, and if there are not enough \
         inotify watches. See [tuning.md](tuning.md#a-million-directories).";
    "maxProcesses": T::Count, "", V2_2;
        "Maximum number of processes of all syncs together. It is also the limit of each sync that \
         does not set `maxProcesses`, except for default.rsyncssh, whose limit is always 1.";
    "maxDelays": T::Number, "", V2_2;
        "Default of `maxDelays` for the syncs that follow it in the configuration.";
    "log": T::Texts, "", V3;
        "Additional categories of log messages, such as `\"Exec Delay\"`; `all`: all categories; \
         `scarce`: warnings and errors only. `-log` on the command line overrides it.";
    "maxStartups": T::Count, "4", V3;
        "Maximum number of full comparisons at the same time.";
    "nice": T::Number, "", V3;
        "Niceness of child processes, -20 to 19.";
    "ionice": T::Text, "", V3;
        "I/O class of child processes: `idle`, `best-effort:LEVEL` or `realtime:LEVEL`, LEVEL from \
         0 to 7.";
    "maxStaleness": T::Seconds, "60", V3;
        "Seconds after which a file that stays open for writing is sent. 0: it is not sent before \
         it is closed. See [faults.md](faults.md#files-that-are-open).";
    "rescanInterval": T::Interval, "60", V3;
        "Seconds between two comparisons of directories that cannot be watched because inotify \
         watches have run out.";
    "init": T::OneOf(&["changed"]), "", V3;
        "Default of `init` for syncs of default.rsync, default.rsyncssh and default.direct.";
    "verifyEvery": T::Seconds, "", V3;
        "Default of `verifyEvery` for syncs.";
    "hup": T::OneOf(&["all", "changed"]), "`all`", V3;
        "Effect of `kill -HUP` after the configuration has been read again: `all` runs the startup \
         transfers of all syncs, `changed` only those of changed syncs.";
    "stopTimeout": T::Seconds, "60", V3;
        "Seconds that child processes have to exit after `kill -TERM`. They are ended earlier if \
         none of the remaining transfers has had I/O for 10 s. Their changes are sent after the \
         next start.";
    "stallTimeout": T::Seconds, "", V3;
        "Seconds without I/O after which a transfer is ended and repeated. Without it, such a \
         transfer is only reported. See [faults.md](faults.md#transfers-that-stand-still).";
    "stateDir": T::Path, "`$STATE_DIRECTORY`, else `/var/lib/lsyncd`", V3;
        "Directory for state that survives a restart, such as pending changes and the mounts of \
         sources. If it cannot be written, or if other users can write to it or replace it, state \
         is not persisted.";
    "transferLogSize": T::Number, "4", V3;
        "Maximum size in MiB of the transfer log of each sync, which `lsyncdctl log` shows, 0 to \
         128. 0: no log. The log is stored below `stateDir`; without `stateDir`, up to 256 KiB are \
         kept in memory.";
    "reports": T::Number, "100", V3;
        "Maximum number of reports of `lsyncdctl verify` and of `verify` in `sync{}` that are kept \
         below `stateDir`, for all syncs together, 0 to 10000. 0: no reports are kept. `lsyncdctl \
         reports` shows them.";
    "onepass": T::Switch, "false", V2_3;
        "Exit with 0 when every sync has completed its startup transfer, or with 255 if a guard \
         stops a sync.";
};
