#!/bin/bash
# Runs every check there is, from a fresh clone on, and ends with one line:
#     N passed, N failed, N skipped
# The exit code is 0 only if nothing failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

usage() {
    cat <<'TEXT'
usage: tests/run.sh [--quick] [--long] [--system]

  --quick    only cargo's tests: neither formatting nor clippy nor shellcheck
  --long     also what takes long (there is nothing of that kind yet)
  --system   also what boots whole systems (there is nothing of that kind yet)

LSYNCD_TEST_BINARY  program to test in place of the one built here
LSYNCD_TEST_LIMIT   seconds after which a black-box test gives up waiting (60)
LSYNCD_GOLDEN       directory of facts recorded from lsyncd (../shared/golden); skipped if absent
RUST_TEST_THREADS   tests at the same time (8: most of them wait)
TEXT
}

quick=
for word in "$@"; do
    case $word in
    --quick) quick=yes ;;
    --long | --system) echo "$word: there is nothing behind it yet, the usual checks follow." ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
done

passed=0 failures=() skips=()
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

heading() { printf '\n== %s\n' "$*"; }
has() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]; }
fail() { failures+=("$1"); }
skip() { skips+=("$1"); }

finish() {
    echo
    [ "${#skips[@]}" -eq 0 ] || printf 'SKIPPED: %s\n' "${skips[@]}"
    [ "${#failures[@]}" -eq 0 ] || printf 'FAILED: %s\n' "${failures[@]}"
    echo "$passed passed, ${#failures[@]} failed, ${#skips[@]} skipped"
    [ "${#failures[@]}" -eq 0 ]
    exit
}

# check NAME COMMAND...: one check, passed if the command ends with 0
check() {
    local name=$1
    shift
    heading "$name"
    if "$@"; then
        passed=$((passed + 1))
    else
        fail "$name"
    fi
}

# ---- what has to be there

need() { # need COMMAND PACKAGE
    has "$1" || packages+=("$2")
}

install() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q </dev/null &&
        apt-get install -q -y --no-install-recommends "$@" </dev/null
}

set_up() {
    local packages=()
    need cc gcc
    [ -e /usr/include/stdio.h ] || packages+=(libc6-dev)
    need rsync rsync
    need ssh openssh-client
    # Where a service manager runs, installing sshd would open a port of this machine.
    [ -d /run/systemd/system ] || need sshd openssh-server
    if [ "${#packages[@]}" -gt 0 ]; then
        heading "missing packages: ${packages[*]}"
        if [ "$(id -u)" -eq 0 ] && has apt-get; then
            install "${packages[@]}" || echo "not all of them could be installed"
        else
            echo "as root: apt-get install ${packages[*]}"
        fi
    fi
    [ -x "${HOME:-/root}/.cargo/bin/cargo" ] && PATH=$PATH:${HOME:-/root}/.cargo/bin
    has cargo || fail "no cargo: install Rust 1.88 or later, see https://rustup.rs"
    has cc || fail "no C compiler: install gcc and libc6-dev"
    has rsync || fail "no rsync: install rsync"
    [ "${#failures[@]}" -eq 0 ] || finish
}

# ---- cargo's tests, unit, property and black-box

cargo_tests() {
    local log=$scratch/tests code programs results line
    heading "cargo test"
    export CARGO_TERM_COLOR=never RUST_TEST_THREADS=${RUST_TEST_THREADS:-8}
    export LSYNCD_TEST_SKIPS=$scratch/skips
    : >"$LSYNCD_TEST_SKIPS"
    cargo test --locked --no-fail-fast </dev/null 2>&1 | tee "$log"
    code=${PIPESTATUS[0]}

    # Each program ends with "test result: ok. 9 passed; 0 failed; 0 ignored; ..."
    line=$(sed -n 's/^test result: .* \([0-9]*\) passed;.*/\1/p' "$log" | paste -sd+)
    passed=$((passed + ${line:-0}))
    while read -r line; do
        fail "$line"
    done < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log")
    while read -r line; do
        skip "$line"
    done < <(sed -n 's/^test \(.*\) \.\.\. ignored/\1: ignored/p' "$log")
    # To cargo a test that found that it cannot be done here has passed.
    while read -r line; do
        skip "${line#SKIPPED: }"
        passed=$((passed - 1))
    done <"$LSYNCD_TEST_SKIPS"

    programs=$(grep -cE '^ +(Running|Doc-tests) ' "$log")
    results=$(grep -c '^test result: ' "$log")
    if [ "$programs" -eq 0 ]; then
        fail "building the tests"
    elif [ "$results" -lt "$programs" ]; then
        fail "$((programs - results)) of $programs test programs ended without a result"
    elif [ "$code" -ne 0 ] && [ "${#failures[@]}" -eq 0 ]; then
        fail "cargo test ended with $code"
    fi
}

# ---- what needs no running

formatting() {
    if cargo fmt --version >/dev/null 2>&1; then
        check "cargo fmt" cargo fmt --check
    else
        skip "cargo fmt: not installed (rustup component add rustfmt)"
    fi
}

clippy() {
    if cargo clippy --version >/dev/null 2>&1; then
        check "cargo clippy" cargo clippy --locked --all-targets -- -D warnings
    else
        skip "cargo clippy: not installed (rustup component add clippy)"
    fi
}

shell_scripts() {
    if has shellcheck; then
        check "shellcheck" shellcheck tests/run.sh tests/blackbox/fake/rsync \
            tests/conformance/fake tests/manual/ssh packaging/try.sh .ci/run
    else
        skip "shellcheck: not installed"
    fi
}

set_up
cargo_tests
if [ -z "$quick" ]; then
    formatting
    clippy
    shell_scripts
fi
finish
