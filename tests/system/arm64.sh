#!/bin/bash
# arm64.sh DEB: the programs of an arm64 package mirror a tree under qemu-user, with the rsync of this
# host. Needs no root. Ends with 77 without the emulator or the C library for arm64.
set -euo pipefail
deb=$1
limit=${LSYNCD_TEST_LIMIT:-120}
qemu=
for name in qemu-aarch64-static qemu-aarch64; do
    [ -n "$qemu" ] || qemu=$(command -v $name) || true
done
libraries=/usr/aarch64-linux-gnu
[ -n "$qemu" ] && [ -e $libraries/lib/libc.so.6 ] ||
    { echo "no qemu-user-static or libc6-arm64-cross"; exit 77; }

scratch=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true; rm -rf "$scratch"' EXIT
dpkg-deb -x "$deb" "$scratch/root"
# With -L the emulator would also look up other absolute paths below that directory.
emulator=("$qemu" "$libraries/lib/ld-linux-aarch64.so.1" --library-path "$libraries/lib")
run() { "${emulator[@]}" "$scratch/root/usr/bin/$1" "${@:2}"; }
source=$scratch/source target=$scratch/target
mkdir -p "$source/a"
echo one | tee "$source/one" >"$source/a/two"

soon() { # soon WHAT COMMAND...
    local what=$1
    shift
    for _ in $(seq $((limit * 10))); do
        if "$@" >/dev/null 2>&1; then
            echo "ok: $what"
            return
        fi
        sleep .1
    done
    echo "NOT: $what"
    cat "$scratch/log"
    exit 1
}
same() { diff -r "$source" "$target"; }

run lsyncd -version
echo "sync { default.rsync, source = '$source', target = '$target', delay = 1 }" >"$scratch/lsyncd.conf.lua"
export RUNTIME_DIRECTORY=$scratch STATE_DIRECTORY=$scratch/state
"${emulator[@]}" "$scratch/root/usr/bin/lsyncd" -nodaemon "$scratch/lsyncd.conf.lua" >"$scratch/log" 2>&1 &
daemon=$!
soon "the tree that is there arrives" same
mkdir -p "$source/b/c"
echo three >"$source/b/c/three"
soon "what is created arrives" same
echo more >>"$source/one"
soon "a change arrives" same
mv "$source/b" "$source/d"
soon "a rename arrives" same
rm -r "$source/a"
soon "a deletion arrives" same
run lsyncdctl -socket "$scratch/lsyncd.sock" status -wait -timeout "$limit"
kill "$daemon"
wait "$daemon" || [ $? = 143 ]
daemon=
echo "ok: it ends"
