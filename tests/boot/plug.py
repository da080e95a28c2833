#!/usr/bin/env python3
"""Disks and networks that come and go while an unmodified distribution kernel runs: added, used, removed, added again, kept over a reboot.

usage: plug.py --nadir NADIR --kernel DIRECTORY [--rounds N] [-- OPTION...]"""
import argparse
import glob
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

from net import Peer, short

HERE = os.path.dirname(os.path.abspath(__file__))
INITRAMFS = os.path.join(HERE, "..", "..", "scripts", "initramfs.sh")
MODULES = ["drivers/virtio/virtio", "drivers/virtio/virtio_ring", "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci_legacy_dev",
           "drivers/virtio/virtio_pci", "net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net", "drivers/block/virtio_blk"]
MIB = 1 << 20
TIME = 150


class Machine:
    """A running machine, whose guest does what it is told on its console."""

    def __init__(self, args, command, work):
        self.nadir, self.work, self.seen = args.nadir, work, ""
        self.environment = dict(os.environ, XDG_RUNTIME_DIR=work)
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen(command, cwd=work, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.environment,
                                        text=True, errors="replace")

    def path(self, name):
        return os.path.join(self.work, name)

    def wait_for(self, word):
        """Until a line begins with WORD; what came before it."""
        timer, lines = threading.Timer(TIME, self.process.kill), []
        timer.start()
        try:
            for line in self.process.stdout:
                self.seen += line
                if line.startswith(word):
                    return "".join(each for each in lines if not each.startswith("[")), line
                lines.append(line)
        finally:
            timer.cancel()
        raise AssertionError(f"no '{word}' came")

    def type(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def say(self, command):
        """Have the guest's shell do it; what it prints."""
        self.type(command)
        output, done = self.wait_for("done: ")
        assert done.strip() == "done: 0", f"{command}: {output}{done}"
        return output.strip()

    def ask(self, *arguments, status=0):
        """A command of nadir's for this machine: its output, or why it failed."""
        done = subprocess.run([self.nadir, *arguments], cwd=self.work, env=self.environment, capture_output=True, text=True, timeout=TIME, check=False)
        assert done.returncode == status, f"nadir {' '.join(arguments)}: {done.returncode} {done.stdout}{done.stderr}"
        return (done.stderr if status else done.stdout).strip()

    def devices(self):
        return {each["id"]: each for each in json.loads(self.ask("devices", "--json", "plug"))}

    def files(self):
        """The files and sockets that the process has open; others come and go with its spaces."""
        folder = f"/proc/{self.process.pid}/fd"
        names = (os.readlink(os.path.join(folder, each)) for each in os.listdir(folder))
        return sorted(name for name in names if name.startswith(("/", "socket:")) and not name.startswith("/memfd:"))

    def threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def rests(self):
        """What it holds, when threads that have just ended are not seen any more."""
        before, end = (self.files(), self.threads()), time.monotonic() + TIME
        while time.monotonic() < end:
            time.sleep(0.3)
            now = self.files(), self.threads()
            if now == before:
                return now
            before = now
        raise AssertionError(f"it comes to no rest: {before}")


def contents(path, size):
    with open(path, "rb") as file:
        return file.read(size)


def check_rest(machine, before):
    now = machine.rests()
    assert now == before, f"{before} before, {now} afterwards"


def check_disk(machine):
    """A raw disk is written, and read here; then it goes, with all it had."""
    holds = machine.rests()
    data = random.randbytes(4 * MIB)
    with open(machine.path("raw"), "wb") as file:
        file.write(data)
        file.truncate(64 * MIB)
    assert machine.ask("add-disk", "plug", "path=raw,serial=added") == "disk0"
    device = machine.devices()["disk0"]
    assert device["bdf"] == "0000:00:04.0" and device["removable"], device
    assert "in use" in machine.ask("add-disk", "plug", "path=raw", status=2)
    machine.say("appears /dev/vda")
    assert machine.say("cat /sys/block/vda/serial") == "added"
    assert machine.say("head -c 4194304 /dev/vda | short") == short(data)
    machine.say("seq 1 300000 >/dev/vda && sync")
    numbers = "".join(f"{i}\n" for i in range(1, 300001)).encode()
    assert contents(machine.path("raw"), len(numbers)) == numbers
    # In flight when it is asked for.
    machine.type("dd if=/dev/vda of=/dev/null bs=4096 count=8000 2>/dev/null; true")
    machine.ask("remove-device", "plug", "disk0")
    machine.wait_for("done: ")
    machine.say("vanishes /dev/vda")
    assert not machine.devices()
    check_rest(machine, holds)


def check_images(machine):
    """An overlay that is made, a disk whose changes are thrown away, one that cannot be written."""
    data = random.randbytes(MIB)
    for name in ("base", "keep"):
        with open(machine.path(name), "wb") as file:
            file.write(data)
            file.truncate(8 * MIB)
    assert machine.ask("add-disk", "plug", "base=base,overlay=over.qcow2") == "disk0"
    assert machine.ask("add-disk", "plug", "path=keep,snapshot=on,direct=on") == "disk1"
    assert machine.ask("add-disk", "plug", "path=keep,readonly=on") == "disk2"
    for disk in ("vda", "vdb", "vdc"):
        machine.say(f"appears /dev/{disk}")
        assert machine.say(f"head -c 1048576 /dev/{disk} | short") == short(data)
    machine.say("seq 1 1000 >/dev/vda && seq 1 1000 >/dev/vdb && sync && ! seq 1 1000 2>/dev/null >/dev/vdc")
    for disk in ("disk1", "disk0", "disk2"):
        machine.ask("remove-device", "plug", disk)
    for name in ("base", "keep"):
        assert contents(machine.path(name), MIB) == data, f"{name} was written"
    subprocess.run(["qemu-img", "check", "-q", machine.path("over.qcow2")], check=True)
    subprocess.run(["qemu-img", "convert", "-q", "-O", "raw", machine.path("over.qcow2"), machine.path("after")], check=True)
    assert contents(machine.path("after"), 6) == b"1\n2\n3\n"


def check_net(machine):
    """A user-mode network: a file comes by it."""
    holds, peer = machine.rests(), Peer("127.0.0.1")
    give = peer.sockets["give"].getsockname()[1]
    assert machine.ask("add-net", "plug", "user,mac=52:54:00:12:34:56") == "net0"
    machine.say("appears /sys/class/net/eth0; ip link set eth0 up && udhcpc -i eth0 -s /tmp/dhcp -q -n 2>/dev/null")
    assert machine.say("cat /sys/class/net/eth0/address") == "52:54:00:12:34:56"
    assert machine.say(f"nc 10.0.2.2 {give} </dev/null | short") == short(peer.file)
    machine.ask("remove-device", "plug", "net0")
    machine.say("vanishes /sys/class/net/eth0")
    check_rest(machine, holds)


def check_switch(machine, nadir):
    """A switch: its port is there, and comes back when the switch does."""
    socket = machine.path("switch")
    with subprocess.Popen([nadir, "switch", "--path", socket]) as switch:
        try:
            while not os.path.exists(socket):
                pass
            assert machine.ask("add-net", "plug", f"switch,path={socket}") == "net0"
            machine.say("appears /sys/class/net/eth0; ip link set eth0 up; until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 0.1; done")
        finally:
            switch.kill()
    machine.say("until [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do sleep 0.1; done")
    with subprocess.Popen([nadir, "switch", "--path", socket]) as switch:
        try:
            machine.say("until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 0.1; done")
        finally:
            switch.kill()
    machine.ask("remove-device", "plug", "net0")


def check_refusals(machine):
    """What cannot be, in a sentence."""
    for option, why in (("path=missing", "No such file"), ("path=raw,bus=sata", "only virtio"), ("nbd=nbd://host", "cannot be given"), ("raw", "KEY=VALUE")):
        assert why in machine.ask("add-disk", "plug", option, status=2), option
    for option, why in (("tap,ifname=missing", "no such interface"), ("switch,path=missing", "no switch is there"), ("cable", "is not one of")):
        assert why in machine.ask("add-net", "plug", option, status=2), option
    assert "no such device" in machine.ask("remove-device", "plug", "disk7", status=1)
    assert "no such device" in machine.ask("remove-device", "plug", "cpu0", status=1)
    assert "opens nothing" in subprocess.run(
        ["curl", "-s", "--unix-socket", machine.path("nadir/plug.sock"), "http://localhost/api/v1/vm.add-disk", "-X", "PUT", "-d", '{"option": "path=raw"}'],
        capture_output=True, text=True, check=True).stdout


def check_rounds(machine, rounds):
    """The same places again and again."""
    holds = machine.rests()
    for i in range(rounds):
        assert machine.ask("add-disk", "plug", "path=raw") == "disk0"
        assert machine.ask("add-net", "plug", "user") == "net0"
        machine.say(f"appears /dev/vda; appears /sys/class/net/eth0; echo {i} >/dev/vda; sync; ip link set eth0 up")
        for device in random.sample(["disk0", "net0"], 2):
            machine.ask("remove-device", "plug", device)
        assert contents(machine.path("raw"), len(str(i))) == str(i).encode()
    check_rest(machine, holds)


def check_reboot(machine):
    """A reboot keeps what is there, and takes what was asked for."""
    machine.ask("add-disk", "plug", "path=raw,serial=kept")
    machine.ask("add-disk", "plug", "path=keep")
    machine.ask("add-net", "plug", "user")
    machine.say("appears /dev/vdb; appears /sys/class/net/eth0")
    machine.say("echo 0 >/sys/bus/pci/slots/5/power; vanishes /dev/vdb")  # unasked
    machine.ask("reset", "plug")
    machine.wait_for("ready: ")
    assert machine.say("cat /sys/block/vda/serial; echo; ls /sys/block /sys/class/net | grep -cE 'vd|eth'") == "kept\n2"
    assert sorted(machine.devices()) == ["disk0", "net0"]
    machine.ask("pause", "plug")
    assert "has not let go" in machine.ask("remove-device", "--timeout", "1", "plug", "disk0", status=1)
    assert machine.devices()["disk0"]["leaving"]
    machine.ask("reset", "plug")
    machine.ask("resume", "plug")
    machine.wait_for("ready: ")
    assert sorted(machine.devices()) == ["net0"]
    machine.say("appears /sys/class/net/eth0; ! [ -e /dev/vda ]")


def take_snapshot(machine, name):
    """Until it is complete."""
    assert machine.ask("snapshot", "plug") == name
    while not os.path.isdir(machine.path(os.path.join("snapshots", name))):
        time.sleep(0.1)


def check_snapshot(args, machine):
    """A machine goes on from a snapshot with what was added, where it was; what left is not there."""
    data = random.randbytes(MIB)
    with open(machine.path("keep"), "wb") as file:
        file.write(data)
        file.truncate(8 * MIB)
    machine.ask("add-disk", "plug", "path=raw,slot=9")
    assert machine.ask("add-disk", "plug", "path=keep,serial=second") == "disk0"
    assert machine.ask("add-disk", "plug", "base=base,overlay=over.qcow2") == "disk1"
    assert machine.ask("add-net", "plug", "user") == "net1"
    machine.say("appears /dev/vdc; appears /sys/class/net/eth1")
    for device in ("disk5", "net0"):
        machine.ask("remove-device", "plug", device)
    before = machine.devices()
    take_snapshot(machine, "1")
    machine.ask("stop", "--force", "plug")
    machine.process.wait(TIME)
    again = Machine(args, [args.nadir, "restore", machine.path("snapshots/1")], machine.work)
    try:
        again.say("true")
        after = again.devices()
        assert sorted(after) == sorted(before) == ["disk0", "disk1", "net1"], (before, after)
        assert "slot=5" in after["disk1"]["option"] and after["net1"]["bdf"] == "0000:00:15.0", after
        disk = again.say("cd /sys/block; echo $(dirname $(grep -l second vd*/serial))")
        assert again.say(f"head -c 1048576 /dev/{disk} | short") == short(data)
        again.say("cd /sys/class/net; ip link set $(ls -d eth*) up && udhcpc -i $(ls -d eth*) -s /tmp/dhcp -q -n 2>/dev/null")
        for device in ("disk0", "disk1", "net1"):
            again.ask("remove-device", "plug", device)
        assert again.ask("add-disk", "plug", "path=raw") == "disk0"
        again.say("until ls /sys/block | grep vd; do sleep 0.1; done")
        assert again.say("errors || true") == ""
        take_snapshot(again, "2")
        again.ask("stop", "--force", "plug")
    finally:
        again.process.kill()
        again.process.wait()


def check(args, machine):
    assert machine.wait_for("ready: ")[1].split()[1] == "24"
    check_disk(machine)
    check_images(machine)
    check_net(machine)
    check_switch(machine, args.nadir)
    check_refusals(machine)
    check_rounds(machine, args.rounds)
    assert machine.say("errors || true") == ""
    check_reboot(machine)
    assert machine.say("errors || true") == ""
    check_snapshot(args, machine)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    args.nadir = os.path.abspath(args.nadir)
    cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
    kernel = glob.glob(os.path.join(cache, args.kernel, "boot", "vmlinuz-*"))[0]
    modules = os.path.join(glob.glob(os.path.join(cache, args.kernel, "lib", "modules", "*"))[0], "kernel")
    with tempfile.TemporaryDirectory() as work:
        initrd = os.path.join(work, "initrd.gz")
        busybox = os.path.join(cache, "busybox-i386" if "686" in args.kernel else "busybox", "bin", "busybox")
        subprocess.run([INITRAMFS, busybox, initrd, os.path.join(HERE, "plug.sh"), *(os.path.join(modules, name + ".ko") for name in MODULES)], check=True)
        machine = Machine(args, [args.nadir, "run", "--kernel", kernel, "--initrd", initrd, "--name", "plug", "--snapshot-dir", "snapshots", "--memory", "256M",
                                 "--append", "console=ttyS0 panic=-1", *args.options], work)
        try:
            check(args, machine)
            assert "bug:" not in machine.seen
        except AssertionError:
            print(machine.seen[-6000:])
            raise
        finally:
            machine.process.kill()
            machine.process.wait()
    print(f"disks, networks, {args.rounds} rounds, two resets and a snapshot")
    return 0


if __name__ == "__main__":
    sys.exit(main())
