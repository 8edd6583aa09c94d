#!/bin/bash
# source.sh DIRECTORY: the source packages of a release are built on a fresh Debian 13. The Debian package
# is built with the commands of docs/releasing.md, lintian finds nothing but the named overrides, the links
# of its documents lead to files, and its autopkgtest passes. rpmbuild -ba builds the spec file.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
release=$(realpath "$1")
base trixie
box=source
up "$box"
root=$WORK/m/$box/root
build=$root/home/builder
dsc=$(basename "$release"/lsyncd_*.dsc)
version=${dsc#lsyncd_} version=${version%-1.dsc}

# step WHAT COMMAND...: as is, with the output only on failure
step() {
    local what=$1
    shift
    "$@" </dev/null >"$WORK/m/$box/output" 2>&1 || {
        tail -n 60 "$WORK/m/$box/output"
        echo "NOT: $what"
        exit 1
    }
    echo "ok: $what"
}
builder() { on "$box" setpriv --reuid=builder --regid=builder --init-groups env HOME=/home/builder bash -ec "$1"; }
apt() { on "$box" apt-get -q -y "$@"; }

echo "== the source package"
on "$box" useradd -m -s /bin/bash builder
cp "$release"/lsyncd_*.dsc "$release"/lsyncd_*.tar.xz "$release/lsyncd.spec" "$build/"
step "apt update" apt update
sed -n '/^    apt build-dep/,/dpkg-buildpackage/s/^    //p' "$here/docs/releasing.md" |
    sed "s/VERSION/$version/g; s/^apt build-dep/apt-get build-dep -q -y/" >"$build/commands"
is "docs/releasing.md has the commands" [ "$(wc -l <"$build/commands")" = 2 ]
step "its build dependencies" on "$box" bash -ec 'cd /home/builder && . <(sed -n 1p commands)'
step "dpkg-buildpackage" builder 'cd && . <(sed -n 2p commands)'
deb=$build/lsyncd_$version-1_amd64.deb
is "it makes a package" [ -e "$deb" ]

echo "== lintian"
step "lintian" apt install --no-install-recommends lintian
step "it finds nothing else" builder "lintian --pedantic --display-info --show-overrides \
    --fail-on error,warning,info,pedantic ~/lsyncd_$version-1.dsc ~/lsyncd_$version-1_amd64.changes"
sed 's/^/    /' "$WORK/m/$box/output"

echo "== the package"
dpkg-deb -x "$deb" "$WORK/m/$box/unpacked"
is "all links of its documents lead to files" [ -z "$(dead_links "$WORK/m/$box/unpacked")" ]
step "autopkgtest" apt install --no-install-recommends autopkgtest
# It starts an sshd, so it gets a network of its own.
step "its test" on "$box" unshare --net sh -ec 'ip link set lo up
    exec autopkgtest --ignore-restrictions=isolation-container "$@" -- null' \
    sh "/home/builder/${deb##*/}" "/home/builder/$dsc"
grep '^ok: ' "$WORK/m/$box/output" || true

echo "== the spec file"
step "rpm" apt install --no-install-recommends rpm
# The packages of Debian do not count for rpm.
step "rpmbuild -ba" builder 'cd && rpmbuild -ba --nodeps --define "_topdir $HOME/rpm" --define "_sourcedir $HOME" lsyncd.spec'
rpm=$(echo "$build"/rpm/RPMS/x86_64/lsyncd-*.rpm)
is "it makes a package" [ -e "$rpm" ]
is "and a source package" [ -e "$(echo "$build"/rpm/SRPMS/lsyncd-*.src.rpm)" ]
if command -v rpm >/dev/null; then
    "$here/tests/system/rpm.sh" "$rpm"
fi
echo "== done"
