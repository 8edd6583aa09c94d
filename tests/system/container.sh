#!/bin/bash
# container.sh DEB [ARM64-DEB]: the image and the pair of compose.yaml, with a Docker engine of its own
# in a network of its own; with the second package also the image for arm64, if this host runs its
# programs (binfmt_misc with qemu-user-static). Exits with 77 where no engine can be started.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
deb=$1 arm64=${2:-}
command -v dockerd >/dev/null || { echo "no dockerd"; exit 77; }
base bookworm rsync

place=$WORK/docker
rm -rf "$place"
mkdir -p "$place"
ip netns add lsyncd-docker
undo() {
    [ -z "${engine:-}" ] || { kill -TERM "$engine" && wait "$engine"; } || true
    ip netns del lsyncd-docker || true
    umount -l "$place"/exec/netns/* 2>/dev/null || true
    rm -rf "$place" || true
}
trap undo EXIT
nsenter --net=/run/netns/lsyncd-docker dockerd --data-root "$place/data" --exec-root "$place/exec" \
    -H "unix://$place/sock" --pidfile "$place/pid" --bip 10.78.0.1/24 >"$place/log" 2>&1 &
engine=$!
docker() { command docker -H "unix://$place/sock" "$@"; }
up=
for _ in $(seq 300); do
    docker version >/dev/null 2>&1 && up=yes && break
    kill -0 $engine 2>/dev/null || break
    sleep .1
done
[ -n "$up" ] || { tail -3 "$place/log"; echo "no engine can be started"; exit 77; }

trouble() {
    docker ps -a
    docker logs mirror || true
    exit 1
}

echo "== the image"
# The base of the tests in place of the one on a registry; it has no way to the network.
tar -C "$BASE" --one-file-system --exclude=./proc/* --exclude=./sys/* -c . | docker import - base >/dev/null
mkdir -p "$place/tree/packaging/out"
cp "$deb" "$place/tree/packaging/out/"
DOCKER_BUILDKIT=0 docker build --network none --build-arg BASE=base -t lsyncd \
    -f "$here/packaging/container/Dockerfile" "$place/tree" >"$place/build" 2>&1 ||
    { tail -20 "$place/build"; exit 1; }
DOCKER_BUILDKIT=0 docker build --network none --build-arg BASE=base --target nonroot -t lsyncd:nonroot \
    -f "$here/packaging/container/Dockerfile" "$place/tree" >"$place/build" 2>&1 ||
    { tail -20 "$place/build"; exit 1; }
is "it has a version" docker run --rm --network none lsyncd -version

echo "== the pair of compose.yaml"
docker volume create data >/dev/null
docker volume create mirror >/dev/null
docker run -d --network none --name writer -v data:/data base \
    sh -c 'while :; do date > /data/now; sleep 1; done' >/dev/null
docker run -d --network none --name mirror -v data:/data:ro -v mirror:/mirror lsyncd \
    -delay 1 -rsync /data /mirror >/dev/null
arrived() { docker exec mirror test -s "/mirror/$1"; }
soon "what the writer has arrives" arrived now
docker exec writer sh -c 'mkdir -p /data/a/b && echo x > /data/a/b/c'
soon "what it makes arrives" arrived a/b/c
is "it can be asked" docker exec mirror lsyncdctl status -wait -timeout "$LIMIT"
is "the log is on standard output" sh -c "docker() { command docker -H unix://$place/sock \"\$@\"; }
    docker logs mirror 2>/dev/null | grep -q Startup"
is "it is process 1" docker exec mirror sh -c 'grep -qx lsyncd /proc/1/comm'

docker exec mirror sh -c '(sleep 0.2 &) ; true'
zombies() { docker exec mirror sh -c 'grep -l "^State:.Z" /proc/[0-9]*/status 2>/dev/null | wc -l'; }
gone() { [ "$(zombies)" = 0 ]; }
sleep 1
soon "orphans are taken in" gone
docker stop -t 60 mirror >/dev/null
is "TERM ends it" [ "$(docker inspect -f '{{.State.ExitCode}}' mirror)" = 143 ]
docker rm -f writer mirror >/dev/null

echo "== compose.yaml itself"
if command -v docker-compose >/dev/null; then
    command docker -H "unix://$place/sock" tag base debian:trixie-slim
    cp -r "$here/packaging/container" "$place/tree/packaging/"
    # The base has all packages, and there is no way to the network.
    echo 'services: {writer: {network_mode: none},
        mirror: {network_mode: none, build: {network: none, args: {BASE: base}}}}' >"$place/override.yaml"
    compose() {
        DOCKER_BUILDKIT=0 DOCKER_HOST=unix://$place/sock docker-compose -p pair \
            -f "$place/tree/packaging/container/compose.yaml" -f "$place/override.yaml" "$@"
    }
    compose up -d --build >"$place/build" 2>&1 || { tail -20 "$place/build"; exit 1; }
    sent() { compose exec -T mirror test -s /mirror/now; }
    soon "it mirrors" sent
    is "it can be asked" compose exec -T mirror lsyncdctl status -wait -timeout "$LIMIT"
    compose down -v >/dev/null 2>&1
else
    echo "SKIPPED: no docker-compose"
fi

echo "== without root"
docker volume create owned >/dev/null
docker run --rm --network none -v owned:/mirror base chown 65532:65532 /mirror
docker run -d --network none --name mirror --read-only --cap-drop ALL --tmpfs /tmp \
    --tmpfs /run/lsyncd:uid=65532,mode=755 --tmpfs /var/lib/lsyncd:uid=65532,mode=700 \
    --health-interval 1s --health-start-period 1s -v data:/data:ro -v owned:/mirror lsyncd:nonroot \
    -delay 1 -rsync /data /mirror >/dev/null
is "it is the user 65532" [ "$(docker exec mirror id -u)" = 65532 ]
soon "what is there arrives" arrived a/b/c
is "it can be asked" docker exec mirror lsyncdctl status -wait -timeout "$LIMIT"
healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' mirror)" = "$1" ]; }
soon "it is healthy" healthy healthy
docker run --rm --network none -v owned:/mirror base chown -R 0:0 /mirror
docker run --rm --network none -v data:/data base sh -c 'echo y >/data/a/new'
soon "it is unhealthy when it cannot write" healthy unhealthy
docker rm -f mirror >/dev/null

echo "== the image for arm64"
# The base as for amd64, but without an init system.
arm64_base() {
    BASE=$WORK/base-bookworm-arm64
    [ -e "$BASE/.ready" ] && return
    rm -rf "$BASE"
    mmdebstrap --quiet --arch=arm64 --variant=minbase --format=directory --include=rsync,openssh-client \
        --aptopt='Acquire::Check-Valid-Until "false"' bookworm "$BASE" \
        "deb $(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources | sed -n 1p) bookworm main"
    touch "$BASE/.ready"
}
if [ -z "$arm64" ]; then
    echo "SKIPPED: no package for arm64"
elif ! command -v arch-test >/dev/null || ! arch-test arm64 >/dev/null; then
    echo "SKIPPED: this host does not run programs for arm64"
else
    arm64_base
    tar -C "$BASE" --one-file-system --exclude=./proc/* --exclude=./sys/* -c . | docker import - base-arm64 >/dev/null
    # The Dockerfile chooses the package of the base's architecture.
    cp "$arm64" "$place/tree/packaging/out/"
    DOCKER_BUILDKIT=0 docker build --network none --build-arg BASE=base-arm64 -t lsyncd:arm64 \
        -f "$here/packaging/container/Dockerfile" "$place/tree" >"$place/build" 2>&1 ||
        { tail -20 "$place/build"; exit 1; }
    is "it has a version" docker run --rm --network none lsyncd:arm64 -version
    is "it is for arm64" [ "$(docker run --rm --network none --entrypoint dpkg lsyncd:arm64 --print-architecture)" = arm64 ]
    docker volume create mirror64 >/dev/null
    docker run -d --network none --name mirror -v data:/data:ro -v mirror64:/mirror lsyncd:arm64 \
        -delay 1 -rsync /data /mirror >/dev/null
    soon "what is there arrives" arrived a/b/c
    docker run --rm --network none -v data:/data base sh -c 'echo z >/data/arm64'
    soon "what is made arrives" arrived arm64
    docker rm -f mirror >/dev/null
fi

echo "== the manifest for Kubernetes"
if python3 -m venv "$place/venv" >/dev/null && "$place/venv/bin/pip" install -q kubernetes-validate >/dev/null; then
    is "it is valid" "$place/venv/bin/kubernetes-validate" --strict "$here/packaging/container/kubernetes.yaml"
else
    echo "SKIPPED: kubernetes-validate cannot be had"
fi
echo "== done"
