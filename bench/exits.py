#!/usr/bin/env python3
"""What it costs when a guest leaves, on emulated machines with AMD-V and VT-x, and here by the engines that need neither.

usage: exits.py [--nadir NADIR] [--metal nadir.elf] [--guest IMAGE] [--only NAME,...] [--rounds N] [--floors] [--json FILE]

bench/guest/exits.c provokes each kind of exit N times (10000) and measures each by RDTSC. On QEMU with -icount, and on Bochs, RDTSC counts instructions: what an
exit costs there is the instructions of nadir between leaving the guest and entering it again. What the measuring costs is subtracted by the guest. Here, by bt
and step, it is cycles. Shown are medians; 0 means that the guest did not leave: a few instructions are what it executed itself. --floors judges: the exit status
is 1 if a machine is above a floor. Needs QEMU, Bochs, GRUB and xorriso (scripts/depend.sh test)."""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../tests/metal"))
import machine  # noqa: E402, pylint: disable=wrong-import-position

# What the guest calls them, and what they are.
KINDS = {
    "cpuid": "CPUID",
    "hypercall": "hypercall",
    "port-read": "IN of the PIC",
    "port-write": "OUT to port 0x80",
    "lapic-read": "local APIC read, by MMIO",
    "lapic-write": "local APIC write, by MMIO",
    "msr-read": "RDMSR (APIC base)",
    "msr-write": "WRMSR (MTRR)",
    "deadline": "WRMSR that arms the timer",
    "tpr-cr8": "TPR write, by CR8",
    "tpr-mmio": "TPR write, by MMIO",
    "eoi": "EOI, by MMIO",
    "self-ipi": "IPI to itself",
    "ipi": "IPI to another CPU",
    "interrupt": "taking an interrupt",
    "hlt-wake": "HLT and wake-up",
    "nested-fault": "store to memory that became writable",
    "page-fill": "first touch of a page just mapped",
    "page-fault": "page fault of the guest's own",
    "table-write": "write of a page-table entry",
    "cr3-load": "CR3 load",
    "invlpg": "INVLPG",
    "space-switch": "CR3 load, then 64 pages touched",
}

# Instructions from exit to entry, at most.
FLOORS = {"cpuid": 400, "hypercall": 400, "lapic-read": 700, "lapic-write": 700}
DID_NOT_LEAVE = 4  # no exit takes so few instructions

RESULT = re.compile(r"^exits ([\w-]+): (?:(\d+) (\d+) (\d+) (\d+)|none (.*?))\r?$", re.MULTILINE)


def parse(output):
    """Kind -> its figures, or why there are none."""
    kinds = {}
    for name, times, median, least, mean, why in RESULT.findall(output):
        kinds[name] = {"why_not": why} if why else {"times": int(times), "median": int(median), "least": int(least), "mean": int(mean)}
    return kinds if re.search(r"\d+ passed, 0 failed", output) else {}


def append(args, extra=""):
    return f"rounds={args.rounds} {extra}".strip()


def qemu(mmu, cpus=1, only=""):
    def run(args, _folder):
        options = f'--debug-exit --no-reboot --end reset --memory 64M --cpus {cpus} --engine svm --mmu {mmu} --append "{append(args, f"tcg=1 cpus={cpus} {only}")}"'
        command = machine.qemu("-icount", "shift=0,sleep=off", "-kernel", args.metal, "-append", options, "-initrd", args.guest, cpus=cpus)
        return machine.output_of(command, args.timeout)
    return run


def bochs(model, engine, mmu):
    def run(args, folder):
        folder = os.path.join(folder, "machine")
        os.mkdir(folder)
        description = os.path.join(folder, "exits.vm")
        with open(description, "w", encoding="ascii") as file:
            file.write(f'kernel = {os.path.basename(args.guest)}\nengine = {engine}\nmmu = {mmu}\nmemory = 64M\nappend = "{append(args)}"\n')
        iso = os.path.join(folder, "nadir.iso")
        subprocess.run([os.path.join(HERE, "../scripts/iso.sh"), iso, args.metal, "--append", "--debug-exit --no-reboot", description, args.guest], check=True)
        return machine.output_of_bochs(folder, iso, model, args.timeout)
    return run


def here(engine):
    def run(args, _folder):
        command = [args.nadir, "run", "--kernel", args.guest, "--engine", engine, "--memory", "64M", "--debug-exit", "--debug-console", "stdio", "--serial", "none",
                   "--append", append(args)]
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=args.timeout, check=False).stdout.decode()
    return run


# Name -> (what runs the guest, the unit, whether the floors are meant for it).
MACHINES = {
    "svm-nested": (qemu("nested"), "instructions", True),
    "svm-shadow": (qemu("shadow"), "instructions", True),
    "svm-vtlb": (qemu("vtlb"), "instructions", True),
    "svm-2cpus": (qemu("nested", 2, "only=15"), "instructions", False),
    "vmx-nested": (bochs("corei7_skylake_x", "vmx", "nested"), "instructions", True),
    "vmx-shadow": (bochs("core2_penryn_t9600", "vmx", "shadow"), "instructions", True),
    "vmx-vtlb": (bochs("core2_penryn_t9600", "vmx", "vtlb"), "instructions", True),
    "ryzen": (bochs("ryzen", "svm", "nested"), "instructions", True),
    "bt": (here("bt"), "cycles", False),
    "step": (here("step"), "cycles", False),
}


def figure(kind, unit):
    if not kind or "why_not" in kind:
        return "-"
    return "0" if unit == "instructions" and kind["median"] <= DID_NOT_LEAVE else str(kind["median"])


def table(results):
    width = max(map(len, KINDS.values()))
    lines = [" " * width + "".join(f"{name:>13}" for name in results), " " * width + "".join(f"{MACHINES[name][1]:>13}" for name in results)]
    for kind, text in KINDS.items():
        lines.append(f"{text:<{width}}" + "".join(f"{figure(kinds.get(kind), MACHINES[name][1]):>13}" for name, kinds in results.items()))
    return "\n".join(lines)


def above_floors(results):
    for name, kinds in results.items():
        for kind, floor in FLOORS.items():
            if MACHINES[name][2] and kinds.get(kind, {}).get("median", 0) > floor:
                yield f"{name}: {KINDS[kind]}: {kinds[kind]['median']} instructions, {floor} at most"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nadir", default="build/src/host/linux/nadir")
    parser.add_argument("--metal", default="build/src/host/metal/nadir.elf")
    parser.add_argument("--guest", default="build/bench/guest/exits-64.img")
    parser.add_argument("--only", default=",".join(MACHINES), help="machines, separated by commas")
    parser.add_argument("--rounds", type=int, default=10000, help="how often each kind is provoked, 10000 at most")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for each machine")
    parser.add_argument("--floors", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    results = {}
    for name in args.only.split(","):
        if name not in MACHINES:
            parser.error(f"there is no machine {name}; there are {', '.join(MACHINES)}")
        with tempfile.TemporaryDirectory() as folder:
            output = MACHINES[name][0](args, folder)
        results[name] = parse(output)
        if not results[name]:
            print(f"{name} did not get through:\n" + "\n".join(output.strip().splitlines()[-10:]), file=sys.stderr)
    print(table(results))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({name: {"unit": MACHINES[name][1], "kinds": kinds} for name, kinds in results.items()}, file, indent=1)
    troubles = list(above_floors(results)) if args.floors else []
    for trouble in troubles:
        print(f"above the floor: {trouble}")
    return 1 if troubles or not all(results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
