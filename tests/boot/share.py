#!/usr/bin/env python3
"""Boot an unmodified distribution kernel in nadir with shared folders, and compare what it does there with what this host does in a folder of its own.

usage: share.py --nadir NADIR [--kernel DIRECTORY] [--cpus N] [--cache auto|none|always] [-- OPTION...]"""
import argparse
import glob
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
INITRAMFS = os.path.join(HERE, "..", "..", "scripts", "initramfs.sh")
MODULES = ["drivers/virtio/virtio", "drivers/virtio/virtio_ring", "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci_legacy_dev",
           "drivers/virtio/virtio_pci", "fs/fuse/fuse", "fs/fuse/virtiofs"]


def prepare(work):
    """The folders, and what is in them from the start."""
    for name in ("shared/work", "fixed", "native", "outside"):
        os.makedirs(os.path.join(work, name))
    given = random.randbytes(3 << 20)
    files = {"shared/given": given, "shared/changing": b"before\n", "fixed/given": b"fixed\n", "outside/secret": b"secret\n"}
    for name, data in files.items():
        with open(os.path.join(work, name), "wb") as file:
            file.write(data)
    os.symlink(os.path.join(work, "outside"), os.path.join(work, "shared/escape"))
    try:
        os.mknod(os.path.join(work, "shared/null"), 0o20666, os.makedev(1, 3))
    except OSError:
        pass
    return {
        "given": hashlib.md5(given).hexdigest()[:12],
        "escape": "not there /mnt/../mnt",
        "device": "refused",
        # The guest's own null device: no error.
        "host's device": "0" if os.path.exists(os.path.join(work, "shared/null")) else "1",
        "read-only": "fixed Read-only file system Read-only file system",
        "space": "some",
        "changing": "before",
        "changed": "after",
        "again": "after",
        "errors": "0",
        "script": "end",
    }


def tree(folder):
    """Every file below, with what should be the same of it."""
    found = {}
    for where, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(where, name)
            status = os.lstat(path)
            entry = [oct(status.st_mode), status.st_nlink]
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    entry += [status.st_size, hashlib.md5(file.read()).hexdigest(), status.st_uid if os.geteuid() == 0 else 0]
            elif os.path.islink(path):
                entry.append(os.readlink(path))
            found[os.path.relpath(path, folder)] = entry
    return found


def change(work):
    """What another program does to a file meanwhile: a new one takes its place."""
    with open(os.path.join(work, "new"), "wb") as file:
        file.write(b"after\n")
    os.rename(os.path.join(work, "new"), os.path.join(work, "shared/changing"))


def run(args, work):
    """Boot, and give the lines that came and what else was wrong."""
    cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
    kernels = glob.glob(os.path.join(cache, args.kernel, "boot", "vmlinuz-*"))
    if not kernels:
        sys.exit(f"no kernel in {cache}/{args.kernel}: make test fetches it")
    modules = os.path.join(glob.glob(os.path.join(cache, args.kernel, "lib", "modules", "*"))[0], "kernel")
    busybox, initrd = os.path.join(cache, "busybox", "bin", "busybox"), os.path.join(work, "initrd.gz")
    files = [os.path.join(HERE, "share_work.sh")] + [os.path.join(modules, name + ".ko") for name in MODULES]
    subprocess.run([INITRAMFS, busybox, initrd, os.path.join(HERE, "share.sh"), *files], check=True)
    native = subprocess.run([busybox, "sh", "-c", f". {HERE}/share_work.sh"], cwd=os.path.join(work, "native"), env={"BUSYBOX": busybox, "PATH": os.environ["PATH"]},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout.decode()
    command = [args.nadir, "run", "--kernel", kernels[0], "--initrd", initrd, "--cpus", str(args.cpus), "--memory", "256M",
               "--share", f"path={work}/shared,cache={args.cache}", "--share", f"tag=fixed,readonly=on,path={work}/fixed",
               "--append", f"console=ttyS0 panic=-1 cache={args.cache}", *args.options]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        timer = threading.Timer(args.timeout, process.kill)
        timer.start()
        output = []
        for line in process.stdout:
            output.append(line.decode(errors="replace").rstrip("\r\n"))
            if output[-1].startswith("changing: "):
                change(work)
        timer.cancel()
    return native.splitlines(), output, process.returncode


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--kernel", default="linux-cloud")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--cache", choices=["auto", "none", "always"], default="auto")
    parser.add_argument("--timeout", type=int, default=240)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        expected = prepare(work)
        if args.cache == "always":
            expected["changed"] = "before"
        native, output, status = run(args, work)
        trees = [tree(os.path.join(work, name)) for name in ("native", "shared/work")]
    got = dict(line.split(": ", 1) for line in output if ": " in line and not line.startswith(("[", "work: ")))
    wrong = [f"{key}: expected '{value}', got '{got.get(key)}'" for key, value in expected.items() if got.get(key) != value]
    there = [line[6:] for line in output if line.startswith("work: ")]
    wrong += [f"expected '{one}', got '{two}'" for one, two in zip(native, there) if one != two]
    if len(native) != len(there):
        wrong.append(f"{len(native)} lines of work expected, {len(there)} came")
    wrong += [f"{name}: expected {trees[0].get(name)}, got {trees[1].get(name)}" for name in trees[0] | trees[1] if trees[0].get(name) != trees[1].get(name)]
    if status:
        wrong.append(f"exit status {status}")
    print("\n".join(output + wrong) if wrong else f"{len(there)} lines of work and {len(trees[0])} files are the same")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
