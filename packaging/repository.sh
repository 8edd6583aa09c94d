#!/bin/bash
# Makes a signed apt repository of the packages of a release.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'TEXT'
usage: packaging/repository.sh [--test] RELEASE KEY DIRECTORY

RELEASE    directory with the .deb files, from packaging/release.sh
KEY        the signing key of gpg: its fingerprint or the address of its owner
DIRECTORY  the repository; packages are added to an existing one
--test     accept packages whose maintainer or home page is a placeholder

Puts the public key into DIRECTORY as lsyncd.gpg, and prints the lines for a host that uses it.
Needs reprepro and gpg; GNUPGHOME selects the keyring.
TEXT
}

test=
option() {
    [ "$1" = --test ] && test=yes
}
read_words option "$@"
[ "${#words[@]}" -eq 3 ] || wrong_usage
release=$(absolute "${words[0]}") key=${words[1]} repository=$(absolute "${words[2]}")

for program in reprepro gpg; do
    command -v "$program" >/dev/null || die "please install: $program"
done
fingerprint=$(gpg --batch --with-colons --list-secret-keys "$key" 2>/dev/null |
    awk -F: '$1 == "fpr" { print $10; exit }') || true
[ -n "$fingerprint" ] || die "gpg has no secret key $key"
packages=("$release"/*.deb)
[ -e "${packages[0]}" ] || die "no .deb in $release"
for package in "${packages[@]}"; do
    [ -z "$(dpkg-deb --field "$package" Maintainer Homepage | placeholders -)" ] || [ -n "$test" ] ||
        die "$package is not for publication: its maintainer or home page is a placeholder. Set authors and homepage" \
            "in Cargo.toml and build again, or use --test"
done

mkdir -p "$repository/conf"
cat >"$repository/conf/distributions" <<TEXT
Origin: lsyncd
Label: lsyncd
Suite: stable
Codename: stable
Architectures: amd64 arm64
Components: main
Description: lsyncd, the live syncing daemon
SignWith: $fingerprint
TEXT
for package in "${packages[@]}"; do
    reprepro --silent --basedir "$repository" includedeb stable "$package"
done
gpg --batch --yes --output "$repository/lsyncd.gpg" --export "$fingerprint"

cat <<TEXT
$repository is ready to be served. A host uses it with:

    install -m 644 lsyncd.gpg /usr/share/keyrings/lsyncd.gpg
    echo 'deb [signed-by=/usr/share/keyrings/lsyncd.gpg] URL stable main' \\
        >/etc/apt/sources.list.d/lsyncd.list
    apt update && apt install lsyncd
TEXT
