#!/usr/bin/env python3
"""Boot an unmodified distribution kernel in nadir with a network, and check what came through it in both directions.

usage: net.py --nadir NADIR --kernel DIRECTORY --network user|switch|restart|tap [--cpus N] [-- OPTION...]

user: DHCP, connections from the guest to this process and back through forwarded ports, packets larger than the MTU. switch: two guests at a
switch. restart: a switch that goes and comes back. tap: a guest and this host; skipped where this process may not make an interface."""
import argparse
import contextlib
import fcntl
import glob
import hashlib
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
INITRAMFS = os.path.join(HERE, "..", "..", "scripts", "initramfs.sh")
MODULES = ["drivers/virtio/virtio", "drivers/virtio/virtio_ring", "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci_legacy_dev",
           "drivers/virtio/virtio_pci", "net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net"]
SKIPPED = 77


def short(data):
    return hashlib.md5(data).hexdigest()[:12]


def lines(last):
    return "".join(f"{i}\n" for i in range(1, last + 1)).encode()


NUMBERS, OTHER = lines(700000), lines(300000)


class Peer:
    """The other end of the guest's connections: gives a file, and takes one."""

    def __init__(self, host):
        self.file = random.randbytes(8 << 20)
        self.taken = b""
        self.sockets = {}
        for name in ("give", "take"):
            self.sockets[name] = socket.create_server((host, 0))
            threading.Thread(target=getattr(self, name), daemon=True).start()

    def words(self):
        return " ".join(f"{name}={each.getsockname()[1]}" for name, each in self.sockets.items())

    def give(self):
        connection, _ = self.sockets["give"].accept()
        with connection:
            connection.sendall(self.file)

    def take(self):
        connection, _ = self.sockets["take"].accept()
        with connection:
            while data := connection.recv(1 << 16):
                self.taken += data


def queues(args):
    """A pair of queues for each CPU."""
    return f",queues={args.cpus}" if int(args.cpus) > 1 else ""


class Guest:
    """A running guest, and what it has printed."""

    def __init__(self, args, work, role, network, words=""):
        cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
        kernels = glob.glob(os.path.join(cache, args.kernel, "boot", "vmlinuz-*"))
        if not kernels:
            sys.exit(f"no kernel in {cache}/{args.kernel}: make test fetches it")
        modules = os.path.join(glob.glob(os.path.join(cache, args.kernel, "lib", "modules", "*"))[0], "kernel")
        initrd = os.path.join(work, "initrd.gz")
        if not os.path.exists(initrd):
            subprocess.run([INITRAMFS, os.path.join(cache, "busybox", "bin", "busybox"), initrd, os.path.join(HERE, "net.sh"),
                            *(os.path.join(modules, name + ".ko") for name in MODULES)], check=True)
        command = [args.nadir, "run", "--kernel", kernels[0], "--initrd", initrd, "--cpus", str(args.cpus), "--memory", "256M", "--net", network,
                   "--append", f"console=ttyS0 panic=-1 role={role} {words}", *args.options]
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log)
        self.output, self.got = [], {}
        self.pairs = str(args.cpus) if "queues=" in network else "1"
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            text = line.decode(errors="replace").rstrip("\r\n")
            self.output.append(text)
            if ": " in text and not text.startswith("["):
                key, value = text.split(": ", 1)
                self.got[key] = value

    def wait_for(self, key, seconds):
        end = time.monotonic() + seconds
        while key not in self.got and self.reader.is_alive() and time.monotonic() < end:
            time.sleep(0.05)

    def check(self, expected, seconds):
        self.reader.join(seconds)
        if self.reader.is_alive():
            self.process.kill()
        status = self.process.wait()
        wrong = [f"{key}: expected '{value}', got '{self.got.get(key)}'" for key, value in expected.items() if self.got.get(key) != value]
        if status:
            self.log.seek(0)
            wrong.append(f"exit status {status}: {self.log.read().decode(errors='replace')}")
        if wrong:
            print("\n".join(self.output))
        return wrong


def fetch(port):
    """What the guest's program at the forwarded port gives."""
    data = b""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while more := connection.recv(1 << 16):
            data += more
    return data


def tell(port):
    """Give it OTHER; it may not listen yet."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(OTHER)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)


def free_ports(count):
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in servers]
    for each in servers:
        each.close()
    return ports


COMMON = {"cards": "1", "errors": "0", "script": "end"}


def check_taken(peer, wrong):
    return wrong + ([] if peer.taken == NUMBERS else [f"{len(peer.taken)} bytes came, and they are not those sent"])


def run_user(args, work):
    peer, (out, into) = Peer("127.0.0.1"), free_ports(2)
    guest = Guest(args, work, "user", f"user,hostfwd=tcp:127.0.0.1:{out}-:22,hostfwd=tcp::{into}-10.0.2.15:23{queues(args)}", peer.words())
    guest.wait_for("listening", args.timeout)
    got = fetch(out) if "listening" in guest.got else b""
    while "listening" in guest.got and "forwarded" not in guest.got and guest.reader.is_alive():
        try:
            tell(into)
        except OSError:
            pass  # the guest does not listen yet
        time.sleep(0.2)
    wrong = guest.check({"address": "10.0.2.15 10.0.2.2 10.0.2.3", "fetched": short(peer.file), "sent": "done", "fragments": "4008 bytes", "forwarded": short(OTHER),
                         "mtu": "1500", "pairs": guest.pairs, **COMMON}, args.timeout)
    return check_taken(peer, wrong) + ([] if got == NUMBERS else [f"{len(got)} bytes came through the forwarded port, and they are not those sent"])


def run_switch(args, work):
    path = os.path.join(work, "switch")
    with subprocess.Popen([args.nadir, "switch", "--path", path]) as switch:
        while not os.path.exists(path) and switch.poll() is None:
            time.sleep(0.05)
        one = Guest(args, work, "one", f"switch,path={path}{queues(args)}")
        two = Guest(args, work, "two", f"switch,path={path}")
        wrong = one.check({"from two": short(OTHER), "pairs": one.pairs, **COMMON}, args.timeout)
        wrong += two.check({"from one": short(NUMBERS), "pairs": two.pairs, **COMMON}, args.timeout)
        switch.terminate()
    return wrong + ([f"the switch ended with {switch.returncode}"] if switch.returncode else [])


@contextlib.contextmanager
def switch_at(args, path):
    """A switch that has to be there; it is killed in the end."""
    with subprocess.Popen([args.nadir, "switch", "--path", path]) as switch:
        try:
            while not os.path.exists(path) and switch.poll() is None:
                time.sleep(0.05)
            yield
        finally:
            switch.kill()


def run_restart(args, work):
    """The switch goes away, and another one comes."""
    path = os.path.join(work, "switch")
    with switch_at(args, path):
        stay = Guest(args, work, "stay", f"switch,path={path}")
        again = Guest(args, work, "again", f"switch,path={path}")
        again.wait_for("reached", args.timeout)
    again.wait_for("carrier", args.timeout)
    with switch_at(args, path):
        wrong = again.check({"reached": "once", "carrier": "lost", "reached again": "1", "pairs": again.pairs, **COMMON}, args.timeout)
        return wrong + stay.check({"told": "end", "pairs": stay.pairs, **COMMON}, 30 if wrong else args.timeout)


def make_tap(name):
    """An interface with the address 10.77.0.1, as long as the file is open; None if that is not allowed."""
    try:
        tap = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x5002))  # TUNSETIFF: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
        fcntl.ioctl(tap, 0x400454CB, 1)  # TUNSETPERSIST
        os.close(tap)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as each:
            for request, address in ((0x8916, "10.77.0.1"), (0x891C, "255.255.255.0")):  # SIOCSIFADDR, SIOCSIFNETMASK
                fcntl.ioctl(each, request, struct.pack("16sHH4s8x", name.encode(), socket.AF_INET, 0, socket.inet_aton(address)))
            fcntl.ioctl(each, 0x8914, struct.pack("16sH14x", name.encode(), 0x43))  # SIOCSIFFLAGS: UP, BROADCAST, RUNNING
    except OSError as error:
        print(f"skipped: no tap interface can be made here: {error}")
        return False
    return True


def remove_tap(name):
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x5002))
    fcntl.ioctl(tap, 0x400454CB, 0)
    os.close(tap)


def run_tap(args, work):
    name = f"nadir{os.getpid() % 100000}"
    if not make_tap(name):
        sys.exit(SKIPPED)
    try:
        peer = Peer("10.77.0.1")
        guest = Guest(args, work, "tap", f"tap,ifname={name}", peer.words())
        return check_taken(peer, guest.check({"fetched": short(peer.file), "sent": "done", "pairs": guest.pairs, **COMMON}, args.timeout))
    finally:
        remove_tap(name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--kernel", default="linux-cloud")
    parser.add_argument("--network", choices=["user", "switch", "restart", "tap"], required=True)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--timeout", type=int, default=240)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        wrong = {"user": run_user, "switch": run_switch, "restart": run_restart, "tap": run_tap}[args.network](args, work)
    print("\n".join(wrong) if wrong else f"{args.network}: all came through")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
