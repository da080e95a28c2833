#!/usr/bin/env python3
"""What idle machines cost: processor time and memory beside the guest's, of nadir and of QEMU's TCG with the same kernel at its shell.

usage: idle.py --nadir NADIR [--machines N] [--memory SIZE] [--seconds S] [--kernel DIRECTORY] [--only nadir,tcg] [--limit-cpu PERCENT] [--limit-memory MIB]
               [-- OPTION...]

All are started at once. The processor time is that of all their processes, in percent of one CPU a machine; the memory their private and
proportional sizes without guest memory. linux-686-pae is a kernel that is content with 64M. What machines that did not get to their shell in --timeout
seconds said last is shown. The exit status is 1 if nadir is above a limit, or one of its machines did not get there. Needs what `make run` has fetched.
OPTIONs are given to nadir run."""
import argparse
import glob
import os
import re
import resource
import subprocess
import sys
import tempfile
import time

import memory
import run

CACHE = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ")
SHELL = b"# "


def make_initrd(args, folder):
    """Busybox of the kernel's width, with a shell."""
    busybox = "busybox-i386" if "686" in args.kernel else "busybox"
    initrd = os.path.join(folder, "initrd.gz")
    subprocess.run([os.path.join(run.HERE, "../scripts/initramfs.sh"), os.path.join(CACHE, busybox, "bin/busybox"), initrd], check=True)
    return initrd


def commands(args, initrd):
    """What starts machine number I of each kind."""
    kernel = glob.glob(os.path.join(CACHE, args.kernel, "boot/vmlinuz-*"))[0]
    guest = ["-append", "console=ttyS0 quiet"]
    return {
        "nadir": lambda i: [args.nadir, "run", "--kernel", kernel, "--initrd", initrd, "--memory", args.memory, "--name", f"idle-{os.getpid()}-{i}",
                            "-" + guest[0], guest[1], *args.options],
        "tcg": lambda i: ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", args.memory, "-display", "none", "-serial", "stdio",
                          "-monitor", "none", "-nic", "none", "-kernel", kernel, "-initrd", initrd, *guest],
    }


def wait_for_shells(processes, timeout):
    """Seconds until the last one has prompted, and what those said that did not."""
    start = time.monotonic()
    said = {process: b"" for process in processes}
    waiting = list(processes)
    while waiting:
        if time.monotonic() - start > timeout:
            break
        for process in waiting[:]:
            try:
                more = os.read(process.stdout.fileno(), 65536)
            except BlockingIOError:
                continue
            said[process] += more
            if not more:
                said[process] += f"(ended with status {process.wait()})".encode()
                waiting.remove(process)
            elif SHELL in said[process]:
                waiting.remove(process)
        time.sleep(0.05)
    return time.monotonic() - start, [text for text in said.values() if SHELL not in text]


def processor_seconds(pids):
    """What all threads have run so far."""
    total = 0
    for pid in pids:
        for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            try:
                with open(path, encoding="ascii") as file:
                    total += int(file.read().split()[0])
            except OSError:
                pass
    return total / 1e9


def guest_memory(line, name, size):
    """Whether a mapping holds the guest's memory: nadir's has a name, QEMU's is the anonymous one of that size."""
    match = MAPPING.match(line)
    return "nadir-ram" in name or (not name and int(match[2], 16) - int(match[1], 16) == size)


def overhead(pids, size):
    """KiB beside guest memory."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
                lines = file.readlines()
        except OSError:
            continue
        counts = False
        for line in lines:
            match = memory.MAPPING.match(line)
            if match:
                counts = not guest_memory(line, match.group(1), size)
            elif line.startswith("Pss:") and counts:
                total += int(line.split()[1])
    return total


def measure(args, command, size):
    """Seconds to the last shell, what those said that have none, percent of a CPU a machine, MiB a machine."""
    processes = []
    try:
        for i in range(args.machines):
            # pylint: disable=consider-using-with
            processes.append(subprocess.Popen(command(i), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
            os.set_blocking(processes[-1].stdout.fileno(), False)
        shells, lost = wait_for_shells(processes, args.timeout)
        time.sleep(args.settle)
        pids = [pid for process in processes for pid in memory.family(process.pid)]
        before = processor_seconds(pids)
        time.sleep(args.seconds)
        used = processor_seconds(pids) - before
        return shells, lost, used / args.seconds / args.machines * 100, overhead(pids, size) / 1024 / args.machines
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", default="build/src/host/linux/nadir")
    parser.add_argument("--machines", type=int, default=1)
    parser.add_argument("--memory", default="512M")
    parser.add_argument("--kernel", default="linux-cloud")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--settle", type=float, default=25, help="seconds between the last shell and the measurement")
    parser.add_argument("--timeout", type=float, default=300, help="seconds until all must have reached their shell")
    parser.add_argument("--only", default="nadir,tcg")
    parser.add_argument("--limit-cpu", type=float)
    parser.add_argument("--limit-memory", type=float)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    # A pipe or two each.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    size = int(args.memory[:-1]) << {"K": 10, "M": 20, "G": 30}[args.memory[-1]]
    failed = False
    print(f"{args.machines} idle machine{'s' * (args.machines > 1)} of {args.memory}   all at the shell s   % of a CPU each   MiB beside guest memory each")
    with tempfile.TemporaryDirectory() as folder:
        for who, command in commands(args, make_initrd(args, folder)).items():
            if who not in args.only.split(","):
                continue
            shells, lost, cpu, mib = measure(args, command, size)
            print(f"    {who:24}{shells:22.2f}{cpu:18.3f}{mib:32.1f}", flush=True)
            if lost:
                print(f"    {len(lost)} of {args.machines} did not get to their shell", flush=True)
            for text in lost[:5]:
                print("    ..." + text.decode(errors="replace")[-200:].replace("\r", "").replace("\n", "\n    ..."))
            failed |= who == "nadir" and (bool(lost) or cpu > (args.limit_cpu or cpu) or mib > (args.limit_memory or mib))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
