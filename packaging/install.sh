#!/bin/bash
# Installs the built programs and all other files of the packages. The list is in Cargo.toml.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'TEXT'
usage: packaging/install.sh [--rpm] [DIRECTORY]

Copies the files of the Debian package, or with --rpm those of the RPM package, below DIRECTORY,
which is used as the root directory. Build the programs first: cargo build --release --locked
TEXT
}

kind=deb
option() {
    [ "$1" = --rpm ] && kind=rpm
}
read_words option "$@"
[ "${#words[@]}" -eq 1 ] || wrong_usage
root=$(absolute "${words[0]}")
built=${CARGO_TARGET_DIR:-target}

# Lines of source, destination and mode.
assets() {
    case $kind in
    deb) sed -n 's/^    \["\([^"]*\)", "\([^"]*\)", "\([0-7]*\)"\],$/\1 \/\2 \3/p' Cargo.toml ;;
    rpm) sed -n 's/^    { source = "\([^"]*\)", dest = "\([^"]*\)", mode = "\([0-7]*\)".*/\1 \2 \3/p' Cargo.toml ;;
    esac
}

assets | while read -r from to mode; do
    # A directory ends with a slash, and the source may be a pattern.
    for file in ${from/#target/$built}; do
        case $to in
        */) install -D -m "$mode" "$file" "$root$to${file##*/}" ;;
        *) install -D -m "$mode" "$file" "$root$to" ;;
        esac
    done
done
