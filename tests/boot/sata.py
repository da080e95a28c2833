#!/usr/bin/env python3
"""Boot Debian's generic kernel with SATA disks and a CD-ROM drive, which its own drivers (ahci, sd, sr) use as a script says; check what it printed.

usage: sata.py --nadir NADIR --kernel DIRECTORY [--cpus N] [--append STRING] [--move] [-- OPTION...]

With libata.dma=0 in STRING all transfers are programmed I/O, with pci=nomsi the controller has a pin, with libata.force=noncq no command is queued. With --move
the machine is killed at some moment, and goes on from a snapshot."""
import argparse
import glob
import os
import random
import subprocess
import sys
import tempfile

import boot

MODULES = ["crypto/crct10dif_common", "crypto/crct10dif_generic", "lib/crc-t10dif", "lib/crc64", "lib/crc64-rocksoft", "block/t10-pi", "drivers/scsi/scsi_common", "drivers/scsi/scsi_mod", "drivers/ata/libata",
           "drivers/cdrom/cdrom", "drivers/scsi/sd_mod", "drivers/scsi/sr_mod", "fs/isofs/isofs", "drivers/ata/libahci", "drivers/ata/ahci"]
MOMENTS = b"queue: ", b"cache: ", b"read: ", b"read-only: ", b"fsync: ", b"written: "
DISK_SIZE, READ_ONLY_SIZE = 64 << 20, 3 << 20


def expected(append, disk, read_only, medium):
    numbers = boot.lines(1, 1000000)
    pieces = b"".join("".join(f"{n}\n" for n in range(i, 900001, 4)).encode()[:524288] for i in range(1, 5))
    slow = "libata.dma=0" in append
    return {
        "disk": f"{DISK_SIZE // 512} 0 nadir SATA disk ",
        "serial": "4",  # two disks, each named by libata and by sd
        "transfer": "PIO" if slow else "UDMA",
        "queue": "NCQ (not used)" if "noncq" in append else "NCQ (depth 32)",
        "cache": "write back",
        "read": boot.short_md5(disk[:8 << 20]),
        "small": boot.short_md5(disk[3 * 512:67 * 512]),
        "read-only": boot.short_md5(read_only),
        "fsync": "done",
        "written": boot.short_md5(numbers),
        "pieces": boot.short_md5(pieces),
        "switched": "write through",
        "trim": str(65535 * 64 * 512),
        "trimmed": "524288" if slow else "0",
        "refused": "write",
        "recovered": boot.short_md5(read_only),
        "cdrom": boot.short_md5(numbers),
        "medium": f"{medium // 512} 1",
        "again": "512",
        "interrupts": "IO-APIC" if "nomsi" in append else "PCI-MSI",
        "errors": "0",
        "script": "end",
    }


def make_iso(work):
    os.mkdir(os.path.join(work, "cd"))
    with open(os.path.join(work, "cd", "numbers"), "wb") as file:
        file.write(boot.lines(1, 1000000))
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", "cd.iso", "cd"], cwd=work, check=True, stderr=subprocess.DEVNULL)
    return os.path.getsize(os.path.join(work, "cd.iso"))


def write(work, name, data):
    with open(os.path.join(work, name), "wb") as file:
        file.write(data)
    return data


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--cpus", default="1")
    parser.add_argument("--append", default="")
    parser.add_argument("--move", action="store_true")
    parser.add_argument("--timeout", type=int, default=280)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
    kernel = glob.glob(os.path.join(cache, args.kernel, "boot", "vmlinuz-*"))[0]
    modules = os.path.join(glob.glob(os.path.join(cache, args.kernel, "lib", "modules", "*"))[0], "kernel")
    with tempfile.TemporaryDirectory() as work:
        initrd = os.path.join(work, "initrd.gz")
        subprocess.run([boot.INITRAMFS, os.path.join(cache, "busybox", "bin", "busybox"), initrd, os.path.join(boot.HERE, "sata.sh"),
                        *(os.path.join(modules, name + ".ko") for name in MODULES)], check=True)
        wanted = expected(args.append, write(work, "disk", random.randbytes(DISK_SIZE)), write(work, "read-only", random.randbytes(READ_ONLY_SIZE)),
                          make_iso(work))
        command = [args.nadir, "run", "--kernel", kernel, "--initrd", initrd, "--cpus", args.cpus, "--append", "console=ttyS0 quiet panic=-1 " + args.append,
                   "--disk", f"path={work}/disk,bus=sata,serial=disk-1", "--disk", f"path={work}/read-only,bus=sata,readonly=on",
                   "--cdrom", f"{work}/cd.iso", *args.options]
        result = boot.moved(args, command, work, MOMENTS) if args.move else subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=args.timeout, check=False)
    output = result.stdout.decode(errors="replace").replace("\r", "")
    got = dict(line.split(": ", 1) for line in output.splitlines() if ": " in line)
    wrong = [f"{key}: expected '{value}', got '{got.get(key)}'" for key, value in wanted.items() if got.get(key) != value]
    wrong += [f"exit status {result.returncode}: {result.stderr.decode(errors='replace')}"] if result.returncode else []
    print("\n".join([output, *wrong]) if wrong else f"sata: {len(wanted)} results are right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
