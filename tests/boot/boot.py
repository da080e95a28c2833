#!/usr/bin/env python3
"""Boot an unmodified distribution kernel in nadir to a shell that runs a script, and check what the script printed.

usage: boot.py --nadir NADIR --kernel DIRECTORY [--busybox DIRECTORY] [--machine NAME] [--cpus N] [--virtio [--image overlay|snapshot|nbd]] [--append STRING]
               [--move]
               [-- OPTION...]

DIRECTORY is that of an unpacked Debian package in the cache (NADIR_CACHE); MACHINE is what the kernel calls itself.
With --virtio the script uses the virtio devices, by the kernel's own drivers; the first disk is a raw file, or what --image says.
With --move the machine is killed at some moment, and goes on from a snapshot."""
import argparse
import contextlib
import glob
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
INITRAMFS = os.path.join(HERE, "..", "..", "scripts", "initramfs.sh")


def lines(first, last):
    return "".join(f"{i}\n" for i in range(first, last + 1)).encode()


def expected(machine, cpus, append=""):
    """What the script prints, computed here."""
    return {
        "kernel": f"Linux {machine}",
        "cpus": str(cpus),
        "sum": str(sum(range(1, 1001))),
        "hash": hashlib.sha256(lines(1, 10000)).hexdigest()[:16],
        "pipe": "abc",
        "files": "12345",
        "sleep": "done",
        "clocksource": "hpet" if "clocksource=hpet" in append else "tsc",
        "gzip": hashlib.md5(lines(1, 5000)).hexdigest()[:12],
        "second": "1",
        "errors": "0",
        "script": "end",
    }


MODULES = ["virtio/virtio", "virtio/virtio_ring", "virtio/virtio_pci_modern_dev", "virtio/virtio_pci_legacy_dev", "virtio/virtio_pci",
           "char/hw_random/virtio-rng", "block/virtio_blk"]
DISK_SIZE, READ_ONLY_SIZE = 64 << 20, 3 << 20


def short_md5(data):
    return hashlib.md5(data).hexdigest()[:12]


def expected_virtio(append, cpus, disk, read_only):
    numbers = lines(1, 1000000)
    pieces = b"".join("".join(f"{n}\n" for n in range(i, 900001, 4)).encode()[:524288] for i in range(1, 5))
    return {
        "random": "virtio_rng",
        "bytes": "1024",
        "different": "5",
        "disk": f"{DISK_SIZE // 512} 0 serial-1",
        "cdrom": f"{READ_ONLY_SIZE // 512} 1",
        "queues": str(cpus),
        "rings": "111",  # packed, event index, indirect descriptors
        "cache": "write back",
        "switched": "write through write through ",
        "read": short_md5(disk[:8 << 20]),
        "read-only": short_md5(read_only),
        "fsync": "done",
        "written": short_md5(numbers),
        "pieces": short_md5(pieces),
        "same": short_md5(pieces),
        "refused": "write",
        "mounted": short_md5(numbers),
        "interrupts": "IO-APIC" if "nomsi" in append else "PCI-MSI",
        "errors": "0",
        "script": "end",
    }


# After these lines of virtio.sh the guest has more to do than it takes to be paused.
MOMENTS = b"bytes: ", b"disk: ", b"queues: ", b"cache: ", b"read: ", b"fsync: "


def judge(work):
    """What QEMU says about the overlay, and the file system in it."""
    wrong = []
    for command in (["qemu-img", "check", "-q", "overlay.qcow2"],
                    ["qemu-img", "convert", "-q", "-O", "raw", "overlay.qcow2", "after"], ["/sbin/e2fsck", "-fn", "after"]):
        result = subprocess.run(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if result.returncode:
            wrong.append(f"{' '.join(command)}: {result.stdout.decode(errors='replace')}")
    return wrong


def wait_for(text, path, process, seconds):
    """Until the file at PATH holds TEXT."""
    end = time.monotonic() + seconds
    while True:
        with open(path, "rb") as output:
            if text in output.read():
                return
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the guest never said {text.decode()!r}")
        time.sleep(0.01)


def moved(args, command, work, moments=MOMENTS):
    """Run it, and at some moment, well before its end, kill it and go on from a snapshot: the result of both."""
    socket, folder = os.path.join(work, "socket"), os.path.join(work, "snapshots")
    first = os.path.join(work, "output")
    with open(first, "wb") as output:
        # pylint: disable=consider-using-with
        process = subprocess.Popen(command + ["--api-socket", socket, "--snapshot-dir", folder], stdin=subprocess.DEVNULL, stdout=output)
    wait_for(random.choice(moments), first, process, args.timeout)
    for order in ("pause", "snapshot"):
        subprocess.run([args.nadir, order, socket], check=True, stdout=subprocess.DEVNULL)
    while not os.path.isdir(os.path.join(folder, "1")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    result = subprocess.run([args.nadir, "restore", os.path.join(folder, "1")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, timeout=args.timeout, check=False)
    with open(first, "rb") as output:
        result.stdout = output.read() + result.stdout
    return result


@contextlib.contextmanager
def serve(work):
    """The first disk as a Network Block Device."""
    path = os.path.join(work, "nbd")
    with subprocess.Popen(["qemu-nbd", "-t", "-e", "8", "-f", "raw", "-k", path, "--discard=unmap", os.path.join(work, "disk")]) as server:
        try:
            while not os.path.exists(path) and server.poll() is None:
                time.sleep(0.05)
            yield
        finally:
            server.kill()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--busybox", default="busybox")
    parser.add_argument("--machine", default="x86_64")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--virtio", action="store_true")
    parser.add_argument("--image", choices=["overlay", "snapshot", "nbd"])
    parser.add_argument("--move", action="store_true", help="with --virtio: go on from a snapshot in between")
    parser.add_argument("--append", default="")
    parser.add_argument("--timeout", type=int, default=240)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
    kernels = glob.glob(os.path.join(cache, args.kernel, "boot", "vmlinuz-*"))
    if not kernels:
        sys.exit(f"no kernel in {cache}/{args.kernel}: make test fetches it")
    drivers = os.path.join(glob.glob(os.path.join(cache, args.kernel, "lib", "modules", "*"))[0], "kernel", "drivers")
    files = [os.path.join(drivers, name + ".ko") for name in MODULES] if args.virtio else []
    disks = {"disk": random.randbytes(DISK_SIZE), "readonly": random.randbytes(READ_ONLY_SIZE)} if args.virtio else {}
    checks = expected_virtio(args.append, args.cpus, *disks.values()) if args.virtio else expected(args.machine, args.cpus, args.append)
    with tempfile.TemporaryDirectory() as work:
        initrd = os.path.join(work, "initrd.gz")
        subprocess.run([INITRAMFS, os.path.join(cache, args.busybox, "bin", "busybox"), initrd,
                        os.path.join(HERE, "virtio.sh" if args.virtio else "script.sh"), *files], check=True)
        for name, data in disks.items():
            with open(os.path.join(work, name), "wb") as file:
                file.write(data)
        server = contextlib.nullcontext()
        if disks:
            image = {None: f"path={work}/disk", "snapshot": f"path={work}/disk,snapshot=on",
                     "overlay": f"base={work}/disk,overlay={work}/overlay.qcow2",
                     "nbd": f"nbd=nbd+unix:///?socket={work}/nbd"}[args.image]
            server = serve(work) if args.image == "nbd" else server
            args.options += ["--disk", image + ",serial=serial-1", "--disk", f"path={work}/readonly,readonly=on"]
        command = [args.nadir, "run", "--kernel", kernels[0], "--initrd", initrd, "--cpus", str(args.cpus),
                   "--append", "console=ttyS0 panic=-1 " + args.append, *args.options]
        with server:
            result = moved(args, command, work) if args.move else subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=args.timeout, check=False)
        wrong = []
        for name in ["readonly"] + ["disk"] * (args.image in ("overlay", "snapshot")) if disks else []:
            with open(os.path.join(work, name), "rb") as file:
                wrong += [f"the disk {name} was written"] if file.read() != disks[name] else []
        if args.image == "overlay":
            wrong += judge(work)
    output = result.stdout.decode(errors="replace").replace("\r", "")
    got = dict(line.split(": ", 1) for line in output.splitlines() if ": " in line and not line.startswith("["))
    wrong += [f"{key}: expected '{value}', got '{got.get(key)}'" for key, value in checks.items()
             if got.get(key) != value]
    if result.returncode != 0:
        wrong.append(f"exit status {result.returncode}: {result.stderr.decode(errors='replace')}")
    if wrong:
        print(output)
    print("\n".join(wrong) if wrong else f"{os.path.basename(kernels[0])}: {len(checks)} checks passed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
