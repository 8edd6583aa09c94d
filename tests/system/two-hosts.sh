#!/bin/bash
# two-hosts.sh DEB: two systems with a network of their own. A web root goes from one to the
# other by ssh as the README says, comes up again after a cut of the link and after a reboot;
# then the other configurations of docs/security.md, with a receiver that may do less.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# rrsync is a script for Python.
base bookworm rsync python3
pair "$1"
on receiver install -d -o deploy /var/www
same() { [ -z "$(rsync -rlin --delete --exclude cache "$a/var/www/" "$b/var/www/")" ]; }

echo "== a web root"
mkdir -p "$a/var/www/cache"
echo '<h1>one</h1>' >"$a/var/www/index.html"
cp "$here/packaging/examples/web-root.lua" "$a/etc/lsyncd/lsyncd.conf.lua"
sed -i 's/delay     = 5/delay     = 1/' "$a/etc/lsyncd/lsyncd.conf.lua"
on sender systemctl restart lsyncd
is "lsyncdctl waits until the tree is there" on sender lsyncdctl status -wait -timeout "$LIMIT"
is "and it is there" same
mkdir -p "$a/var/www/blog/2026"
echo first >"$a/var/www/blog/2026/first.txt"
soon "a change arrives" same
inode=$(stat -c %i "$b/var/www/blog/2026/first.txt")
mv "$a/var/www/blog" "$a/var/www/journal"
soon "a rename arrives" same
is "as a rename" [ "$(stat -c %i "$b/var/www/journal/2026/first.txt")" = "$inode" ]
rm -r "$a/var/www/journal"
soon "a deletion arrives" same
echo x >"$a/var/www/cache/x"
echo y >"$a/var/www/y"
soon "what is excluded does not" same
is "it is not there" not test -e "$b/var/www/cache/x"

echo "== a link that is cut for 40 seconds"
link down
echo late >"$a/var/www/late.html"
mkdir "$a/var/www/later"
sleep 40
is "nothing has arrived" not test -e "$b/var/www/late.html"
is "the daemon runs" on sender systemctl -q is-active lsyncd
is "and says that it is not current" not on sender lsyncdctl status
link up
LIMIT=240 soon "it arrives when the link is back" same

echo "== a reboot"
again sender
echo again >"$a/var/www/again.html"
soon "it arrives after a reboot" same

echo "== rrsync: the key can write to one directory and do nothing else"
authorize "command=\"/usr/bin/rrsync -wo /var/www\",restrict "
documented rrsync >"$a/etc/lsyncd/lsyncd.conf.lua"
is "the configuration is right" on sender lsyncd -check /etc/lsyncd/lsyncd.conf.lua
on sender systemctl restart lsyncd
echo restricted >"$a/var/www/restricted.html"
LIMIT=120 soon "changes arrive" same
rm "$a/var/www/restricted.html"
LIMIT=120 soon "deletions, too" same
is "a shell does not" not on sender ssh -i /root/.ssh/lsyncd deploy@web2 id

echo "== fake super: owners are kept by a user that is not root"
authorize ""
documented fake-super >"$a/etc/lsyncd/lsyncd.conf.lua"
is "the configuration is right" on sender lsyncd -check /etc/lsyncd/lsyncd.conf.lua
on sender systemctl restart lsyncd
echo owned >"$a/var/www/owned.html"
on sender chown 1234:1234 /var/www/owned.html
LIMIT=120 soon "changes arrive" same
is "the file belongs to the receiving user" [ "$(stat -c %U "$b/var/www/owned.html")" != root ]

echo "== an rsync daemon"
documented rsyncd.conf >"$b/etc/rsyncd.conf"
echo 'lsyncd:secret' >"$b/etc/rsyncd.secrets"
chmod 600 "$b/etc/rsyncd.secrets"
on receiver systemctl start rsync
echo secret >"$a/etc/lsyncd/web2.password"
chmod 600 "$a/etc/lsyncd/web2.password"
documented daemon >"$a/etc/lsyncd/lsyncd.conf.lua"
is "the configuration is right" on sender lsyncd -check /etc/lsyncd/lsyncd.conf.lua
on sender systemctl restart lsyncd
echo served >"$a/var/www/served.html"
LIMIT=120 soon "changes arrive" same
echo "== done"
