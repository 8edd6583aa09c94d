#!/bin/sh
### BEGIN INIT INFO
# Provides:          lsyncd
# Required-Start:    $remote_fs $syslog
# Required-Stop:     $remote_fs $syslog
# Should-Start:      $network
# Should-Stop:       $network
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: live syncing daemon
# Description:       Keeps directories on this or other hosts current with rsync.
### END INIT INFO

# For systems without systemd; with systemd, lsyncd.service is used. The configuration is
# /etc/lsyncd/lsyncd.conf.lua. /etc/default/lsyncd may set CONFIG, PIDFILE, DAEMON_ARGS and NICELEVEL.

PATH=/usr/sbin:/usr/bin:/sbin:/bin
NAME=lsyncd
DESC="live syncing daemon"
helper=/usr/lib/lsyncd/service

[ -x /usr/bin/lsyncd ] && [ -x "$helper" ] || exit 0
. /lib/lsb/init-functions

act() { # act MESSAGE VERB...
    log_daemon_msg "$1 $DESC" "$NAME"
    shift
    for verb; do
        "$helper" "$verb" || {
            log_end_msg 1
            exit 1
        }
    done
    log_end_msg 0
}

case "${1:-}" in
start) act Starting start ;;
stop) act Stopping stop ;;
restart | force-reload) act Restarting stop start ;;
try-restart) ! "$helper" status >/dev/null || act Restarting stop start ;;
reload) act Reloading reload ;;
status) exec "$helper" status ;;
*)
    echo "Usage: $0 {start|stop|restart|try-restart|reload|force-reload|status}" >&2
    exit 3
    ;;
esac
