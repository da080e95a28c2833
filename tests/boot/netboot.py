#!/usr/bin/env python3
"""Boot Debian's cloud kernel from the network: firmware asks DHCP, loads what that names by TFTP, and so on.

usage: netboot.py --nadir NADIR [-- OPTION...]

SeaBIOS runs iPXE, the ROM of a virtio network card, which loads a script, the kernel and the initial RAM disk."""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

import boot
import firmware

SCRIPT = b"#!ipxe\nkernel vmlinuz console=ttyS0 panic=-1\ninitrd initrd\nboot\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--timeout", type=float, default=200)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        served = os.path.join(work, "served")
        os.mkdir(served)
        with open(os.path.join(served, "boot.ipxe"), "wb") as file:
            file.write(SCRIPT)
        with open(os.path.join(work, "script"), "w", encoding="ascii") as file:
            file.write('echo "started from: $(cat /proc/cmdline)"\necho "script: end"\n')
        shutil.copy(firmware.cached("linux-cloud/boot/vmlinuz-*"), os.path.join(served, "vmlinuz"))
        subprocess.run([boot.INITRAMFS, firmware.cached("busybox/bin/busybox"), os.path.join(served, "initrd"), os.path.join(work, "script")], check=True)
        command = [args.nadir, "run", "--firmware", firmware.cached(firmware.SEABIOS), "--boot", "network", "--net", f"user,tftp={served},bootfile=boot.ipxe",
                   *args.options]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=args.timeout, check=False)
    output = done.stdout.decode(errors="replace")
    wanted = ["iPXE", "boot.ipxe... ok", "started from: console=ttyS0", "script: end"]
    missing = [text for text in wanted if text not in output]
    if missing or done.returncode:
        sys.exit(f"{output}\nmissing: {missing}, exit status {done.returncode}")
    print("netboot: ok")


if __name__ == "__main__":
    main()
