#!/bin/bash
# chain.sh LSYNCD: docs/scenarios/chain.md with fifteen hosts, each a network namespace with a link
# of its own (100 Mbit/s, 20 ms one way) and an rsync daemon. One feeds two, each of these two
# more, and each of these two more; after each step all fourteen have to be equal to the first. For
# comparison the first then feeds all of them itself. Prints how long each step took, what it cost
# the daemons and what went through the first host's link.
#
# All happens in namespaces of processes and mounts that end with this script, however it ends.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [ "$1" != inside ]; then
    unshare --net --mount --pid --fork true || exit 77
    setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc \
        "${BASH_SOURCE[0]}" inside "$(realpath "$1")" </dev/null &
    inside=$!
    trap 'kill -KILL $inside 2>/dev/null || true; rmdir "$WORK/chain" "$WORK" 2>/dev/null || true' EXIT
    trap 'exit 1' INT TERM HUP
    wait $inside
    exit
fi

lsyncd=$2
place=$WORK/chain
mkdir -p "$place" /run/netns
mount -t tmpfs tmpfs "$place"
mount -t tmpfs tmpfs /run/netns
export LC_ALL=C

first=first
below_a=(a a1 a2 a11 a12 a21 a22)
below_b=(b b1 b2 b11 b12 b21 b22)
receivers=("${below_a[@]}" "${below_b[@]}")
declare -A address daemons=()

within() { nsenter --net="/run/netns/$1" "${@:2}"; }
link() { ip -n "$1" link set eth0 "$2"; }
now() { echo $((${EPOCHREALTIME/./} / 1000)); }
seconds() { printf '%d.%02d s' $(($1 / 1000)) $(($1 % 1000 / 10)); }

trouble() {
    tail -n 20 "$place"/*/log
    exit 1
}

network() {
    local host number=0 ports=()
    ip netns add net
    for host in $first "${receivers[@]}"; do
        number=$((number + 1))
        address[$host]=10.79.0.$number
        ip netns add "$host"
        ip link add eth0 netns "$host" type veth peer name "$host" netns net
        ip -n "$host" link set dev eth0 addrgenmode none
        ip -n net link set dev "$host" addrgenmode none up
        ip -n "$host" addr add "${address[$host]}/24" dev eth0
        link "$host" up
        ports+=("$host")
        mkdir -p "$place/$host"
    done
    nsenter --net=/run/netns/net "$here/tests/system/switch.py" 20 100 "${ports[@]}" &
    for host in "${receivers[@]}"; do
        receiver "$host"
    done
    for host in "${receivers[@]}"; do
        soon "$host answers" within $first rsync --contimeout=1 "rsync://${address[$host]}/"
    done
}

receiver() {
    cat >"$place/$1/rsyncd.conf" <<CONF
use chroot = no
uid = root
gid = root
reverse lookup = no
timeout = 20
log file = $place/$1/rsyncd.log
[www]
path = $place/$1/www
read only = no
CONF
    nsenter --net="/run/netns/$1" rsync --daemon --no-detach --config="$place/$1/rsyncd.conf" &
}

# daemon HOST TARGET...: HOST feeds these
daemon() {
    local host=$1 target targets=''
    for target in "${@:2}"; do
        targets+="\"rsync://${address[$target]}/www/\", "
    done
    cat >"$place/$host/lsyncd.conf.lua" <<CONF
settings {
  insist = true, hup = "changed", nodaemon = true,
  logfile = "$place/$host/log", stateDir = "$place/$host/state",
}
sync {
  default.rsync, name = "www", source = "$place/$host/www", delay = 1,
  targets = { $targets },
  rsync = { archive = true, timeout = 10, _extra = { "--contimeout=5" } },
}
CONF
    nsenter --net="/run/netns/$host" "$lsyncd" "$place/$host/lsyncd.conf.lua" >/dev/null &
    daemons[$host]=$!
}

# What a host has: of files size and time, of all name and mode.
listing() {
    (cd "$place/$1/www" && find . -type f -printf '%P %m %s %T@\n' -o -printf '%P %m %y\n') 2>/dev/null | sort
}

is_equal() { listing "$1" | cmp -s - "$place/wanted"; }

# equal WHAT HOST...: waits until these hosts have what the first one has; how long it took since
# $start goes into $took.
equal() {
    local what=$1 host
    shift
    listing $first >"$place/wanted"
    for host in "$@"; do
        until is_equal "$host"; do
            if [ $(($(now) - start)) -gt $((LIMIT * 3000)) ]; then
                listing "$host" | diff - "$place/wanted" | head || true
                echo "NOT: $what, $host"
                trouble
            fi
            sleep .05
        done
    done
    took=$(($(now) - start))
    echo "ok: $what ($(seconds $took))"
}

# Contents, which the listing does not have.
same_contents() {
    local host
    for host in "${receivers[@]}"; do
        diff -r "$place/$first/www" "$place/$host/www" || return
    done
}

fill() { # fill DIRECTORY... : 25 files in each
    local directory n
    for directory in "$@"; do
        mkdir -p "$directory"
        for n in {1..25}; do
            printf '%01000d\n' "$RANDOM" >"$directory/f$n"
        done
    done
}

cost() { # cost HOST: CPU of its daemon, then of that and what it started, in ms
    local fields
    read -ra fields < <(sed 's/.*) //' "/proc/${daemons[$1]}/stat")
    echo $(((fields[11] + fields[12]) * 10)) \
        $(((fields[11] + fields[12] + fields[13] + fields[14]) * 10))
}

sent() { within $first awk '/eth0/ { print $10 }' /proc/net/dev; }

# scenario NAME: the daemons run already
scenario() {
    local name=$1 before host own all most=0 hosts=$((${#daemons[@]} - 1))
    before=$(sent)
    start=$(now)
    figures+=("== $name")

    equal "$name: 500 files at the start" "${receivers[@]}"
    figures+=("start with 500 files: $(seconds $took)")

    cd "$place/$first/www"
    start=$(now)
    fill d{1..20} new{1..20}
    equal "$name: 1,000 files changed or new" "${receivers[@]}"
    figures+=("1,000 files changed or new: $(seconds $took)")

    start=$(now)
    mv d1 moved
    mv new1 d2/moved
    for host in {1..25}; do mv "d3/f$host" "d4/g$host"; done
    rm d{5..9}/f*
    rm -r new{11..15}
    equal "$name: renames and deletions" "${receivers[@]}"
    figures+=("50 files and 2 directories renamed, 250 deleted: $(seconds $took)")

    start=$(now)
    for host in {1..20}; do head -c 1000000 /dev/urandom >"big$host"; done
    equal "$name: 20 MB" "${receivers[@]}"
    figures+=("20 files of 1 MB: $(seconds $took)")

    link a down
    start=$(now)
    fill cut{1..12}
    rm -r d10
    equal "$name: 300 files while a host is cut off, at the others" "${others[@]}"
    figures+=("300 files while a host is cut off, at the others: $(seconds $took)")
    is "$name: it lacks them" not is_equal a
    soon "$name: and has been tried in vain" grep -q "${address[a]}/.* failed 2 times" "$place/$first/log"
    link a up
    start=$(now)
    equal "$name: the link is back" "${receivers[@]}"
    figures+=("after the link was back, everywhere: $(seconds $took)")
    is "$name: contents, too" same_contents

    for host in "${!daemons[@]}"; do
        read -r own all < <(cost "$host")
        [ "$host" != $first ] || figures+=("CPU at the first host: $(seconds "$own"), with its rsyncs $(seconds "$all")")
        [ "$host" = $first ] || most=$((all > most ? all : most))
    done
    [ "$hosts" -eq 0 ] || figures+=("CPU at a relay, with its rsyncs: $(seconds "$most") at most")
    figures+=("sent by the first host: $((($(sent) - before) / 1000000)) MB")
    for host in "${!daemons[@]}"; do
        kill "${daemons[$host]}"
        wait "${daemons[$host]}" || true
    done
    daemons=()
    cd /
}

# Empty receivers, and a source.
prepare() {
    local host
    for host in $first "${receivers[@]}"; do
        rm -rf "$place/$host"/{www,state,log}
        mkdir "$place/$host/www"
    done
    (cd "$place/$first/www" && fill d{1..20})
}

figures=()
network

prepare
others=("${below_b[@]}")
daemon $first a b
for relay in a b a1 a2 b1 b2; do
    daemon "$relay" "${relay}1" "${relay}2"
done
scenario "three levels"

prepare
others=("${below_a[@]:1}" "${below_b[@]}")
daemon $first "${receivers[@]}"
scenario "one level"

printf '%s\n' "${figures[@]}"
echo "== done"
