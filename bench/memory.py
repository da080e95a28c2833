#!/usr/bin/env python3
"""Tell how much memory nadir takes beside the guest's, while a guest compiles a C file.

usage: memory.py --nadir NADIR [--cache DIRECTORY] [--engine NAME] [--memory SIZE] [--only WORKLOAD] [OPTION...]

The proportional set sizes of all its processes are added up twice a second, without the guest's memory; the largest sum is shown,
by mapping. OPTIONs are given to nadir run."""
import argparse
import collections
import glob
import os
import re
import subprocess
import sys
import tempfile
import threading
import tomllib

import run

MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)$")


def family(root):
    """ROOT and the processes it has made."""
    members = [root]
    for path in sorted(glob.glob("/proc/[0-9]*/stat"), key=lambda path: int(path.split("/")[2])):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                parent = int(file.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent in members:
            members.append(int(path.split("/")[2]))
    return members


def sizes(root):
    """KiB by mapping, without guest memory."""
    total = collections.Counter()
    for pid in family(root):
        try:
            with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
                lines = file.readlines()
        except OSError:
            continue
        name = ""
        for line in lines:
            match = MAPPING.match(line)
            if match:
                name = match.group(1) or "(anonymous)"
            elif line.startswith("Pss:") and "nadir-ram" not in name:
                total[name] += int(line.split()[1])
    return total


def watch(process, largest, done):
    while not done.wait(0.5):
        now = sizes(process.pid)
        if now.total() > largest.total():
            largest.clear()
            largest.update(now)


def main():
    parser = argparse.ArgumentParser(description="Tell how much memory nadir takes beside the guest's.")
    parser.add_argument("--nadir", required=True, help="the program to measure")
    parser.add_argument("--cache", default=os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir")))
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--memory", default="512M")
    parser.add_argument("--only", default="gcc", help="the workload")
    parser.add_argument("options", nargs="*", metavar="OPTION", help="further options of nadir run, after --")
    args = parser.parse_args()
    args.check, args.scale = None, 1
    with open(os.path.join(run.HERE, "workloads.toml"), "rb") as file:
        table = tomllib.load(file)
    workloads = [workload for workload in table["workload"] if workload["name"] == args.only and "amount" in workload]
    if not workloads:
        sys.exit(f"memory: there is no workload {args.only}")
    largest, done = collections.Counter(), threading.Event()
    with tempfile.TemporaryDirectory(prefix="nadir-memory-") as work:
        group = run.Group(args.only, workloads, table, args, work)
        with subprocess.Popen(group.command("nadir"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            watcher = threading.Thread(target=watch, args=(process, largest, done))
            watcher.start()
            process.wait()
            done.set()
            watcher.join()
    print(f"{largest.total() / 1024:8.1f} MiB beside guest memory of {args.memory}")
    for name, size in largest.most_common(8):
        print(f"{size / 1024:8.1f} MiB  {name}")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
