#!/usr/bin/env python3
"""What every text file of the repository keeps to: an opening comment, a bounded length, no marks of the place it was written in,
nothing left for later without a row of the mission.

usage: words.py SOURCE-ROOT
"""
import os
import re
import sys

SOURCES = (".c", ".h", ".S", ".py", ".sh", ".ld")
SKIPPED_FOLDERS = re.compile(r"^(\..*|build.*|out|subprojects)$")
ASK_LINES, MAX_LINES = 800, 1000
# Files that are mostly one table may be longer.
TABLES = set()
MACHINE_PATH = re.compile(r"(?<![\w.$}])/(work|home|root|Users)/")
LATER = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b(?!.*\b[A-H]\d+\b)")
THIS_FILE = "tests/style/words.py"


def files(root):
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not SKIPPED_FOLDERS.match(name))
        for name in sorted(set(names) - {".git"}):
            yield os.path.relpath(os.path.join(folder, name), root)


def opening_comment(path, lines):
    """C and assembly open with a comment; so do scripts, after the line that names the interpreter."""
    first = [line for line in lines if not line.startswith("#!")][:1]
    marks = ('"""', "#") if path.endswith((".py", ".sh")) else ("/*", "//")
    if not first or not first[0].startswith(marks):
        yield f"{path}: does not open with a comment that says what the file is for"


def length(path, lines):
    if len(lines) > MAX_LINES and path not in TABLES:
        yield f"{path}: {len(lines)} lines, more than {MAX_LINES}"


def words(path, lines):
    for number, line in enumerate(lines, 1):
        if MACHINE_PATH.search(line):
            yield f"{path}:{number}: names a path of a build machine"
        if LATER.search(line):
            yield f"{path}:{number}: leaves something for later without a row of the mission"


def main():
    root = sys.argv[1]
    problems, count = [], 0
    for path in files(root):
        try:
            with open(os.path.join(root, path), encoding="utf-8") as file:
                lines = file.read().splitlines()
        except UnicodeDecodeError:
            continue
        count += 1
        if path.endswith(SOURCES):
            problems += opening_comment(path, lines)
            problems += length(path, lines)
            if len(lines) > ASK_LINES:
                print(f"{path}: {len(lines)} lines; one subject?")
        if path != THIS_FILE:
            problems += words(path, lines)
    print("\n".join(problems) or f"{count} files: nothing to say")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
