# shellcheck shell=sh
# $1 is the number of installed versions: 1 for a new installation, 2 for an upgrade.
mkdir -p /var/log/lsyncd /var/lib/lsyncd
if [ -x /usr/bin/systemctl ]; then
    if [ "$1" -eq 1 ]; then
        systemctl --no-reload preset lsyncd.service >/dev/null 2>&1 || :
    fi
    systemctl daemon-reload >/dev/null 2>&1 || :
fi
