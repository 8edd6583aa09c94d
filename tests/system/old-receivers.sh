#!/bin/bash
# Receivers of other Debian releases: what is created, changed, deleted and replaced arrives, with
# whatever list each of them takes. Usage: old-receivers.sh LSYNCD
# Ends with 77 if none of their packages can be had.
set -uo pipefail

lsyncd=$(realpath "$1")
scratch=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || kill "$daemon" 2>/dev/null; rm -rf "$scratch"' EXIT

# fetch RELEASE: its rsync, with the libraries it is made for, below $scratch/RELEASE/root
fetch() {
    local release=$1 place=$scratch/$1 options names
    mkdir -p "$place"/{lists/partial,cache/archives/partial,root}
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $release main" \
        >"$place/sources.list"
    options=(-qq -o Dir::State="$place" -o Dir::State::status=/dev/null -o Dir::Cache="$place/cache"
        -o Dir::Etc::sourcelist="$place/sources.list" -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root
        -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none -o Acquire::Retries=1)
    cd "$place" || return
    timeout 120 apt-get "${options[@]}" update || return
    names=$(apt-cache "${options[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts \
        --no-breaks --no-replaces --no-enhances rsync | grep -E '^(rsync|lib[a-z0-9.+-]*|zlib1g)$' | sort -u)
    # shellcheck disable=SC2086 # names of packages
    timeout 120 apt-get "${options[@]}" download $names || return
    for package in *.deb; do
        dpkg-deb -x "$package" root || return
    done
}

# receiver RELEASE: an ssh that runs that release's rsync here
receiver() {
    local root=$scratch/$1/root loader
    # A link to it would lead out of the directory.
    loader=$(find "$root" -type f \( -name 'ld-2.*.so' -o -name 'ld-linux-x86-64.so.2' \) | head -1)
    cat >"$scratch/$1/ssh" <<SSH
#!/bin/bash
shift # the host
shift # rsync
exec "$loader" --library-path "$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu" \\
    $root/usr/bin/rsync "\$@"
SSH
    chmod +x "$scratch/$1/ssh"
}

arrived() {
    for _ in $(seq 300); do
        if diff -r "$source" "$target" >/dev/null 2>&1; then
            return
        fi
        sleep 0.2
    done
    echo "$1 did not arrive"
    diff -r "$source" "$target"
    cat "$scratch/log"
    return 1
}

mirror() {
    source=$scratch/$1/source target=$scratch/$1/target
    mkdir -p "$source/d/e" "$target"
    echo 1 | tee "$source/f" "$source/d/g" "$source/d/e/h" >"$source/kind"
    cat >"$scratch/config.lua" <<LUA
sync {
    default.rsync, source = "$source", target = "h:$target", delay = 0.2,
    rsync = { rsh = "$scratch/$1/ssh", archive = true },
}
LUA
    "$lsyncd" -nodaemon "$scratch/config.lua" >"$scratch/log" 2>&1 &
    daemon=$!
    arrived "the first transfer" || return
    echo more >>"$source/f" && echo new >"$source/d/new"
    arrived "a change" || return
    rm "$source/d/g" && echo again >"$source/f"
    arrived "a deletion beside a change" || return
    rm -r "$source/d/e" && rm "$source/kind" && mkdir "$source/kind" && echo in >"$source/kind/in"
    arrived "a directory in place of a file" || return
    mv "$source/d" "$source/moved"
    arrived "a rename" || return
    kill "$daemon" && wait "$daemon"
    daemon=
}

tried=0
for release in bullseye bookworm trixie; do
    if ! (fetch "$release") >"$scratch/fetched" 2>&1; then
        echo "$release: its packages cannot be had"
        continue
    fi
    receiver "$release"
    if ! version=$("$scratch/$release/ssh" h rsync --version | sed -n '1s/ *protocol.*//p') || [ -z "$version" ]; then
        echo "$release: its rsync does not run here"
        continue
    fi
    mirror "$release" || exit 1
    echo "$release: $version takes everything"
    tried=$((tried + 1))
done
[ "$tried" -gt 0 ] || exit 77
