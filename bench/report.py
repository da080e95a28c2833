"""Turn measured durations into ratios, geometric means, a table and JSON."""
import json
import math
import os
import platform
import statistics
import subprocess
import time


def geometric_mean(values):
    values = [value for value in values if value]
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


def ratio(row, other):
    """The speed of nadir as a part of OTHER's: above 1, nadir is faster."""
    return row[other] / row["nadir"] if row.get(other) and row.get("nadir") else None


def first_line(command):
    try:
        text = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, text=True).stdout
        return text.splitlines()[0] if text else ""
    except OSError:
        return ""


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())


def summarize(workloads, results, failures, args):
    """RESULTS[name][who] is a list of seconds."""
    rows = []
    for workload in workloads:
        times = results.get(workload["name"], {})
        row = {"name": workload["name"], "group": workload["group"], "runs": times}
        row.update({who: statistics.median(seconds) for who, seconds in times.items()})
        row["of_native"], row["of_tcg"] = ratio(row, "native"), ratio(row, "tcg")
        row["failures"] = [text for name, text in failures if name == workload["name"]]
        rows.append(row)
    means = {}
    for group in list(dict.fromkeys(row["group"] for row in rows)) + ["all"]:
        members = [row for row in rows if group in (row["group"], "all")]
        means[group] = {key: geometric_mean([row[key] for row in members]) for key in ("of_native", "of_tcg")}
    machine = {"processor": processor(), "cpus": os.cpu_count(), "load": os.getloadavg()[0], "kernel": platform.release(),
               "qemu": first_line(["qemu-system-x86_64", "--version"]), "nadir": first_line([args.nadir, "--version"])}
    return {"date": time.strftime("%Y-%m-%d %H:%M:%S"), "engine": args.engine, "runs": args.runs, "scale": args.scale, "machine": machine,
            "workloads": rows, "geometric_means": means, "failed": sum(bool(row["failures"]) for row in rows)}


def number(value, width, digits):
    return " " * (width - 1) + "-" if value is None else f"{value:>{width}.{digits}f}"


def table(summary):
    lines = [f"{'workload':<14} {'native s':>9} {'tcg s':>9} {'nadir s':>9} {'of native':>10} {'of tcg':>8}"]
    group = None
    for row in summary["workloads"]:
        if row["group"] != group:
            group = row["group"]
            lines.append(f"{group}:")
        lines.append(f"  {row['name']:<12} {number(row.get('native'), 9, 3)} {number(row.get('tcg'), 9, 3)} {number(row.get('nadir'), 9, 3)} "
                     f"{number(row['of_native'], 10, 3)} {number(row['of_tcg'], 8, 2)}{'  FAILED' if row['failures'] else ''}")
    lines.append("geometric means:")
    for name, mean in summary["geometric_means"].items():
        lines.append(f"  {name:<42} {number(mean['of_native'], 10, 3)} {number(mean['of_tcg'], 8, 2)}")
    slower = [row["name"] for row in summary["workloads"] if row["of_tcg"] and row["of_tcg"] < 1]
    lines.append(f"engine {summary['engine']}, medians of {summary['runs']}; speed of nadir as a part of the other's: above 1, nadir is faster")
    if slower:
        lines.append(f"slower than tcg: {' '.join(slower)}")
    return "\n".join(lines)


def write_json(summary, path):
    text = json.dumps(summary, indent=2)
    if path == "-":
        print(text)
        return
    with open(path, "w", encoding="utf-8") as file:
        file.write(text + "\n")
