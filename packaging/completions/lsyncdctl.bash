# bash completion for lsyncdctl(1)

_lsyncdctl() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} word verb='' words name
    COMPREPLY=()
    case ${prev#-} in
    -socket | socket)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    -timeout | timeout | -since | since | -max-age | max-age | -sample | sample) return ;;
    esac
    local i
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
        -socket | --socket | -sync | --sync | -timeout | --timeout | -since | --since | -max-age | --max-age | -sample | --sample) i=$((i + 1)) ;;
        -*) ;;
        *)
            verb=$word
            break
            ;;
        esac
    done
    case ${prev#-}:$cur:$verb in
    -sync:*:* | sync:*:*) words=$(_lsyncdctl_syncs) ;;
    *:-*:status) words='-json -wait -timeout -trouble -max-age -socket -sync' ;;
    *:-*:verify) words='-content -sample -repair -json -timeout -socket -sync' ;;
    *:-*:reports) words='-json -socket' ;;
    *:-*:top) words='-socket -sync' ;;
    *:-*:log) words='-since -follow -json -socket -sync' ;;
    *:-*:*) words='-json -socket -sync -help -version' ;;
    *:*:) words='status top explain log pause resume release flush resync verify reports retry reload log-level' ;;
    *:*:log-level) words='all scarce Alarm Call Control Debug Delay Exclude Exec Filter Function Info Inotify Statusfile Tunnel' ;;
    *:*:reload | *:*:reports) return ;;
    *) words=$(_lsyncdctl_syncs) ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    if [ "$verb" = resync ] || [ "$verb" = verify ] || [ "$verb" = explain ] || [ "$verb" = log ]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r name; do
            COMPREPLY+=("$name")
        done < <(compgen -f -- "$cur")
    fi
}

# The names of the syncs of the daemon that answers, if one does.
_lsyncdctl_syncs() {
    lsyncdctl status -json 2>/dev/null | sed -n 's/^      "name": "\(.*\)",$/\1/p'
}
complete -F _lsyncdctl lsyncdctl
