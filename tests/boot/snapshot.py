#!/usr/bin/env python3
"""Boot an unmodified distribution kernel, take a snapshot while its shell computes, and go on from it: both must print the same.

usage: snapshot.py --nadir NADIR --kernel DIRECTORY [--cpus N] [-- OPTION...]

DIRECTORY is that of an unpacked Debian package in the cache (NADIR_CACHE)."""
import argparse
import glob
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
INITRAMFS = os.path.join(HERE, "..", "..", "scripts", "initramfs.sh")
SCRIPT = """#!/bin/sh
echo begin
i=0
while [ $i -lt 60 ]; do
	i=$((i + 1))
	seq 1 2000 | gzip | gunzip | md5sum | cut -c 1-8 >/tmp/sum$((i % 7)) &
	seq $i 500 | awk '{s += $1 * sin($1)} END {printf "line %d\\n", s}'
	wait
	cat /tmp/sum$((i % 7))
done
a=$(cut -d ' ' -f 1 /proc/uptime | tr -d .); sleep 1; b=$(cut -d ' ' -f 1 /proc/uptime | tr -d .)
echo "second $((b - a >= 99 && b - a < 1000))"
echo "errors $(dmesg | grep -ciE 'BUG:|Oops|call trace|stall|lockup|unstable|unchecked MSR')"
echo end
"""


def fail(why, *outputs):
    for output in outputs:
        print(output)
    sys.exit(why)


def read_until(process, word):
    output = b""
    while word not in output:
        more = os.read(process.stdout.fileno(), 4096)
        if not more:
            fail("it ended early", output)
        output += more
    return output


def tail(output):
    """Lines of the script, without those of the kernel's."""
    lines = output.decode(errors="replace").replace("\r", "").split("\n")
    return [line for line in lines if line and not line.startswith("[")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--cpus", default="1")
    parser.add_argument("--timeout", type=int, default=240)
    parser.add_argument("--restore", action="append", default=[], help="an option for nadir restore")
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
    kernel = glob.glob(os.path.join(cache, args.kernel, "boot", "vmlinuz-*"))[0]
    with tempfile.TemporaryDirectory() as work:
        script, initrd, folder = (os.path.join(work, name) for name in ("script", "initrd.gz", "snapshots"))
        with open(script, "w", encoding="ascii") as file:
            file.write(SCRIPT)
        subprocess.run([INITRAMFS, os.path.join(cache, "busybox", "bin", "busybox"), initrd, script], check=True)
        process = subprocess.Popen([args.nadir, "run", "--kernel", kernel, "--initrd", initrd, "--cpus", args.cpus, "--snapshot-dir", folder, "--append",
                                    "console=ttyS0 quiet panic=-1", *args.options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        first = read_until(process, b"begin")
        time.sleep(random.uniform(0, 1))
        process.send_signal(signal.SIGUSR2)
        rest, _ = process.communicate(timeout=args.timeout)
        snapshot = os.path.join(folder, "1")
        if process.returncode or not os.path.isdir(snapshot):
            fail(f"exit status {process.returncode}, {os.listdir(folder)}", first + rest)
        done = subprocess.run([args.nadir, "restore", snapshot, *args.restore], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=args.timeout, check=False)
    whole, restored = tail(first + rest), tail(done.stdout)
    if "end" not in whole or "second 1" not in whole or "errors 0" not in whole:
        fail("the guest noticed that a snapshot was taken", "\n".join(whole))
    # The first line may have been half written.
    if done.returncode or len(restored) < 4 or restored[1:] != whole[len(whole) - len(restored) + 1:]:
        fail(f"the restored machine went on otherwise (status {done.returncode})", "\n".join(whole), "--- restored", "\n".join(restored))
    print(f"{len(restored)} of {len(whole)} lines after the snapshot")


if __name__ == "__main__":
    main()
