#!/usr/bin/env python3
"""Say in one line how a test run went: test-summary.py TESTLOG STATUS, with Meson's testlog.json and its exit status."""
import json
import sys

TROUBLE = ("FAIL", "not ok", "error:", "nadir: bug")  # how lines of our tests' output begin, or what they hold, that say why
LINES = 12


def why(result):
    """The lines of a failed test's output that tell most, with what follows each."""
    lines = (result.get("stdout") or "").splitlines() + (result.get("stderr") or "").splitlines()
    told = [i for i, line in enumerate(lines) if any(word in line for word in TROUBLE)]
    wanted = sorted({i + k for i in told for k in range(4) if i + k < len(lines)}) or range(max(0, len(lines) - LINES), len(lines))
    return [lines[i] for i in wanted][:LINES]


def main():
    path, status = sys.argv[1], int(sys.argv[2])
    with open(path, encoding="utf-8") as log:
        results = [json.loads(line) for line in log if line.strip()]
    failed = [r for r in results if r["result"] not in ("OK", "EXPECTEDFAIL", "SKIP")]
    skipped = [r for r in results if r["result"] == "SKIP"]
    for result in failed:
        print(f"failed: {result['name']} ({result['result']}, {result['duration']:.0f} s)")
        for line in why(result):
            print("    " + line[:160])
    if not results:
        print("no test was run")
    passed = len(results) - len(failed) - len(skipped)
    print(f"{passed} passed, {len(failed)} failed" + (f", {len(skipped)} skipped" if skipped else ""))
    return 1 if failed or not results or status else 0


if __name__ == "__main__":
    sys.exit(main())
