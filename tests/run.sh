#!/bin/bash
# Runs every check there is, from a fresh clone on, and ends with one line:
#     N passed, N failed, N skipped
# The exit code is 0 only if nothing failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

usage() {
    cat <<'TEXT'
usage: tests/run.sh [--quick] [--long] [--system]

  --quick    only cargo's tests: no formatting, clippy, documentation, dependencies or shellcheck
  --long     also what takes long: more rounds of churn, fuzzing, minutes of changes
  --system   also what boots whole systems, as root on Debian: the packages installed, run as a
             service, taking over, two hosts, containers (some minutes)

LSYNCD_TEST_BINARY  program to test in place of the one built here
LSYNCD_TEST_STATUS_FILE  if set, daemons under test write a status file every second
LSYNCD_TEST_WATCH   "fanotify": sources are watched that way, as root
LSYNCD_TEST_LIMIT   seconds after which a black-box test gives up waiting (120)
LSYNCD_GOLDEN       directory of facts recorded from lsyncd (../shared/golden); skipped if absent
RUST_TEST_THREADS   tests at the same time (8: most of them wait)
TEXT
}

quick='' long='' system=''
for word in "$@"; do
    case $word in
    --quick) quick=yes ;;
    --system) system=yes ;;
    --long) long=yes ;;
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
    packages=()
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
    # A test that hangs ends its program after a while; this is for what is not noticed there.
    timeout -k 10 3600 cargo test --locked --no-fail-fast </dev/null 2>&1 | timeout 3660 tee "$log"
    code=${PIPESTATUS[0]}

    # Each program ends with "test result: ok. 9 passed; 0 failed; 0 ignored; ..."
    line=$(sed -n 's/^test result: .* \([0-9]*\) passed;.*/\1/p' "$log" | paste -sd+)
    passed=$((passed + ${line:-0}))
    while read -r line; do
        fail "$line"
    done < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log")
    while read -r line; do
        # It has its turn with what takes minutes.
        case $long$line in yessoak::*) continue ;; esac
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

documentation() {
    check "cargo doc" env RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --lib --document-private-items
}

dependencies() {
    if cargo deny --version >/dev/null 2>&1; then
        # The database of advisories is not in the registry; the workflow checks it.
        check "cargo deny" cargo deny check bans licenses sources
    else
        skip "cargo deny: not installed (cargo install cargo-deny)"
    fi
}

# What cargo's features leave out or choose.
features() {
    check "cargo check without top" cargo check --quiet --locked --no-default-features --features vendored-lua --bins
    if has pkg-config && pkg-config --exists lua5.4; then
        check "cargo check with the system's Lua" \
            cargo check --quiet --locked --no-default-features --features top,system-lua --bins
    else
        skip "cargo check with the system's Lua: not installed (pkg-config liblua5.4-dev)"
    fi
}

shell_scripts() {
    if has shellcheck; then
        check "shellcheck" shellcheck -x -S warning -P tests/system tests/run.sh tests/support/bin/{recording-rsync,target-rsync,rclone} \
            tests/conformance/fake tests/manual/ssh tests/fuzz/run.sh tests/system/*.sh packaging/*.sh packaging/service/* packaging/rpm/*.sh \
            packaging/debian/p* packaging/debian/tests/mirror-over-ssh .ci/run
    else
        skip "shellcheck: not installed"
    fi
}

# ---- whole systems

# The programs that make and run them, and those that look at packages.
system_set_up() {
    packages=()
    need mmdebstrap mmdebstrap
    need arch-test arch-test
    need systemd-nspawn systemd-container
    need dpkg-shlibdeps dpkg-dev
    need lintian lintian
    need reprepro reprepro
    need gpg gpg
    need rpm rpm
    need dockerd docker.io
    need docker-compose docker-compose
    need ip iproute2
    need python3 python3
    [ "${#packages[@]}" -eq 0 ] || install "${packages[@]}"
}

# machine NAME COMMAND...: as check, but 77 means that it cannot be done here
machine() {
    local name=$1 code
    shift
    heading "$name"
    "$@"
    code=$?
    case $code in
    0) passed=$((passed + 1)) ;;
    77) skip "$name: cannot be done here" ;;
    *) fail "$name" ;;
    esac
}

system_tests() {
    local out=$scratch/packages deb target lsyncd
    if [ "$(id -u)" -ne 0 ] || ! has apt-get || [ ! -e /etc/apt/sources.list.d/debian.sources ]; then
        skip "--system: needs root and Debian"
        return
    fi
    system_set_up || echo "not all of it could be installed"
    check "packages" packaging/build.sh "$out"
    deb=$(echo "$out"/lsyncd_*.deb)
    [ -e "$deb" ] || return
    check "lintian" lintian --fail-on error "$deb"
    machine "rpm" tests/system/rpm.sh "$out"/lsyncd-*.rpm
    for release in bookworm trixie; do
        machine "Debian $release" tests/system/install.sh "$release" "$deb"
        machine "apt repository, Debian $release" tests/system/repository.sh "$release" "$deb"
    done
    target=$(cargo metadata --format-version 1 --no-deps --locked |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    lsyncd=${LSYNCD_TEST_BINARY:-$target/debug/lsyncd}
    # A release, if one was made.
    release=$(ls packaging/out/release/lsyncd_*_arm64.deb 2>/dev/null | tail -n 1)
    if [ -n "$release" ]; then
        machine "arm64 under emulation" tests/system/arm64.sh "$release"
    else
        skip "arm64 under emulation: no package (packaging/release.sh --arch arm64)"
    fi
    if ls packaging/out/release/lsyncd_*.dsc >/dev/null 2>&1; then
        machine "source packages" tests/system/source.sh packaging/out/release
    else
        skip "source packages: none (packaging/release.sh --source)"
    fi
    machine "editor" tests/system/editor.sh
    machine "old receivers" tests/system/old-receivers.sh "$lsyncd"
    machine "chain" tests/system/chain.sh "$lsyncd"
    machine "two hosts" tests/system/two-hosts.sh "$deb"
    machine "bad night" tests/system/bad-night.sh "$deb"
    machine "containers" tests/system/container.sh "$deb" ${release:+"$release"}
}

# ---- what takes minutes

# The lowest versions of the dependencies that Cargo.toml permits.
lowest_versions() (
    git clone --quiet . "$scratch/lowest" && cd "$scratch/lowest" &&
        RUSTC_BOOTSTRAP=1 cargo update --quiet -Z direct-minimal-versions &&
        CARGO_TARGET_DIR=target cargo check --quiet --all-targets
)

long_tests() {
    check "faults with a status file" env LSYNCD_TEST_STATUS_FILE=1 cargo test --locked --test faults </dev/null
    check "churn" env LSYNCD_TEST_ROUNDS=40 cargo test --locked --test faults churn </dev/null
    check "kills" env LSYNCD_TEST_KILLS=50 cargo test --locked --test faults warm_kills </dev/null
    check "fuzzing" env LSYNCD_TEST_FUZZ=30 cargo test --locked --test fuzz </dev/null
    check "lowest versions of dependencies" lowest_versions
    check "soak" cargo test --locked --test faults soak -- --ignored </dev/null
}

set_up
cargo_tests
[ -z "$long" ] || long_tests
if [ -z "$quick" ]; then
    formatting
    clippy
    documentation
    dependencies
    features
    shell_scripts
fi
[ -z "$system" ] || system_tests
finish
