#!/usr/bin/env python3
"""fio (Debian's) in a guest writes to disks of each kind, and verifies what it reads back: raw, a qcow2 overlay, qcow2, and raw past the page cache.

usage: fio.py --nadir NADIR --kernel DIRECTORY [--cpus N] [-- OPTION...]

fio and its libraries come on a fifth disk, made of Debian packages. The kernel is in an unpacked package of the cache, as for boot.py."""
import argparse
import glob
import os
import subprocess
import sys
import tempfile

import boot

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(boot.HERE, "..", "..", "bench"))
import tree  # noqa: E402, pylint: disable=wrong-import-position

SIZE = 128 << 20
FIO = {"packages": ["fio"], "files": ["usr/bin/fio"]}


def make_tools(path, cache, busybox):
    """A file system with fio in it."""
    root = path + ".tree"
    tree.Tree(root, tree.Packages(cache), busybox).software("fio", FIO)
    with open(path, "wb") as file:
        file.truncate(SIZE)
    subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-d", root, path], check=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--cpus", default="2")
    parser.add_argument("--timeout", type=int, default=900)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
    busybox = os.path.join(cache, "busybox", "bin", "busybox")
    kernel = glob.glob(os.path.join(cache, args.kernel, "boot", "vmlinuz-*"))[0]
    drivers = os.path.join(glob.glob(os.path.join(cache, args.kernel, "lib", "modules", "*"))[0], "kernel", "drivers")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as work:
        initrd, tools = os.path.join(work, "initrd.gz"), os.path.join(work, "tools")
        subprocess.run([boot.INITRAMFS, busybox, initrd, os.path.join(boot.HERE, "fio.sh"),
                        *(os.path.join(drivers, name + ".ko") for name in boot.MODULES)], check=True)
        make_tools(tools, cache, busybox)
        for name in "raw", "base", "direct":
            with open(os.path.join(work, name), "wb") as file:
                file.truncate(SIZE)
        subprocess.run([args.nadir, "create-disk", f"{work}/own.qcow2", str(SIZE)], check=True)
        disks = [f"path={work}/raw", f"base={work}/base,overlay={work}/overlay.qcow2", f"path={work}/own.qcow2", f"path={work}/direct,direct=on",
                 f"path={tools},readonly=on"]
        command = [args.nadir, "run", "--kernel", kernel, "--initrd", initrd, "--cpus", args.cpus, "--append", "console=ttyS0 quiet panic=-1",
                   *(word for disk in disks for word in ("--disk", disk)), *args.options]
        result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=args.timeout, check=False)
        judged = [subprocess.run(["qemu-img", "check", "-q", os.path.join(work, name)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
                  for name in ("overlay.qcow2", "own.qcow2")]
    output = result.stdout.decode(errors="replace").replace("\r", "")
    got = dict(line.split(": ", 1) for line in output.splitlines() if ": " in line)
    wanted = {f"{job}-{disk}": "verified" for job in ("small", "large", "mixed", "trims") for disk in ("vda", "vdb", "vdc", "vdd")} | {"errors": "0", "script": "end"}
    wrong = [f"{key}: expected '{value}', got '{got.get(key)}'" for key, value in wanted.items() if got.get(key) != value]
    wrong += [f"exit status {result.returncode}: {result.stderr.decode(errors='replace')}"] if result.returncode else []
    wrong += [f"qemu-img check: {one.stdout.decode(errors='replace')}" for one in judged if one.returncode]
    print("\n".join([output, *wrong]) if wrong else f"fio: {len(wanted) - 2} jobs verified")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
