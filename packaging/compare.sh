#!/bin/bash
# Makes a release twice, from different folders and homes, and compares all files bit by bit.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'TEXT'
usage: packaging/compare.sh [--arch amd64|arm64]... [--source]

The options are those of packaging/release.sh. Both runs build the commit that is checked out; each
downloads its crates into a home of its own. Needs some gigabytes below TMPDIR.
TEXT
}

options=()
option() {
    options+=("$1")
    [ "$1" != --arch ] || {
        options+=("$2")
        taken=2
    }
}
read_words option "$@"
[ "${#words[@]}" -eq 0 ] || wrong_usage
use_cargo
# Both runs use these.
need_zig
need cargo-zigbuild cargo-deb cargo-generate-rpm cargo-cyclonedx

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
toolchain=${RUSTUP_HOME:-${HOME:-/root}/.rustup}

once() { # once FOLDER HOME OUT
    mkdir -p "$1" "$2"
    git clone --quiet . "$1/tree"
    env -u CARGO_HOME -u CARGO_TARGET_DIR HOME="$2" RUSTUP_HOME="$toolchain" PATH="$PATH" \
        "$1/tree/packaging/release.sh" "${options[@]}" "$3" >/dev/null
    rm -rf "${1:?}" "${2:?}"
}

once "$place/one" "$place/home" "$place/first"
once "$place/another/and/deeper" "$place/a-home-with-a-longer-name" "$place/second"
differing=0
for file in "$place/first"/*; do
    name=${file##*/}
    if cmp -s "$file" "$place/second/$name"; then
        echo "ok: $name"
    else
        echo "NOT: $name differs"
        differing=$((differing + 1))
    fi
done
[ "$(ls "$place/first")" = "$(ls "$place/second")" ] || die "the runs made different files"
[ "$differing" -eq 0 ] || die "$differing files differ"
