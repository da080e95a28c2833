#!/usr/bin/env python3
"""The virtio console and a named port of it, used by Linux' driver in both directions, at sockets here.

usage: console.py --nadir NADIR --kernel DIRECTORY [-- OPTION...]"""
import argparse
import glob
import hashlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
INITRAMFS = os.path.join(HERE, "..", "..", "scripts", "initramfs.sh")
MODULES = ["virtio/virtio", "virtio/virtio_ring", "virtio/virtio_pci_modern_dev", "virtio/virtio_pci_legacy_dev", "virtio/virtio_pci",
           "char/virtio_console"]
TIME = 150
NUMBERS = "".join(f"{i}\n" for i in range(1, 20001)).encode()


class Channel(threading.Thread):
    """Waits for a greeting, answers with random bytes, and gathers the rest."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.data, self.got = path, random.randbytes(65536), b""
        self.start()

    def connect(self):
        end = time.monotonic() + TIME
        while True:
            try:
                channel = socket.socket(socket.AF_UNIX)
                channel.connect(self.path)
                return channel
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)

    def run(self):
        with self.connect() as channel:
            channel.settimeout(TIME)
            while b"\n" not in self.got:
                self.got += channel.recv(65536)
            threading.Thread(target=channel.sendall, args=(self.data,), daemon=True).start()
            while len(self.got) < len(b"hello\n" + NUMBERS) and (more := channel.recv(65536)):
                self.got += more

    def check(self):
        self.join(10)
        return [] if self.got == b"hello\n" + NUMBERS else [f"{self.path}: {len(self.got)} bytes came, beginning with {self.got[:20]}"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
    kernel = glob.glob(os.path.join(cache, args.kernel, "boot", "vmlinuz-*"))[0]
    drivers = glob.glob(os.path.join(cache, args.kernel, "lib", "modules", "*"))[0] + "/kernel/drivers/"
    with tempfile.TemporaryDirectory() as work:
        initrd, paths = os.path.join(work, "initrd.gz"), [os.path.join(work, "console"), os.path.join(work, "agent")]
        subprocess.run([INITRAMFS, os.path.join(cache, "busybox", "bin", "busybox"), initrd, os.path.join(HERE, "console.sh"),
                        *[drivers + name + ".ko" for name in MODULES]], check=True)
        channels = [Channel(path) for path in paths]
        done = subprocess.run([args.nadir, "run", "--kernel", kernel, "--initrd", initrd, "--append", "console=ttyS0 quiet panic=-1",
                               "--console", "unix:" + paths[0], "--port", "name=org.example.agent,to=unix:" + paths[1], *args.options],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=TIME, check=False)
        wrong = [line for channel in channels for line in channel.check()]
    heard = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("heard: ")]
    expected = [hashlib.md5(channel.data).hexdigest()[:12] for channel in channels]
    wrong += [] if heard == expected else [f"the guest heard {heard} instead of {expected}"]
    for line in ("errors: 0", "script: end"):
        wrong += [] if line in done.stdout else [f"'{line}' is missing"]
    if done.returncode or wrong:
        print(done.stdout, done.stderr)
        print("\n".join(wrong))
        return 1
    print("console and port: 64 KiB one way and 106 KiB the other by each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
