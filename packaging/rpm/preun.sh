# shellcheck shell=sh
# $1 counts the versions that remain: 0 is the removal.
if [ "$1" -eq 0 ] && [ -x /usr/bin/systemctl ]; then
    systemctl --no-reload disable --now lsyncd.service >/dev/null 2>&1 || :
    systemctl stop 'lsyncd@*.service' >/dev/null 2>&1 || :
fi
