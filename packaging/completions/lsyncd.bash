# bash completion for lsyncd(1)

_lsyncd() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} name
    COMPREPLY=()
    case ${prev#-} in
    -log | log)
        mapfile -t COMPREPLY < <(compgen -W 'all scarce Alarm Call Control Debug Delay Exclude Exec
            Filter Function Info Inotify Statusfile Tunnel' -- "$cur")
        return
        ;;
    -delay | delay | -sshopts | sshopts) return ;;
    -monitor | monitor)
        mapfile -t COMPREPLY < <(compgen -W inotify -- "$cur")
        return
        ;;
    esac
    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '-all -check -connect -delay -delete -direct -explain -help -init -insist -json
            -keys -log -logfile -monitor -nodaemon -onepass -pidfile -preview -rsync -rsyncssh -script -sshopts
            -version' -- "$cur")
        return
    fi
    compopt -o filenames 2>/dev/null
    while IFS= read -r name; do
        COMPREPLY+=("$name")
    done < <(compgen -f -- "$cur")
}
complete -F _lsyncd lsyncd
