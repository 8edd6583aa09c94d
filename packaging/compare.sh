#!/bin/bash
# Makes a release twice, in different directories and homes, and compares all files.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'TEXT'
usage: packaging/compare.sh [--arch amd64|arm64]... [--source] [DIRECTORY]

The options are those of packaging/release.sh. Puts the release into DIRECTORY (packaging/out/release).
If the second run produces other files, they are put into DIRECTORY.again.

Both runs build the commit that is checked out and download the crates into a temporary home. Needs
some gigabytes below TMPDIR.
TEXT
}

options=() packages=yes
option() {
    case $1 in
    --source) packages= ;;
    --arch)
        : "${2:?--arch needs an architecture}"
        taken=2
        ;;
    *) return 1 ;;
    esac
    options+=("${@:1:taken}")
}
read_words option "$@"
[ "${#words[@]}" -le 1 ] || wrong_usage
out=$(absolute "${words[0]:-$PWD/packaging/out/release}")
use_cargo
# Both runs use these.
need_release_tools "$packages"

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
commit=$(git rev-parse HEAD)
toolchain=${RUSTUP_HOME:-${HOME:-/root}/.rustup}

once() { # once FOLDER HOME OUT
    mkdir -p "$1" "$2"
    git clone --quiet --no-checkout . "$1/tree"
    git -C "$1/tree" checkout --quiet --detach "$commit"
    env -u CARGO_HOME -u CARGO_TARGET_DIR -u XDG_CACHE_HOME HOME="$2" RUSTUP_HOME="$toolchain" PATH="$PATH" \
        "$1/tree/packaging/release.sh" "${options[@]}" "$3" >/dev/null
    rm -rf "${1:?}" "${2:?}"
}

rm -rf "$out.again"
once "$place/one" "$place/home" "$out"
once "$place/another/and/deeper" "$place/a-home-with-a-longer-name" "$out.again"
differing=0
# SHA256SUMS is one of the files and lists all others.
for file in "$out.again"/*; do
    name=${file##*/}
    if cmp -s "$file" "$out/$name"; then
        echo "ok: $name"
    else
        echo "NOT: $name differs"
        differing=$((differing + 1))
    fi
done
[ "$differing" -eq 0 ] || die "$differing files differ"
rm -r "$out.again"
