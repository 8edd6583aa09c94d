#compdef lsyncdctl

_lsyncdctl_syncs() {
    local -a syncs
    syncs=(${(f)"$(lsyncdctl status -json 2>/dev/null | sed -n 's/^      "name": "\(.*\)",$/\1/p')"})
    compadd -a syncs
}

_lsyncdctl_rest() {
    case $words[1] in
    status) _arguments '-wait[wait until the target is current]' \
        '-timeout[wait at most this time]:seconds' '-trouble[print only syncs in trouble]' \
        '-max-age[behind counts only if the oldest change is older]:time' '::sync:_lsyncdctl_syncs' ;;
    log) _arguments '-since[from this time on]:time' '-follow[continue with what is transferred from now on]' \
        '::sync or path:_lsyncdctl_resync' '::path:_files' ;;
    verify) _arguments '-content[compare contents]' '-sample[compare contents of a part]:percentage' '-repair[send what differs]' \
        '-timeout[give up after this time]:seconds' \
        '::sync or path:_lsyncdctl_resync' '::path:_files' ;;
    reports) _arguments '::number of reports' ;;
    resync | explain) _arguments '::sync or path:_lsyncdctl_resync' '::path:_files' ;;
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
    '-sync[name of the sync]:sync:_lsyncdctl_syncs' \
    '-json[print JSON]' \
    '-help[print commands and options]' \
    '-version[print the version]' \
    '1:command:((status\:"print the state" top\:"show a live view" explain\:"print what the daemon knows of a path" log\:"print what was transferred" pause\:"start no transfers" resume\:"start due transfers again" release\:"continue a sync that its guard has halted" flush\:"do not wait for delays" resync\:"compare everything, or send a path" verify\:"compare source and target" reports\:"print the last reports of verify" retry\:"retry failed work immediately" reload\:"read the configuration again" log-level\:"select log messages"))' \
    '*::rest:_lsyncdctl_rest'
