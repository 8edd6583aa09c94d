# shellcheck shell=bash disable=SC2034
# Shared by the scripts that make packages. The settings are in Cargo.toml.

# What the caller was given is relative to the directory it was called from.
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

wrong_usage() {
    usage >&2
    exit 2
}

absolute() { case $1 in /*) echo "$1" ;; *) echo "$here/$1" ;; esac; }

# read_words OPTION WORD...: calls OPTION for each option, with the words from there on. It sets
# $taken if it takes more than one, and fails if it knows none. What is no option goes to $words.
read_words() {
    local option=$1
    shift
    words=()
    while [ $# -gt 0 ]; do
        taken=1
        case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        -*)
            "$option" "$@" || wrong_usage
            ;;
        *) words+=("$1") ;;
        esac
        shift "$taken"
    done
}

# setting NAME: a value of [package] in Cargo.toml
setting() { sed -n "/^\[package\]/,/^\[\[/s/^$1 = \"\(.*\)\"/\1/p;T;q" Cargo.toml; }

maintainer() { sed -n 's/^authors = \["\(.*\)"\]/\1/p' Cargo.toml; }

# use_cargo: finds cargo, and sets $target and $tools
use_cargo() {
    command -v cargo >/dev/null || PATH=$PATH:${HOME:-/root}/.cargo/bin
    command -v cargo >/dev/null ||
        die "Rust $(setting rust-version) or later is needed: https://rustup.rs tells how to get it"
    target=$(cargo metadata --format-version 1 --no-deps --locked |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    tools=$target/tools
    PATH=$tools/bin:$PATH
}

# need COMMAND VERSION: a tool of cargo, of the same name
need() {
    command -v "$1" >/dev/null && return
    echo "Installing $1 (once, some minutes) ..."
    env -u RUSTFLAGS -u CFLAGS cargo install --quiet --locked --root "$tools" --version "$2" "$1"
}
