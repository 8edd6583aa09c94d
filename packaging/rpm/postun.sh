# shellcheck shell=sh
# $1 is the number of remaining versions. After an upgrade, a running daemon is restarted.
if [ -x /usr/bin/systemctl ]; then
    systemctl daemon-reload >/dev/null 2>&1 || :
    if [ "$1" -ge 1 ]; then
        systemctl try-restart lsyncd.service >/dev/null 2>&1 || :
    fi
fi
