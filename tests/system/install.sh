#!/bin/bash
# install.sh RELEASE DEB: the package on a fresh Debian of that release: a new installation and
# every verb of systemctl, then removal and purge; taking over from Debian's own lsyncd, back
# to it, and taking over once more.
# shellcheck disable=SC2016
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
release=$1 deb=$2
box=install-$release
# The manager of a user's services comes with it.
base "$release" libpam-systemd
up "$box"
root=$WORK/m/$box/root
cp "$deb" "$root/opt/lsyncd.deb"
on "$box" apt-get update -q >/dev/null

property() { on "$box" systemctl show lsyncd -P "$1"; }
active() { [ "$(property ActiveState)" = "$1" ]; }
same() { diff -r "$root/srv/source" "$root/srv/target"; }
# grep without -q, because journalctl fails if its reader ends early.
says() { on "$box" journalctl -u lsyncd -o cat | grep -F -- "$1" >/dev/null; }
apt() { on "$box" apt-get -q -y "$@" </dev/null >"$WORK/m/$box/apt" 2>&1 || { cat "$WORK/m/$box/apt"; trouble; }; }
ctl() { on "$box" lsyncdctl "$@" >"$WORK/m/$box/ctl" 2>&1 || { cat "$WORK/m/$box/ctl"; return 1; }; }
calm() { property StatusText | grep -qx "Watching 2 directories, 0 delayed, 0 processes running"; }
same_as() { diff -r "$root/srv/source" "$root/srv/$1"; }
config() { cat >"$root/etc/lsyncd/lsyncd.conf.lua"; }

echo "== $release: a new installation"
apt install /opt/lsyncd.deb
is "the unit is enabled" on "$box" systemctl -q is-enabled lsyncd
is "without a configuration it is not failed" not on "$box" systemctl -q is-failed lsyncd
is "nor running" not on "$box" pidof lsyncd
is "nothing of ours is failed" not on "$box" sh -c 'systemctl list-units --failed --plain | grep -q lsyncd'
for page in man1/lsyncd.1 man1/lsyncdctl.1 man5/lsyncd.conf.lua.5; do
    is "the page $page is there" [ -e "$root/usr/share/man/$page.gz" ]
done
is "bash completes it" on "$box" bash -c '. /usr/share/bash-completion/completions/lsyncdctl
    COMP_WORDS=(lsyncdctl sta) COMP_CWORD=1; _lsyncdctl; [ "${COMPREPLY[*]}" = status ]'

mkdir "$root/srv/source" "$root/srv/target"
echo one >"$root/srv/source/one"
config <<'LUA'
settings { statusFile = "/var/log/lsyncd/lsyncd.status", statusInterval = 1,
           logfile = "/var/log/lsyncd/lsyncd.log" }
sync { default.rsync, source = "/srv/source", target = "/srv/target", delay = 1,
       rsync = { archive = true } }
LUA
echo "== $release: verbs"
on "$box" systemctl restart lsyncd
is "restart returns when it is ready" active active
is "the control socket is for root alone" \
    [ "$(on "$box" stat -c '%a %u' /run/lsyncd/lsyncd.sock)" = "600 0" ]
soon "the tree that is there arrives" same
is "the pid file is right" [ "$(on "$box" cat /run/lsyncd.pid)" = "$(property MainPID)" ]
is "it has a status line" [ -n "$(property StatusText)" ]
is "levels reach the journal" \
    [ -n "$(on "$box" journalctl -u lsyncd -p notice -o cat --grep 'Startup')" ]
mkdir "$root/srv/source/d"
echo two >"$root/srv/source/d/two"
soon "a change arrives" same
echo more >"$root/srv/source/d/more"
is "lsyncdctl waits until it is there" ctl status -wait -timeout "$LIMIT"
is "and it is there" same
is "all is current" ctl status
soon "systemctl status says so" calm
on "$box" lsyncd -nodaemon -onepass -rsync /srv/source /srv/byhand >"$WORK/m/$box/byhand" 2>&1
is "one started by hand runs beside it" same_as byhand
is "and says that it cannot be asked" grep -q 'another daemon listens' "$WORK/m/$box/byhand"
on "$box" systemctl stop lsyncd
is "stop is no failure" active inactive
is "nobody answers then" [ "$(on "$box" sh -c 'lsyncdctl status >/dev/null 2>&1; echo $?')" = 3 ]
is "the pid file is gone" not on "$box" test -e /run/lsyncd.pid
is "nothing is left running" not on "$box" pidof lsyncd rsync
echo three >"$root/srv/source/three"
on "$box" systemctl start lsyncd
soon "what changed meanwhile arrives" same
first=$(property MainPID)
echo 'sync { default.rsync, source = "/srv/source", target = "/srv/second", delay = 1 }' \
    >>"$root/etc/lsyncd/lsyncd.conf.lua"
on "$box" systemctl reload lsyncd
soon "reload brings the new sync" [ -e "$root/srv/second/d/two" ]
is "in the same process" [ "$(property MainPID)" = "$first" ]
is "what had not changed went on" says '1 untouched, 0 changed, 1 new, 0 removed'

echo "== $release: reload while a transfer runs"
cp "$root/etc/lsyncd/lsyncd.conf.lua" "$WORK/m/$box/two"
cat >"$root/usr/local/bin/slow-rsync" <<'SH'
#!/bin/sh
while [ -e /var/tmp/hold ]; do sleep 0.1; done
exec rsync "$@"
SH
chmod 755 "$root/usr/local/bin/slow-rsync"
cat >>"$root/etc/lsyncd/lsyncd.conf.lua" <<'LUA'
sync { default.rsync, name = "slow", source = "/srv/source", target = "/srv/slow", delay = 0.1,
       rsync = { binary = "/usr/local/bin/slow-rsync" } }
LUA
slow() { on "$box" pidof -x slow-rsync; }
on "$box" systemctl reload lsyncd
is "all arrives" ctl status slow -wait -timeout "$LIMIT"
touch "$root/var/tmp/hold"
echo slow >"$root/srv/source/slow"
soon "a transfer runs" slow
transfer=$(slow)
echo 'sync { default.rsync, source = "/srv/source", target = "/srv/fourth", delay = 1 }' \
    >>"$root/etc/lsyncd/lsyncd.conf.lua"
on "$box" systemctl reload lsyncd
is "the service is active at once" active active
soon "the new sync starts up" [ -e "$root/srv/fourth/d/two" ]
is "the transfer goes on" [ "$(slow)" = "$transfer" ]
is "lsyncdctl sees it" [ "$(on "$box" sh -c 'lsyncdctl status slow >/dev/null; echo $?')" = 1 ]
rm "$root/var/tmp/hold"
soon "and ends well" same_as slow
cp "$WORK/m/$box/two" "$root/etc/lsyncd/lsyncd.conf.lua"
on "$box" systemctl reload lsyncd
is "a sync that is no more is gone" [ "$(on "$box" lsyncdctl status -json | grep -c '"source"')" = 2 ]
echo 'sync { default.rsyn, }' >>"$root/etc/lsyncd/lsyncd.conf.lua"
is "reload with a broken configuration fails" not on "$box" systemctl reload lsyncd
is "and the daemon goes on" active active
sed -i '$d' "$root/etc/lsyncd/lsyncd.conf.lua"
echo four >"$root/srv/source/four"
soon "and mirrors" same
on "$box" systemctl --no-pager status lsyncd >"$WORK/m/$box/status"
is "status says what is watched" grep -q 'Watching' "$WORK/m/$box/status"
on "$box" sh -c 'kill -KILL $(pidof lsyncd)'
soon "a killed daemon comes back" on "$box" sh -c "systemctl is-active -q lsyncd && ! [ \"\$(systemctl show lsyncd -P MainPID)\" = $first ]"
echo five >"$root/srv/source/five"
soon "and mirrors again" same

echo "== $release: logrotate"
on "$box" logrotate -f /etc/logrotate.d/lsyncd
is "the log was renamed" [ -e "$root/var/log/lsyncd/lsyncd.log.1" ]
echo six >"$root/srv/source/six"
soon "a new one is written without a signal" grep -q . "$root/var/log/lsyncd/lsyncd.log"

echo "== $release: reboot"
again "$box"
echo seven >"$root/srv/source/seven"
soon "it runs after a reboot" same
apt install --reinstall /opt/lsyncd.deb
soon "and after the package was installed again" active active
is "the configuration was not touched" grep -q /srv/second "$root/etc/lsyncd/lsyncd.conf.lua"

echo "== $release: other units"
is "the units are right" on "$box" systemd-analyze verify --man=no lsyncd.service \
    lsyncd@web.service
on "$box" useradd -m -u 1500 human
home=$root/home/human
mkdir -p "$home/.config/lsyncd" "$home/source"
echo mine >"$home/source/mine"
cat >"$home/.config/lsyncd/lsyncd.conf.lua" <<'LUA'
sync { default.rsync, source = "/home/human/source", target = "/home/human/target", delay = 1 }
LUA
on "$box" chown -R human: /home/human
on "$box" systemctl start user@1500
human() {
    on "$box" setpriv --reuid=1500 --regid=1500 --clear-groups env HOME=/home/human \
        XDG_RUNTIME_DIR=/run/user/1500 "$@"
}
human systemctl --user enable --now lsyncd
soon "a user has a service of his own" cmp "$home/source/mine" "$home/target/mine"
is "with his rights" [ "$(stat -c %u "$home/target/mine")" = 1500 ]
is "which reloads" human systemctl --user reload lsyncd
is "and answers him" human lsyncdctl status -wait -timeout "$LIMIT"
on "$box" systemctl stop user@1500
cat >"$root/etc/lsyncd/web.conf.lua" <<'LUA'
sync { default.rsync, source = "/srv/source", target = "/srv/web", delay = 1 }
LUA
on "$box" systemctl enable --now lsyncd@web
soon "a template has its own configuration" [ -e "$root/srv/web/one" ]
on "$box" systemctl reload lsyncd@web
is "and a socket" ctl -socket /run/lsyncd-web/lsyncd.sock status -wait -timeout "$LIMIT"
is "the other daemon has its own still" ctl status -wait -timeout "$LIMIT"
on "$box" systemctl disable --now lsyncd@web
on "$box" systemctl stop lsyncd
on "$box" useradd -r mirror
on "$box" getent group www-data >/dev/null || on "$box" groupadd www-data
on "$box" install -d -o mirror /srv/mirror
mkdir -p "$root/etc/systemd/system/lsyncd.service.d"
documented user.conf >"$root/etc/systemd/system/lsyncd.service.d/user.conf"
echo 'ReadWritePaths=/srv/mirror' >>"$root/etc/systemd/system/lsyncd.service.d/user.conf"
cp "$root/etc/lsyncd/lsyncd.conf.lua" "$WORK/m/$box/kept"
config <<'LUA'
settings { logfile = "/var/log/lsyncd/mirror.log" }
sync { default.rsync, source = "/srv/source", target = "/srv/mirror", delay = 1 }
LUA
on "$box" systemctl daemon-reload
on "$box" systemctl start lsyncd
soon "a user with less rights mirrors" diff -r "$root/srv/source" "$root/srv/mirror"
is "as that user" [ "$(on "$box" sh -c 'ps -o user= -p $(pidof lsyncd)')" = mirror ]
on "$box" systemctl stop lsyncd
rm -r "$root/etc/systemd/system/lsyncd.service.d"
cp "$WORK/m/$box/kept" "$root/etc/lsyncd/lsyncd.conf.lua"
on "$box" chown -R root: /var/log/lsyncd /var/lib/lsyncd
on "$box" systemctl daemon-reload
on "$box" systemctl start lsyncd
soon "root again" active active

echo "== $release: the init script"
on "$box" systemctl stop lsyncd
sysv() { on "$box" env SYSTEMCTL_SKIP_REDIRECT=1 /etc/init.d/lsyncd "$@"; }
sysv start >/dev/null
is "it runs, and its pid file is right" \
    [ "$(on "$box" cat /run/lsyncd.pid)" = "$(on "$box" pidof lsyncd)" ]
is "status" sysv status
echo eight >"$root/srv/source/eight"
soon "it mirrors" same
is "it answers" ctl status -wait -timeout "$LIMIT"
sysv reload >/dev/null
sysv restart >/dev/null
is "it runs after a restart" sysv status
sysv stop >/dev/null
is "it has ended" not sysv status
is "no process is left" not on "$box" pidof lsyncd
on "$box" systemctl start lsyncd

echo "== $release: removal and purge"
apt remove lsyncd
is "the daemon has ended" not on "$box" pidof lsyncd
is "the configuration stays" [ -e "$root/etc/lsyncd/lsyncd.conf.lua" ]
rm "$root/etc/lsyncd/web.conf.lua"
apt purge lsyncd
for path in /etc/lsyncd /var/lib/lsyncd /var/log/lsyncd /etc/init.d/lsyncd /etc/logrotate.d/lsyncd; do
    is "$path is gone" not test -e "$root$path"
done
is "no link is left" [ -z "$(find "$root/etc" -name '*lsyncd*')" ]
is "nothing of ours is failed" not on "$box" sh -c 'systemctl list-units --failed --plain | grep -q lsyncd'

echo "== $release: taking over from Debian's package"
mkdir -p "$root/etc/lsyncd"
rm -rf "$root/srv/target" "$root/srv/second"
mkdir "$root/srv/target"
config <<'LUA'
-- the administrator's own
settings { statusFile = "/var/log/lsyncd.status", logfile = "/var/log/lsyncd.log", statusInterval = 1 }
sync { default.rsync, source = "/srv/source", target = "/srv/target", delay = 1 }
LUA
cp "$root/etc/lsyncd/lsyncd.conf.lua" "$WORK/m/$box/before"
echo 'NICELEVEL=7' >"$root/etc/default/lsyncd"
apt install lsyncd
soon "theirs mirrors" same
apt install /opt/lsyncd.deb
is "ours runs" active active
is "by its own unit" on "$box" sh -c 'systemctl show lsyncd -P FragmentPath | grep -q lib/systemd/system/'
is "one daemon" [ "$(on "$box" pidof lsyncd | wc -w)" = 1 ]
is "the new program" on "$box" sh -c 'readlink /proc/$(pidof lsyncd)/exe | grep -qx /usr/bin/lsyncd'
is "NICELEVEL counts" [ "$(on "$box" sh -c 'ps -o ni= -p $(pidof lsyncd)' | tr -d ' ')" = $(($(nice) + 7)) ]
is "the configuration is the administrator's" cmp "$WORK/m/$box/before" "$root/etc/lsyncd/lsyncd.conf.lua"
echo nine >"$root/srv/source/nine"
is "it says when all is there" ctl status -wait -timeout "$LIMIT"
is "and it is there" same
apt install --allow-downgrades lsyncd/"$release"
soon "back to theirs" on "$box" sh -c 'dpkg-query -W lsyncd | grep -q 2.2.3 && pidof lsyncd'
echo ten >"$root/srv/source/ten"
soon "which mirrors" same
on "$box" update-rc.d lsyncd disable
on "$box" systemctl stop lsyncd
apt install /opt/lsyncd.deb
is "one that was switched off stays off" not on "$box" systemctl -q is-enabled lsyncd
is "and is not started" not on "$box" pidof lsyncd
apt purge lsyncd
is "a configuration that was there before stays after a purge" cmp "$WORK/m/$box/before" "$root/etc/lsyncd/lsyncd.conf.lua"
echo "== $release: done"
