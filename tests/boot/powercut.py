#!/usr/bin/env python3
"""Cut the power of a guest that writes, at random moments, and look what is left.

usage: powercut.py --nadir NADIR --kernel DIRECTORY [--rounds N] [--seed N] [-- OPTION...]

nadir is killed (SIGKILL) while the guest writes to a file system in a qcow2 overlay and to one in a raw image. What the guest called safe, after its
sync, must be there; both file systems must need nothing but their journals, and qemu-img check must find leaks at most. Each round goes on with what the
one before left. The kernel is in an unpacked package of the cache, as for boot.py."""
import argparse
import glob
import os
import random
import selectors
import shutil
import subprocess
import sys
import tempfile
import time

import boot

SIZE = 64 << 20
BEGIN_SECONDS = 120  # a guest has that long to begin, on a machine that has much else to do
SLOTS = 5


def run(*command, allowed=(0,)):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if result.returncode not in allowed:
        raise RuntimeError(f"{' '.join(command)}: exit status {result.returncode}: {result.stdout.decode(errors='replace')}")
    return result.stdout


def contents(number):
    return "".join(f"{n}\n" for n in range(number, number + number % 7 * 3000 + 1)).encode()


class Machine:
    """The two disks, and what of them is safe."""

    def __init__(self, args, work):
        self.args, self.work = args, work
        self.safe = {}  # by disk and file name: the number
        self.rest = b""  # a line that is not complete yet
        cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
        self.kernel = glob.glob(os.path.join(cache, args.kernel, "boot", "vmlinuz-*"))[0]
        drivers = os.path.join(glob.glob(os.path.join(cache, args.kernel, "lib", "modules", "*"))[0], "kernel", "drivers")
        modules = [os.path.join(drivers, name + ".ko") for name in boot.MODULES]
        self.initrd = self.path("initrd.gz")
        run(boot.INITRAMFS, os.path.join(cache, "busybox", "bin", "busybox"), self.initrd, os.path.join(boot.HERE, "powercut.sh"), *modules)
        for name in "base", "raw":
            with open(self.path(name), "wb") as file:
                file.truncate(SIZE)
            run("/sbin/mke2fs", "-q", "-F", "-t", "ext4", self.path(name))

    def path(self, name):
        return os.path.join(self.work, name)

    def note(self, line):
        if line.startswith("failed:"):
            raise RuntimeError(f"the guest says: {line}")
        words = line.split()
        if words[:1] == ["safe:"] and len(words) == 4 and words[3].isdigit():
            self.safe[words[1], words[2]] = int(words[3])

    def lines(self, process, seconds):
        """What the guest prints within SECONDS, or until its first line that says "ready"."""
        selector, end = selectors.DefaultSelector(), time.monotonic() + seconds
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0, end - time.monotonic())):
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                raise RuntimeError(f"nadir ended by itself: {process.stderr.read().decode(errors='replace')}")
            *complete, self.rest = (self.rest + data).split(b"\n")
            for line in complete:
                yield line.decode(errors="replace").strip()
            if time.monotonic() > end:
                break

    def live(self, seconds):
        """Boot, let it write for SECONDS, and cut its power."""
        command = [self.args.nadir, "run", "--kernel", self.kernel, "--initrd", self.initrd, "--append", "console=ttyS0 quiet",
                   "--disk", f"base={self.path('base')},overlay={self.path('overlay.qcow2')}", "--disk", f"path={self.path('raw')}", *self.args.options]
        self.rest = b""
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                ready = any(line == "ready: go" or self.note(line) for line in self.lines(process, BEGIN_SECONDS))
                if not ready:
                    raise RuntimeError("the guest did not begin")
                for line in self.lines(process, seconds):
                    self.note(line)
            finally:
                process.kill()
            for line in (self.rest + process.stdout.read()).split(b"\n")[:-1]:
                self.note(line.decode(errors="replace").strip())

    def check_files(self, disk, image):
        for slot in [f"{worker}.{i}" for worker in ("one", "two") for i in range(SLOTS)]:
            number = self.safe.get((disk, slot))
            data = run("/sbin/debugfs", "-R", f"cat /{slot}", image)
            data = data[data.index(b"\n") + 1:] if data.startswith(b"debugfs ") else data
            first = data.split(b"\n", 1)[0]
            if not first.isdigit():  # it was removed: a later one in the row says so
                later = max((n for (d, s), n in self.safe.items() if d == disk and s.split(".")[0] == slot.split(".")[0]), default=0)
                if number and later < number + SLOTS - 1:
                    raise RuntimeError(f"{disk}: {slot} of {number} is gone: {data[:80]}")
            elif int(first) < (number or 0) or data != contents(int(first)):
                raise RuntimeError(f"{disk}: {slot} is of {first.decode()}, {len(data)} bytes; safe was {number}")

    def check(self):
        run("qemu-img", "check", "-q", "-f", "qcow2", self.path("overlay.qcow2"), allowed=(0, 3))
        run("qemu-img", "convert", "-q", "-f", "qcow2", "-O", "raw", self.path("overlay.qcow2"), self.path("copy-vda"))
        shutil.copyfile(self.path("raw"), self.path("copy-vdb"))
        for disk in "vda", "vdb":
            run("/sbin/e2fsck", "-fp", self.path("copy-" + disk), allowed=(0, 1))
            run("/sbin/e2fsck", "-fn", self.path("copy-" + disk))
            self.check_files(disk, self.path("copy-" + disk))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as work:
        machine = Machine(args, work)
        for number in range(args.rounds):
            try:
                machine.live(chance.uniform(0.2, 4))
                machine.check()
            except RuntimeError as error:
                sys.exit(f"round {number + 1}, seed {args.seed}: {error}")
    files = sum(machine.safe.values())
    print(f"{args.rounds} power cuts, {files} files were safe")
    return 0 if files else 1


if __name__ == "__main__":
    sys.exit(main())
