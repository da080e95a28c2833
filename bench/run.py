#!/usr/bin/env python3
"""Measure nadir side by side with the bare machine and with QEMU's TCG, or check that real software computes the same in it.

usage: run.py --nadir NADIR [--cache DIRECTORY] [--only NAMES] [--engine NAME] [--runs N] [--scale F] [--json [FILE]] [--check [quick]]

The same tree of software runs natively in a chroot and, as an initramfs, in both machines. Its script prints "bench: NAME begin" and
"bench: NAME end"; durations are taken here, from the moment these lines appear, so that no guest clock can flatter. "boot" is from launch
to the script's first line. Every workload's output must be the same everywhere. What can be run is in workloads.toml."""
import argparse
import contextlib
import glob
import os
import re
import selectors
import subprocess
import sys
import tempfile
import time
import tomllib

import report
import tree

HERE = os.path.dirname(os.path.abspath(__file__))
LINE = re.compile(r"^(bench|out|sum): (\S+) ?(.*)$")
OUTPUT_LINES = 40
APPEND = "console=ttyS0 quiet panic=-1"
MODULES = ["virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_modern_dev", "virtio/virtio_pci_legacy_dev", "virtio/virtio_pci",
           "block/virtio_blk"]
NET_MODULES = ["../net/core/failover", "net/net_failover", "net/virtio_net"]
SHARE_MODULES = ["../fs/fuse/fuse", "../fs/fuse/virtiofs", "../fs/netfs/netfs", "../fs/fscache/fscache", "../net/9p/9pnet", "../net/9p/9pnet_virtio", "../fs/9p/9p"]
DISK_SIZE = 256 << 20
IPERF_PORT, ECHO_PORT = 5207, 5208
ECHO = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    with server.accept()[0] as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(65536):
            connection.sendall(data)
"""
PRELUDE = r"""
echo "bench: boot end"
export PATH=/bin:/usr/bin HOME=/tmp LC_ALL=C
cd /bench
grep -q " /tmp tmpfs " /proc/mounts || mount -t tmpfs tmpfs /tmp
ip link set lo up 2>/dev/null
[ -e native ] || for module in modules/*.ko; do insmod "$module" 2>/dev/null; done
HOST=127.0.0.1
if [ -e /sys/class/net/eth0 ] && [ ! -e native ]; then
	ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2
	HOST=10.0.2.2
fi
SHARE=/bench/share
if [ ! -e native ] && grep -q virtiofs /proc/filesystems; then
	SHARE=/share
	mkdir /share
	mount -t virtiofs share /share 2>/dev/null || mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576 share /share
fi
run() {
	N=$2
	rm -rf /tmp/*
	echo "bench: $1 begin"
	(eval "$3") >/tmp/.out 2>&1
	status=$?
	echo "bench: $1 end"
	head -n %d /tmp/.out | sed "s/^/out: $1 /"
	echo "sum: $1 status $status, $(md5sum </tmp/.out)"
}
""" % OUTPUT_LINES


def quote(text):
    return "'" + text.replace("'", "'\\''") + "'"


def script(workloads, args):
    """The script that runs WORKLOADS in order, for the three of them alike."""
    lines = [PRELUDE]
    for workload in workloads:
        if workload["group"] != "boot":
            amount = workload["check"] if args.check else max(1, round(workload["amount"] * args.scale))
            lines.append(f"run {workload['name']} {amount} {quote(workload['run'].strip())}")
    return "\n".join(lines + ['echo "bench: script end"', ""])


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="" if text else "\r", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


class Bar:
    """Progress over all runs."""

    def __init__(self, total):
        self.total, self.done = total, 0

    def step(self, text):
        filled = 20 * self.done // max(self.total, 1)
        progress(f"[{'#' * filled}{'.' * (20 - filled)}] {self.done}/{self.total} {text}")
        self.done += 1


def lines_of(process, silence):
    """The lines a process prints, each with its time of arrival; the process is killed when it is silent for SILENCE seconds."""
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)
    rest = b""
    while True:
        if not selector.select(silence):
            process.kill()
            yield time.monotonic(), f"(killed after {silence} s without a line)"
            return
        data = os.read(process.stdout.fileno(), 65536)
        now = time.monotonic()
        if not data:
            return
        *complete, rest = (rest + data).split(b"\n")
        for line in complete:
            yield now, line.decode(errors="replace").rstrip("\r")


def measure(command, silence, begun_workload):
    """Run one machine: seconds by workload, outputs by workload, and why it ended badly or None."""
    seconds, outputs, other, ended = {}, {}, [], False
    begun = {"boot": time.monotonic()}
    with tempfile.TemporaryFile() as errors, \
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as process:
        for now, line in lines_of(process, silence):
            match = LINE.match(line)
            if not match:
                other = (other + [line])[-20:]
                continue
            kind, name, rest = match.groups()
            if kind != "bench":
                outputs.setdefault(name, []).append(rest)
            elif rest == "begin":
                begun[name] = now
                begun_workload(name)
            elif name in begun:
                seconds[name] = now - begun[name]
            ended = ended or name == "script"
        status = process.wait()
        errors.seek(0)
        other += errors.read().decode(errors="replace").splitlines()[-20:]
    if status == 0 and ended:
        return seconds, outputs, None
    return seconds, outputs, "\n".join([f"ended with status {status}" + ("" if ended else " before the last workload"), *other])


def make_disk(path):
    """A disk of random data, written in small pieces, as a guest does: it decides how the host's page cache keeps the file."""
    with open(path, "wb", buffering=0) as file:
        for _ in range(DISK_SIZE >> 12):
            file.write(os.urandom(4096))


@contextlib.contextmanager
def servers(wanted):
    """What guests connect to, and the native run: iperf3's server, and one that sends back what it is sent."""
    if not wanted:
        yield
        return
    with subprocess.Popen(["iperf3", "-s", "-B", "127.0.0.1", "-p", str(IPERF_PORT)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as iperf, \
            subprocess.Popen([sys.executable, "-c", ECHO, str(ECHO_PORT)]) as echo:
        try:
            yield
        finally:
            iperf.kill()
            echo.kill()


class Group:
    """The workloads of one boot, their tree and initramfs."""

    def __init__(self, name, workloads, table, args, work):
        self.name, self.workloads, self.args = name, workloads, args
        self.root = os.path.join(work, name)
        self.initrd = os.path.join(work, name + ".initrd")
        self.shares = any(workload.get("share") for workload in workloads)
        kernel = "linux-generic" if self.shares else "linux-cloud"  # which has no 9p
        self.kernel = glob.glob(os.path.join(args.cache, kernel, "boot", "vmlinuz-*"))[0]
        busybox = os.path.join(args.cache, "busybox", "bin", "busybox")
        packages = tree.Packages(args.cache)
        software = table["software"]
        made = tree.Tree(self.root, packages, busybox)
        for row in sorted({name for workload in workloads for name in workload.get("software", [])}):
            made.software(row, software[row])
        for row in dict.fromkeys(name for workload in workloads for name in workload.get("programs", [])):
            program = table["program"][row]
            for name in program.get("software", []):
                made.software(name, software[name])
            needed = [package for name in program.get("software", []) for package in software[name]["packages"]]
            made.program(row, program, needed)
        self.disk = os.path.join(work, name + ".disk") if any(workload.get("disk") for workload in workloads) else None
        self.format = next((workload["disk"] for workload in workloads if workload.get("disk")), None)
        self.net = any(workload.get("net") for workload in workloads)
        if self.disk or self.net or self.shares:
            made.modules(os.path.join(args.cache, kernel), MODULES + (NET_MODULES if self.net else []) + (SHARE_MODULES if self.shares else []))
        self.script = made.script("script", script(workloads, args))
        subprocess.run([os.path.join(tree.SCRIPTS, "initramfs.sh"), busybox, self.initrd, self.root + self.script], check=True)
        if any(workload["group"] != "boot" for workload in workloads):
            made.pack(self.initrd)
        made.script("native", "")  # not packed: the script is in no guest
        self.folder = os.path.join(self.root, "bench", "share")
        if self.shares:
            os.makedirs(self.folder)
        if self.disk:
            make_disk(self.disk)
            os.link(self.disk, os.path.join(self.root, "bench", "disk"))

    def prepare_disk(self):
        """What the disk is kept in, so that nobody pays for what was written before, nor finds it."""
        if not self.disk:
            return None
        with open(self.disk, "rb") as file:
            os.fsync(file.fileno())
        if self.format == "raw":
            return self.disk
        overlay = self.disk + ".qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", self.disk, "-F", "raw", overlay], check=True)
        return overlay

    def command(self, who):
        args = self.args
        disk_file = self.prepare_disk()
        if who == "native":
            return tree.enter(self.root, self.script)
        if who == "tcg":
            disk = ["-drive", f"file={disk_file},format={self.format},if=virtio,cache=writeback"] if self.disk else []
            net = ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"] if self.net else []
            share = ["-fsdev", f"local,id=share,path={self.folder},security_model=none", "-device", "virtio-9p-pci,fsdev=share,mount_tag=share"]
            return ["qemu-system-x86_64", *disk, *net, *(share if self.shares else []), "-accel", "tcg", "-cpu", "max", "-m", args.memory, "-display", "none", "-serial", "stdio",
                    "-monitor", "none", "-no-reboot", "-nodefaults", "-kernel", self.kernel, "-initrd", self.initrd, "-append", APPEND]
        disk = ["--disk", f"path={disk_file}"] if self.disk else []
        net = ["--net", "user"] if self.net else []
        net += ["--share", f"path={self.folder}"] if self.shares else []
        return [args.nadir, "run", "--engine", args.engine, "--kernel", self.kernel, "--initrd", self.initrd, "--memory", args.memory, *disk, *net,
                "--append", APPEND, *args.options]


def difference(expected, got, who):
    if got is None:
        return f"{who} did not get to its end"
    lines = [f"{who} printed something else:"]
    for i in range(max(len(expected), len(got))):
        a, b = (lines_[i] if i < len(lines_) else "(nothing)" for lines_ in (expected, got))
        if a != b:
            lines += [f"  expected: {a}", f"  got:      {b}"]
    return "\n".join(lines[:12])


def compare(group, who, outputs, reference, why, failures):
    """Hold the outputs of one run against the first run's."""
    for workload in group.workloads:
        name = workload["name"]
        if workload["group"] == "boot":
            if why:
                failures.append((name, f"{who} {why}"))
            continue
        got = outputs.get(name)
        got = got if got and " status " in f" {got[-1]}" else None
        expected = reference.setdefault(name, got)
        if got is None or got != expected:
            failures.append((name, difference(expected or [], got, who) + (f"\n{why}" if got is None and why else "")))
        elif not got[-1].startswith("status 0,"):
            failures.append((name, f"{who} failed:\n  " + "\n  ".join(got)))


def run_all(groups, machines, args):
    results, failures, reference = {}, [], {}
    bar = Bar(sum(args.runs * len(machines) for _ in groups))
    for run in range(args.runs):
        for group in groups:
            for who in machines:
                if who == "native" and group.name == "boot":
                    continue
                where = f"run {run + 1} of {args.runs}: {group.name}: {who}"
                bar.step(where)
                tell = (lambda name, where=where: progress(f"{where}: {name}")) if sys.stderr.isatty() or args.verbose else (lambda name: None)
                seconds, outputs, why = measure(group.command(who), args.silence, tell)
                if args.verbose:
                    progress(f"{where}: " + ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items()))
                compare(group, who, outputs, reference, why, failures)
                for workload in group.workloads:
                    if workload["name"] in seconds:
                        results.setdefault(workload["name"], {}).setdefault(who, []).append(seconds[workload["name"]])
    progress("")
    return results, failures


def selected(workloads, args):
    """The workloads that --only and --check leave."""
    wanted = args.only.split(",") if args.only else []
    names = {workload["name"] for workload in workloads} | {workload["group"] for workload in workloads}
    for name in wanted:
        if name not in names:
            sys.exit(f"bench: there is no workload or group {name}; there are {' '.join(sorted(names))}")
    key = "check" if args.check else "amount"
    return [workload for workload in workloads if key in workload and (args.check != "quick" or workload.get("quick"))
            and (not wanted or workload["name"] in wanted or workload["group"] in wanted)]


def arguments():
    parser = argparse.ArgumentParser(description="Measure nadir beside the bare machine and QEMU's TCG.")
    parser.add_argument("--nadir", required=True, help="the program to measure")
    parser.add_argument("--cache", default=os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir")))
    parser.add_argument("--only", help="workloads or groups, separated by commas")
    parser.add_argument("--engine", default="auto", help="nadir's engine (default: its own choice)")
    parser.add_argument("--runs", type=int, help="how often each is run; medians are shown (default 3)")
    parser.add_argument("--scale", type=float, default=1, help="multiply all amounts of work")
    parser.add_argument("--machines", help="of native,tcg,nadir, which (default all; with --check native,nadir)")
    parser.add_argument("--memory", default="1G")
    parser.add_argument("--silence", type=int, default=600, help="seconds without a line after which a machine is given up")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write JSON, to stdout instead of the table if there is no FILE")
    parser.add_argument("--check", nargs="?", const="all", choices=["all", "quick"], help="compare outputs only, with small amounts of work")
    parser.add_argument("--verbose", action="store_true", help="tell each workload as it begins, and its duration")
    parser.add_argument("options", nargs="*", metavar="OPTION", help="further options of nadir run, after --")
    args = parser.parse_args()
    args.runs = args.runs or (1 if args.check else 3)
    args.machines = (args.machines or ("native,nadir" if args.check else "native,tcg,nadir")).split(",")
    return args


def main():
    args = arguments()
    with open(os.path.join(HERE, "workloads.toml"), "rb") as file:
        table = tomllib.load(file)
    workloads = selected(table["workload"], args)
    for package, name in (("linux-image-cloud-amd64", "linux-cloud"), ("linux-image-amd64", "linux-generic"), ("busybox-static", "busybox")):
        if name == "linux-generic" and not any(workload.get("share") for workload in workloads):
            continue
        subprocess.run([os.path.join(tree.SCRIPTS, "guest-package.sh"), package, os.path.join(args.cache, name)], stdout=sys.stderr, check=True)
    with tempfile.TemporaryDirectory(prefix="nadir-bench-") as work:
        names = dict.fromkeys("check" if args.check else workload["group"] for workload in workloads)
        groups = [Group(name, [w for w in workloads if args.check or w["group"] == name], table, args, work) for name in names]
        with servers(any(group.net for group in groups)):
            results, failures = run_all(groups, args.machines, args)
    for name, text in failures:
        print(f"FAILED: {name}: {text}", file=sys.stderr)
    summary = report.summarize(workloads, results, failures, args)
    if args.json:
        report.write_json(summary, args.json)
    if args.check:
        print(f"{len(workloads)} workloads checked, {summary['failed']} failed", file=sys.stderr if args.json == "-" else sys.stdout)
    elif args.json != "-":
        print(report.table(summary))
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LookupError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
