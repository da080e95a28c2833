#!/usr/bin/env python3
"""GDB itself debugs test guests in nadir: what it says of them must be right, and they must not notice.

usage: gdb.py --nadir NADIR --images DIRECTORY --engine ENGINE [NAME...]

DIRECTORY is that of the test guests: their ELF files, which have the symbols, and their images. NAMEs choose tests."""
import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

TIMEOUT = 120
OPTIONS = None


class Case(unittest.TestCase):
    """A guest that waits for GDB at a socket in a directory of its own."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="nadir-gdb-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.socket = os.path.join(self.directory, "gdb")
        self.nadir = None

    def elf(self, image):
        return os.path.join(OPTIONS.images, f"guest-{image}")

    def start(self, image, *options, wait=True, arch=""):
        command = [OPTIONS.nadir, "run", "--engine", OPTIONS.engine, "--memory", "64M", "--debug-exit", "--debug-console", "stdio", "--serial", "none",
                   "--gdb", f"unix:{self.socket}{arch}", *options]
        if os.path.exists(os.path.join(OPTIONS.images, image + ".img")):
            image = os.path.join(OPTIONS.images, image + ".img")
        # pylint: disable=consider-using-with
        self.nadir = subprocess.Popen(command + ["--kernel", image] + ["--gdb-wait"] * wait, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE)
        self.addCleanup(self.stop)
        while not self.listens():
            self.assertIsNone(self.nadir.poll(), "nadir ended at once")
            time.sleep(0.01)

    def listens(self):
        """The socket is there some time before it is listened at. proc_net(5), /proc/net/unix: __SO_ACCEPTCON."""
        with open("/proc/net/unix", encoding="ascii", errors="replace") as file:
            return any(line.split()[3] == "00010000" and line.split()[-1] == self.socket for line in file)

    def stop(self):
        if self.nadir.poll() is None:
            self.nadir.kill()
        self.nadir.wait(TIMEOUT)
        self.nadir.stdout.close()
        self.nadir.stderr.close()

    def ends(self, status):
        output, errors = self.nadir.communicate(timeout=TIMEOUT)
        self.assertEqual(self.nadir.returncode, status, (output + errors).decode())
        return (output + errors).decode()

    def command(self, *commands, elf=None):
        line = ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-ex", "set pagination off", "-ex", "set confirm off",
                "-ex", "set width 0"]
        line += [word for c in commands for word in ("-ex", c)]
        return line + ([self.elf(elf)] if elf else [])

    def gdb(self, *commands, elf="debuggee-64"):
        """What GDB says to these commands, the first of which goes to the guest."""
        done = subprocess.run(self.command(f"target remote {self.socket}", *commands, elf=elf), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=TIMEOUT, check=False)
        return done.stdout.decode(errors="replace")

    def says(self, output, *patterns):
        """Each pattern matches, behind the one before."""
        at = 0
        for pattern in patterns:
            found = re.compile(pattern, re.M).search(output, at)
            self.assertTrue(found, f"no '{pattern}' in:\n{output[at:]}\n--- all of it:\n{output}")
            at = found.end()

    def connect(self):
        """A client that speaks for itself."""
        # pylint: disable=consider-using-with
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.settimeout(TIMEOUT)
        connection.connect(self.socket)
        return connection


def packet(text):
    return b"$" + text + b"#%02x" % (sum(text) & 255)


class Debug(Case):
    def test_break(self):
        self.start("debuggee-64")
        said = self.gdb("break bump", "continue", "print/d $rdi", "continue", "print/d $rdi", "x/2i $pc", "print/x *(long *)&counter", "delete", "continue")
        self.says(said, r"Breakpoint 1, .*bump \(", r"\$1 = 1$", r"Breakpoint 1, .*bump \(", r"\$2 = 2$", r"<bump", r"\$3 = 0x1$",
                  r"exited with code 01")
        self.says(self.ends(1), r"0 failed")

    def test_break_32(self):
        self.start("debuggee-32", arch=",arch=i386")
        said = self.gdb("break bump", "continue", "print/d *(long *)($esp + 4)", "finish", "print/d *(long *)&counter", "delete", "continue", elf="debuggee-32")
        self.says(said, r"Breakpoint 1, .*bump \(", r"\$1 = 1$", r"count \(|guest_main \(", r"\$2 = 1$", r"exited with code 01")
        self.ends(1)

    def test_hardware_break(self):
        self.start("debuggee-64")
        said = self.gdb("hbreak add", "continue", "print/d $rdi", "delete", "continue")
        self.says(said, r"Breakpoint 1, .*add \(", r"\$1 = 5050$", r"exited with code 01")
        self.ends(1)

    def test_watch(self):
        self.start("debuggee-64")
        said = self.gdb("watch *(long *)&counter", "continue", "continue", "delete", "awatch *(long *)&total", "continue", "continue", "delete", "continue")
        self.says(said, r"watchpoint 1: ", r"Old value = 0", r"New value = 1", r"Old value = 1", r"New value = 3", r"watchpoint 2: ",
                  r"Value = 0", r"in add", r"Old value = 0", r"New value = 5051", r"exited with code 01")
        self.ends(1)

    def test_read_watch(self):
        self.start("debuggee-64")
        said = self.gdb("rwatch *(long *)&total", "continue", "delete", "continue")
        self.says(said, r"Hardware read watchpoint 1: ", r"Value = 0", r"in add", r"exited with code 01")
        self.ends(1)

    def test_step(self):
        self.start("debuggee-64")
        said = self.gdb("break bump", "continue", "stepi", "info symbol $pc", "finish", "info symbol $pc", "print/d *(long *)&counter", "nexti", "delete",
                        "continue")
        self.says(said, r"Breakpoint 1", r"bump \+ \d+ in", r"count \+ \d+|guest_main \+ \d+", r"\$1 = 1$",
                  r"exited with code 01")
        self.ends(1)

    def test_user_code(self):
        self.start("debuggee-64")
        said = self.gdb("break *user_code", "continue", "print $cs & 3", "print $eflags", "x/1xb user_code", "break user_loop", "continue", "print $rax",
                        "continue", "print $rax", "stepi 3", "print $rax", "delete", "continue")
        self.says(said, r"Breakpoint 1", r"\$1 = 3$", r"\$2 = \[", r"0xb8$", r"Breakpoint 2", r"\$3 = 5$", r"Breakpoint 2", r"\$4 = 7$", r"\$5 = 9$",
                  r"exited with code 01")
        self.ends(1)

    def test_call(self):
        self.start("debuggee-64")
        said = self.gdb("break bump", "continue", "print ((long (*)(long, long)) add)(3, 4)", "set var *(long *)&total = 10",
                        "print ((long (*)(long, long)) add)(3, 4)", "set var *(long *)&total = 0", "delete", "continue")
        self.says(said, r"Breakpoint 1", r"\$1 = 7$", r"\$2 = 17$", r"exited with code 01")
        self.ends(1)

    def test_change(self):
        """A register and memory: the guest's own checks see it."""
        self.start("debuggee-64")
        said = self.gdb("break bump", "continue", "set $rdi = 1000", "print $rdi", "delete", "continue")
        self.says(said, r"\$1 = 1000$", r"exited with code 03")
        self.says(self.ends(3), r"counter == 5050")

    def test_registers(self):
        self.start("debuggee-64")
        said = self.gdb("break bump", "continue", "print $cr0", "print $efer", "print/x $cs", "print $cr3 != 0", "print $gdt_base != 0", "set $xmm3.v2_int64[1] = 77",
                        "print $xmm3.v2_int64[1]", "set $st3 = 1.5", "print $st3", "print/x $mxcsr", "set $cr2 = 0x1234", "print/x $cr2", "print/x $fctrl",
                        "info registers rip", "delete", "continue")
        self.says(said, r"\$1 = \[ PE .*PG \]", r"\$2 = \[.*LME LMA", r"\$3 = 0x18$", r"\$4 = 1$", r"\$5 = 1$", r"\$6 = 77$", r"\$7 = 1.5$", r"\$8 = ",
                  r"\$9 = 0x1234$", r"\$10 = 0x", r"<bump", r"exited with code 01")
        self.ends(1)

    def test_monitor(self):
        self.start("debuggee-64")
        said = self.gdb("monitor help", "monitor info registers", "monitor gva2gpa 0x100000", "monitor xp/2 0x100000", "monitor nonsense",
                        "maintenance packet Qqemu.PhyMemMode:1", "x/1xw 0x100000", "break bump", "continue", "stepi", "monitor info mem", "monitor info lapic",
                        "monitor info msrs", "monitor info cpus", "monitor system_reset", "maintenance flush register-cache", "print/x $cs_base", "monitor quit")
        self.says(said, r"^system_reset", r"^RAX=", r"gpa: 0x100000", r"^0000000000100000: 0x", r"no command 'nonsense'", r'received: "OK"',
                  r"0x100000", r"Breakpoint 1", r"^0000000000000000-[0-9a-f]+ .* urwx", r"in service:", r"EFER", r"\* CPU #0", r"= 0x0$")
        self.ends(0)

    def test_detach(self):
        self.start("debuggee-64")
        self.says(self.gdb("break bump", "continue", "detach"), r"Breakpoint 1", r"detached")
        self.says(self.ends(1), r"0 failed")

    def test_quit_and_return(self):
        """GDB goes without detaching by hand; a machine that runs stops when somebody comes again."""
        self.start("spin-64", "--hang-timeout", "0", wait=False)
        for _ in range(3):
            self.says(self.gdb("print/x $cs", "info threads", elf="spin-64"), r"\$1 = 0x18$", r"CPU#0 \[running\]")
        self.gdb("kill", elf="spin-64")
        self.ends(0)

    def test_triple_fault(self):
        self.start("triple-64")
        said = self.gdb("continue", "print $idt_limit", "x/1i $pc", "continue", elf="triple-64")
        self.says(said, r"received signal SIGSEGV", r"\$1 = 0$", r"ud2", r"exited with code 03")
        self.says(self.ends(3), r"triple fault")

    def test_interrupt(self):
        self.start("spin-64", "--hang-timeout", "0")
        line = self.command(f"target remote {self.socket}", "set debug remote 1", "continue", "set debug remote 0", "print/x $cs", "stepi", "kill", elf="spin-64")
        with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as gdb:
            said = b""
            while b"Sending packet: $vCont;c" not in said:
                piece = gdb.stdout.readline()
                self.assertTrue(piece, said)
                said += piece
            time.sleep(1)
            gdb.send_signal(signal.SIGINT)
            said += gdb.stdout.read()
        self.says(said.decode(), r"received signal SIGINT", r"\$1 = 0x18$")
        self.ends(0)

    def test_real_mode(self):
        """mov ax, 1234h; mov ds, ax; mov [0], al; then debug-exit."""
        path = os.path.join(self.directory, "flat")
        with open(path, "wb") as file:
            file.write(b"\xb8\x34\x12\x8e\xd8\xa2\x00\x00" + b"\xba\xf4\x00\xb0\x00\xee\xf4")
        self.start(path, "--protocol", "flat", arch=",arch=i8086")
        said = self.gdb("x/2i $pc", "break *0x7c0b", "watch *(char *)0x12340", "continue", "continue", "print/x $ds", "print/x $ax",
                        "print/x $ds_base", "delete", "continue", elf=None)
        self.says(said, r"mov +\$0x1234,%ax", r"mov +%ax,%ds", r"watchpoint 2", r"New value = 52", r"Breakpoint 1", r"= 0x1234$", r"= 0x1234$", r"= 0x12340$",
                  r"exited with code 01")
        self.ends(1)


class Several(Case):
    def setUp(self):
        if OPTIONS.engine == "lockstep":
            self.skipTest("the engine runs one CPU")
        super().setUp()

    def test_cpus(self):
        self.start("debuggee-64", "--cpus", "3", "--append", "cpus=3")
        said = self.gdb("break step_of", "continue", "info threads", "stepi", "thread 3", "print/x $cs", "thread 1", "print $cr8", "delete", "continue")
        self.says(said, r"hit Breakpoint 1", r"CPU#0 \[", r"CPU#1 \[", r"CPU#2 \[", r"Switching to thread 3", r"\$1 = 0x18$", r"Switching to thread 1",
                  r"\$2 = 0$", r"exited with code 01")
        self.ends(1)

    def test_every_hit_is_told(self):
        """CPUs meet the same break point at the same time, again and again."""
        self.start("debuggee-64", "--cpus", "3", "--append", "cpus=3")
        said = self.gdb("break step_of", "ignore 1 250", "continue", "info breakpoints", "continue", "info breakpoints", *["continue"] * 50)
        self.says(said, r"already hit 251 times", r"already hit 252 times", r"exited with code 01")
        self.assertEqual(said.count("hit Breakpoint 1"), 50, said)
        self.ends(1)

    def test_one_alone(self):
        """The others stay where they are."""
        self.start("debuggee-64", "--cpus", "2", "--append", "cpus=2")
        said = self.gdb("break step_of", "continue", "delete", "set scheduler-locking on", "thread 2", "print steps_of[1]", "break step_of", "continue",
                        "continue", "continue", "thread 1", "set scheduler-locking off", "delete", "continue", elf="debuggee-64")
        self.says(said, r"hit Breakpoint 1", r"Switching to thread 2", r"Breakpoint 2", r"Switching to thread 1", r"exited with code 01")
        self.ends(1)

    def test_watch_by_another(self):
        self.start("debuggee-64", "--cpus", "2", "--append", "cpus=2")
        said = self.gdb("watch *(long *)((char *)&steps_of + 8)", "continue", "thread", "delete", "continue")
        self.says(said, r"New value = 1", r"Current thread is 2", r"exited with code 01")
        self.ends(1)


class Client(Case):
    """Clients that are not GDB."""

    def read(self, connection, until):
        said = b""
        while until not in said:
            piece = connection.recv(65536)
            self.assertTrue(piece, said)
            said += piece
        return said

    def test_vanishes_while_running(self):
        """Its points go with it, and the machine goes on."""
        self.start("debuggee-64")
        connection = self.connect()
        for text in (b"Z2,7000000,8", b"c"):
            connection.sendall(packet(text))
        self.read(connection, b"$OK#9a")
        connection.close()
        self.says(self.ends(1), r"0 failed")

    def test_vanishes_while_stopped(self):
        """The machine waits for the next one."""
        self.start("debuggee-64")
        connection = self.connect()
        connection.sendall(packet(b"?"))
        self.read(connection, b"$T05")
        connection.close()
        self.says(self.gdb("print/x $cs", "continue"), r"\$1 = ", r"exited with code 01")
        self.ends(1)

    def test_garbage(self):
        self.start("debuggee-64")
        connection = self.connect()
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n$$$###\3\3" + bytes(range(256)) * 300)
        connection.close()
        self.says(self.gdb("continue"), r"exited with code 01")
        self.ends(1)

    def test_does_not_read(self):
        """A client that asks without reading must not keep others, or the end, from coming."""
        self.start("debuggee-64")
        connection = self.connect()
        connection.setblocking(False)
        try:
            while True:
                connection.send(packet(b"g") * 100)
        except BlockingIOError:
            pass
        time.sleep(0.5)
        self.nadir.terminate()
        self.ends(128 + signal.SIGTERM)

    def test_tcp(self):
        self.start("debuggee-64")
        self.stop()
        # pylint: disable=consider-using-with
        command = [OPTIONS.nadir, "run", "--engine", OPTIONS.engine, "--debug-exit", "--serial", "none", "--kernel",
                   os.path.join(OPTIONS.images, "debuggee-64.img"), "--memory", "64M", "--gdb", "tcp:127.0.0.1:0", "--gdb-wait"]
        self.nadir = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        where = re.search(rb"target remote (127\.0\.0\.1:\d+)", self.nadir.stderr.readline())[1].decode()
        self.socket = where
        self.says(self.gdb("break bump", "continue", "delete", "continue"), r"Breakpoint 1", r"exited with code 01")
        self.ends(1)

    def test_bad_addresses(self):
        for where in ("", "unix:", "tcp:", "tcp:127.0.0.1", "tcp:127.0.0.1:x", "1234,arch=arm", "unix:" + "x" * 200, "/tmp/x", "unix:/nonexistent/x"):
            done = subprocess.run([OPTIONS.nadir, "run", "--kernel", "/dev/null", "--gdb", where], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT,
                                  check=False)
            self.assertEqual(done.returncode, 2, where)
            self.assertRegex(done.stderr, rb"\Anadir: --gdb: [^\n]+\n\Z", where)
        done = subprocess.run([OPTIONS.nadir, "run", "--kernel", "/dev/null", "--gdb-wait"], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT,
                              check=False)
        self.assertEqual(done.returncode, 2)


def obstacle():
    """Why the engine cannot run here, or None."""
    report = json.loads(subprocess.run([OPTIONS.nadir, "probe", "--json"], stdout=subprocess.PIPE, timeout=TIMEOUT, check=True).stdout)
    engine = next(e for e in report["engines"] if e["name"] == OPTIONS.engine)
    return None if engine["available"] else engine["why_not"]


def main():
    global OPTIONS
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--engine", required=True)
    parser.add_argument("names", nargs="*")
    OPTIONS = parser.parse_args()
    why = obstacle()
    if why:
        print(f"skipped: the engine {OPTIONS.engine} cannot run here: {why}")
        sys.exit(77)
    unittest.main(argv=[sys.argv[0]] + OPTIONS.names)


if __name__ == "__main__":
    main()
