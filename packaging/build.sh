#!/bin/bash
# Builds the packages: lsyncd_VERSION-1_ARCH.deb and lsyncd-VERSION-1.ARCH.rpm.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'TEXT'
usage: packaging/build.sh [--deb | --rpm] [DIRECTORY]

Builds lsyncd and puts its packages into DIRECTORY (packaging/out). What each contains is
written in Cargo.toml; cargo-deb and cargo-generate-rpm, which make them, are installed for this
tree alone, below cargo's target directory, when they are not there.
TEXT
}

kinds=(deb rpm)
out=
for word in "$@"; do
    case $word in
    --deb) kinds=(deb) ;;
    --rpm) kinds=(rpm) ;;
    -h | --help)
        usage
        exit 0
        ;;
    -*)
        usage >&2
        exit 2
        ;;
    /*) out=$word ;;
    *) out=$here/$word ;;
    esac
done
out=${out:-$PWD/packaging/out}

die() {
    echo "build.sh: $*" >&2
    exit 1
}

command -v cargo >/dev/null || PATH=$PATH:${HOME:-/root}/.cargo/bin
command -v cargo >/dev/null || die "Rust 1.88 or later is needed: https://rustup.rs tells how to get it"
target=$(cargo metadata --format-version 1 --no-deps --locked |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
PATH=$PATH:$target/tools/bin

need() { # need COMMAND CRATE VERSION: a tool of cargo
    command -v "$1" >/dev/null && return
    echo "Installing $2 (once, some minutes) ..."
    cargo install --quiet --locked --root "$target/tools" --version "$3" "$2"
}

mkdir -p "$out"
echo "Building lsyncd ..."
cargo build --release --locked --quiet
for kind in "${kinds[@]}"; do
    case $kind in
    deb)
        need cargo-deb cargo-deb '^3'
        # dpkg-shlibdeps finds out which C library is needed at least.
        if ! command -v dpkg-shlibdeps >/dev/null && [ "$(id -u)" -eq 0 ]; then
            apt-get install -q -y --no-install-recommends dpkg-dev </dev/null >/dev/null || true
        fi
        command -v dpkg-shlibdeps >/dev/null || die "please install: dpkg-dev"
        rm -f "$out"/lsyncd_*.deb
        cargo deb --quiet --no-build --locked --output "$out/" >/dev/null
        ;;
    rpm)
        need cargo-generate-rpm cargo-generate-rpm '^0.21'
        rm -f "$out"/lsyncd-*.rpm
        cargo generate-rpm --auto-req builtin --output "$out/"
        ;;
    esac
done
ls -1 "$out"/lsyncd*
