#!/usr/bin/env python3
"""The manual page says what `nadir run --help` says: the same options in the same order, described by the same words (and perhaps
more), with the same defaults. The version is written once, in meson.build: manual.py NADIR SOURCE-ROOT VERSION."""
import pathlib
import re
import subprocess
import sys

nadir, root, version = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
problems = []


def check(condition, what):
    if not condition:
        problems.append(what)


def output(*arguments):
    return subprocess.run([nadir, *arguments], capture_output=True, text=True, check=True, timeout=30).stdout


def help_options(text):
    """[(head, description, default or None)] of the list that --help prints."""
    rows = re.findall(r"^  (-\w,|   ) (--.*)\n {8}(.*)$", text, re.MULTILINE)
    for letter, head, description in rows:
        words, default = re.fullmatch(r"(.*?)(?: \[(.*)\])?", description).groups()
        yield f"{letter} {head}".strip(), words, default


def plain(roff):
    """A line of the manual page without its markup."""
    if roff.startswith((".BR ", ".BI ", ".B ", ".RB ", ".RI ")):
        words = re.findall(r'"([^"]*)"|(\S+)', roff.split(" ", 1)[1])
        joiner = " " if roff.startswith(".B ") else ""
        roff = joiner.join(quoted or bare for quoted, bare in words)
    return re.sub(r"\\f[BRIP]", "", roff).replace("\\-", "-").replace(".\\|.\\|.", "...")


def manual_options(lines):
    """[(head, description)] of the section OPTIONS OF RUN."""
    section = lines[lines.index(".SH OPTIONS OF RUN") + 1:]
    section = section[:next(i for i, line in enumerate(section) if line.startswith(".SH"))]
    for entry in "\n".join(section).split(".TP\n")[1:]:
        head, *text = [plain(line) for line in entry.splitlines()]
        yield head, " ".join(text)


page = (root / "man/nadir.1").read_text(encoding="utf-8")
shown = list(help_options(output("run", "--help")))
described = list(manual_options(page.splitlines()))
check(len(shown) > 15, "nadir run --help shows hardly an option")
check([row[0] for row in shown] == [row[0] for row in described],
      f"the options differ:\n  --help: {[row[0] for row in shown]}\n  manual: {[row[0] for row in described]}")
manual = dict(described)
for option, words, default in shown:
    text = manual.get(option, "")
    check(text.lower().startswith(words.lower()), f"{option}: --help says '{words}', the manual '{text}'")
    said = re.search(r"; (\S+) if not given", text)
    check((said and said[1]) == default, f"{option}: --help says the default is {default}, the manual {said and said[1]}")

check(output("--version") == f"nadir {version}\n", f"nadir --version is not {version}")
check(f'"nadir {version}"' in page.splitlines()[0], f"the manual page is not for {version}")
changelog = (root / "debian/changelog").read_text(encoding="utf-8").splitlines()[0]
check(changelog.startswith(f"nadir ({version})"), f"debian/changelog begins with '{changelog}', not with {version}")
if problems:
    sys.exit("\n".join(problems))
