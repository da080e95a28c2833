#!/usr/bin/env python3
"""Boot from the network: firmware asks DHCP, loads what that names by TFTP, and so on.

usage: netboot.py --nadir NADIR [--timeout SECONDS] TEST [-- OPTION...]

kernel          SeaBIOS runs iPXE, the ROM of a virtio network card, which loads a script, Debian's cloud kernel and the initial RAM disk
installer       SeaBIOS, iPXE, PXELINUX, and Debian's installer as it is made for the network, which asks DHCP again and fetches its answers by TFTP
ovmf-installer  the same by OVMF, shim and GRUB"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

import boot
import firmware

SCRIPT = "#!ipxe\nkernel vmlinuz console=ttyS0 panic=-1\ninitrd initrd\nboot\n"
INSTALLER = "installer/usr/lib/debian-installer/images/*/amd64/text"
FILES = "debian-installer/amd64"
OPTIONS = "console=ttyS0 auto=true priority=critical url=tftp://10.0.2.2/preseed.cfg"
PXELINUX = f"default install\nlabel install\n  kernel {FILES}/linux\n  append initrd={FILES}/initrd.gz {OPTIONS}\n"
GRUB = f"linux /{FILES}/linux {OPTIONS}\ninitrd /{FILES}/initrd.gz\nboot\n"
# The answers that the installer needs until it has these; then it says what it knows of the network, and ends.
PRESEED = """d-i debian-installer/locale string en_US.UTF-8
d-i keyboard-configuration/xkb-keymap select us
d-i netcfg/choose_interface select auto
d-i netcfg/get_hostname string guest
d-i netcfg/get_domain string
d-i preseed/early_command string (echo; echo "network: $(ip -4 -o address show scope global)"; poweroff) >/dev/ttyS0 2>&1
"""


def write(*path, text):
    os.makedirs(os.path.dirname(os.path.join(*path)), exist_ok=True)
    with open(os.path.join(*path), "w", encoding="ascii") as file:
        file.write(text)


def serve_kernel(work, served):
    """The kernel and an initial RAM disk; what firmware loads first."""
    write(served, "boot.ipxe", text=SCRIPT)
    write(work, "script", text='echo "started from: $(cat /proc/cmdline)"\necho "script: end"\n')
    shutil.copy(firmware.cached("linux-cloud/boot/vmlinuz-*"), os.path.join(served, "vmlinuz"))
    subprocess.run([boot.INITRAMFS, firmware.cached("busybox/bin/busybox"), os.path.join(served, "initrd"), os.path.join(work, "script")], check=True)
    return "boot.ipxe"


def serve_installer(served, loader):
    """The package's files, with menus for a serial port."""
    shutil.copytree(firmware.cached(INSTALLER), served, symlinks=True, dirs_exist_ok=True)
    write(served, "preseed.cfg", text=PRESEED)
    write(served, FILES, "pxelinux.cfg", "default", text=PXELINUX)
    write(served, FILES, "grub", "grub.cfg", text=GRUB)
    return loader


SHELL = ["started from: console=ttyS0", "script: end"]
INSTALLED = ["inet 10.0.2.15/24", "reboot: Power down"]
TESTS = {
    "kernel": (firmware.SEABIOS, serve_kernel, ["iPXE", r"boot\.ipxe\.\.\. ok", *SHELL]),
    "installer": (firmware.SEABIOS, lambda work, served: serve_installer(served, "pxelinux.0"), ["iPXE", "PXELINUX", *INSTALLED]),
    "ovmf-installer": (firmware.OVMF, lambda work, served: serve_installer(served, FILES + "/bootnetx64.efi"), ["BdsDxe: starting .*PXEv4", *INSTALLED]),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--timeout", type=float, default=400)
    parser.add_argument("test", choices=TESTS)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    rom, serve, wanted = TESTS[args.test]
    with tempfile.TemporaryDirectory() as work:
        served = os.path.join(work, "served")
        os.mkdir(served)
        file = serve(work, served)
        command = [args.nadir, "run", "--firmware", firmware.cached(rom), "--boot", "network", "--memory", "1G", "--net",
                   f"user,tftp={served},bootfile={file}", *args.options]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=args.timeout, check=False)
        except subprocess.TimeoutExpired as late:
            sys.exit(f"{(late.stdout or b'').decode(errors='replace')[-4000:]}\nnot ready after {args.timeout} s")
    output = done.stdout.decode(errors="replace")
    missing = [text for text in wanted if not re.search(text, output)]
    if missing or done.returncode:
        sys.exit(f"{output[-4000:]}\nmissing: {missing}, exit status {done.returncode}")
    print("netboot: ok")


if __name__ == "__main__":
    main()
