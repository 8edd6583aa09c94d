#!/bin/bash
# Builds the packages: lsyncd_VERSION-1_ARCH.deb and lsyncd-VERSION-1.ARCH.rpm.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'TEXT'
usage: packaging/build.sh [--deb | --rpm] [DIRECTORY]

Builds lsyncd and puts its packages into DIRECTORY (packaging/out). Cargo.toml lists their files.
The tools cargo-deb and cargo-generate-rpm are installed below cargo's target directory if they
do not exist.
TEXT
}

kinds=(deb rpm)
option() {
    case $1 in
    --deb) kinds=(deb) ;;
    --rpm) kinds=(rpm) ;;
    *) return 1 ;;
    esac
}
read_words option "$@"
[ "${#words[@]}" -le 1 ] || wrong_usage
out=$(absolute "${words[0]:-$PWD/packaging/out}")
use_cargo

mkdir -p "$out"
echo "Building lsyncd ..."
cargo build --release --locked --quiet
for kind in "${kinds[@]}"; do
    case $kind in
    deb)
        need cargo-deb
        # dpkg-shlibdeps finds out which C library is needed at least.
        if ! command -v dpkg-shlibdeps >/dev/null && [ "$(id -u)" -eq 0 ]; then
            apt-get install -q -y --no-install-recommends dpkg-dev </dev/null >/dev/null || true
        fi
        command -v dpkg-shlibdeps >/dev/null || die "please install: dpkg-dev"
        rm -f "$out"/lsyncd_*.deb
        cargo deb --quiet --no-build --locked --output "$out/" >/dev/null
        ;;
    rpm)
        need cargo-generate-rpm
        rm -f "$out"/lsyncd-*.rpm
        cargo generate-rpm --auto-req builtin --output "$out/"
        ;;
    esac
done
ls -1 "$out"/lsyncd*
