# shellcheck shell=bash disable=SC2034
# Functions of the scripts that build packages. The settings are in Cargo.toml.

# Relative paths in arguments refer to the directory of the caller.
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

# read_words OPTION WORD...: calls OPTION for each option, with the option and all following words.
# OPTION sets $taken if it uses more than one word, and fails for an unknown option. Other words are
# stored in $words.
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

# placeholders FILE...: those of the files that contain the placeholder of maintainer or home page
placeholders() { { grep -ls 'lsyncd\.example\.org' "$@" || true; } | paste -sd' '; }

maintainer() { sed -n 's/^authors = \["\(.*\)"\]/\1/p' Cargo.toml; }

# use_cargo: finds cargo, and sets $target and $tools
use_cargo() {
    command -v cargo >/dev/null || PATH=$PATH:${HOME:-/root}/.cargo/bin
    command -v cargo >/dev/null ||
        die "Rust $(setting rust-version) or later is needed, see https://rustup.rs"
    target=$(cargo metadata --format-version 1 --no-deps --locked |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    tools=$target/tools
    PATH=$tools/bin:$PATH
}

# tool_version NAME: the version for releases; other versions may produce different files
tool_version() {
    case $1 in
    cargo-cyclonedx) echo 0.5.9 ;;
    cargo-deb) echo 3.8.0 ;;
    cargo-generate-rpm) echo 0.21.1 ;;
    cargo-zigbuild) echo 0.24.1 ;;
    zig) echo 0.17.1 ;;
    esac
}

# need TOOL...: checks commands of cargo
need() {
    local tool version
    for tool in "$@"; do
        version=$(tool_version "$tool")
        case $({ "$tool" --version || "$tool" "${tool#cargo-}" --version; } 2>/dev/null) in
        *" $version" | "$version") continue ;;
        esac
        echo "Installing $tool (once, some minutes) ..."
        env -u RUSTFLAGS -u CFLAGS cargo install --quiet --locked --root "$tools" --version "$version" "$tool"
    done
}

# need_zig: checks the linker for old versions of the C library
need_zig() {
    local version
    version=$(tool_version zig)
    [ "$(python3 -m ziglang version 2>/dev/null)" = "$version" ] && return
    export CARGO_ZIGBUILD_PYTHON_PATH=$tools/zig/bin/python3
    [ "$("$CARGO_ZIGBUILD_PYTHON_PATH" -m ziglang version 2>/dev/null)" = "$version" ] && return
    echo "Installing zig ..."
    python3 -m venv "$tools/zig" >/dev/null && "$tools/zig/bin/pip" install -q "ziglang==$version"
}

# need_release_tools [PACKAGES]: checks the tools of a release; with an argument, also those for packages
need_release_tools() {
    need cargo-cyclonedx
    [ -n "$1" ] || return 0
    need_zig
    need cargo-zigbuild cargo-deb cargo-generate-rpm
}
