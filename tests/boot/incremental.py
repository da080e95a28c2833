#!/usr/bin/env python3
"""The log of dirty pages against memory itself, under a running Linux: at random moments the machine is paused, and an incremental snapshot is taken beside a full one.
With its bases the incremental one must be the same memory, to the byte. Then the machine goes on from the end of the chain, and must print what the one that was never
stopped printed.

usage: incremental.py --nadir NADIR --kernel DIRECTORY [--rounds N] [--seed N] [-- OPTION...]

DIRECTORY is that of an unpacked Debian package in the cache (NADIR_CACHE)."""
import argparse
import atexit
import glob
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

import snapshot
import snapshot_memory

SCRIPT = """#!/bin/sh
mkdir -p /m
mount -t tmpfs none /m
echo begin
i=0
while [ $i -lt COUNT ]; do
	i=$((i + 1))
	seq 1 4000 | gzip >/m/$((i % 20)) &
	dd if=/m/$(((i + 7) % 20)) of=/m/copy bs=512 2>/dev/null
	seq $i 500 | awk '{s += $1 * ($1 % 7); a[$1] = s} END {printf "line %d\\n", s}'
	wait
	gunzip </m/$((i % 20)) | md5sum | cut -c 1-8
	[ $((i % 10)) -eq 0 ] && rm /m/*
done
echo end
"""


class Machine:
    def __init__(self, args, work, initrd, kernel):
        self.folder = os.path.join(work, "snapshots")
        self.environment = dict(os.environ, XDG_RUNTIME_DIR=work)
        self.nadir = args.nadir
        self.process = subprocess.Popen(
            [args.nadir, "run", "--name", "vm", "--kernel", kernel, "--initrd", initrd, "--memory", "128M", "--snapshot-dir", self.folder, "--append",
             "console=ttyS0 quiet panic=-1", *args.options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=self.environment)
        atexit.register(self.process.kill)
        self.complaint = ""

    def command(self, *words):
        """What the command says, or None if the machine has ended."""
        done = subprocess.run([self.nadir, *words, "vm"], env=self.environment, capture_output=True, check=False)
        if done.returncode:
            self.complaint = done.stderr.decode()
            return None
        return done.stdout.decode().strip()

    def take(self, *words):
        """Take a snapshot, and wait until it is complete: its folder."""
        for _ in range(600):
            name = self.command("snapshot", *words)
            if name or self.process.poll() is not None:
                break
            time.sleep(0.05)  # another one is being written
        else:
            sys.exit(f"no snapshot could be taken: {self.complaint}")
        path = os.path.join(self.folder, name or "none")
        while name and not os.path.isdir(path):
            time.sleep(0.01)
        return path if name else None


def one_round(machine, number, chance, before):
    """False if the machine has ended; the memory."""
    time.sleep(chance.uniform(0, 0.4))
    if machine.command("pause") is None:
        return None
    base = max(number - (1 if number % 3 else 2), 0)
    full = machine.take("--as", "full")
    path = machine.take("--as", f"i{number}", f"--incremental=i{base}")
    if not path or not full:
        return None
    statistics = {}
    logged, memory = snapshot_memory.read(path, statistics), snapshot_memory.read(full)
    shutil.rmtree(full)
    wrong = snapshot_memory.differing(logged, memory)
    changed = len(snapshot_memory.differing(before, memory))
    print(f"{number}: {statistics['stored']} pages stored, {changed} differ from those of the one before", flush=True)
    if wrong:
        sys.exit(f"{len(wrong)} pages were written and not logged: {', '.join(hex(at) for at in wrong[:20])}")
    machine.command("resume")
    return memory


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--timeout", type=int, default=240)
    parser.add_argument("--count", type=int, default=100, help="how long the guest works")
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    args.seed = random.randrange(1 << 32) if args.seed is None else args.seed
    print(f"--seed {args.seed}")
    cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
    kernel = glob.glob(os.path.join(cache, args.kernel, "boot", "vmlinuz-*"))[0]
    with tempfile.TemporaryDirectory() as work:
        script, initrd = (os.path.join(work, name) for name in ("script", "initrd.gz"))
        with open(script, "w", encoding="ascii") as file:
            file.write(SCRIPT.replace("COUNT", str(args.count)))
        subprocess.run([snapshot.INITRAMFS, os.path.join(cache, "busybox", "bin", "busybox"), initrd, script], check=True)
        machine = Machine(args, work, initrd, kernel)
        chance = random.Random(args.seed)
        first = snapshot.read_until(machine.process, b"begin")
        path = machine.take("--as", "i0")
        memory, last = snapshot_memory.read(path), path
        for number in range(1, args.rounds + 1):
            memory = one_round(machine, number, chance, memory)
            if memory is None:
                break
            last = os.path.join(machine.folder, f"i{number}")
        rest, _ = machine.process.communicate(timeout=args.timeout)
        if last == path:
            sys.exit("the guest ended before there was an incremental snapshot")
        done = subprocess.run([args.nadir, "restore", last], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=args.timeout, check=False,
                              env=machine.environment)
    whole, restored = snapshot.tail(first + rest), snapshot.tail(done.stdout)
    if machine.process.returncode or "end" not in whole:
        snapshot.fail(f"the machine ended with status {machine.process.returncode}", "\n".join(whole))
    # The first line may have been half written.
    if done.returncode or restored[1:] != whole[len(whole) - len(restored) + 1:]:
        snapshot.fail(f"the restored machine went on otherwise (status {done.returncode})", "\n".join(whole), "--- restored", "\n".join(restored))
    print(f"{len(restored)} of {len(whole)} lines after the last snapshot")


if __name__ == "__main__":
    main()
