#compdef lsyncd

_arguments \
    '-check[load the configuration, tell what it would do, and end]' \
    '-delay[delay of every sync]:seconds' \
    '*-direct[mirror between local directories]:source:_directories:target:_directories' \
    '-explain[tell what becomes of a path]:path:_files' \
    '-help[show the options]' \
    '-insist[go on when a startup transfer fails]' \
    '-json[with -check\: the answer as JSON]' \
    '*-log[what is logged]:category:(all scarce Alarm Call Control Debug Delay Exclude Exec Filter Function Info Inotify Statusfile Tunnel)' \
    '-logfile[log to this file]:file:_files' \
    '-monitor[event monitor]:monitor:(inotify)' \
    '-nodaemon[stay in the foreground]' \
    '-onepass[run the startup transfers, then end]' \
    '-pidfile[where the process id is written]:file:_files' \
    '*-rsync[mirror with rsync]:source:_directories:target:_files' \
    '*-rsyncssh[mirror with rsync and ssh]:source:_directories:host:_hosts:target directory' \
    '*-script[run this Lua file first]:file:_files -g "*.lua"' \
    '-sshopts[options for ssh]:options' \
    '-version[show the version]' \
    '1:configuration:_files'
