#!/usr/bin/env python3
"""Measure nadir side by side with qemu-system-x86_64 -accel tcg: the same kernel, the same initramfs, in turn, medians.

usage: bench.py --nadir NADIR --cache CACHE [--runs N] [--json]

Durations are taken on the host, from the moment a marker appears on the serial line, so that no guest clock can flatter. A guest prints
"bench: NAME begin" and "bench: NAME end"; "boot" is from launch to the script's first line."""
import argparse
import glob
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MARKER = re.compile(rb"^bench: (\S+) (begin|end)")

SCRIPT = r"""
echo "bench: boot end"
run() { name=$1; shift; echo "bench: $name begin"; "$@" >/tmp/out 2>&1; echo "bench: $name end"; echo "sum: $name $(md5sum </tmp/out)"; }
shell_loop() { i=0; s=0; while [ $i -lt 20000 ]; do s=$((s + i * i)); i=$((i + 1)); done; echo $s; }
forks() { i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i + 1)); done; echo $i; }
hash() { seq 1 200000 | sha256sum; }
sorting() { seq 1 20000 | sort -r | md5sum; }
run shell shell_loop
run fork-exec forks
run sha256 hash
run sort sorting
"""


def commands(nadir, kernel, initrd):
    append = "console=ttyS0 quiet panic=-1"
    return {
        "nadir": [nadir, "run", "--engine", "step", "--kernel", kernel, "--initrd", initrd, "--append", append, "--memory", "512M"],
        "tcg": ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-display", "none", "-serial", "stdio",
                "-monitor", "none", "-no-reboot", "-kernel", kernel, "-initrd", initrd, "-append", append],
    }


def measure(command):
    """Run one guest; durations by workload and the sums it printed."""
    start = time.monotonic()
    begun, durations, sums = {"boot": start}, {}, []
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        for line in process.stdout:
            now = time.monotonic()
            match = MARKER.match(line)
            if match:
                name = match.group(1).decode()
                if match.group(2) == b"begin":
                    begun[name] = now
                else:
                    durations[name] = now - begun[name]
            elif line.startswith(b"sum: "):
                sums.append(line.strip())
    if process.returncode:
        sys.exit(f"bench: {command[0]} ended with status {process.returncode}")
    return durations, sums


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    for package, name in (("linux-image-cloud-amd64", "linux-cloud"), ("busybox-static", "busybox")):
        subprocess.run([os.path.join(HERE, "guest-package.sh"), package, os.path.join(args.cache, name)], check=True)
    kernel = glob.glob(os.path.join(args.cache, "linux-cloud", "boot", "vmlinuz-*"))[0]
    results = {}
    with tempfile.TemporaryDirectory() as work:
        script, initrd = os.path.join(work, "script"), os.path.join(work, "initrd.gz")
        with open(script, "w", encoding="utf-8") as file:
            file.write(SCRIPT)
        busybox = os.path.join(args.cache, "busybox", "bin", "busybox")
        subprocess.run([os.path.join(HERE, "initramfs.sh"), busybox, initrd, script], check=True)
        sums = None
        for run in range(args.runs):
            for who, command in commands(args.nadir, kernel, initrd).items():
                progress(f"run {run + 1} of {args.runs}: {who}")
                durations, got = measure(command)
                sums = sums or got
                if got != sums:
                    sys.exit(f"bench: {who} computed something else: {got} instead of {sums}")
                for name, seconds in durations.items():
                    results.setdefault(name, {}).setdefault(who, []).append(seconds)
    if sys.stderr.isatty():
        progress("")
    table = {name: {who: statistics.median(times) for who, times in by.items()} for name, by in results.items()}
    for row in table.values():
        row["ratio"] = row["tcg"] / row["nadir"]
    if args.json:
        print(json.dumps(table, indent=2))
        return
    print(f"{'workload':<12} {'nadir s':>9} {'tcg s':>9} {'tcg/nadir':>10}   (medians of {args.runs}; above 1: nadir is faster)")
    for name, row in table.items():
        print(f"{name:<12} {row['nadir']:>9.2f} {row['tcg']:>9.2f} {row['ratio']:>10.2f}")


if __name__ == "__main__":
    main()
