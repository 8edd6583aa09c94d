# shellcheck shell=sh
# $1 counts the versions that remain. After an upgrade a running daemon becomes the new one.
if [ -x /usr/bin/systemctl ]; then
    systemctl daemon-reload >/dev/null 2>&1 || :
    if [ "$1" -ge 1 ]; then
        systemctl try-restart lsyncd.service >/dev/null 2>&1 || :
    fi
fi
