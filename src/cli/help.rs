//! The texts of `-help` and `-monitor`.

use crate::VERSION;

/// Returns the text of `-help`.
pub fn help() -> String {
    format!(
        "\
lsyncd version: {VERSION}

USAGE:
  run a configuration file:
    lsyncd [OPTIONS] CONFIG

  mirror with rsync:
    lsyncd [OPTIONS] -rsync SRC TRG

  mirror with rsync, and rename on the target over ssh:
    lsyncd [OPTIONS] -rsyncssh SRC HOST TARGETDIR

  mirror between local directories:
    lsyncd [OPTIONS] -direct SRC TRG

  write a configuration file, with questions on the terminal:
    lsyncd -init [SRC TRG [CONFIG]]

OPTIONS:
  -all             with -preview: print all names
  -check           load the configuration, print its syncs, and exit
  -connect         with -check: log in at the targets, test rsync and directories
  -delay SECS      set the delay of every sync; overrides the configuration
  -delete          with -init: delete files on the target that are not in the
                   source
  -explain PATH    print the target of this path and the rule that selects it
  -help            print this text
  -init            write a configuration after a test of the target; no file
                   is overwritten
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
  -preview         print the effects of the startup transfers, and change
                   nothing
  -runner FILE     accepted and ignored, for compatibility
  -script FILE     run this Lua file before the configuration
  -sshopts WORDS   options for the ssh of -rsyncssh and -init
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
