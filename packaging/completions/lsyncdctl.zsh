#compdef lsyncdctl

_lsyncdctl_syncs() {
    local -a syncs
    syncs=(${(f)"$(lsyncdctl status -json 2>/dev/null | sed -n 's/^      "name": "\(.*\)",$/\1/p')"})
    compadd -a syncs
}

_lsyncdctl_rest() {
    case $words[1] in
    status) _arguments '-json[as JSON]' '-wait[wait until all is there]' \
        '-timeout[wait no longer]:seconds' '::sync:_lsyncdctl_syncs' ;;
    resync) _arguments '::sync or path:_lsyncdctl_resync' '::path:_files' ;;
    log-level) compadd all scarce Alarm Call Control Debug Delay Exclude Exec Filter Function Info \
        Inotify Statusfile Tunnel ;;
    reload) ;;
    *) _arguments '::sync:_lsyncdctl_syncs' ;;
    esac
}

_lsyncdctl_resync() {
    _lsyncdctl_syncs
    _files
}

_arguments \
    '-socket[control socket of the daemon]:socket:_files' \
    '-sync[the sync of this name]:sync:_lsyncdctl_syncs' \
    '-help[show verbs and options]' \
    '-version[show the version]' \
    '1:verb:((status\:"what is going on" top\:"live view" pause\:"start nothing more" resume\:"start again what is due" release\:"go on with a sync that its guard has halted" flush\:"do not wait for delays" resync\:"compare everything, or a path" retry\:"try what failed again now" reload\:"read the configuration again" log-level\:"what is logged"))' \
    '*::rest:_lsyncdctl_rest'
