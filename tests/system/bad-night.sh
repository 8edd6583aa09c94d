#!/bin/bash
# bad-night.sh DEB: two systems, and one trouble after another: a dead peer, a full disk, wrong keys, a
# delete limit, an unmounted source, a read-only target, a broken configuration. In each, one command
# tells the reason and the remedy; after each, the target is equal and nothing is left of it.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
base bookworm rsync python3
pair "$1"
source() { on sender sh -ec "cd /srv/data; $1"; }
target() { on receiver sh -ec "$1"; }

target 'mkdir /srv/mirror; mount -t tmpfs -o size=16m,uid=deploy,mode=755 tmpfs /srv/mirror'
on sender sh -c 'mkdir /srv/data; mount -t tmpfs -o size=64m tmpfs /srv/data'
cat >"$a/etc/lsyncd/lsyncd.conf.lua" <<'LUA'
settings { logfile = "/var/log/lsyncd/lsyncd.log", insist = true }
sync {
    default.rsyncssh, name = "web", source = "/srv/data", host = "deploy@web2", targetdir = "/srv/mirror",
    delay = 1, guard = { maxDelete = 10 }, rsync = { archive = true },
    ssh = { identityFile = "/root/.ssh/lsyncd" },
}
LUA
cp "$a/etc/lsyncd/lsyncd.conf.lua" "$WORK/m/sender/good"

listed() { on "$1" sh -c "cd $2 && find . -type f -exec md5sum {} + | sort"; }
same() { [ "$(listed sender /srv/data)" = "$(listed receiver /srv/mirror)" ]; }
# tells PART...: lsyncdctl status -trouble prints all of them, and exits with 2
tells() {
    local text part code=0
    text=$(on sender lsyncdctl status -trouble) || code=$?
    [ "$code" = 2 ] || return
    for part; do
        grep -qF -- "$part" <<<"$text" || return
    done
}
# grep without -q, because a command whose reader ends early would fail.
logged() { on sender journalctl -u lsyncd -o cat | grep -- "$1" >/dev/null; }
state() { on sender systemctl show lsyncd -P StatusText; }
points() { state | grep '^TROUBLE in 1 sync, see lsyncdctl status' >/dev/null; }
calm() { not points; }
# in_trouble REASON REMEDY: all places where an administrator looks say so
in_trouble() {
    soon "lsyncdctl status -trouble tells reason and remedy" tells "$1" "remedy: $2"
    soon "systemctl status points to it" points
    is "the log has the reason" logged "$1"
}
# No error that has passed is shown as present.
clean() { on sender lsyncdctl status | not grep 'last error\|remedy:\|^    failed:\|paths* failed'; }
over() {
    is "lsyncdctl waits for its end" on sender lsyncdctl status -wait -timeout "$LIMIT"
    is "the target is equal" same
    is "nothing of it is left" clean
    soon "systemctl status is calm" calm
}
# A connection that is shared would survive some of the troubles.
disconnect() { on sender sh -c 'for pid in $(pgrep -x ssh); do kill "$pid" || true; done'; }
service() { on receiver systemctl "$1" ssh; }

source 'for i in $(seq 20); do echo $i >f$i; done'
on sender systemctl restart lsyncd
over

echo "== the link is down"
link down
source 'echo x >link'
silent() { { on sender lsyncdctl status || true; } | grep 'no I/O for\|TROUBLE' >/dev/null; }
soon "a transfer without I/O is reported" silent
LIMIT=300 in_trouble "No route to host" "check network and firewall"
soon "the log repeats the reason with later failures" \
    logged 'Retrying (list): [0-9]* (ssh: .*No route to host)'
link up
LIMIT=300 over

echo "== sshd is stopped"
service stop
disconnect
source 'echo x >sshd'
in_trouble "Connection refused" "start sshd"
service start
over

echo "== the target's disk is full"
target 'dd if=/dev/zero of=/srv/mirror/fill bs=1M count=14 status=none'
source 'head -c 4000000 /dev/urandom >big; echo small >small'
in_trouble "No space left on device" "free space on the target"
soon "what has room is sent" on receiver test -s /srv/mirror/small
# Between and during retries alike.
retries() { on sender journalctl -u lsyncd -o cat | grep -c 'no space left on the target'; }
before=$(retries)
more_retries() { tells web || lapses=yes; [ "$(retries)" -ge $((before + 3)) ]; }
lapses=''
soon "it is retried" more_retries
is "it stays in trouble during retries" [ -z "$lapses" ]
target 'rm /srv/mirror/fill'
over

echo "== another host key"
target 'mkdir /root/keys; mv /etc/ssh/ssh_host_* /root/keys/; ssh-keygen -q -A'
service restart
disconnect
source 'echo x >hostkey'
in_trouble "Host key for web2 has changed" "if the host was reinstalled, remove its old key"
target 'rm /etc/ssh/ssh_host_*; mv /root/keys/* /etc/ssh/'
service restart
over

echo "== the user's key is refused"
target 'mv /home/deploy/.ssh/authorized_keys /root/'
disconnect
source 'echo x >userkey'
in_trouble "deploy@web2: Permission denied (publickey" "add the public key"
target 'mv /root/authorized_keys /home/deploy/.ssh/'
over

echo "== the delete limit holds"
source 'rm f*'
in_trouble "20 entries would be deleted on the target" "find out what deleted the files"
is "no past error is shown as its reason" not tells "last error"
is "nothing is deleted" on receiver test -e /srv/mirror/f1
is "release is the remedy" on sender lsyncdctl release web
over

echo "== the source is unmounted"
on sender sh -ec 'mkdir /mnt/kept; mount --bind /srv/data /mnt/kept; umount /srv/data'
in_trouble "/srv/data is not mounted any more" "mount it again"
is "the target is kept" on receiver test -e /srv/mirror/small
on sender sh -ec 'mount --bind /mnt/kept /srv/data; umount /mnt/kept'
over

echo "== the target is read-only"
target 'mount -o remount,ro /srv/mirror'
source 'echo x >readonly; mkdir d; echo x >d/e'
in_trouble "Read-only file system" "mount the file system of the target read-write"
target 'mount -o remount,rw /srv/mirror'
over

echo "== a broken configuration, and systemctl reload"
first=$(on sender systemctl show lsyncd -P MainPID)
sed -i 's/delay = 1/dealy = 1/' "$a/etc/lsyncd/lsyncd.conf.lua"
is "it fails" not on sender systemctl reload lsyncd
shown() { { on sender systemctl --no-pager -l status lsyncd || true; } | grep -F "$1" >/dev/null; }
is "systemctl status tells the reason and the remedy" shown 'Did you mean "delay"?'
is "lsyncdctl reload refuses it, too" not on sender lsyncdctl reload
is "lsyncdctl status tells it" on sender sh -c 'lsyncdctl status | grep -qF "Did you mean"'
source 'echo x >reload'
soon "the daemon mirrors with the previous one" same
is "it is the same process" [ "$(on sender systemctl show lsyncd -P MainPID)" = "$first" ]

echo "== a broken configuration, and systemctl restart"
is "it fails" not on sender systemctl restart lsyncd
soon "systemctl status tells the reason and the remedy" shown 'Status: "Failed: /etc/lsyncd/lsyncd.conf.lua'
is "lsyncdctl says where to look" on sender sh -c 'lsyncdctl status 2>&1 | grep -q "systemctl status lsyncd"'
source 'echo x >restart'
cp "$WORK/m/sender/good" "$a/etc/lsyncd/lsyncd.conf.lua"
running() { on sender systemctl -q is-active lsyncd; }
soon "it starts by itself once the configuration is right" running
over
echo "== done"
