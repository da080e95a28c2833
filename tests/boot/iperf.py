#!/usr/bin/env python3
"""iperf3 (Debian's) in guests with virtio network cards: bulk data both ways, small packets, datagrams, as fast as they go.

usage: iperf.py --nadir NADIR [--kernel DIRECTORY] --network user|switch [--cpus N] [-- OPTION...]

user: to a server on this host, through the user-mode network. switch: between two guests. What was measured is printed; nothing is expected of it
but that all comes to its end."""
import argparse
import glob
import os
import socket
import subprocess
import sys
import tempfile
import time

import net

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(net.HERE, "..", "..", "bench"))
import tree  # noqa: E402, pylint: disable=wrong-import-position

IPERF = {"packages": ["iperf3"], "files": ["usr/bin/iperf3"]}
EXPECTED = {"errors": "0", "script": "end"}
MEASURED = {name: "done" for name in ("send", "receive", "small", "datagrams")}


def make_initrd(args, work):
    """Where net.Guest looks for it."""
    cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
    busybox = os.path.join(cache, "busybox", "bin", "busybox")
    made = tree.Tree(os.path.join(work, "tree"), tree.Packages(cache), busybox)
    made.software("iperf3", IPERF)
    modules = os.path.join(glob.glob(os.path.join(cache, args.kernel, "lib", "modules", "*"))[0], "kernel")
    initrd = os.path.join(work, "initrd.gz")
    subprocess.run([net.INITRAMFS, busybox, initrd, os.path.join(net.HERE, "iperf.sh"), *(os.path.join(modules, name + ".ko") for name in net.MODULES)],
                   check=True)
    made.pack(initrd)


def show(guest):
    print("\n".join(line for line in guest.output if line.startswith("(")))


def run_user(args, work):
    """iperf3's port is one that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with subprocess.Popen(["iperf3", "-s", "-B", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL) as server:
        try:
            guest = net.Guest(args, work, "user", "user", f"port={port}")
            wrong = guest.check({**MEASURED, **EXPECTED}, args.timeout)
        finally:
            server.kill()
    show(guest)
    return wrong


def run_switch(args, work):
    path = os.path.join(work, "switch")
    with subprocess.Popen([args.nadir, "switch", "--path", path]) as switch:
        while not os.path.exists(path) and switch.poll() is None:
            time.sleep(0.05)
        one = net.Guest(args, work, "one", f"switch,path={path}")
        two = net.Guest(args, work, "two", f"switch,path={path}")
        wrong = two.check({**MEASURED, **EXPECTED}, args.timeout)
        wrong += one.check(EXPECTED, 30 if wrong else args.timeout)
        switch.terminate()
    show(two)
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--kernel", default="linux-cloud")
    parser.add_argument("--network", choices=["user", "switch"], required=True)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--timeout", type=int, default=240)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        make_initrd(args, work)
        wrong = {"user": run_user, "switch": run_switch}[args.network](args, work)
    print("\n".join(wrong) if wrong else f"{args.network}: all came to an end")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
