#!/usr/bin/env python3
"""A whole Debian system from a disk image: SeaBIOS, GRUB, kernel, systemd up to the login prompt, a network by DHCP, and the same again after a reboot.

usage: debian.py --nadir NADIR [--cpus N] [--rounds N] [--timeout SECONDS] [-- OPTION...]

The image is made of Debian's packages by mmdebstrap, which takes root, and kept in the cache (NADIR_CACHE). Each round throws its changes away."""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import firmware

SUITE = "bookworm"
PACKAGES = ["systemd-sysv", "udev", "dbus", "iproute2", "iputils-ping", "linux-image-cloud-amd64", "initramfs-tools", "zstd", "e2fsprogs"]
SIZE = 1 << 30
# Run in the new system's directory, which is $1.
HOOKS = ["echo debian >\"$1/etc/hostname\"",
         "printf '/dev/vda1 / ext4 errors=remount-ro 0 1\\n' >\"$1/etc/fstab\"",
         "printf '[Match]\\nName=en*\\n[Network]\\nDHCP=yes\\n' >\"$1/etc/systemd/network/wired.network\"",
         "chroot \"$1\" systemctl enable systemd-networkd",
         "chroot \"$1\" passwd --delete root"]
CONFIG = """set root=(hd0,msdos1)
linux /vmlinuz root=/dev/vda1 ro console=ttyS0
initrd /initrd.img
boot
"""


class Work:
    """Where grub_image puts its files."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data)
        return self.path(name)


def make_image(path):
    """A boot loader, and behind it the file system as a partition."""
    root, folder = path + ".part", path + ".tree"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "--include=" + ",".join(PACKAGES), *("--customize-hook=" + hook for hook in HOOKS),
                    "--format=directory", SUITE, folder], check=True)
    subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-d", folder, root, f"{SIZE >> 10}k"], check=True)
    shutil.rmtree(folder)
    with tempfile.TemporaryDirectory() as folder:
        code, core = firmware.bios_loader(Work(folder), CONFIG)
    with open(path + ".disk", "wb") as disk:
        disk.write(firmware.loader_area(code, core, SIZE, 0x83))
    subprocess.run(["dd", "if=" + root, "of=" + path + ".disk", "bs=1M", "seek=1", "conv=sparse,notrunc", "status=none"], check=True)
    os.truncate(path + ".disk", SIZE + firmware.PARTITION)
    os.remove(root)
    os.rename(path + ".disk", path)


class Guest:
    """One run of the machine, and a hand at its serial port."""

    def __init__(self, args, image):
        command = [args.nadir, "run", "--firmware", firmware.cached(firmware.SEABIOS), "--memory", "1G", "--cpus", args.cpus, "--net", "user",
                   "--disk", f"path={image},snapshot=on", *args.options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.output, self.seen, self.timeout = b"", 0, args.timeout

    def wait_for(self, pattern):
        """Until the guest has said it since the last time."""
        timer = threading.Timer(self.timeout, self.process.kill)
        timer.start()
        try:
            while not (found := re.compile(pattern).search(self.output, self.seen)):
                part = os.read(self.process.stdout.fileno(), 65536)
                if not part:
                    raise firmware.Failure(f"the machine ended, or was stopped after {self.timeout} s, before it said {pattern}")
                self.output += part
        finally:
            timer.cancel()
        self.seen = found.end()
        return found

    def say(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def log_in(self):
        self.wait_for(rb"debian login: ")
        self.say("root")
        self.wait_for(rb"root@debian:~#")

    def run(self, command):
        """Its exit status; the shell puts the mark together, so that its echo is not taken for it."""
        self.say(command + "; echo st''atus $?")
        status = int(self.wait_for(rb"status (\d+)")[1])
        if status:
            raise firmware.Failure(f"{command} failed with {status}")


def check(guest):
    guest.log_in()
    guest.run("systemctl is-system-running --wait")
    guest.run("for i in $(seq 60); do ip -4 -o address show scope global | grep -q 10.0.2. && break; sleep 1; done; ping -c 1 10.0.2.2")
    guest.run("! dmesg | grep -E 'BUG:|Oops|rcu.*stall|Call Trace'")


def one_round(args, image):
    guest = Guest(args, image)
    start = time.monotonic()
    try:
        check(guest)
        guest.say("systemctl reboot")
        check(guest)
        guest.say("systemctl poweroff")
        guest.wait_for(rb"reboot: Power down")
        if guest.process.wait(60):
            raise firmware.Failure(f"exit status {guest.process.returncode}")
    except firmware.Failure as failure:
        print(guest.output.decode(errors="replace")[-8000:], failure, sep="\n")
        return False
    finally:
        guest.process.kill()
        guest.process.communicate()
    print(f"two boots in {time.monotonic() - start:.0f} s", flush=True)
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--cpus", default="1")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--timeout", type=int, default=300)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    image = os.path.join(firmware.CACHE, "debian.img")
    if not os.path.exists(image) and os.geteuid():
        return 77
    if not os.path.exists(image):
        make_image(image)
    return 0 if all(one_round(args, image) for _ in range(args.rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
