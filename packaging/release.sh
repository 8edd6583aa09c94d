#!/bin/bash
# Makes a release: packages for two architectures, the source, checksums and lists of contents.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'TEXT'
usage: packaging/release.sh [--arch amd64|arm64]... [--source] [DIRECTORY]

Puts into DIRECTORY (packaging/out/release):
  lsyncd_VERSION-1_ARCH.deb, lsyncd-VERSION-1.ARCH.rpm   for amd64 and arm64, glibc 2.28 or later
  lsyncd_VERSION.orig.tar.xz                             the source with its crates
  lsyncd_VERSION-1.dsc, lsyncd_VERSION-1.debian.tar.xz   the other files of the Debian source package
  lsyncd.spec                                            the spec file of the RPM source package
  lsyncd-VERSION.cdx.json                                software bill of materials (CycloneDX)
  lsyncd-VERSION.buildinfo                               commit, time and tools of the build, which determine all files
  SHA256SUMS                                             checksums of all of these

--arch makes the packages of these architectures only, --source makes none.

The files do not depend on times and paths of the build host. Needs rustup, Python with pip, xz and dpkg-dev. The tools of
cargo and zig are installed below cargo's target directory unless the host has the same versions.
TEXT
}

arches=() packages=yes
option() {
    case $1 in
    --source) packages= ;;
    --arch)
        arches+=("${2:?--arch needs an architecture}")
        taken=2
        ;;
    *) return 1 ;;
    esac
}
read_words option "$@"
[ "${#words[@]}" -le 1 ] || wrong_usage
[ "${#arches[@]}" -gt 0 ] || arches=(amd64 arm64)
out=$(absolute "${words[0]:-$PWD/packaging/out/release}")
use_cargo
version=$(setting version)

# ---- reproducible builds

commit=$(git rev-parse HEAD 2>/dev/null) || commit=
if [ -n "$commit" ]; then
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
fi
: "${SOURCE_DATE_EPOCH:?set it to the time of the release; this is not a git checkout}"
export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C
umask 022
cargo_home=${CARGO_HOME:-${HOME:-/root}/.cargo}
sysroot=$(rustc --print sysroot)
# Panic messages contain paths of the source, of crates and of the standard library.
export RUSTFLAGS="--remap-path-prefix=$PWD=/lsyncd --remap-path-prefix=$cargo_home=/cargo \
--remap-path-prefix=$sysroot=/rust --remap-path-prefix=$target=/target"
export CARGO_INCREMENTAL=0
# Assertions of the vendored Lua contain paths, too.
export CFLAGS="-ffile-prefix-map=$PWD=/lsyncd -ffile-prefix-map=$cargo_home=/cargo \
-ffile-prefix-map=$target=/target"

# ---- artifacts

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
    cargo generate-rpm --target "$triple" --auto-req disabled --variant release --payload-compress xz \
        --source-date "$SOURCE_DATE_EPOCH" --output "$out/"
}

# The tree of the commit, with its crates beside it, in $source.
source_archive() {
    mkdir "$source"
    if [ -n "$commit" ]; then
        git archive HEAD | tar -x -C "$source"
    else
        tar -c --exclude=./target --exclude=./packaging/out . | tar -x -C "$source"
    fi
    (
        cd "$source"
        env -u RUSTFLAGS cargo vendor --locked --quiet --versioned-dirs vendor >/dev/null
        mkdir .cargo
        printf '[source.crates-io]\nreplace-with = "vendor"\n\n[source.vendor]\ndirectory = "vendor"\n' \
            >.cargo/config.toml
        for directory in vendor/*; do
            grep -qx "${directory#vendor/}" <<<"$linux_crates" || hollow "$directory"
        done
        CARGO_HOME=$place/home cargo metadata --locked --offline --format-version 1 >/dev/null
    )
    tar -C "$place" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
        --mode=u+rw,go+r,go-w -c "lsyncd-$version" | xz -6 -T1 >"$out/lsyncd_$version.orig.tar.xz"
}

# The crates that a build or a test for Linux needs, as NAME-VERSION.
linux_crates() {
    local arch
    for arch in amd64 arm64; do
        env -u RUSTFLAGS cargo tree --quiet --locked --all-features --target "$(rust_target $arch)" \
            --edges normal,build,dev --prefix none --format '{p}'
    done | sed 's/^\([^ ]*\) v\([^ ]*\).*/\1-\2/' | sort -u
}

# hollow DIRECTORY: keeps only the manifest of a crate for other systems, which is all that cargo reads
hollow() {
    find "$1" -mindepth 1 -maxdepth 1 ! -name Cargo.toml ! -name .cargo-checksum.json -exec rm -r {} +
    mkdir "$1/src"
    : >"$1/src/lib.rs"
    sed -i 's/"files":{[^}]*}/"files":{}/' "$1/.cargo-checksum.json"
}

# The source package of Debian, and the spec file of RPM.
source_packages() {
    local bundled
    cp -r packaging/debian "$source/debian"
    fill_in <packaging/debian/control >"$source/debian/control"
    (cd "$source" && python3 packaging/debian/crates.py vendor) >>"$source/debian/copyright"
    rm "$source/debian/crates.py"
    for script in preinst postinst prerm postrm; do
        printf '\n#DEBHELPER#\n' >>"$source/debian/$script"
    done
    cp "$out/lsyncd_$version.orig.tar.xz" "$place/"
    (cd "$place" && dpkg-source --build "lsyncd-$version" >/dev/null)
    mv "$place"/lsyncd_*.dsc "$place"/lsyncd_*.debian.tar.xz "$out/"
    bundled=$(sed 's/\(.*\)-\([0-9]\)/Provides: bundled(crate(\1)) = \2/' <<<"$linux_crates")
    fill_in <packaging/rpm/lsyncd.spec | awk -v bundled="$bundled" \
        '/^@BUNDLED@$/ { print bundled; next } { print }' >"$out/lsyncd.spec"
}

# fill_in: replaces names by settings
fill_in() {
    sed "s|@MAINTAINER@|$(maintainer)|g; s|@HOMEPAGE@|$(setting homepage)|g; s|@VERSION@|$version|g;
        s|@RUST@|$(setting rust-version)|g"
}

bill_of_materials() {
    env -u RUSTFLAGS cargo cyclonedx --quiet --format json --target x86_64-unknown-linux-gnu \
        --override-filename lsyncd.cdx
    # The generator writes the path of the tree into its output.
    sed "s|path+file://$PWD|path+file:///lsyncd|g; s|file://$PWD|file:///lsyncd|g" lsyncd.cdx.json \
        >"$out/lsyncd-$version.cdx.json"
    rm -f lsyncd.cdx.json
}

build_information() {
    local tool
    printf '%s: %s\n' commit "$commit" SOURCE_DATE_EPOCH "$SOURCE_DATE_EPOCH" rustc "$(rustc --version)"
    for tool in zig cargo-zigbuild cargo-deb cargo-generate-rpm cargo-cyclonedx; do
        echo "$tool: $(tool_version "$tool")"
    done
    for tool in git tar xz dpkg-source; do
        echo "$tool: $("$tool" --version | sed -n 1p)"
    done
}

mkdir -p "$out"
rm -f "$out"/lsyncd[_.-]* "$out/SHA256SUMS"
need_release_tools "$packages"
if [ -n "$packages" ]; then
    for arch in "${arches[@]}"; do
        packages "$arch"
    done
fi
echo "Packing the source ..."
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
source=$place/lsyncd-$version
linux_crates=$(linux_crates)
source_archive
source_packages
bill_of_materials
build_information >"$out/lsyncd-$version.buildinfo"
(cd "$out" && sha256sum lsyncd* >SHA256SUMS)
ls -1 "$out"
placeholders=$(placeholders Cargo.toml README.md packaging/debian/changelog)
[ -z "$placeholders" ] ||
    echo "release.sh: warning: not for publication, maintainer or home page is a placeholder in: $placeholders" >&2
