#compdef lsyncd

_arguments \
    '-all[with -preview\: print all names]' \
    '-check[load the configuration, print its syncs, and exit]' \
    '-connect[with -check\: log in at the targets, test rsync and directories]' \
    '-delay[delay of every sync]:seconds' \
    '-delete[with -init\: delete files on the target that are not in the source]' \
    '*-direct[mirror between local directories]:source:_directories:target:_directories' \
    '-explain[print the target of a path and the rule that selects it]:path:_files' \
    '-help[print the options]' \
    '-init[write a configuration after a test of the target]' \
    '-insist[retry failed startup transfers]' \
    '-json[with -check and -preview\: print JSON]' \
    '-keys[print all configuration keys as JSON]' \
    '*-log[select log messages]:category:(all scarce Alarm Call Control Debug Delay Exclude Exec Filter Function Info Inotify Statusfile Tunnel)' \
    '-logfile[log to this file]:file:_files' \
    '-monitor[event monitor]:monitor:(inotify)' \
    '-nodaemon[stay in the foreground]' \
    '-onepass[run the startup transfers, then exit]' \
    '-pidfile[file for the process id]:file:_files' \
    '-preview[print what the first transfers would do, and change nothing]' \
    '*-rsync[mirror with rsync]:source:_directories:target:_files' \
    '*-rsyncssh[mirror with rsync and ssh]:source:_directories:host:_hosts:target directory' \
    '*-script[run this Lua file before the configuration]:file:_files -g "*.lua"' \
    '-sshopts[options for the ssh of -rsyncssh and -init]:options' \
    '-version[print the version]' \
    '1:configuration:_files'
