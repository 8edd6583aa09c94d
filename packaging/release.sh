#!/bin/bash
# Makes a release: packages for two architectures, the source, and the files that tell what is in it.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'TEXT'
usage: packaging/release.sh [--arch amd64|arm64]... [DIRECTORY]

Puts into DIRECTORY (packaging/out/release):
  lsyncd_VERSION-1_ARCH.deb, lsyncd-VERSION-1.ARCH.rpm   for amd64 and arm64, glibc 2.28 or later
  lsyncd_VERSION.orig.tar.xz                             the source with its crates
  lsyncd-VERSION.cdx.json                                what the programs consist of (CycloneDX)
  SHA256SUMS                                             checksums of all of these

Times and paths of the build host are kept out of the files. Needs rustup, Python with pip, xz and dpkg-dev; for arm64 also gcc-aarch64-linux-gnu's binutils. The
tools of cargo are installed below cargo's target directory.
TEXT
}

arches=()
out=
while [ $# -gt 0 ]; do
    case $1 in
    --arch)
        arches+=("${2:?--arch needs an architecture}")
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    -*)
        usage >&2
        exit 2
        ;;
    /*) out=$1 ;;
    *) out=$here/$1 ;;
    esac
    shift
done
[ "${#arches[@]}" -gt 0 ] || arches=(amd64 arm64)
out=${out:-$PWD/packaging/out/release}

die() {
    echo "release.sh: $*" >&2
    exit 1
}

command -v cargo >/dev/null || PATH=$PATH:${HOME:-/root}/.cargo/bin
command -v cargo >/dev/null || die "Rust 1.88 or later is needed: https://rustup.rs tells how to get it"
target=$(cargo metadata --format-version 1 --no-deps --locked |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
version=$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)
tools=$target/tools
PATH=$tools/bin:$PATH

# ---- the same bits each time

commit=$(git rev-parse HEAD 2>/dev/null) || commit=
if [ -n "$commit" ]; then
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
fi
: "${SOURCE_DATE_EPOCH:?set it to the time of the release; this is not a git checkout}"
export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C
umask 022
cargo_home=${CARGO_HOME:-${HOME:-/root}/.cargo}
sysroot=$(rustc --print sysroot)
# Panic messages name files of the source, of crates and of the standard library.
export RUSTFLAGS="--remap-path-prefix=$PWD=/lsyncd --remap-path-prefix=$cargo_home=/cargo \
--remap-path-prefix=$sysroot=/rust --remap-path-prefix=$target=/target"
export CARGO_INCREMENTAL=0
# The vendored Lua's assertions name files, too.
export CFLAGS="-ffile-prefix-map=$PWD=/lsyncd -ffile-prefix-map=$cargo_home=/cargo \
-ffile-prefix-map=$target=/target"

# ---- tools

need() { # need COMMAND CRATE VERSION: a tool of cargo
    command -v "$1" >/dev/null && return
    echo "Installing $2 (once, some minutes) ..."
    env -u RUSTFLAGS -u CFLAGS cargo install --quiet --locked --root "$tools" --version "$3" "$2"
}

need_zig() { # the linker that knows the symbols of old C libraries
    python3 -m ziglang version >/dev/null 2>&1 && return
    echo "Installing zig ..."
    python3 -m venv "$tools/zig" >/dev/null && "$tools/zig/bin/pip" install -q ziglang
    export CARGO_ZIGBUILD_PYTHON_PATH=$tools/zig/bin/python3
}

# ---- what is made

rust_target() {
    case $1 in
    amd64) echo x86_64-unknown-linux-gnu ;;
    arm64) echo aarch64-unknown-linux-gnu ;;
    *) die "unknown architecture: $1" ;;
    esac
}

packages() { # packages ARCH
    local triple built
    triple=$(rust_target "$1")
    echo "Building for $1 ..."
    rustup -q target add "$triple" >/dev/null 2>&1 || die "no standard library for $triple"
    cargo zigbuild --release --locked --quiet --target "$triple.2.28"
    built=$target/$triple/release
    # Packages take their times from the files.
    touch -d "@$SOURCE_DATE_EPOCH" "$built/lsyncd" "$built/lsyncdctl"
    cargo deb --quiet --no-build --no-strip --locked --target "$triple" --variant release \
        --output "$out/" >/dev/null
    cargo generate-rpm --target "$triple" --auto-req builtin --payload-compress xz \
        --source-date "$SOURCE_DATE_EPOCH" --output "$out/"
}

source_archive() { # the tree of the commit, with its crates beside it
    local name=lsyncd-$version place
    place=$(mktemp -d)
    mkdir "$place/$name"
    if [ -n "$commit" ]; then
        git archive HEAD | tar -x -C "$place/$name"
    else
        tar -c --exclude=./target --exclude=./packaging/out . | tar -x -C "$place/$name"
    fi
    (
        cd "$place/$name"
        mkdir .cargo
        env -u RUSTFLAGS cargo vendor --locked --quiet --versioned-dirs vendor >.cargo/config.toml
    )
    tar -C "$place" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
        --mode=u+rw,go+r,go-w -c "$name" | xz -6 -T1 >"$out/lsyncd_$version.orig.tar.xz"
    rm -rf "$place"
}

bill_of_materials() {
    env -u RUSTFLAGS cargo cyclonedx --quiet --format json --target x86_64-unknown-linux-gnu \
        --override-filename lsyncd.cdx
    # The generator writes the path of the tree.
    sed "s|path+file://$PWD|path+file:///lsyncd|g; s|file://$PWD|file:///lsyncd|g" lsyncd.cdx.json \
        >"$out/lsyncd-$version.cdx.json"
    rm -f lsyncd.cdx.json
}

mkdir -p "$out"
rm -f "$out"/lsyncd[_-]* "$out/SHA256SUMS"
need_zig
need cargo-zigbuild cargo-zigbuild '^0.24'
need cargo-deb cargo-deb '^3'
need cargo-generate-rpm cargo-generate-rpm '^0.21'
need cargo-cyclonedx cargo-cyclonedx '^0.5'
for arch in "${arches[@]}"; do
    packages "$arch"
done
echo "Packing the source ..."
source_archive
bill_of_materials
(cd "$out" && sha256sum lsyncd* >SHA256SUMS)
ls -1 "$out"
