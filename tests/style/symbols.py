#!/usr/bin/env python3
"""What the core needs from outside is the host port, four memory functions and Zydis; and it has no mutable state of its own.

usage: symbols.py SOURCE-ROOT ARCHIVE
"""
import re
import subprocess
import sys

MEMORY = {"memcpy", "memmove", "memset", "memcmp"}
LINKER = {"_GLOBAL_OFFSET_TABLE_"}
# Sections whose contents can change at run time. Constants with relocations are in .data.rel.ro.
MUTABLE = re.compile(r"\s(\.(?:data|bss|tdata|tbss)\S*)\s+(?:PROGBITS|NOBITS)\s+\S+\s+\S+\s+([0-9a-f]+)")


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def symbols(archive, option):
    """Names that nm prints; each line ends in one, lines of other kinds end in a colon."""
    lines = (line.split() for line in output("nm", "-g", option, archive).splitlines())
    return {words[-1] for words in lines if len(words) >= 2 and not words[-1].endswith(":")}


def mutable_sections(archive):
    member = "?"
    for line in output("readelf", "-SW", archive).splitlines():
        if line.startswith("File: "):
            member = line[6:]
        found = MUTABLE.search(line)
        if found and not found[1].startswith(".data.rel.ro") and int(found[2], 16):
            yield f"{member}: {found[1]} holds {int(found[2], 16)} bytes: the core may have no file-scope mutable state"


def main():
    root, archive = sys.argv[1:]
    port = set()
    for header in ("port.h", "kvm.h"):
        with open(f"{root}/src/host/{header}") as file:
            port |= set(re.findall(r"\b(host_\w+)\(", file.read()))
    missing = symbols(archive, "--undefined-only") - symbols(archive, "--defined-only")
    foreign = {name for name in missing - port - MEMORY - LINKER if not name.startswith(("Zydis", "Zycore", "Zyan"))}
    problems = [f"the core needs {name}, which the host port does not offer" for name in sorted(foreign)]
    problems += mutable_sections(archive)
    print("\n".join(problems) or f"{len(missing)} symbols from outside, all allowed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
