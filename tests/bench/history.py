#!/usr/bin/env python3
"""Measures what the transfer log adds to the CPU time of the daemon's own process during a burst.

usage: history.py [--files N] [--rounds N] [--runs N] [--kind KIND] [--callgrind] LSYNCD

A run creates all files of a round at once, waits until they are at the target, and goes on with the
next round. Runs with and without the log alternate. Times are those of /proc/PID/schedstat, in
nanoseconds. With --callgrind the instructions of the process are counted, which does not depend on
the load of the machine; needs valgrind.
"""
import argparse, os, re, shutil, statistics, subprocess

from table import Daemon, Work, wait, write


def nanoseconds(pid):
    """the CPU time of all threads of a process"""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as file:
            total += int(file.read().split()[0])
    return total


def burst(options, size, rounds):
    """Returns CPU seconds, or with --callgrind millions of instructions from start to end."""
    with Work() as work:
        settings = f'stateDir = "{work.root}/state", transferLogSize = {size}'
        binary, output = options.lsyncd, work.root + "/callgrind"
        if options.callgrind:
            binary = work.root + "/lsyncd"
            write(binary, f"""#!/bin/sh
exec valgrind --tool=callgrind --trace-children=no --callgrind-out-file={output} {options.lsyncd} "$@" 2>> {work.root}/valgrind
""")
            os.chmod(binary, 0o755)
        with Daemon(binary, work, "delay = 1", kind=options.kind, settings=settings) as daemon:
            wait(lambda: os.path.exists(daemon.log) and "finished" in open(daemon.log).read())
            daemon.wait_idle()
            before = nanoseconds(daemon.pid)
            for number in range(rounds):
                os.mkdir(f"{work.src}/{number}")
                for file in range(options.files):
                    write(f"{work.src}/{number}/file{file:05}", "x")
                target = f"{work.trg}/{number}"
                wait(lambda: os.path.exists(target) and len(os.listdir(target)) == options.files, 0.1)
                daemon.wait_idle()
            seconds = (nanoseconds(daemon.pid) - before) / 1e9
            overflows = daemon.overflows()
        if overflows:
            print(f"  {overflows} overflows")
        if options.callgrind:
            if options.keep:
                shutil.copy(output, f"{options.keep}.{size}")
            with open(output) as file:
                return int(re.search(r"^(?:totals|summary): (\d+)", file.read(), re.M)[1]) / 1e6
        return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=4000, help="files of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--kind", default="default.rsync")
    parser.add_argument("--callgrind", action="store_true")
    parser.add_argument("--keep", help="where the last profiles are kept, with .0 and .4 behind it")
    parser.add_argument("lsyncd")
    options = parser.parse_args()
    options.lsyncd = os.path.abspath(options.lsyncd)
    unit = "million instructions" if options.callgrind else "s"
    idle = statistics.median(burst(options, 0, 0) for _ in range(3)) if options.callgrind else 0
    costs = {0: [], 4: []}
    for _ in range(options.runs):
        for size, all in costs.items():
            all.append(burst(options, size, options.rounds) - idle)
    print(f"{options.kind}, {options.rounds} times {options.files} new files, {options.runs} runs each")
    for size, all in costs.items():
        name = "with the log" if size else "without it"
        print(f"  {name:<13} median {statistics.median(all):9.4f} {unit}, {min(all):.4f} to {max(all):.4f}")
    without, with_log = (statistics.median(all) for all in costs.values())
    pairs = [100 * (one / other - 1) for other, one in zip(*costs.values())]
    print(f"  medians {100 * (with_log / without - 1):+.2f} %, pairs {statistics.median(pairs):+.2f} %"
          f" ({min(pairs):+.2f} to {max(pairs):+.2f})")


if __name__ == "__main__":
    main()
