#!/usr/bin/env python3
"""Measures what a big source costs: until events count, in memory, on a busy file system, and at
the start of an equal mirror over a distance. Needs root.

usage: scale.py [--scale F] [--case NAME]... [--fs NAME]... LSYNCD

File systems are tmpfs and images of ext4, xfs and btrfs, each made for one case. A scale of 0.1 is a
tenth of the directories and files.
"""
import argparse, os, shutil, socket, subprocess, sys, tempfile, threading, time
from contextlib import contextmanager

from fanout import rsync_daemon
from table import Daemon, floor_program, wait, write

FLOOR = floor_program()
MAKE = {"ext4": ["mkfs.ext4", "-q", "-i", "4096"], "xfs": ["mkfs.xfs", "-q"], "btrfs": ["mkfs.btrfs", "-q"]}
ALL = ["tmpfs", "ext4", "xfs", "btrfs"]


class Place:
    """A mounted file system with `src` in it, and a directory beside it."""

    def __init__(self, kind):
        self.root = tempfile.mkdtemp(prefix="lsyncd-scale-")
        self.disk, self.trg = self.root + "/disk", self.root + "/trg"
        self.src = self.disk + "/src"
        os.mkdir(self.disk)
        os.mkdir(self.trg)
        if kind == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", "size=90%,nr_inodes=0", "none", self.disk)
        else:
            image = self.root + "/image"
            with open(image, "wb") as file:
                file.truncate(24 << 30)
            run(*MAKE[kind], image)
            run("mount", "-o", "loop", image, self.disk)
        os.mkdir(self.src)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", self.disk], check=False)
        shutil.rmtree(self.root, ignore_errors=True)


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def tree(top, directories, files=0):
    for n in range(directories):
        path = f"{top}/{n // 10000}/{n // 100 % 100}/{n % 100}"
        os.makedirs(path)
        for f in range(files):
            os.close(os.open(f"{path}/f{f}", os.O_CREAT | os.O_WRONLY, 0o644))


def floor(*words):
    return float(subprocess.run([FLOOR, *words], check=True, capture_output=True).stdout)


def slab():
    with open("/proc/meminfo") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Slab:")) * 1024


@contextmanager
def relay(port, round_trip):
    """A port of this host that leads to another one, with a delay in each direction."""
    server = socket.create_server(("127.0.0.1", 0))

    def carry(source, sink):
        waiting, ready = [], threading.Condition()

        def deliver():
            while True:
                with ready:
                    ready.wait_for(lambda: waiting)
                    due, data = waiting.pop(0)
                time.sleep(max(0, due - time.monotonic()))
                try:
                    if not data:
                        return sink.shutdown(socket.SHUT_WR)
                    sink.sendall(data)
                except OSError:
                    return None

        threading.Thread(target=deliver, daemon=True).start()
        data = b"first"
        while data:
            try:
                data = source.recv(1 << 18)
            except OSError:
                data = b""
            with ready:
                waiting.append((time.monotonic() + round_trip / 2, data))
                ready.notify()

    def accept():
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", port))
            for one, other in [(near, far), (far, near)]:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=carry, args=(one, other), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


def ready(options, kind):
    """until the startup transfer begins, and the memory of daemon and kernel"""
    amounts = [20_000, 200_000, 1_000_000]
    with Place(kind) as place:
        write(place.root + "/rsync", f"#!/bin/sh\ntouch {place.root}/begun\n")
        os.chmod(place.root + "/rsync", 0o755)
        made, empty = 0, {}
        for amount in [0] + [int(amount * options.scale) for amount in amounts]:
            for n in range(made, amount):
                os.makedirs(f"{place.src}/{n // 10000}/{n // 100 % 100}/{n % 100}")
            made = max(made, amount)
            if amount and options.floor:
                print(f"  {amount:>9} floor    {floor('watch', place.src):8.3f} s", flush=True)
            for watch in ["inotify", "fanotify"]:
                os.path.exists(place.root + "/begun") and os.unlink(place.root + "/begun")
                before, start = slab(), time.monotonic()
                sync = f'rsync = {{ binary = "{place.root}/rsync" }}, delay = 100000'
                with Daemon(options.lsyncd, place, sync, settings=f'watch = "{watch}"') as daemon:
                    wait(lambda: os.path.exists(place.root + "/begun"), 0.001)
                    seconds = time.monotonic() - start
                    daemon.wait_idle()
                    rss, kernel = daemon.rss(), slab() - before
                if not amount:
                    empty[watch] = rss
                print(f"  {amount:>9} {watch:<8} {seconds:8.3f} s, daemon {rss / 1e6:6.1f} MB"
                      f" (+{(rss - empty[watch]) / 1e6:.1f}), kernel {kernel / 1e6:+8.1f} MB", flush=True)


def irrelevant(options, kind):
    """CPU of the daemon while others write beside the source, in percent of a core"""
    with Place(kind) as place:
        tree(place.src, 100)
        os.mkdir(place.disk + "/beside")
        with Daemon(options.lsyncd, place, "delay = 1", settings='watch = "fanotify"') as daemon:
            daemon.wait_idle(2)
            rss = daemon.rss()
            before, start = daemon.cpu(), time.monotonic()
            rate = floor("traffic", place.disk + "/beside")
            seconds, cpu = time.monotonic() - start, daemon.cpu() - before
            print(f"  {rate:9.0f} writes a second: {100 * cpu / seconds:5.1f} %, {cpu / rate / seconds * 1e6:.2f} us each,"
                  f" {(daemon.rss() - rss) / 1e6:+.1f} MB, {daemon.overflows()} overflows", flush=True)


def warm(options, kind):
    """start of an equal mirror: all compared, and with init = "changed\""""
    directories = int(100_000 * options.scale)
    with Place(kind) as place:
        tree(place.src, directories, 10)
        run("cp", "-a", place.src + "/.", place.trg)
        time.sleep(3)
        print(f"  {directories * 11} entries, floor (walk)      {min(floor('walk', place.src) for _ in range(3)):8.3f} s", flush=True)
        child, port = rsync_daemon(place.root, "remote", ["trg"])
        try:
            for milliseconds in options.rtt or [None, 0, 20, 80]:
                starts(options, place, port, milliseconds)
        finally:
            child.terminate()
            child.wait()


def starts(options, place, port, milliseconds):
    """Prints the times of starts over a distance; None: to a local target."""
    with relay(port, (milliseconds or 0) / 1000) as port:
        target = place.trg if milliseconds is None else f"rsync://127.0.0.1:{port}/trg/"
        name = "local" if milliseconds is None else f"{milliseconds} ms"
        start = time.monotonic()
        run("rsync", "-ltsd", "-r", "--delete", "--no-inc-recursive", place.src + "/", target)
        print(f"  {name:<6} floor (rsync)             {time.monotonic() - start:8.3f} s", flush=True)
        if options.plain:
            start = time.monotonic()
            run("rsync", "-ltsd", "-r", "--delete", place.src + "/", target)
            print(f"  {name:<6} rsync as lsyncd calls it  {time.monotonic() - start:8.3f} s", flush=True)
        state = place.root + "/state"
        shutil.rmtree(state, ignore_errors=True)
        for watch in ["inotify", "fanotify"]:
            for init in ["all", "changed", "changed"]:
                settings = f'watch = "{watch}", stateDir = "{state}"'
                sync = 'init = "changed"' if init == "changed" else "delay = 1"
                is_warm = init == "changed" and os.path.exists(state)
                work = type("", (), dict(root=place.root, src=place.src, trg=target))
                os.path.exists(place.root + "/log") and os.unlink(place.root + "/log")
                start = time.monotonic()
                with Daemon(options.lsyncd, work, sync, settings=settings) as daemon:
                    done = lambda: any(text in read(daemon.log) for text in ["finished.", "nothing has changed"])
                    wait(done, 0.005)
                    seconds, rss = time.monotonic() - start, daemon.rss()
                    how = "warm" if "nothing has changed" in read(daemon.log) else "all compared"
                    if init == "changed" and how != "warm":
                        wait(lambda: has_index(state), 0.1)
                        daemon.wait_idle()
                        continue
                    print(f"  {name:<6} {watch:<8} {how:<16} {seconds:8.3f} s, daemon {rss / 1e6:.1f} MB", flush=True)


def verify(options, kind):
    """lsyncdctl verify of an equal mirror, without contents"""
    directories = int(100_000 * options.scale)
    with Place(kind) as place:
        tree(place.src, directories, 10)
        run("cp", "-a", place.src + "/.", place.trg)
        control = place.root + "/sock"
        lsyncdctl = os.path.join(os.path.dirname(options.lsyncd), "lsyncdctl")
        child, port = rsync_daemon(place.root, "remote", ["trg"])
        try:
            for milliseconds in options.rtt or [0, 80]:
                with relay(port, milliseconds / 1000) as near:
                    target = f"rsync://127.0.0.1:{near}/trg/"
                    work = type("", (), dict(root=place.root, src=place.src, trg=target))
                    with Daemon(options.lsyncd, work, "delay = 1", settings=f'controlSocket = "{control}"') as daemon:
                        wait(lambda: os.path.exists(control), 0.01)
                        run(lsyncdctl, "-socket", control, "status", "-wait")
                        start = time.monotonic()
                        run(lsyncdctl, "-socket", control, "verify")
                        print(f"  {directories * 11} entries, {milliseconds} ms  {time.monotonic() - start:8.3f} s", flush=True)
        finally:
            child.terminate()
            child.wait()


def index(options, kind):
    """start with an index of a million directories, and the memory that it takes"""
    directories = int(1_000_000 * options.scale)
    with Place(kind) as place:
        tree(place.src, directories)
        write(place.root + "/rsync", "#!/bin/sh\nexit 0\n")
        os.chmod(place.root + "/rsync", 0o755)
        state = place.root + "/state"
        sync = f'init = "changed", rsync = {{ binary = "{place.root}/rsync" }}'
        settings = f'watch = "fanotify", stateDir = "{state}"'
        with Daemon(options.lsyncd, place, sync, settings=settings) as daemon:
            wait(lambda: has_index(state), 0.1)
            daemon.wait_idle()
        size = sum(os.path.getsize(f"{path}/{file}") for path, _, files in os.walk(state) for file in files)
        walk = min(floor("walk", place.src) for _ in range(3))
        os.unlink(place.root + "/log")
        start = time.monotonic()
        with Daemon(options.lsyncd, place, sync, settings=settings) as daemon:
            wait(lambda: "nothing has changed" in read(daemon.log), 0.005)
            seconds = time.monotonic() - start
            daemon.wait_idle()
            most = daemon.rss("VmHWM")
            print(f"  {directories} directories, floor (walk) {walk:.3f} s, warm start {seconds:.3f} s, index"
                  f" {size / directories:.1f} bytes each, daemon {daemon.rss() / 1e6:.1f} MB, at most {most / 1e6:.1f} MB", flush=True)


def has_index(state):
    return any("index" in files for _, _, files in os.walk(state))


def read(path):
    try:
        with open(path, errors="replace") as f:
            return f.read()
    except OSError:
        return ""


CASES = {ready: ALL, irrelevant: ["tmpfs", "ext4"], warm: ["tmpfs", "ext4"], verify: ["tmpfs"], index: ["tmpfs"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--case", action="append", choices=[case.__name__ for case in CASES])
    parser.add_argument("--fs", action="append", choices=ALL)
    parser.add_argument("--rtt", action="append", type=lambda text: None if text == "local" else int(text),
                        help="milliseconds of a round trip to the target, or local")
    parser.add_argument("--plain", action="store_true", help="also rsync without --no-inc-recursive")
    parser.add_argument("--floor", action="store_true", help="also the floor of setting inotify watches")
    parser.add_argument("lsyncd")
    options = parser.parse_args()
    options.lsyncd = os.path.abspath(options.lsyncd)
    for case, kinds in CASES.items():
        if options.case and case.__name__ not in options.case:
            continue
        for kind in options.fs or kinds:
            print(f"\n{case.__name__}, {kind}: {case.__doc__}", flush=True)
            try:
                case(options, kind)
            except (TimeoutError, OSError, subprocess.CalledProcessError) as error:
                print(f"  {type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main()
