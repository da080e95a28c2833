#!/usr/bin/env python3
"""Checks that the tables of lib/state.h name every member of the structs they are about, so that no part of a machine is forgotten in a snapshot.

The members are those of the compiler's debug information of one object that knows all these structs; the rows are read from the sources.

usage: state.py SOURCE-ROOT OBJECT
"""
import collections
import os
import re
import subprocess
import sys

ROW = re.compile(r"\bSTATE(?:_MAX|_SAME|_IN|_NONE)?\(struct (\w+), ([\w.]+)")
DIE = re.compile(r"^ <(\d+)><([0-9a-f]+)>: .*\((DW_TAG_\w+)\)")
ATTRIBUTE = re.compile(r"^\s+<[0-9a-f]+>\s+(DW_AT_\w+)\s*:\s*(.*)")


def debug_information(path):
    """Entries of the debug information by offset: tag, attributes, children."""
    text = subprocess.run(["readelf", "--debug-dump=info", "--wide", path], capture_output=True, text=True, check=True).stdout
    entries, stack, entry = {}, [], None
    for line in text.splitlines():
        die = DIE.match(line)
        if die:
            entry = (die[3], {}, [])
            entries[int(die[2], 16)] = entry
            del stack[int(die[1]):]
            if stack:
                stack[-1][2].append(entry)
            stack.append(entry)
        elif entry and (attribute := ATTRIBUTE.match(line)):
            entry[1][attribute[1]] = attribute[2]
    return entries


def name(entry):
    return (entry[1].get("DW_AT_name", "").split() or [""])[-1]


def inner_struct(entries, member):
    """The struct that a member is, if it is one."""
    entry = entries.get(int(re.search(r"<(0x[0-9a-f]+)>", member[1]["DW_AT_type"])[1], 16))
    return entry if entry and entry[0] == "DW_TAG_structure_type" else None


def missing_members(entries, struct, rows, prefix=""):
    """Members that no row names. A row may name a member, or each part of it."""
    for member in struct[2]:
        path = prefix + name(member)
        if member[0] != "DW_TAG_member" or path in rows:
            continue
        inner = inner_struct(entries, member)
        if inner and any(row.startswith(path + ".") for row in rows):
            yield from missing_members(entries, inner, rows, path + ".")
        else:
            yield path


def rows_of_sources(root):
    rows = collections.defaultdict(set)
    for folder, _, files in os.walk(os.path.join(root, "src")):
        for file in files:
            if file.endswith(".c"):
                with open(os.path.join(folder, file), encoding="utf-8") as source:
                    for struct, member in ROW.findall(source.read()):
                        rows[struct].add(member)
    return rows


# What board_state need not name: wiring, what has no state or has left, and virtio devices, which are all in board.virtio.
NOT_STATE = {"io", "memory", "ram", "cpus", "ejected", "ejected_disk", "ejected_net", "debug_console", "debug_exit", "backends", "interrupt", "opaque", "event", "exit_status", "virtio_count"}


def forgotten_chips(entries, structs, root):
    """Chips of the board that board_state does not name."""
    with open(os.path.join(root, "src/vm/board.c"), encoding="utf-8") as source:
        body = re.search(r"^void board_state\(.*?^}", source.read(), re.M | re.S)[0]
    for member in structs["board"][2]:
        chip = name(member)
        inner = inner_struct(entries, member)
        virtio = chip in ("disk", "sata", "net", "share") or inner and any(name(part) == "virtio" for part in inner[2])
        if member[0] == "DW_TAG_member" and chip not in NOT_STATE and not virtio and not re.search(rf"b->{chip}\b", body):
            yield f"struct board: {chip} is not in board_state (vm/board.c)"


def main():
    root, path = sys.argv[1:]
    entries = debug_information(path)
    structs = {name(e): e for e in entries.values() if e[0] == "DW_TAG_structure_type" and "DW_AT_declaration" not in e[1]}
    if not structs:
        sys.exit(77)  # built without debug information
    rows = rows_of_sources(root)
    # Part of a configuration, which as a whole is not state; and a part of the format that is no part of a machine.
    del rows["vm_config"], rows["rom"]
    missing = []
    for struct, described in sorted(rows.items()):
        if struct not in structs:
            missing.append(f"struct {struct} is not in {os.path.basename(path)}, which this test looks at")
            continue
        for member in missing_members(entries, structs[struct], described):
            missing.append(f"struct {struct}: {member} is neither state nor STATE_NONE (lib/state.h)")
    missing += forgotten_chips(entries, structs, root)
    print("\n".join(missing) or f"{len(rows)} structs are described")
    return 1 if missing or len(rows) < 20 else 0


if __name__ == "__main__":
    sys.exit(main())
