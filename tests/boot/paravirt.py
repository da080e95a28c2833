#!/usr/bin/env python3
"""What an unmodified kernel says of KVM's interface (C4), with all of it and with parts taken away by --cpu, and what that spares.

usage: paravirt.py --nadir NADIR --kernel DIRECTORY [--cpus N] [-- OPTION...]"""
import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
INITRAMFS = os.path.join(HERE, "..", "..", "scripts", "initramfs.sh")
# What the log says with a feature, and not without.
LINES = {
    "kvmclock": "kvm-clock: Using msrs",
    "kvm-pv-tlb-flush": "KVM setup pv remote TLB flush",
    "kvm-pv-sched-yield": "setup PV sched yield",
    "kvm-pv-unhalt": "PV spinlocks enabled",
    "kvm-pv-ipi": "setup PV IPIs",
}


def boot(args, kernel, initrd, cpu):
    """The guest's output, and nadir's counters."""
    command = [args.nadir, "run", "--kernel", kernel, "--initrd", initrd, "--cpus", str(args.cpus), "--cpu", cpu, "--json",
               "--append", "console=ttyS0 panic=-1", *args.options]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=args.timeout, check=True)
    return result.stdout.decode(errors="replace").replace("\r", ""), json.loads(result.stderr.decode()[result.stderr.decode().index("{"):])


def judge(name, output, missing):
    """What is wrong with a boot without these features."""
    wrong = [f"{name}: no line '{line}'" for line in ("errors: 0", "steal: 1", "script: end") if f"\n{line}\n" not in output]
    for feature, line in LINES.items():
        if (line in output) == (feature in missing):
            wrong.append(f"{name}: {'a' if feature in missing else 'no'} line '{line}'")
    if wrong:
        print(output)
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--timeout", type=int, default=240)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
    kernels = glob.glob(os.path.join(cache, args.kernel, "boot", "vmlinuz-*"))
    if not kernels:
        sys.exit(f"no kernel in {cache}/{args.kernel}: make test fetches it")
    wrong, writes = [], []
    with tempfile.TemporaryDirectory() as work:
        initrd = os.path.join(work, "initrd.gz")
        subprocess.run([INITRAMFS, os.path.join(cache, "busybox", "bin", "busybox"), initrd, os.path.join(HERE, "paravirt.sh")], check=True)
        for removed, missing in ((), ()), (("kvm-pv-eoi", "kvm-pv-ipi", "kvm-pv-unhalt", "kvm-steal-time"),
                                          ("kvm-pv-ipi", "kvm-pv-unhalt", "kvm-pv-tlb-flush", "kvm-pv-sched-yield")):
            output, counters = boot(args, kernels[0], initrd, ",-".join(("max",) + removed))
            wrong += judge("without " + ", ".join(removed) if removed else "with all", output, missing)
            writes.append(counters["exits"]["WRMSR"]["count"] / counters["interrupts"])
    print("writes to MSRs for each interrupt: {:.2f}, without {:.2f}".format(*writes))
    if writes[0] + 0.4 > writes[1]:
        wrong.append("the ends of interrupts are not spared")
    print("\n".join(wrong) if wrong else "all as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
