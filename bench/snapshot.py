#!/usr/bin/env python3
"""How long snapshots of a Linux guest take, full, packed and incremental, and how long after its start `nadir restore` has the guest running; and QEMU's TCG.

usage: snapshot.py [--nadir NADIR] [--runs N] [--fill MIB] [--change MIB] [--text] [--only nadir,tcg] [-- OPTION...]

The guest, with 512 MiB, holds MIB of random bytes, or of text (--text), and prints all the time; before the incremental snapshot it writes so many MiB anew. Still is how long
the guest did not run: the command's time. Running means that its first byte has arrived here. QEMU puts its snapshot into a qcow2 image (savevm, -loadvm). Needs what
`make run` has fetched."""
import argparse
import contextlib
import glob
import json
import os
import socket
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


def guest_options(dash):
    """What both machines are given, as long options or with one dash."""
    kernel = glob.glob(os.path.join(CACHE, "linux-cloud/boot/vmlinuz-*"))[0]
    return [dash + "kernel", kernel, dash + "initrd", os.path.join(CACHE, "shell.cpio.gz"), dash + "append", "console=ttyS0 quiet"]


def start(args, command):
    """The guest, when its memory is filled."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    read_until(process, b"# ")
    source = "yes 'the quick brown fox jumps over the lazy dog' | head -c" if args.text else "head -c"
    end = "" if args.text else "/dev/urandom"
    process.stdin.write(f"mkdir /m; mount -t tmpfs -o size=480m x /m; {source} {args.fill << 20} {end} >/m/f; echo rea''dy; "
                        "while [ ! -e /m/stop ]; do echo tick; done &\n".encode())
    process.stdin.flush()
    read_until(process, b"ready\r\n")
    threading.Thread(target=drain, args=[process], daemon=True).start()
    return process


def tell(name, still, durable, size):
    print(f"{name:<22} still {still * 1e3:6.0f} ms   on the disk after {durable * 1e3:6.0f} ms   {size:6.0f} MiB", flush=True)


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
    tell(name, still, seconds, size)


def restore(args, what, *command):
    """Tell how long it takes until the guest has said something."""
    times = sorted(run_until_byte(command) * 1e3 for _ in range(args.runs))
    print(f"{what:<22} {statistics.median(times):6.0f} ms to running   ({times[0]:.0f} to {times[-1]:.0f})", flush=True)


def run_until_byte(command):
    start = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        os.read(process.stdout.fileno(), 1)
        seconds = time.monotonic() - start
        process.kill()
    return seconds


def nadir(args, work):
    folder = os.path.join(work, "snapshots")
    process = start(args, [args.nadir, "run", "--name", "bench", *guest_options("--"), "--snapshot-dir", folder, *args.options])
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
            restore(args, what, args.nadir, "restore", os.path.join(folder, name), *more)


def ask_qemu(path, *commands):
    """Give commands to QEMU's monitor (QMP)."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.connect(path)
        file = connection.makefile("rw")
        file.readline()
        for command in ({"execute": "qmp_capabilities"}, *commands):
            file.write(json.dumps(command) + "\n")
            file.flush()
            while "return" not in (answer := json.loads(file.readline())):
                if "error" in answer:
                    sys.exit(f"QEMU: {answer}")
            if answer["return"]:
                sys.exit(f"QEMU: {answer['return']}")


def tcg(args, work):
    image, monitor = os.path.join(work, "state.qcow2"), os.path.join(work, "monitor")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none",
               "-qmp", f"unix:{monitor},server=on,wait=off", "-drive", f"if=virtio,file={image},format=qcow2", *guest_options("-")]
    process = start(args, command)
    before, begin = os.stat(image).st_blocks, time.monotonic()
    ask_qemu(monitor, {"execute": "human-monitor-command", "arguments": {"command-line": "savevm full"}})
    seconds = time.monotonic() - begin
    tell("tcg: full", seconds, seconds, (os.stat(image).st_blocks - before) / 2048)
    process.kill()
    process.wait()
    restore(args, "tcg: restore full", *command, "-loadvm", "full")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nadir", default="build/src/host/linux/nadir")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--fill", type=int, default=300)
    parser.add_argument("options", nargs="*")
    parser.add_argument("--change", type=int, default=10)
    parser.add_argument("--text", action="store_true")
    parser.add_argument("--only", default="nadir,tcg")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        os.environ["XDG_RUNTIME_DIR"] = work
        for machine in args.only.split(","):
            {"nadir": nadir, "tcg": tcg}[machine](args, work)


if __name__ == "__main__":
    main()
