# fish completion for lsyncdctl(1)

function __lsyncdctl_syncs
    lsyncdctl status -json 2>/dev/null | sed -n 's/^      "name": "\(.*\)",$/\1/p'
end

set -l verbs status top explain log pause resume release flush resync verify reports retry reload log-level
complete -c lsyncdctl -f
complete -c lsyncdctl -o socket -r -F -d 'Control socket of the daemon'
complete -c lsyncdctl -o sync -x -a '(__lsyncdctl_syncs)' -d 'Name of the sync'
complete -c lsyncdctl -o json -d 'Print JSON'
complete -c lsyncdctl -o help -d 'Print commands and options'
complete -c lsyncdctl -o version -d 'Print the version'
complete -c lsyncdctl -n "not __fish_seen_subcommand_from $verbs" -a status -d 'Print the state'
complete -c lsyncdctl -n "not __fish_seen_subcommand_from $verbs" -a top -d 'Show a live view'
complete -c lsyncdctl -n "not __fish_seen_subcommand_from $verbs" -a explain -d 'Print what the daemon knows of a path'
complete -c lsyncdctl -n "not __fish_seen_subcommand_from $verbs" -a log -d 'Print what was transferred'
complete -c lsyncdctl -n "not __fish_seen_subcommand_from $verbs" -a pause -d 'Start no transfers'
complete -c lsyncdctl -n "not __fish_seen_subcommand_from $verbs" -a resume -d 'Start due transfers again'
complete -c lsyncdctl -n "not __fish_seen_subcommand_from $verbs" -a release -d 'Continue a sync that its guard has halted'
complete -c lsyncdctl -n "not __fish_seen_subcommand_from $verbs" -a flush -d 'End the delay of the waiting changes'
complete -c lsyncdctl -n "not __fish_seen_subcommand_from $verbs" -a resync -d 'Compare everything, or send a path'
complete -c lsyncdctl -n "not __fish_seen_subcommand_from $verbs" -a verify -d 'Compare source and target'
complete -c lsyncdctl -n "not __fish_seen_subcommand_from $verbs" -a reports -d 'Print the last reports of verify'
complete -c lsyncdctl -n "not __fish_seen_subcommand_from $verbs" -a retry -d 'Retry failed work immediately'
complete -c lsyncdctl -n "not __fish_seen_subcommand_from $verbs" -a reload -d 'Read the configuration again'
complete -c lsyncdctl -n "not __fish_seen_subcommand_from $verbs" -a log-level -d 'Select log messages'
complete -c lsyncdctl -n '__fish_seen_subcommand_from status' -o wait -d 'Wait until the target is current'
complete -c lsyncdctl -n '__fish_seen_subcommand_from status' -o timeout -x -d 'Wait at most this time'
complete -c lsyncdctl -n '__fish_seen_subcommand_from status' -o trouble -d 'Print only syncs in trouble'
complete -c lsyncdctl -n '__fish_seen_subcommand_from status' -o max-age -x -d 'Behind counts only if the oldest change is older'
complete -c lsyncdctl -n '__fish_seen_subcommand_from status top explain log pause resume release flush resync verify retry' -a '(__lsyncdctl_syncs)'
complete -c lsyncdctl -n '__fish_seen_subcommand_from log' -o since -x -d 'From this time on'
complete -c lsyncdctl -n '__fish_seen_subcommand_from log' -o follow -d 'Continue with what is transferred from now on'
complete -c lsyncdctl -n '__fish_seen_subcommand_from verify' -o content -d 'Compare contents'
complete -c lsyncdctl -n '__fish_seen_subcommand_from verify' -o sample -x -d 'Compare the contents of a part'
complete -c lsyncdctl -n '__fish_seen_subcommand_from verify' -o repair -d 'Repair the differences'
complete -c lsyncdctl -n '__fish_seen_subcommand_from verify' -o timeout -x -d 'Give up after this time'
complete -c lsyncdctl -n '__fish_seen_subcommand_from resync verify log explain' -F
complete -c lsyncdctl -n '__fish_seen_subcommand_from log-level' -a 'all scarce Alarm Call Control Debug Delay Exclude Exec Filter Function Info Inotify Statusfile Tunnel'
