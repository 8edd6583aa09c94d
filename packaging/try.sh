#!/bin/bash
# Builds lsyncd and demonstrates it with two directories.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'TEXT'
usage: packaging/try.sh                     mirror a sample tree and change it
       packaging/try.sh [--yes] SRC TRG     mirror SRC to TRG until Ctrl-C

TRG is a directory, or HOST:DIRECTORY. Files in TRG that are not in SRC are deleted. The script
asks for confirmation unless TRG is empty or --yes is given.
TEXT
}

yes=
words=()
for word in "$@"; do
    case $word in
    -y | --yes) yes=yes ;;
    -h | --help)
        usage
        exit 0
        ;;
    -*)
        usage >&2
        exit 2
        ;;
    *) words+=("$word") ;;
    esac
done
case ${#words[@]} in
0 | 2) ;;
*)
    usage >&2
    exit 2
    ;;
esac

bold='' green='' plain=''
if [ -t 1 ]; then
    bold=$'\e[1m' green=$'\e[32m' plain=$'\e[0m'
fi
step() { printf '%s%s%s\n' "$bold" "$*" "$plain"; }
die() {
    echo "try.sh: $*" >&2
    exit 1
}

# ---- requirements

set_up() {
    local packages=()
    command -v rsync >/dev/null || packages+=(rsync)
    command -v cc >/dev/null || packages+=(gcc)
    [ -e /usr/include/stdio.h ] || packages+=(libc6-dev)
    if [ "${#packages[@]}" -gt 0 ]; then
        if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
            install env
        elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then
            install sudo env
        fi || true
    fi
    command -v cargo >/dev/null || PATH=$PATH:${HOME:-/root}/.cargo/bin
    command -v cargo >/dev/null ||
        die "Rust 1.88 or later is needed to build lsyncd: see https://rustup.rs"
    command -v rsync >/dev/null && command -v cc >/dev/null ||
        die "please install: ${packages[*]} (Debian: apt-get install ${packages[*]})"
}

install() { # install PREFIX...: installs the missing packages
    step "Installing ${packages[*]} ..."
    "$@" DEBIAN_FRONTEND=noninteractive sh -c '
        apt-get update -qq && apt-get install -qq -y --no-install-recommends "$@"' \
        sh "${packages[@]}" </dev/null >/dev/null
}

build() {
    if [ -n "${LSYNCD_TEST_BINARY:-}" ]; then
        lsyncd=$LSYNCD_TEST_BINARY
        return
    fi
    step "Building lsyncd (the first time this takes a minute or two) ..."
    cargo build --release --locked --quiet
    lsyncd=$(cargo metadata --format-version 1 --no-deps --locked |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/lsyncd
}

# ---- two directories of the user

mirror() {
    local source=$1 target=$2
    cd "$here"
    [ -d "$source" ] || die "$source is not a directory"
    [ "$target" != "" ] || die "no target given"
    step "lsyncd mirrors $source to $target until Ctrl-C."
    if [ -z "$yes" ] && ! is_empty "$target"; then
        echo "Files in $target that are not in $source will be DELETED."
        [ -t 0 ] || die "$target may contain files: use --yes to delete them"
        read -r -p "Continue? [y/N] " answer
        case $answer in
        y | Y | yes) ;;
        *)
            echo "Nothing was done."
            exit 1
            ;;
        esac
    fi
    echo "\$ $lsyncd -nodaemon -delay 1 -rsync $source $target"
    exec "$lsyncd" -nodaemon -delay 1 -rsync "$source" "$target"
}

is_empty() { # directories of other hosts are not checked
    case $1 in
    *:*) return 1 ;;
    esac
    [ ! -e "$1" ] || { [ -d "$1" ] && [ -z "$(ls -A -- "$1")" ]; }
}

# ---- the sample

clean_up() {
    if [ -n "${daemon:-}" ] && kill "$daemon" 2>/dev/null; then
        wait "$daemon" 2>/dev/null || true
    fi
    rm -rf "$box"
}

sample() {
    box=$(mktemp -d)
    daemon=
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP

    mkdir -p "$box/www/css" "$box/mirror"
    echo '<h1>Hello</h1>' >"$box/www/index.html"
    echo 'body { margin: 0 }' >"$box/www/css/main.css"
    cat >"$box/lsyncd.conf.lua" <<LUA
settings { logfile = "$box/lsyncd.log", statusFile = "$box/lsyncd.status" }

sync {
    default.rsync,
    source = "$box/www",
    target = "$box/mirror",
    delay  = 1,
    rsync  = { archive = true },
}
LUA
    step "The configuration:"
    sed 's/^/    /' "$box/lsyncd.conf.lua"

    "$lsyncd" -nodaemon "$box/lsyncd.conf.lua" >"$box/output" 2>&1 &
    daemon=$!
    arrives "the existing tree" grep -qs 'finished\.' "$box/lsyncd.log"

    mkdir -p "$box/www/blog/2026/11"
    echo 'a first entry' >"$box/www/blog/2026/11/first.txt"
    arrives "mkdir -p blog/2026/11, and a file in it" same

    echo 'p { color: red }' >>"$box/www/css/main.css"
    arrives "a new line in css/main.css" same

    mv "$box/www/blog" "$box/www/journal"
    arrives "mv blog journal" same

    ln -s index.html "$box/www/default.html"
    chmod 600 "$box/www/css/main.css"
    arrives "a symbolic link, and another mode for css/main.css" same

    rm -r "$box/www/journal"
    arrives "rm -r journal" same

    step "The mirror:"
    (cd "$box/mirror" && find . -mindepth 1 -printf '    %M %P %l\n' | sort -k2)
    step "The last lines of the log:"
    tail -n 5 "$box/lsyncd.log" | sed 's/^/    /'
    step "Next steps:"
    cat <<TEXT
    packaging/try.sh SRC TRG        mirror two of your directories until Ctrl-C
    $lsyncd -nodaemon YOUR.conf.lua
                                    run an existing configuration of lsyncd
    README.md                       installation, configuration, and links to the manual
TEXT
}

same() {
    rsync -ain --delete "$box/www/" "$box/mirror/" 2>/dev/null | awk 'END { exit NR != 0 }'
}

arrives() { # arrives WHAT COMMAND...: waits until the command succeeds, and prints the time it took
    local what=$1 start=${EPOCHREALTIME/[.,]/} now end
    shift
    end=$((start + 60000000))
    until "$@"; do
        kill -0 "$daemon" 2>/dev/null || trouble "lsyncd ended"
        now=${EPOCHREALTIME/[.,]/}
        [ "$now" -lt "$end" ] || trouble "not within a minute: $what"
        sleep 0.1
    done
    now=${EPOCHREALTIME/[.,]/}
    printf '%s  arrived%s after %d.%d s: %s\n' "$green" "$plain" \
        $(((now - start) / 1000000)) $(((now - start) / 100000 % 10)) "$what"
}

trouble() {
    cat "$box/output" >&2
    die "$1; its output is above"
}

set_up
build
if [ "${#words[@]}" -eq 2 ]; then
    mirror "${words[@]}"
else
    step "Mirroring a sample tree:"
    sample
fi
