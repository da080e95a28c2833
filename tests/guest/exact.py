#!/usr/bin/env python3
"""A restored machine is the machine that was saved, to the last bit: a test guest is stopped by a debugger somewhere and saved; then it, and machines restored from
the snapshot, run the same number of instructions by the step engine, and are saved again. State and memory of all must be the same but for what counts time.

usage: exact.py --nadir NADIR --images DIRECTORY [--instructions N] [NAME...]

NAMEs are of images whose course does not depend on time; without any, some that are known so."""
import argparse
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "boot"))
import snapshot_memory  # pylint: disable=wrong-import-position

IMAGES = ["flags-64", "strings-64", "fpu_xsave-64", "flags-32"]
# What counts the host's time, or is measured in it, by section.
TIME = {"time": {"stopped_now", "stopped_tsc", "stopped_wallclock"}, "clock": {"host_tsc", "wallclock"}, "TSC offset": {""}, "vCPU": {"tsc_offset"}, "RTC": {"base_now"}}
LIMIT = 60


class Debugger:
    """As much of GDB's remote protocol as it takes to run single instructions."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        self.bytes = b""
        end = time.monotonic() + LIMIT
        while self.socket.connect_ex(path):
            if time.monotonic() > end:
                sys.exit("nadir does not listen")
            time.sleep(0.01)

    def send(self, packet):
        self.socket.sendall(b"$%s#%02x" % (packet, sum(packet) & 0xFF))

    def answer(self):
        while True:
            start = self.bytes.find(b"$")
            end = self.bytes.find(b"#", start)
            if start >= 0 and 0 <= end <= len(self.bytes) - 3:
                packet, self.bytes = self.bytes[start + 1:end], self.bytes[end + 3:]
                self.socket.sendall(b"+")
                return packet
            more = self.socket.recv(4096)
            if not more:
                sys.exit("nadir has ended")
            self.bytes += more

    def ask(self, packet):
        self.send(packet)
        return self.answer()

    def step(self, count):
        """Without interrupts and timers."""
        self.ask(b"Qqemu.sstep=7")
        for _ in range(count):
            stopped = self.ask(b"s")
            if stopped[:1] not in b"TS":
                sys.exit(f"a step ended with {stopped}")


class Machine:
    def __init__(self, options, work, name, *command):
        self.options, self.name = options, name
        self.environment = dict(os.environ, XDG_RUNTIME_DIR=work)
        path = os.path.join(work, name + ".gdb")
        self.process = subprocess.Popen([options.nadir, *command, "--name", name, "--engine", "step", "--gdb", f"unix:{path}", "--gdb-wait"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment)
        self.debugger = Debugger(path)

    def save(self, folder, name):
        for _ in range(500):
            done = subprocess.run([self.options.nadir, "snapshot", "--as", name, self.name], env=self.environment, capture_output=True, check=False)
            if b"another snapshot" not in done.stderr:
                break
            time.sleep(0.02)
        if done.returncode:
            sys.exit(done.stderr.decode())
        while not os.path.isdir(os.path.join(folder, name)):
            time.sleep(0.01)

    def end(self):
        self.process.kill()
        self.process.wait()


def fields(data):
    """The fields of a section, name and bytes; those of structs inside are one. Sections without fields are one, too."""
    at, result = 0, []
    while at < len(data):
        length = data[at]
        name = data[at + 1:at + 1 + length]
        if at + 5 + length > len(data) or not name.isascii():
            return [("", data)]
        size = struct.unpack_from("<I", data, at + 1 + length)[0]
        at += 5 + length
        if at + size > len(data):
            return [("", data)]
        result.append((name.decode(), data[at:at + size]))
        at += size
    return result


def sections(folder):
    with open(os.path.join(folder, "state"), "rb") as file:
        data = file.read()[48:]
    at, result = 0, []
    while at < len(data):
        length = data[at]
        name = data[at + 1:at + 1 + length].decode()
        index, size = struct.unpack_from("<HI", data, at + 1 + length)
        at += 7 + length
        result.append((name, index, data[at:at + size]))
        at += size
    return result


def compare(a, b):
    """What differs, in words."""
    wrong = []
    for (name, index, one), (other_name, other_index, other) in zip(sections(a), sections(b)):
        if (name, index) != (other_name, other_index):
            return [f"{name} {index} in place of {other_name} {other_index}"]
        for (field, x), (_, y) in zip(fields(one), fields(other)):
            if x != y and field not in TIME.get(name, ()):
                wrong.append(f"{name} {index}: {field} {x[:32].hex()} {y[:32].hex()}")
    pages = snapshot_memory.differing(snapshot_memory.read(a), snapshot_memory.read(b))
    return wrong + [f"memory at {at:#x}" for at in pages[:10]]


def test(options, image):
    with tempfile.TemporaryDirectory() as work:
        folder = os.path.join(work, "snapshots")
        machine = Machine(options, work, "first", "run", "--memory", "64M", "--kernel", os.path.join(options.images, image + ".img"), "--debug-exit",
                          "--serial", "none", "--debug-console", "none", "--snapshot-dir", folder)
        machine.debugger.step(options.first)
        machine.save(folder, "start")
        machine.debugger.step(options.instructions)
        machine.save(folder, "saved")
        machine.end()
        for name, more in (("a", []), ("b", ["--prefault"])):
            machine = Machine(options, work, name, "restore", os.path.join(folder, "start"), *more)
            machine.debugger.step(options.instructions)
            machine.save(folder, name)
            machine.end()
        wrong = [f"{name}: {what}" for name in "ab" for what in compare(os.path.join(folder, "saved"), os.path.join(folder, name))]
        moved = compare(os.path.join(folder, "start"), os.path.join(folder, "saved"))
    return wrong or ([] if moved else ["nothing happened"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--instructions", type=int, default=3000)
    parser.add_argument("--first", type=int, default=3000, help="instructions before the snapshot")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    failed = 0
    for image in options.names or IMAGES:
        wrong = test(options, image)
        print(f"{'FAIL' if wrong else 'ok  '} {image}", *wrong, sep="\n     " if wrong else "  ", flush=True)
        failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
