#!/usr/bin/env python3
"""How long snapshots of a Linux guest take, full, packed and incremental, and how long after its start `nadir restore` has the guest running.

usage: snapshot.py [--nadir NADIR] [--runs N] [--fill MIB] [--change MIB] [-- OPTION...]

The guest, with 512 MiB, holds MIB of random bytes, or of text (--text), and prints all the time; before the incremental snapshot it writes so many MiB anew. Still is how long
the guest did not run: the command's time. Running means that its first byte has arrived here. Needs what `make run` has fetched."""
import argparse
import glob
import os
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


def start(args, folder):
    """The guest, when its memory is filled."""
    kernel = glob.glob(os.path.join(CACHE, "linux-cloud/boot/vmlinuz-*"))[0]
    process = subprocess.Popen([args.nadir, "run", "--name", "bench", "--kernel", kernel, "--initrd", os.path.join(CACHE, "shell.cpio.gz"), "--append",
                                "console=ttyS0 quiet", "--snapshot-dir", folder, *args.options], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    read_until(process, b"# ")
    source = "yes 'the quick brown fox jumps over the lazy dog' | head -c" if args.text else "head -c"
    end = "" if args.text else "/dev/urandom"
    process.stdin.write(f"mkdir /m; mount -t tmpfs -o size=480m x /m; {source} {args.fill << 20} {end} >/m/f; echo rea''dy; "
                        "while [ ! -e /m/stop ]; do echo tick; done &\n".encode())
    process.stdin.flush()
    read_until(process, b"ready\r\n")
    return process


def take(args, folder, name, *more):
    """Take a snapshot, and tell how long it took until the guest went on, until it was on the disk, and how large it is."""
    begin = time.monotonic()
    done = subprocess.run([args.nadir, "snapshot", "--as", name, *more, "bench"], capture_output=True, check=False)
    while b"another snapshot" in done.stderr:
        begin = time.monotonic()
        done = subprocess.run([args.nadir, "snapshot", "--as", name, *more, "bench"], capture_output=True, check=False)
    still = time.monotonic() - begin
    if done.returncode:
        sys.exit(done.stderr.decode())
    while not os.path.isdir(os.path.join(folder, name)):
        time.sleep(0.001)
    seconds = time.monotonic() - begin
    size = os.stat(os.path.join(folder, name, "memory")).st_blocks / 2048
    print(f"{name:<22} still {still * 1e3:6.0f} ms   on the disk after {seconds * 1e3:6.0f} ms   {size:6.0f} MiB", flush=True)


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
    parser.add_argument("--change", type=int, default=10)
    parser.add_argument("--text", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = os.path.join(work, "snapshots")
        os.environ["XDG_RUNTIME_DIR"] = work
        process = start(args, folder)
        threading.Thread(target=drain, args=[process], daemon=True).start()
        take(args, folder, "full")
        take(args, folder, "packed", "--compression", "zstd")
        process.stdin.write(b"head -c %d /dev/urandom >/m/g\n" % (args.change << 20))
        process.stdin.flush()
        time.sleep(3)
        take(args, folder, "incremental", "--incremental=full")
        take(args, folder, "incremental-packed", "--incremental=full", "--compression", "zstd")
        process.kill()
        process.wait()
        for name in ("full", "packed", "incremental"):
            for what, more in ((f"restore {name}", []), ("  with --prefault", ["--prefault"])):
                times = sorted(restore(args, os.path.join(folder, name), *more) * 1e3 for _ in range(args.runs))
                print(f"{what:<22} {statistics.median(times):6.0f} ms to running   ({times[0]:.0f} to {times[-1]:.0f})", flush=True)


if __name__ == "__main__":
    main()
