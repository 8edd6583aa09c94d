# shellcheck shell=bash
# What the system tests share: whole systems in systemd-nspawn, each with a root file system of
# its own that is thrown away. To be sourced; needs root and Debian's mmdebstrap and
# systemd-container.
#
#   base RELEASE [PACKAGE...]
#                           make sure a root file system of that release is there, with these
#                           packages besides; $BASE
#   up NAME [ARGUMENT...]   boot a system from $BASE
#   on NAME COMMAND...      run a command in it
#   down NAME [keep]        end it and, unless it shall be kept, throw its changes away
#   again NAME              reboot it
#   pair DEB                two systems, `sender` with the package and an ssh key, and `receiver`, which
#                           it calls web2, with the user deploy; $a and $b are their root directories
#   link up|down            the network between the two
#   authorize OPTIONS       deploy accepts the key of the sender, with these options of authorized_keys
#   soon WHAT COMMAND...    wait until the command succeeds, at most $LIMIT seconds
#   is WHAT COMMAND...      the command succeeds now, or the test has failed
#   documented NAME         a configuration of docs/security.md
#   dead_links ROOT         the links between installed documents that lead to no file

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

WORK=${LSYNCD_SYSTEM_WORK:-/var/tmp/lsyncd-system}
LIMIT=${LSYNCD_TEST_LIMIT:-120}
machines=()

base() {
    local mirror security release=$1 more
    shift
    more=$(printf -- ',%s' "$@")
    BASE=$WORK/base-$release${1:+$(printf -- '-%s' "$@")}
    [ -e "$BASE/.ready" ] && return
    rm -rf "$BASE"
    mkdir -p "$BASE"
    mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources | sed -n 1p)
    security=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources | sed -n 2p)
    mmdebstrap --quiet --variant=minbase --format=directory \
        --include=systemd,systemd-sysv,dbus,openssh-server,openssh-client,logrotate,procps,iproute2${1:+$more} \
        --aptopt='Acquire::Check-Valid-Until "false"' "$release" "$BASE" \
        "deb $mirror $release main" "deb $mirror $release-updates main" \
        "deb $security $release-security main"
    # It would override the name each machine is given.
    rm -f "$BASE/etc/hostname"
    touch "$BASE/.ready"
}

up() {
    local name=$1 place=$WORK/m/$1 layer
    shift
    mkdir -p "$place"/{up,work,root}
    layer="lowerdir=$BASE,upperdir=$place/up,workdir=$place/work"
    mountpoint -q "$place/root" || mount -t overlay overlay -o "$layer" "$place/root"
    printf '%s\n' "$@" >"$place/arguments"
    case " ${machines[*]-} " in
    *" $name "*) ;;
    *) machines+=("$name") ;;
    esac
    boot "$name"
}

boot() {
    local name=$1 place=$WORK/m/$1 arguments state='' i
    mapfile -t arguments < <(grep . "$place/arguments" || true)
    (
        for kind in systemd unified; do
            [ -d "/sys/fs/cgroup/$kind" ] || continue
            mkdir -p "/sys/fs/cgroup/$kind/$name"
            echo $BASHPID >"/sys/fs/cgroup/$kind/$name/cgroup.procs"
        done
        exec systemd-nspawn -q -M "$name" --hostname="$name" -D "$place/root" --resolv-conf=copy-host \
            --timezone=off --link-journal=no --register=no --keep-unit --console=pipe \
            "${arguments[@]}" -b
    ) </dev/null >"$place/console" 2>&1 &
    echo $! >"$place/pid"
    # The first child is a helper; the system's own first process is called systemd.
    for i in $(seq 600); do
        pgrep -x -P "$(cat "$place/pid")" systemd >"$place/leader" && break
        sleep .05
    done
    for i in $(seq 600); do
        state=$(on "$name" systemctl is-system-running 2>/dev/null || true)
        case $state in running | degraded) return ;; esac
        sleep .1
    done
    echo "$name does not come up: $state, $i tries"
    cat "$place/console"
    return 1
}

on() {
    local name=$1
    shift
    nsenter -t "$(cat "$WORK/m/$name/leader")" -a env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root TERM=dumb LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

halt() {
    local pid i
    pid=$(cat "$WORK/m/$1/pid")
    kill -TERM "$pid" 2>/dev/null || true
    for i in $(seq 600); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep .1
    done
    echo "$1 does not stop after $i tries"
    kill -KILL "$pid" || true
}

again() {
    halt "$1"
    boot "$1"
}

down() {
    local name=$1 place=$WORK/m/$1
    halt "$name"
    umount "$place/root" || umount -l "$place/root" || true
    rm -rf "$place"
    for kind in systemd unified; do
        [ -d "/sys/fs/cgroup/$kind/$name" ] || continue
        find "/sys/fs/cgroup/$kind/$name" -depth -type d -exec rmdir {} \; || true
    done
}

all_down() {
    local name
    for name in "${machines[@]-}"; do
        [ -z "$name" ] || down "$name"
    done
}
trap all_down EXIT

pair() {
    local space
    ip netns add sender
    ip netns add receiver
    pair_end() {
        all_down
        ip netns del sender || true
        ip netns del receiver || true
    }
    trap pair_end EXIT
    ip link add lsyncd0 netns sender type veth peer name lsyncd0 netns receiver
    ip -n sender addr add 10.77.0.1/24 dev lsyncd0
    ip -n receiver addr add 10.77.0.2/24 dev lsyncd0
    for space in sender receiver; do
        ip -n "$space" link set lo up
        ip -n "$space" link set lsyncd0 up
        up "$space" --network-namespace-path="/run/netns/$space"
    done
    a=$WORK/m/sender/root b=$WORK/m/receiver/root

    cp "$1" "$a/opt/lsyncd.deb"
    on sender dpkg -i /opt/lsyncd.deb >/dev/null
    on receiver useradd -m -s /bin/sh deploy
    on receiver install -d -m 700 -o deploy /home/deploy/.ssh
    on sender install -d -m 700 /root/.ssh
    on sender ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/lsyncd
    echo "10.77.0.2 web2" >>"$a/etc/hosts"
    on sender sh -c 'ssh-keyscan -t ed25519 web2 >/root/.ssh/known_hosts 2>/dev/null'
    authorize ""
}

link() { ip -n receiver link set lsyncd0 "$1"; }

authorize() {
    printf '%s%s\n' "$1" "$(cat "$a/root/.ssh/lsyncd.pub")" >"$b/home/deploy/.ssh/authorized_keys"
    on receiver chown deploy /home/deploy/.ssh/authorized_keys
}

soon() {
    local what=$1 i
    shift
    for i in $(seq $((LIMIT * 10))); do
        if "$@" >/dev/null 2>&1; then
            echo "ok: $what"
            return
        fi
        sleep .1
    done
    echo "NOT: $what ($* failed for $LIMIT s, $i times)"
    trouble
}

is() {
    local what=$1
    shift
    if "$@"; then
        echo "ok: $what"
    else
        echo "NOT: $what ($*)"
        trouble
    fi
}

# The block of docs/security.md behind the comment <!-- NAME -->.
documented() {
    sed -n "/^<!-- $1 -->/,/^\`\`\`\$/p" "$here/docs/security.md" | sed '/^<!--/d; /^```/d'
}

dead_links() {
    local document link
    find "$1/usr/share/doc/lsyncd/" -name '*.md*' -o -name 'changelog.gz' | while read -r document; do
        zcat -f "$document" | grep -o '](<*[^)#]*' | sed 's/^](<*//' | grep -v '^$\|://' | while read -r link; do
            [ -e "${document%/*}/$link" ] || echo "${document#"$1"}: $link" | tee /dev/stderr
        done
    done
}

not() { ! "$@"; }

trouble() {
    local name
    for name in "${machines[@]-}"; do
        [ -n "$name" ] || continue
        echo "--- $name"
        on "$name" systemctl --no-pager --full status lsyncd || true
        on "$name" journalctl --no-pager -n 40 -u lsyncd || true
    done
    exit 1
}
