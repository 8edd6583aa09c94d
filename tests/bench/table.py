#!/usr/bin/env python3
"""Measures daemons that take lsyncd's command line, and what the kernel, rsync and cp take for
the same, in one run.

usage: table.py [--scale F] [--case NAME]... NAME=BINARY...

For each case a line for each daemon and one for the floor, with the ratio to the floor. A scale
of 0.1 is a tenth of the work; slow daemons may need it.
"""
import argparse, os, shutil, statistics, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
TICK = os.sysconf("SC_CLK_TCK")
LIMIT = 300


class Work:
    """A directory with `src` and `trg`, removed afterwards."""

    def __enter__(self):
        self.root = tempfile.mkdtemp(prefix="lsyncd-table-")
        self.src, self.trg = self.root + "/src", self.root + "/trg"
        os.mkdir(self.src)
        os.mkdir(self.trg)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.root, ignore_errors=True)

    def tree(self, where, directories, files=0):
        for n in range(directories):
            path = f"{where}/{n % 100:03}/{n:06}"
            os.makedirs(path)
            for f in range(files):
                write(f"{path}/f{f}", "x" * (f + 1))


class Daemon:
    def __init__(self, binary, work, sync, kind="default.rsync", settings=""):
        self.log = work.root + "/log"
        config = work.root + "/conf.lua"
        write(config, f"""settings{{ logfile = "{self.log}", nodaemon = true, {settings} }}
            sync{{ {kind}, source = "{work.src}", target = "{work.trg}", {sync} }}""")
        with open(work.root + "/out", "wb") as out:
            self.process = subprocess.Popen([binary, config], stdout=out, stderr=out)
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def cpu(self, children=True):
        with open(f"/proc/{self.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return sum(int(x) for x in fields[11:15 if children else 13]) / TICK

    def rss(self, key="VmRSS"):
        with open(f"/proc/{self.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith(key)) * 1024

    def watches(self):
        count = 0
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                if "inotify" in os.readlink(f"/proc/{self.pid}/fd/{fd}"):
                    with open(f"/proc/{self.pid}/fdinfo/{fd}") as f:
                        count += sum(line.startswith("inotify wd:") for line in f)
            except OSError:
                pass
        return count

    def wait_watches(self, wanted):
        wait(lambda: self.watches() >= wanted)

    def wait_idle(self, span=1.0):
        """Until it has used no CPU for a while."""
        last, since, end = self.cpu(), time.monotonic(), time.monotonic() + LIMIT
        while time.monotonic() - since < span and time.monotonic() < end:
            time.sleep(0.05)
            if self.cpu() != last:
                last, since = self.cpu(), time.monotonic()

    def switches(self):
        count = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/status") as f:
                count += sum(int(line.split()[1]) for line in f if "ctxt_switches" in line)
        return count

    def overflows(self):
        with open(self.log, errors="replace") as f:
            return f.read().count("OVERFLOW")


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def wait(done, pause=0.01):
    end = time.monotonic() + LIMIT
    while not done():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(pause)


def timed(words, **keywords):
    start = time.monotonic()
    subprocess.run(words, check=True, **keywords)
    return time.monotonic() - start


def floor_program():
    path = tempfile.mkdtemp(prefix="lsyncd-floor-") + "/floor"
    subprocess.run(["cc", "-O2", "-pthread", "-o", path, HERE + "/floor.c"], check=True)
    return path


def same(work):
    listing = subprocess.run(["rsync", "-rlOn", "--size-only", "--delete", "--out-format=%n", work.src + "/", work.trg + "/"],
                             capture_output=True, check=False)
    return listing.returncode == 0 and not listing.stdout.strip()


def count(path):
    return sum(len(files) + len(directories) for _, directories, files in os.walk(path))


def wait_same(work):
    wanted = count(work.src)
    wait(lambda: count(work.trg) == wanted and same(work), 0.05)


QUIET = "delay = 100000, maxDelays = 100000000, init = false"
NOW = "delay = 0, init = false, rsync = { archive = true }"


def startup(binary, n):
    """seconds until all directories are watched"""
    with Work() as work:
        work.tree(work.src, n)
        total = count(work.src) + 1
        subprocess.run(["find", work.src], stdout=subprocess.DEVNULL, check=True)
        if binary is None:
            return float(subprocess.run([floor_program(), "watch", work.src], check=True,
                                        capture_output=True).stdout)
        # The startup transfer begins when all is watched. Counting watches meanwhile would hold
        # the kernel's locks.
        write(work.root + "/rsync", f"#!/bin/sh\ntouch {work.root}/begun\n")
        os.chmod(work.root + "/rsync", 0o755)
        start = time.monotonic()
        with Daemon(binary, work, f'rsync = {{ binary = "{work.root}/rsync" }}') as daemon:
            wait(lambda: os.path.exists(work.root + "/begun"), 0.002)
            seconds = time.monotonic() - start
            if daemon.watches() < total:
                raise OSError("not all is watched")
            return seconds


def watch_memory(binary, n):
    """bytes for each watched directory"""
    with Work() as work:
        work.tree(work.src, n)
        with Daemon(binary, work, QUIET) as daemon:
            daemon.wait_watches(n)
            daemon.wait_idle()
            full = daemon.rss()
    with Work() as work:
        with Daemon(binary, work, QUIET) as daemon:
            daemon.wait_watches(1)
            daemon.wait_idle()
            return (full - daemon.rss()) / n


def burst_of(binary, n, writers):
    with Work() as work:
        for w in range(writers):
            os.makedirs(f"{work.src}/{w}")
        def fill(w):
            # Processes, not threads: Python's lock would make them take turns.
            script = "import sys\nfor i in range(int(sys.argv[2])): open(sys.argv[1] + '/twenty byte %07d' % i, 'w').close()"
            subprocess.run([sys.executable, "-c", script, f"{work.src}/{w}", str(n // writers)], check=True)
        def all_fill():
            threads = [threading.Thread(target=fill, args=(w,)) for w in range(writers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if binary is None:
            reader = subprocess.Popen([floor_program(), "read", work.src], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)
            reader.stdout.readline()
            all_fill()
            time.sleep(0.5)
            return float(reader.communicate("")[0]) / n, 0, 0
        with Daemon(binary, work, QUIET) as daemon:
            daemon.wait_watches(writers + 1)
            daemon.wait_idle()
            before, empty = daemon.cpu(), daemon.rss()
            all_fill()
            daemon.wait_idle()
            return (daemon.cpu() - before) / n * 1e6, (daemon.rss() - empty) / n, daemon.overflows()


def burst(binary, n):
    """microseconds of CPU for each file of a burst"""
    return burst_of(binary, n, 1)[0]


def writers(binary, n):
    """the same with four writers; a burst that overflowed counts as infinite"""
    cost, _, overflows = burst_of(binary, n, 4)
    return float("inf") if overflows else cost


def pending(binary, n):
    """bytes for each pending path"""
    return burst_of(binary, n, 1)[1]


def flat(binary, n):
    """seconds for one change in a directory of many files"""
    with Work() as work:
        for i in range(n):
            write(f"{work.src}/f{i}", "x")
        subprocess.run(["rsync", "-a", work.src + "/", work.trg + "/"], check=True)
        if binary is None:
            write(f"{work.src}/f7", "changed")
            return timed(["rsync", "-a", "--files-from=-", work.src + "/", work.trg + "/"], input=b"f7\n")
        with Daemon(binary, work, NOW) as daemon:
            daemon.wait_watches(1)
            daemon.wait_idle()
            times = []
            for i in range(5):
                write(f"{work.src}/f{i}", "changed" + "x" * i)
                start = time.monotonic()
                wait(lambda: os.path.getsize(f"{work.trg}/f{i}") == 7 + i, 0.0005)
                times.append(time.monotonic() - start)
                time.sleep(0.3 + 2 * times[-1])
            return statistics.median(times)


def batch(binary, n):
    """seconds of CPU for 5,000 changes among many files, one batch"""
    with Work() as work:
        work.tree(work.src, n // 20, 20)
        subprocess.run(["rsync", "-a", work.src + "/", work.trg + "/"], check=True)
        changed = [f"{d % 100:03}/{d:06}/f{f}" for d in range(0, n // 20, 4) for f in range(4)]
        def change():
            for name in changed:
                write(f"{work.src}/{name}", "changed to another size")
        if binary is None:
            change()
            names = "\n".join(sorted(changed)).encode()
            before = os.times()
            timed(["rsync", "-a", "--files-from=-", work.src + "/", work.trg + "/"], input=names)
            after = os.times()
            return after[2] - before[2] + after[3] - before[3]
        with Daemon(binary, work, "delay = 2, maxDelays = 1000000, init = false, rsync = { archive = true }") as daemon:
            daemon.wait_watches(n // 20)
            daemon.wait_idle()
            before = daemon.cpu()
            change()
            wait_same(work)
            daemon.wait_idle()
            return daemon.cpu() - before


def latency(binary, n):
    """milliseconds from close() to the same bytes at the target, delay 0, median"""
    with Work() as work:
        times = []
        def arrival(i, start):
            def there():
                try:
                    return os.path.getsize(f"{work.trg}/f{i % 7}") == i + 1
                except OSError:
                    return False
            wait(there, 0.0003)
            times.append((time.monotonic() - start) * 1e3)
            # rsync sleeps 40 ms at its end, and the next one waits for it.
            time.sleep(0.1)
        if binary is None:
            for i in range(n):
                write(f"{work.src}/f{i % 7}", "x" * (i + 1))
                start = time.monotonic()
                rsync = subprocess.Popen(["rsync", "-a", "--from0", "--files-from=-", work.src + "/", work.trg + "/"],
                                         stdin=subprocess.PIPE)
                rsync.stdin.write(b"/f%d" % (i % 7))
                rsync.stdin.close()
                arrival(i, start)
                rsync.wait()
            return statistics.median(times)
        with Daemon(binary, work, NOW) as daemon:
            daemon.wait_watches(1)
            daemon.wait_idle()
            for i in range(n):
                write(f"{work.src}/f{i % 7}", "x" * (i + 1))
                arrival(i, time.monotonic())
            return statistics.median(times)


def unpacked(binary, n, sync, kind):
    with Work() as work:
        work.tree(work.root + "/stage", n // 20, 20)
        tar = work.root + "/t.tar"
        subprocess.run(["tar", "-C", work.root + "/stage", "-cf", tar, "."], check=True)
        unpack = ["tar", "-C", work.src, "-xf", tar]
        if binary is None:
            seconds = timed(unpack)
            if kind == "default.direct":
                return seconds + timed(["cp", "-r", work.src + "/.", work.trg])
            return seconds + 1 + timed(["rsync", "-a", work.src + "/", work.trg + "/"])
        with Daemon(binary, work, sync, kind) as daemon:
            daemon.wait_watches(1)
            daemon.wait_idle()
            start = time.monotonic()
            subprocess.run(unpack, check=True)
            wait_same(work)
            return time.monotonic() - start


def tree(binary, n):
    """seconds until a tree unpacked into the source is at the target, delay 1"""
    return unpacked(binary, n, "delay = 1", "default.rsync")


def direct(binary, n):
    """the same with default.direct, delay 0"""
    return unpacked(binary, n, "delay = 0", "default.direct")


def idle(binary, n):
    """wake-ups of an idle daemon in 20 seconds"""
    with Work() as work:
        work.tree(work.src, n)
        with Daemon(binary, work, "delay = 1, init = false") as daemon:
            daemon.wait_watches(n)
            daemon.wait_idle(3)
            before = daemon.switches()
            time.sleep(20)
            return daemon.switches() - before


# case: amount of work, and whether there is a floor
CASES = {
    startup: (100_000, True), watch_memory: (100_000, False), burst: (20_000, True),
    writers: (100_000, True), pending: (200_000, False), flat: (200_000, True),
    batch: (100_000, True), latency: (60, True), tree: (20_000, True), direct: (1_000, True),
    idle: (5_000, False),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--case", action="append", choices=[case.__name__ for case in CASES])
    parser.add_argument("daemons", nargs="+", metavar="NAME=BINARY")
    options = parser.parse_args()
    daemons = [daemon.split("=", 1) for daemon in options.daemons]
    for case, (amount, has_floor) in CASES.items():
        if options.case and case.__name__ not in options.case:
            continue
        n = max(int(amount * options.scale), 60)
        print(f"\n{case.__name__} ({n}): {case.__doc__}", flush=True)
        floor = case(None, n) if has_floor else None
        if has_floor:
            print(f"  {'floor':<12} {floor:>12.3f}", flush=True)
        for name, binary in daemons:
            try:
                value = case(os.path.abspath(binary), n)
                ratio = f"{value / floor:>10.2f} x" if floor else ""
                print(f"  {name:<12} {value:>12.3f} {ratio}", flush=True)
            except (TimeoutError, OSError) as error:
                print(f"  {name:<12} {type(error).__name__}", flush=True)


if __name__ == "__main__":
    main()
