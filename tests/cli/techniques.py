#!/usr/bin/env python3
"""`nadir techniques` measures what it has, gives a reason for what it has not, and says the same in words as in JSON."""
import json
import subprocess
import sys


def run(*args):
    done = subprocess.run([sys.argv[1], "techniques", *args], capture_output=True, text=True, timeout=500)
    return done.returncode, done.stdout, done.stderr


def check(condition, what):
    if not condition:
        sys.exit(f"techniques: {what}")


status, output, errors = run("--json")
check(status == 0 and not errors, f"--json: status {status}, stderr {errors!r}")
report = json.loads(output)
available = {engine["name"]: engine["available"] for engine in
             json.loads(subprocess.run([sys.argv[1], "probe", "--json"], capture_output=True, text=True, timeout=30).stdout)["engines"]}
native = report["native_cycles"]
check(native["user-arithmetic"] > 10000 and native["user-misses"] > native["user-hits"] > 1000, f"impossible figures without a machine: {native}")
for way in report["techniques"] + report["memory"]:
    name, engine, cycles = way["name"], way["engine"], way["cycles"]
    if not available[engine]:
        check(not way["available"] and way["why_not"] and not cycles, f"{name}: measured, though probe says that there is no {engine}")
        continue
    if engine in ("bt", "step"):
        check(way["available"], f"{name} was not measured: {way['why_not']}")
    check(not way["available"] or cycles, f"{name}: no figures")
    check(all(value is None or value > 0 for value in cycles.values()), f"{name}: {cycles}")

# Two orders of magnitude between them: no load of the machine turns that around.
by_name = {way["name"]: way["cycles"] for way in report["techniques"]}
check(by_name["step"]["kernel-arithmetic"] > 2 * by_name["bt"]["kernel-arithmetic"], "step is not slower than bt")

status, text, errors = run()
check(status == 0 and not errors, f"status {status}, stderr {errors!r}")
for way in report["techniques"] + report["memory"]:
    said = way["name"] if way["available"] else f"{way['name']}: not available here: {way['why_not']}"
    check(said in text, f"the words do not say '{said}'")
check("CPUID" in text and "CR3 load" in text, "rows are missing")
