#!/usr/bin/env python3
"""Memory that goes back to the host (E8), shown by the process's own size: what the guest frees, by free page reporting of Linux, and what its balloon
driver is asked for.

usage: balloon.py --nadir NADIR --kernel DIRECTORY [-- OPTION...]"""
import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
INITRAMFS = os.path.join(HERE, "..", "..", "scripts", "initramfs.sh")
MODULES = ["virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_balloon"]
MIB = 1 << 20
TIME = 120


class Guest:
    """The running machine and its script."""

    def __init__(self, command, nadir, work):
        self.nadir, self.environment = nadir, dict(os.environ, XDG_RUNTIME_DIR=work)
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment, text=True,
                                        errors="replace")
        self.seen = ""

    def wait_for(self, word):
        for line in self.process.stdout:
            self.seen += line
            if line.startswith(word):
                return line.split()
        raise AssertionError(f"no '{word}' came:\n{self.seen}")

    def say(self, word):
        """Have it done; the memory that the guest has left, in bytes."""
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return int(self.wait_for("done: " + word)[2]) << 10

    def ask(self, *arguments):
        return subprocess.run([self.nadir, *arguments], env=self.environment, check=True, capture_output=True, text=True, timeout=TIME).stdout

    def counters(self):
        return json.loads(self.ask("stats", "--json", "balloon"))

    def wait_until(self, condition, what):
        end = time.monotonic() + TIME
        while time.monotonic() < end:
            counters = self.counters()
            if condition(counters):
                return counters
            time.sleep(0.3)
        raise AssertionError(f"{what}: {json.dumps({k: v for k, v in counters.items() if k.endswith('bytes')})}")


def check(guest):
    guest.wait_for("ready: ")
    before = guest.counters()["resident_bytes"]
    guest.say("fill")
    full = guest.counters()["resident_bytes"]
    assert full >= before + 150 * MIB, f"200 MiB were filled, and the process grew from {before} to {full}"
    guest.say("free")
    after = guest.wait_until(lambda c: c["resident_bytes"] < full - 130 * MIB, f"the freed memory did not come back from {full}")
    assert after["reported_bytes"] >= 150 * MIB
    left = guest.say("fill")  # it can be used again
    guest.say("free")
    guest.ask("balloon", "balloon", "128M")
    guest.wait_until(lambda c: c["balloon_actual_bytes"] == 128 * MIB, "the balloon did not grow")
    small = guest.say("check")
    guest.ask("balloon", "balloon", "0")
    guest.wait_until(lambda c: not c["balloon_actual_bytes"], "the balloon did not shrink")
    large = guest.say("check")
    assert large - small > 100 * MIB, f"the guest had {small} with a balloon of 128 MiB, and {large} without"
    print(f"resident MiB: {before >> 20} at first, {full >> 20} full, {after['resident_bytes'] >> 20} freed; {left >> 20} left in the guest")
    guest.process.stdin.write("end\n")
    guest.process.stdin.flush()
    assert guest.wait_for("errors: ")[1] == "0", guest.seen
    guest.process.stdout.read()
    assert guest.process.wait(TIME) == 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
    kernel = glob.glob(os.path.join(cache, args.kernel, "boot", "vmlinuz-*"))[0]
    drivers = glob.glob(os.path.join(cache, args.kernel, "lib", "modules", "*"))[0] + "/kernel/drivers/virtio/"
    with tempfile.TemporaryDirectory() as work:
        initrd = os.path.join(work, "initrd.gz")
        subprocess.run([INITRAMFS, os.path.join(cache, "busybox", "bin", "busybox"), initrd, os.path.join(HERE, "balloon.sh"),
                        *[drivers + name + ".ko" for name in MODULES]], check=True)
        command = [args.nadir, "run", "--kernel", kernel, "--initrd", initrd, "--name", "balloon", "--append", "console=ttyS0 quiet panic=-1",
                   *args.options]
        guest = Guest(command, args.nadir, work)
        try:
            check(guest)
        finally:
            guest.process.kill()
            guest.process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
