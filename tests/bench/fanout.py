#!/usr/bin/env python3
"""One source, 20 targets (rsync daemons on loopback), 10,000 changes, one target dead, one slow:
how long until the healthy ones are equal, and what the daemon itself costs.

    fanout.py PROGRAM... [-targets N] [-changes N]
    fanout.py PROGRAM... -cut SECONDS [-targets N]

A program named `lsyncd:PATH` gets 20 syncs, as lsyncd needs; any other one sync with `targets`.

With -cut one target's rsync daemon is stopped (SIGSTOP) for so long, as if its link were cut while
all others change: 100 files at a time, the next ones when the others have these. Before that, the
same for as long with all targets well.
"""
import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import tempfile
import time

DIRECTORIES = 100


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def rsync_daemon(root, name, modules, extra=""):
    port = free_port()
    text = f"use chroot = no\nuid = {os.getuid()}\ngid = {os.getgid()}\nport = {port}\n"
    text += "address = 127.0.0.1\nread only = no\nmax connections = 0\n"
    text += f"log file = {root}/{name}.log\n"
    for module in modules:
        text += f"[{module}]\npath = {root}/{module}\n{extra}"
    with open(f"{root}/{name}.conf", "w") as f:
        f.write(text)
    child = subprocess.Popen(["rsync", "--daemon", "--no-detach", f"--config={root}/{name}.conf"])
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return child, port
        except OSError:
            time.sleep(0.02)


def names(root):
    found = set()
    for path, _, files in os.walk(root):
        found.update(os.path.join(path, f)[len(root):] for f in files if f[0] != ".")
    return found


def cost(pid):
    """CPU seconds and megabytes at most of the process alone (proc(5))."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(") ", 1)[1].split()
    with open(f"/proc/{pid}/status") as f:
        peak = next(line for line in f if line.startswith("VmHWM")).split()[1]
    ticks = os.sysconf("SC_CLK_TCK")
    return (int(fields[11]) + int(fields[12])) / ticks, int(peak) / 1024


def configuration(classic, root, targets):
    common = f'default.rsync, source = "{root}/src", delay = 1, init = false'
    text = 'settings { nodaemon = true, insist = true, logfile = "%s/log" }\n' % root
    if classic:
        for target in targets:
            text += f'sync {{ {common}, target = "{target}" }}\n'
    else:
        text += "sync { %s, targets = { %s } }\n" % (
            common, ", ".join(f'"{target}"' for target in targets))
    return text


def measure(program, count, changes):
    with tempfile.TemporaryDirectory(prefix="fanout") as root:
        modules = [f"t{n}" for n in range(count)]
        for place in ["src", *modules]:
            for n in range(DIRECTORIES):
                os.makedirs(f"{root}/{place}/d{n}")
        healthy, slow = modules[2:], modules[1]
        servers = [rsync_daemon(root, "well", healthy)]
        servers.append(rsync_daemon(root, "slow", [slow], "pre-xfer exec = /bin/sleep 5\n"))
        targets = [f"rsync://127.0.0.1:{free_port()}/{modules[0]}/"]
        targets.append(f"rsync://127.0.0.1:{servers[1][1]}/{slow}/")
        targets += [f"rsync://127.0.0.1:{servers[0][1]}/{module}/" for module in healthy]
        name, daemon = begin(program, root, targets)
        try:
            wait_watching(root, healthy, daemon)
            before = cost(daemon.pid)[0]
            start = time.monotonic()
            for n in range(changes):
                with open(f"{root}/src/d{n % DIRECTORIES}/f{n}", "w") as f:
                    f.write(str(n))
            wanted = names(f"{root}/src")
            left = set(healthy)
            while left and time.monotonic() - start < 300:
                left = {module for module in left if names(f"{root}/{module}") < wanted}
                time.sleep(0.1)
            span = time.monotonic() - start
            cpu, peak = cost(daemon.pid)
            state = "" if not left else f"  {len(left)} targets NOT equal"
            print(f"{name:<20}"
                  f"{span:8.1f} s   daemon {cpu - before:6.2f} s CPU   {peak:6.1f} MB{state}",
                  flush=True)
        finally:
            end(daemon, servers)


def begin(program, root, targets):
    """Starts a daemon; `lsyncd:` before its path asks for a sync for each target."""
    classic = program.startswith("lsyncd:")
    program = program.removeprefix("lsyncd:")
    with open(f"{root}/conf.lua", "w") as f:
        f.write(configuration(classic, root, targets))
    daemon = subprocess.Popen([program, f"{root}/conf.lua"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return os.path.basename(program) + (" (classic)" if classic else ""), daemon


def end(daemon, servers):
    daemon.terminate()
    try:
        daemon.wait(15)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
    for server, _ in servers:
        server.terminate()
        server.wait()


def measure_cut(program, count, seconds):
    with tempfile.TemporaryDirectory(prefix="fanout") as root:
        modules = [f"t{n}" for n in range(count)]
        for place in ["src", *modules]:
            os.makedirs(f"{root}/{place}/d0")
        cut, healthy = modules[0], modules[1:]
        servers = [rsync_daemon(root, "cut", [cut]), rsync_daemon(root, "well", healthy)]
        targets = [f"rsync://127.0.0.1:{servers[0][1]}/{cut}/"]
        targets += [f"rsync://127.0.0.1:{servers[1][1]}/{module}/" for module in healthy]
        name, daemon = begin(program, root, targets)
        try:
            wait_watching(root, modules, daemon)
            spans = rounds(root, "before", healthy, seconds)
            wait_names(root, "before", len(spans) - 1, [cut], time.monotonic())
            print(f"{name:<20} all well        {summary(spans)}", flush=True)
            with stopped(servers[0][0]):
                spans = rounds(root, "cut", healthy, seconds)
            start = time.monotonic()
            print(f"{name:<20} one cut off     {summary(spans)}", flush=True)
            late = wait_names(root, "cut", len(spans) - 1, [cut], start)
            print(f"{name:<20} that has it all {late:.2f} s after it is back", flush=True)
        finally:
            end(daemon, servers)


@contextlib.contextmanager
def stopped(server):
    server.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send_signal(signal.SIGCONT)


def rounds(root, name, modules, seconds):
    """Seconds that each round of changes took until all of these had it."""
    spans, begin = [], time.monotonic()
    while time.monotonic() - begin < seconds:
        start = time.monotonic()
        for n in range(100):
            with open(f"{root}/src/d0/{name}{len(spans)}.{n}", "w") as f:
                f.write(str(n))
        spans.append(wait_names(root, name, len(spans), modules, start))
    return spans


def wait_names(root, name, number, modules, start):
    """Waits until all of these have this round's files."""
    files = [f"{name}{number}.{n}" for n in range(100)]
    for module in modules:
        while not all(os.path.exists(f"{root}/{module}/d0/{file}") for file in files):
            assert time.monotonic() - start < 300, f"{module} lacks {name}{number}"
            time.sleep(0.005)
    return time.monotonic() - start


def summary(spans):
    return (f"{len(spans)} rounds, median {statistics.median(spans):.2f} s, "
            f"worst {max(spans):.2f} s")


def wait_watching(root, healthy, daemon):
    """Each target gets a sign, which is written until it is seen."""
    number = 0
    while not all(os.path.exists(f"{root}/{module}/d0/sign") for module in healthy):
        assert daemon.poll() is None, open(f"{root}/log").read()
        number += 1
        with open(f"{root}/src/d0/sign", "w") as f:
            f.write("x" * number)
        time.sleep(0.5)
    time.sleep(4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", nargs="+")
    parser.add_argument("-targets", type=int, default=20)
    parser.add_argument("-changes", type=int, default=10_000)
    parser.add_argument("-cut", type=int, metavar="SECONDS")
    options = parser.parse_args()
    for each in options.program:
        if options.cut:
            measure_cut(each, options.targets, options.cut)
        else:
            measure(each, options.targets, options.changes)
