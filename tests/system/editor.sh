#!/bin/bash
# editor.sh: lua-language-server finds the mistakes of a configuration with the definitions in
# packaging/editor, and none in the examples. Needs no root. Ends with 77 without the language server.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
command -v lua-language-server >/dev/null || { echo "no lua-language-server"; exit 77; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch"/{definitions,examples,wrong}
cp "$here/packaging/editor/lsyncd.d.lua" "$scratch/definitions/"
cp "$here"/packaging/examples/*.lua "$scratch/examples/"
cat >"$scratch/wrong/lsyncd.conf.lua" <<'LUA'
settings { logfile = 5, statusFil = "/run/status" }
sync {
    default.rsyn,
    source  = "/a",
    targett = "/b",
    delay   = "soon",
    rsync   = { archiv = true, compress = "yes" },
    backup  = { dirr = "/c" },
}
LUA

# problems DIRECTORY: LINE:COLUMN of each problem, and its name
problems() {
    # The file that docs/configuration.md recommends.
    sed -n '/^{ "runtime.version"/p' "$here/docs/configuration.md" |
        sed "s|/usr/share/lsyncd/editor|$scratch/definitions|" >"$1/.luarc.json"
    grep -q "$scratch" "$1/.luarc.json"
    lua-language-server --check "$1" --logpath "$scratch/log" --check_format=json \
        --check_out_path="$scratch/found" >/dev/null 2>&1 || true
    python3 - "$scratch/found" <<'PYTHON'
import json, sys
for found in (json.load(open(sys.argv[1])) or {}).values():
    for problem in found:
        start = problem["range"]["start"]
        print(f"{start['line'] + 1}: {problem['code']}")
PYTHON
}

is() { # is WHAT FOUND EXPECTED
    [ "$2" = "$3" ] || { printf 'NOT: %s\n%s\n' "$1" "$2"; exit 1; }
    echo "ok: $1"
}
is "the examples are right" "$(problems "$scratch/examples")" ""
is "all mistakes are found" "$(problems "$scratch/wrong" | sort)" "$(printf '%s\n' \
    '1: assign-type-mismatch' '1: assign-type-mismatch' '3: undefined-field' '5: assign-type-mismatch' \
    '6: assign-type-mismatch' '7: assign-type-mismatch' '7: assign-type-mismatch' '8: assign-type-mismatch')"
