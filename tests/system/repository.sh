#!/bin/bash
# repository.sh RELEASE DEB: a signed repository of the package, and the install section of the README
# word by word on a fresh Debian of that release: once as a new installation, once over Debian's
# lsyncd with a configuration. Only the address of the repository is replaced.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
release=$1 deb=$2
command -v reprepro >/dev/null && command -v gpg >/dev/null || { echo "no reprepro or gpg"; exit 77; }
base "$release"

place=$WORK/repository-$release
rm -rf "$place"
mkdir -p "$place/release" "$place/gpg"
chmod 700 "$place/gpg"
export GNUPGHOME=$place/gpg
server=
undo() {
    [ -z "$server" ] || kill "$server" || true
    gpgconf --kill all || true
    rm -rf "$place"
    all_down
}
trap undo EXIT
cp "$deb" "$place/release/"
gpg --batch --quiet --passphrase '' --quick-generate-key 'tests <tests@localhost>' ed25519 sign never
if dpkg-deb --field "$deb" Maintainer | grep -q example; then
    is "a placeholder for the maintainer is refused" not "$here/packaging/repository.sh" "$place/release" \
        tests@localhost "$place/apt" 2>/dev/null
fi
"$here/packaging/repository.sh" --test "$place/release" tests@localhost "$place/apt" >/dev/null
python3 -u -m http.server --bind 127.0.0.1 --directory "$place" 0 >"$place/served" 2>&1 &
server=$!
port() { sed -n 's/.* port \([0-9]*\) .*/\1/p' "$place/served" | grep .; }
soon "the repository is served" port
url=http://127.0.0.1:$(port)/apt

# The commands of the README that install from the repository.
sed -n '/^\*\*Debian and Ubuntu\*\*/,/^\*\*Packages\*\*/s/^    //p' "$here/README.md" |
    sed "s|https://[^ ]*/apt|$url|; s/^apt install/apt-get install -y -q/; s/^apt update/apt-get update -q/" >"$place/commands"
is "the README has them" [ "$(grep -c "$url" "$place/commands")" = 2 ]
install_section() {
    local root=$WORK/m/$1/root
    cp "$place/commands" "$root/opt/commands"
    on "$1" apt-get update -q >/dev/null
    on "$1" bash -e /opt/commands </dev/null >"$WORK/m/$1/apt" 2>&1 || { cat "$WORK/m/$1/apt"; trouble; }
}
version() { on "$1" dpkg-query -W -f '${Version}' lsyncd; }
wanted=$(dpkg-deb -f "$deb" Version)

echo "== $release: a new installation"
box=repository-$release
up "$box"
root=$WORK/m/$box/root
install_section "$box"
is "apt has installed it" [ "$(version "$box")" = "$wanted" ]
mkdir "$root/srv/source"
echo one >"$root/srv/source/one"
on "$box" lsyncd -init /srv/source /srv/target
on "$box" systemctl restart lsyncd
is "it mirrors" on "$box" lsyncdctl status -wait -timeout "$LIMIT"
is "what is there" diff -r "$root/srv/source" "$root/srv/target"
down "$box"

echo "== $release: over Debian's lsyncd"
up "$box"
on "$box" apt-get update -q >/dev/null
on "$box" apt-get install -y -q lsyncd </dev/null >/dev/null 2>&1
old=$(version "$box")
mkdir -p "$root/srv/source" "$root/srv/target" "$root/etc/lsyncd" "$root/var/log/lsyncd"
cat >"$root/etc/lsyncd/lsyncd.conf.lua" <<'LUA'
settings { logfile = "/var/log/lsyncd/lsyncd.log", statusFile = "/var/log/lsyncd/lsyncd.status" }
sync { default.rsync, source = "/srv/source", target = "/srv/target", delay = 1 }
LUA
cp "$root/etc/lsyncd/lsyncd.conf.lua" "$place/before"
on "$box" systemctl restart lsyncd
echo two >"$root/srv/source/two"
soon "$old mirrors" diff -r "$root/srv/source" "$root/srv/target"
install_section "$box"
is "apt has replaced $old" [ "$(version "$box")" = "$wanted" ]
is "the configuration is the same" cmp "$place/before" "$root/etc/lsyncd/lsyncd.conf.lua"
on "$box" systemctl restart lsyncd
echo three >"$root/srv/source/three"
is "it mirrors" on "$box" lsyncdctl status -wait -timeout "$LIMIT"
is "what is new" diff -r "$root/srv/source" "$root/srv/target"
echo "== done"
