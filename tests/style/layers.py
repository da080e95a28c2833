#!/usr/bin/env python3
"""Reads every #include under src/ and checks the layering that ARCHITECTURE.md describes.

 - Includes are relative to src/, exist, and go to the same layer or a lower one; there are no cycles.
 - Engines do not know each other, nor do hosts.
 - The core knows no C library: of the system's headers only the freestanding ones, and Zydis.
 - Every header compiles alone.

usage: layers.py SOURCE-ROOT COMPILER...
"""
import concurrent.futures
import os
import re
import subprocess
import sys

# Lowest first; a path belongs to the longest prefix that fits.
LAYERS = [
    {"arch", "lib"},
    {"host/port.h", "host/kvm.h"},
    {"vcpu"},
    {"mmu"},
    {"irq"},
    {"cpu"},
    {"engine"},
    {"dev"},
    {"boot"},
    {"vm"},
    {"gdb"},
    {"host"},
]
RANK = {prefix: rank for rank, prefixes in enumerate(LAYERS) for prefix in prefixes}
# What stands beside its siblings and is shared by them.
SHARED = {"engine/hw", "engine/insn", "engine/step", "host/port.h", "host/kvm.h"}
FREESTANDING = {"stdalign.h", "stdarg.h", "stdatomic.h", "stdbool.h", "stddef.h", "stdint.h", "limits.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.M)


def prefixes(path):
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]


def rank(path):
    return next((RANK[p] for p in prefixes(path) if p in RANK), None)


def sibling(path):
    """The folder that keeps to itself, such as engine/step; None for everything else."""
    parts = path.split("/")
    if parts[0] not in ("engine", "host") or len(parts) < 3 or SHARED & set(prefixes(path)):
        return None
    return "/".join(parts[:2])


def sources(src):
    for folder, _, names in os.walk(src):
        for name in sorted(names):
            if name.endswith((".c", ".h", ".S")):
                yield os.path.relpath(os.path.join(folder, name), src)


def check_system(path, header):
    if path.startswith("host/") and path != "host/port.h":
        return None
    if path.startswith("engine/kvm/") and header == "linux/kvm.h":  # layouts and numbers, as a manual gives them
        return None
    if header in FREESTANDING or header.startswith(("Zydis/", "Zycore/")):
        return None
    return f"src/{path}: the core may not include <{header}>"


def check_own(src, path, header):
    if ".." in header.split("/"):
        return f'src/{path}: "{header}" must be relative to src/'
    if not os.path.exists(os.path.join(src, header)):
        return f'src/{path}: "{header}" is not under src/'
    if rank(header) is None:
        return f'src/{path}: "{header}" is in no layer'
    if rank(header) > rank(path):
        return f'src/{path}: "{header}" is in a higher layer'
    if sibling(header) and sibling(header) != sibling(path) and rank(header) == rank(path):
        return f'src/{path}: "{header}" belongs to {sibling(header)} alone'
    return None


def find_cycle(graph):
    """One cycle as a list of files, or None."""
    state = {}

    def visit(node, trail):
        state[node] = "open"
        for following in graph.get(node, ()):
            if state.get(following) == "open":
                return trail[trail.index(following):] + [following]
            if following not in state:
                cycle = visit(following, trail + [following])
                if cycle:
                    return cycle
        state[node] = "done"
        return None

    for node in graph:
        if node not in state:
            cycle = visit(node, [node])
            if cycle:
                return cycle
    return None


def compile_alone(src, compiler, header):
    core = [] if header.startswith("host/") and header not in ("host/port.h", "host/kvm.h") else ["-ffreestanding", "-mgeneral-regs-only"]
    command = compiler + ["-std=gnu17", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-D_GNU_SOURCE",
                          "-fsyntax-only", f"-I{src}", *core, "-x", "c", "-include", os.path.join(src, header), os.devnull]
    done = subprocess.run(command, capture_output=True, text=True)
    return None if done.returncode == 0 else f"src/{header} does not compile alone:\n{done.stderr}"


def main():
    src = os.path.join(sys.argv[1], "src")
    compiler = sys.argv[2:]
    problems, graph = [], {}
    for path in sources(src):
        if rank(path) is None:
            problems.append(f"src/{path}: in no layer")
            continue
        with open(os.path.join(src, path)) as file:
            includes = INCLUDE.findall(file.read())
        graph[path] = [own for own, _ in includes if own]
        problems += [check_own(src, path, own) if own else check_system(path, system) for own, system in includes]
    cycle = find_cycle(graph)
    if cycle:
        problems.append("include cycle: " + " -> ".join(cycle))
    headers = [path for path in graph if path.endswith(".h")]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        problems += pool.map(lambda header: compile_alone(src, compiler, header), headers)
    problems = [problem for problem in problems if problem]
    print("\n".join(problems) or f"{len(graph)} files, {len(headers)} headers: layers hold")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
