#!/usr/bin/env python3
"""GDB debugs an unmodified distribution kernel and its programs in nadir: break points in the kernel and in user code, a watch point, steps, two CPUs; then it
detaches, and the guest goes on as if nothing had been.

usage: linux.py --nadir NADIR --kernel DIRECTORY [--busybox DIRECTORY] [-- OPTION...]

The directories are those of unpacked Debian packages in the cache (NADIR_CACHE)."""
import argparse
import glob
import os
import re
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
INITRAMFS = os.path.join(HERE, "..", "..", "scripts", "initramfs.sh")


def entry_point(path):
    with open(path, "rb") as file:
        return struct.unpack_from("<Q", file.read(64), 24)[0]


def read_until(stream, word):
    """Lines up to one with the word."""
    said = ""
    while word not in said:
        line = stream.readline().decode(errors="replace").replace("\r", "")
        if not line:
            raise EOFError(f"no '{word}' in:\n{said}")
        said += line
    return said


def commands(socket, symbols, entry):
    """What GDB does, and what it must say, in turn."""
    rows = [
        (f"target remote {socket}", None),
        (f"break *0x{symbols['sethostname']}", None),
        ("echo started\\n", None),
        ("continue", r"Breakpoint 1, "),
        ("print $cs & 3", r"= 0$"),
        ("x/s *(char **)($rdi + 0x70)", r'"first"'),  # RDI of struct pt_regs
        ("stepi 200", None),
        (f"watch *(char *)(0x{symbols['uts']} + 65)", None),  # the nodename
        ("continue", r"New value = 102 'f'"),
        ("delete 2", None),
        ("continue", r"Breakpoint 1, "),
        ("x/s *(char **)($rdi + 0x70)", r'"second"'),
        ("continue", r"Breakpoint 1, "),
        ("x/s *(char **)($rdi + 0x70)", r'"third"'),
        ("thread", r"Current thread is 2"),
        ("info threads", r"CPU#0 "),
        ("delete 1", None),
        (f"break *0x{entry:x}", None),
        ("continue", r"Breakpoint 3, "),
        ("print $cs & 3", r"= 3$"),
        ("x/2i $pc", rf"=> 0x{entry:x}:"),
        ("monitor info mem", r"^00000000004[0-9a-f]{5}-[0-9a-f]{16} .* ur-x$"),
        (f"monitor gva2gpa 0x{entry:x}", r"^gpa: 0x"),
        ("stepi 100", None),
        ("print $cs & 3", None),
        ("delete", None),
        ("maintenance packet qqemu.sstep", r"0x3"),
        ("monitor info registers", r"64-bit mode"),
        ("detach", r"detached"),
    ]
    return [row[0] for row in rows], [row[1] for row in rows if row[1]]


def missing(said, patterns):
    at = 0
    for pattern in patterns:
        found = re.compile(pattern, re.M).search(said, at)
        if not found:
            return [f"GDB: no '{pattern}' in:\n{said[at:]}"]
        at = found.end()
    return []


def debug(nadir, socket, entry):
    """All of it: what was wrong."""
    said = read_until(nadir.stdout, "ready: 1")
    symbols = dict(re.findall(r"^(sethostname|uts): ([0-9a-f]{16})$", said, re.M))
    lines, patterns = commands(socket, symbols, entry)
    gdb = ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-ex", "set pagination off", "-ex", "set architecture i386:x86-64"]
    gdb += [word for line in lines for word in ("-ex", line)]
    with subprocess.Popen(gdb, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:
        shown = read_until(client.stdout, "started")
        nadir.stdin.write(b"go\n")
        nadir.stdin.flush()
        shown += client.stdout.read().decode(errors="replace")
    nadir.stdin.write(b"go\n")
    nadir.stdin.flush()
    said += read_until(nadir.stdout, "script: end")
    wrong = missing(shown, patterns)
    wrong += [f"the guest: no '{line}' in:\n{said}" for line in ("hostname: second", "hostname: third", "errors: 0") if line not in said]
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--busybox", default="busybox")
    parser.add_argument("--timeout", type=int, default=240)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
    kernels = glob.glob(os.path.join(cache, args.kernel, "boot", "vmlinuz-*"))
    if not kernels:
        sys.exit(f"no kernel in {cache}/{args.kernel}: make test fetches it")
    busybox = os.path.join(cache, args.busybox, "bin", "busybox")
    with tempfile.TemporaryDirectory() as work:
        initrd, socket = os.path.join(work, "initrd.gz"), os.path.join(work, "gdb")
        subprocess.run([INITRAMFS, busybox, initrd, os.path.join(HERE, "script.sh")], check=True)
        command = ["timeout", str(args.timeout), args.nadir, "run", "--kernel", kernels[0], "--initrd", initrd, "--cpus", "2",
                   "--append", "console=ttyS0 panic=-1 quiet", "--gdb", f"unix:{socket}", *args.options]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as nadir:
            try:
                wrong = debug(nadir, socket, entry_point(busybox))
                nadir.stdin.close()
                nadir.stdout.read()
            except (EOFError, BrokenPipeError) as error:
                wrong = [str(error)]
            finally:
                nadir.terminate()
        if nadir.returncode:
            wrong.append(f"exit status {nadir.returncode}")
    print("\n".join(wrong) if wrong else "all as it should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
