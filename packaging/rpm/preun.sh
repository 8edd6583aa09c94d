# shellcheck shell=sh
# $1 is the number of remaining versions: 0 for a removal.
if [ "$1" -eq 0 ] && [ -x /usr/bin/systemctl ]; then
    systemctl --no-reload disable --now lsyncd.service >/dev/null 2>&1 || :
    systemctl stop 'lsyncd@*.service' >/dev/null 2>&1 || :
fi
