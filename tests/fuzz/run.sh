#!/bin/bash
# Fuzzing that is guided by coverage: makes bytes that take ways of the code not taken before.
# Usage: run.sh [SECONDS [TARGET...]]; 60 seconds for each target there is. What it learns is
# kept below cargo's target directory, so a later run goes on from there; what it breaks an
# entry with it leaves there too, and belongs in corpus/TARGET when that is mended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-60}
[ $# -eq 0 ] || shift
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(cd fuzz/corpus && printf '%s\n' *)
cargo fuzz --version >/dev/null 2>&1 || {
    echo "please: cargo install cargo-fuzz"
    exit 1
}
# Instrumenting is not stable in rustc; this lets every one do it. Without a sanitizer: what
# reads foreign bytes is safe Rust, and without one it is several times as fast.
export RUSTC_BOOTSTRAP=1
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
export CARGO_TARGET_DIR=$target/fuzz
failed=0
for name in "${targets[@]}"; do
    mkdir -p "$CARGO_TARGET_DIR/learnt/$name" "$CARGO_TARGET_DIR/broken/$name"
    cargo fuzz run --fuzz-dir fuzz --sanitizer none "$name" "$CARGO_TARGET_DIR/learnt/$name" "fuzz/corpus/$name" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=5 -artifact_prefix="$CARGO_TARGET_DIR/broken/$name/" ||
        failed=1
done
exit $failed
