#!/bin/bash
# rpm.sh RPM: what is in the package, and its scripts, in a root of its own.
set -Eeuo pipefail
trap 'echo "NOT: line $LINENO: $BASH_COMMAND"' ERR
rpm=$1
# The output is read as a whole: rpm fails if a reader ends before it.
list=$(rpm -qpl "$rpm")
configurations=$(rpm -qpc "$rpm")
needs=$(rpm -qp --requires "$rpm")
for path in /usr/bin/lsyncd /usr/bin/lsyncdctl /usr/lib/systemd/system/lsyncd.service /etc/lsyncd.conf \
    /etc/lsyncd/lsyncd.conf.lua /etc/sysconfig/lsyncd /etc/logrotate.d/lsyncd \
    /usr/share/man/man1/lsyncd.1 /usr/share/man/man1/lsyncdctl.1 /usr/share/man/man5/lsyncd.conf.lua.5; do
    # rpmbuild compresses manual pages.
    grep -qxE "$path(\.gz)?" <<<"$list" || { echo "NOT: $path is not in it"; exit 1; }
done
echo "ok: its files"
for path in /etc/lsyncd.conf /etc/lsyncd/lsyncd.conf.lua /etc/sysconfig/lsyncd; do
    grep -qx "$path" <<<"$configurations" || { echo "NOT: $path is no configuration"; exit 1; }
done
grep -qx rsync <<<"$needs"
[ "$(rpm --eval '%{lua:print(rpm.vercmp("3.0.0", "2.3.1"))}')" = 1 ]
echo "ok: its configuration, needs and version"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{etc,usr,proc,var/lib/rpm}
# The scripts need a shell and a few commands of the root they run in.
libraries() { # libraries PROGRAM: those it is linked with, into the root
    ldd "$1" | grep -o '/[^ ]*' | while read -r library; do
        [ -e "$root$library" ] || install -D "$(readlink -f "$library")" "$root$library"
    done
}
for program in /bin/sh /bin/mkdir /usr/bin/grep /usr/bin/cat /usr/bin/nice /usr/bin/sed \
    /usr/bin/rsync; do
    install -D "$(readlink -f "$program")" "$root$program"
    libraries "$program"
done
mkdir -p "$root/etc/lsyncd"
echo '-- ours' >"$root/etc/lsyncd.conf"
rpm --root "$root" --nodeps --nosignature -i "$rpm"
grep -qx -- '-- ours' "$root/etc/lsyncd.conf"
[ -e "$root/etc/lsyncd.conf.rpmnew" ]
echo "ok: a configuration that is there stays"
[ -d "$root/var/log/lsyncd" ]
echo "ok: its script ran"
libraries "$root/usr/bin/lsyncd"
libraries "$root/usr/bin/lsyncdctl"
chroot "$root" /usr/bin/lsyncd -version
chroot "$root" /usr/bin/lsyncdctl -version
[ "$(chroot "$root" /usr/lib/lsyncd/service condition)" != "" ]
echo "ok: without a configuration the service is skipped"
echo 'sync { default.rsync, source = "/etc", target = "/tmp/x" }' >>"$root/etc/lsyncd.conf"
chroot "$root" /usr/lib/lsyncd/service condition
checked=$(chroot "$root" /usr/lib/lsyncd/service check)
grep -q /etc/ <<<"$checked"
echo "ok: Fedora's /etc/lsyncd.conf counts"
rpm --root "$root" --nodeps -e lsyncd
[ ! -e "$root/usr/bin/lsyncd" ]
echo "ok: removed"
