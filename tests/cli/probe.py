#!/usr/bin/env python3
"""`nadir probe` ends soon, says the same in words and as JSON, and never crashes, whatever the machine's KVM does."""
import json
import subprocess
import sys


def run(*args):
    done = subprocess.run([sys.argv[1], "probe", *args], capture_output=True, text=True, timeout=15)
    return done.returncode, done.stdout, done.stderr


def check(condition, what):
    if not condition:
        sys.exit(f"probe: {what}")


status, text, errors = run()
check(status == 0 and not errors, f"status {status}, stderr {errors!r}")
status, output, errors = run("--json")
check(status == 0 and not errors, f"--json: status {status}, stderr {errors!r}")
report = json.loads(output)

with open("/proc/cpuinfo") as file:
    facts = dict(line.split(":", 1) for line in file if ":" in line)
facts = {key.strip(): value.strip() for key, value in facts.items()}
processor = report["processor"]
check(processor["vendor"] == facts["vendor_id"], "vendor differs from /proc/cpuinfo")
check(processor["family"] == int(facts["cpu family"]), "family differs from /proc/cpuinfo")
check(processor["model"] == int(facts["model"]), "model differs from /proc/cpuinfo")
flags = facts["flags"].split()
check(processor["svm"] or "svm" not in flags, "svm differs from /proc/cpuinfo")
check(processor["vmx"] or "vmx" not in flags, "vmx differs from /proc/cpuinfo")

check(report["landlock_version"] >= 0 and report["namespaces"] in (True, False), "nothing on confinement")
kvm = report["kvm"]
check(kvm["verdict"], "no verdict on KVM")
check(kvm["trial_steps_passed"] <= kvm["trial_steps"], "more steps passed than there are")
check(not kvm["runs_unmodified_kernels"] or kvm["trial_steps_passed"] == kvm["trial_steps"], "usable, but not every step passed")
check(len(kvm["trial_steps_failed"]) + kvm["trial_steps_passed"] <= kvm["trial_steps"], "steps that both passed and failed")
check(all(step in text for step in kvm["trial_steps_failed"]), "the words do not name a step that failed")
check(all(e["available"] or not e["preferred"] for e in report["engines"]), "an engine is preferred that cannot run")
check(report["choice"] in [e["name"] for e in report["engines"] if e["available"]], "the choice is no available engine")
for said in (processor["vendor"], report["reason"], report["choice"]):
    check(said in text, f"the words do not say '{said}'")

status, _, errors = run("--nonsense")
check(status == 2 and errors.count("\n") == 1, "a wrong option is not refused in one sentence")
