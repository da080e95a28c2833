#!/usr/bin/env python3
"""How long snapshots of a Linux guest take, and how long after its start `nadir restore` has the guest running.

usage: snapshot.py [--nadir NADIR] [--runs N] [--fill MIB] [-- OPTION...]

The guest, with 512 MiB, holds MIB of random bytes and prints all the time. Running means that its first byte has arrived here. Needs what `make run`
has fetched."""
import argparse
import glob
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

CACHE = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))


def read_until(process, word):
    output = b""
    while word not in output:
        more = os.read(process.stdout.fileno(), 4096)
        if not more:
            sys.exit("the guest ended early")
        output += more


def drain(process):
    while os.read(process.stdout.fileno(), 65536):
        pass


def take(args, folder):
    """Seconds until the snapshot was complete on the disk."""
    kernel = glob.glob(os.path.join(CACHE, "linux-cloud/boot/vmlinuz-*"))[0]
    process = subprocess.Popen([args.nadir, "run", "--kernel", kernel, "--initrd", os.path.join(CACHE, "shell.cpio.gz"), "--append", "console=ttyS0 quiet",
                                "--snapshot-dir", folder, *args.options], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    read_until(process, b"# ")
    process.stdin.write(b"mkdir /m; mount -t tmpfs -o size=480m x /m; dd if=/dev/urandom of=/m/f bs=1M count=%d; echo rea''dy; "
                        b"while :; do echo tick; done\n" % args.fill)
    process.stdin.flush()
    read_until(process, b"ready\r\ntick")
    threading.Thread(target=drain, args=[process], daemon=True).start()
    start = time.monotonic()
    process.send_signal(signal.SIGUSR2)
    while not os.path.isdir(os.path.join(folder, "1")):
        time.sleep(0.001)
    seconds = time.monotonic() - start
    process.kill()
    process.wait()
    return seconds


def restore(args, snapshot, *more):
    """Seconds until the guest has said something."""
    start = time.monotonic()
    with subprocess.Popen([args.nadir, "restore", snapshot, *more], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        os.read(process.stdout.fileno(), 1)
        seconds = time.monotonic() - start
        process.kill()
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nadir", default="build/src/host/linux/nadir")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--fill", type=int, default=300)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = os.path.join(work, "snapshots")
        print(f"snapshot complete          {take(args, folder) * 1e3:6.0f} ms")
        snapshot = os.path.join(folder, "1")
        print(f"memory on the disk         {os.stat(os.path.join(snapshot, 'memory')).st_blocks / 2048:6.0f} MiB")
        for name, more in (("restore to running", []), ("restore with --prefault", ["--prefault"])):
            times = sorted(restore(args, snapshot, *more) * 1e3 for _ in range(args.runs))
            print(f"{name:<26} {statistics.median(times):6.0f} ms   ({times[0]:.0f} to {times[-1]:.0f})")


if __name__ == "__main__":
    main()
