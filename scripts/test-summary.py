#!/usr/bin/env python3
"""Say in one line how a test run went: test-summary.py TESTLOG STATUS, with Meson's testlog.json and its exit status."""
import json
import sys


def main():
    path, status = sys.argv[1], int(sys.argv[2])
    with open(path, encoding="utf-8") as log:
        results = [json.loads(line) for line in log if line.strip()]
    failed = [r for r in results if r["result"] not in ("OK", "EXPECTEDFAIL", "SKIP")]
    skipped = [r for r in results if r["result"] == "SKIP"]
    for result in failed:
        print(f"failed: {result['name']} ({result['result']}, {result['duration']:.0f} s)")
    if not results:
        print("no test was run")
    passed = len(results) - len(failed) - len(skipped)
    print(f"{passed} passed, {len(failed)} failed" + (f", {len(skipped)} skipped" if skipped else ""))
    return 1 if failed or not results or status else 0


if __name__ == "__main__":
    sys.exit(main())
