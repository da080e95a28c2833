"""How a machine ends, what it says, and its standard files."""
import json
import os
import re
import signal
import subprocess
import time

import guests
import run


class Ends(run.Case):
    def test_power_off(self):
        done = self.run_guest(guests.say("bye") + guests.POWER_OFF)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"bye", b""))

    def test_debug_exit(self):
        for value in (0, 1, 2, 0x7F, 0x80, 0xFF):
            done = self.run_guest(guests.debug_exit(value) + guests.HALT, "--debug-exit")
            self.assertEqual(done.returncode, (value << 1 | 1) & 0xFF)

    def test_perf_map(self):
        """Lines as perf reads them, of code in memory that perf takes names for: of no file but /dev/zero."""
        guest = self.start_guest(guests.say("a") + guests.HALT, "--perf-map", "--engine", "bt")
        self.assertEqual(guest.stdout.read(1), b"a")
        with open(f"/proc/{guest.pid}/maps", encoding="utf-8") as file:
            mappings = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) r-xs .* /dev/zero \(deleted\)$", file.read(), re.M)
        guest.terminate()
        guest.communicate()
        path = f"/tmp/perf-{guest.pid}.map"
        with open(path, encoding="ascii") as file:
            lines = file.readlines()
        os.unlink(path)
        self.assertTrue(lines)
        for line in lines:
            self.assertRegex(line, r"^[0-9a-f]+ [0-9a-f]+ guest_[0-9a-f]+\n$")
            self.assertTrue(any(int(start, 16) <= int(line.split()[0], 16) < int(end, 16) for start, end in mappings))

    def test_no_debug_exit(self):
        done = self.run_guest(guests.debug_exit(3) + guests.POWER_OFF)
        self.assertEqual(done.returncode, 0)

    def test_no_reboot(self):
        done = self.run_guest(guests.say("a") + guests.RESET, "--no-reboot")
        self.assertEqual((done.returncode, done.stdout), (0, b"a"))

    def test_reboot(self):
        process = self.start_guest(guests.say("a") + guests.RESET)
        self.assertEqual(process.stdout.read(20), b"a" * 20)
        process.terminate()
        self.assertEqual(process.wait(run.TIMEOUT), 128 + signal.SIGTERM)

    def expect_crash(self, done, reason):
        text = done.stderr.decode()
        self.assertEqual(done.returncode, 3, text)
        self.assertIn("the guest crashed: " + reason, text)
        self.assertRegex(text, r"RIP=[0-9a-f]{16} RFLAGS=")
        self.assertRegex(text, r"CS +[0-9a-f]{4} base=")
        self.assertRegex(text, r"code at RIP: [0-9a-f]{2}")
        for line in text.splitlines():
            self.assertTrue(line.startswith("nadir: "), line)

    def test_triple_fault(self):
        done = self.run_guest(guests.say("last words") + guests.TRIPLE_FAULT)
        self.assertEqual(done.stdout, b"last words")
        self.expect_crash(done, "triple fault")

    def test_words_before_report(self):
        done = self.run_guest(guests.say("last words") + guests.TRIPLE_FAULT, stderr=subprocess.STDOUT)
        self.assertTrue(done.stdout.startswith(b"last wordsnadir: the guest crashed"), done.stdout)

    def test_spin(self):
        self.expect_crash(self.run_guest(guests.DEAF_SPIN, "--hang-timeout", "1"), "it spins with interrupts disabled")

    def test_deaf_halt(self):
        self.expect_crash(self.run_guest(guests.DEAF_HALT, "--hang-timeout", "1"), "it halted with interrupts disabled")

    def test_every_cpu_deaf(self):
        self.expect_crash(self.run_guest(guests.DEAF_SPIN, "--hang-timeout", "1", "--cpus", "4"), "it spins")

    def test_waiting_is_no_hang(self):
        """A guest that waits for input with interrupts disabled does something that nadir sees."""
        process = self.start_guest(guests.echo("ready"), "--hang-timeout", "1", stdin=subprocess.PIPE)
        self.assertEqual(process.stdout.read(5), b"ready")
        time.sleep(3)
        output, _ = process.communicate(b"abq", run.TIMEOUT)
        self.assertEqual((process.returncode, output), (0, b"ab"))

    def test_crash_reset(self):
        process = self.start_guest(guests.say("a") + guests.TRIPLE_FAULT, "--on-crash", "reset")
        self.assertEqual(process.stdout.read(3), b"aaa")
        process.terminate()
        _, text = process.communicate(timeout=run.TIMEOUT)
        self.assertEqual(process.returncode, 128 + signal.SIGTERM)
        self.assertIn(b"triple fault", text)

    def test_crash_debug(self):
        process = self.start_guest(guests.say("a") + guests.TRIPLE_FAULT, "--on-crash", "debug", "--hang-timeout", "1")
        self.assertIn(b"triple fault", process.stderr.readline())
        time.sleep(3)
        self.assertIsNone(process.poll())
        self.assertLess(cpu_seconds(process.pid), 1)
        process.terminate()
        self.assertEqual(process.wait(run.TIMEOUT), 128 + signal.SIGTERM)

    def test_halted_costs_nothing(self):
        for guest in (guests.HALT, guests.DEAF_HALT):
            process = self.start_guest(guests.say("a") + guest, "--hang-timeout", "0")
            self.assertEqual(process.stdout.read(1), b"a")
            before = cpu_seconds(process.pid)
            time.sleep(1)
            self.assertLess(cpu_seconds(process.pid) - before, 0.1)

    def test_signals(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            for guest in (guests.DEAF_SPIN, guests.HALT):
                process = self.start_guest(guests.say("a") + guest, "--hang-timeout", "0")
                self.assertEqual(process.stdout.read(1), b"a")
                process.send_signal(number)
                self.assertEqual(process.wait(run.TIMEOUT), 128 + number)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Description(run.Case):
    """nadir run FILE."""

    def write(self, text):
        guest = self.file("guest", guests.say("bye") + guests.POWER_OFF)
        return self.file("vm.conf", f"kernel = {guest}\nprotocol = flat\n{text}".encode())

    def test_run(self):
        done = run.nadir("run", self.write("memory = 4M # enough\nno-reboot\n"))
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"bye", b""))

    def test_option_wins(self):
        done = run.nadir("run", "--serial", "none", self.write("memory = 4M\nserial = stdio\n"))
        self.assertEqual((done.returncode, done.stdout), (0, b""))

    def test_wrong(self):
        self.refused("run", self.write("memory = lots\n"), words=["vm.conf:3: memory: 'lots' is not a size"])
        self.refused("run", self.write("colour = red\n"), words=["vm.conf:3: there is no key 'colour'"])


class StandardFiles(run.Case):
    def shell(self, redirection, guest, *more):
        """Run the guest with redirections in the shell's notation."""
        return subprocess.run(["sh", "-c", f'exec "$0" "$@" {redirection}', run.NADIR, *self.options(guest, *more)],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=run.TIMEOUT, check=False)

    def test_closed(self):
        """The first files that nadir opens must not become its standard files."""
        guest = guests.say("x") + guests.POWER_OFF
        log = os.path.join(self.directory, "log")
        for redirection in ("<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"):
            with self.subTest(redirection=redirection):
                done = self.shell(redirection, guest, "--log-file", log)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(done.stdout, b"" if ">&-" in redirection.split() else b"x")
                with open(log, "rb") as f:
                    self.assertEqual(f.read(), b"")

    def test_full_device(self):
        done = self.shell(">/dev/full", guests.flood(20000))
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stderr, rb"\Anadir: warning: --serial: No space left on device[^\n]*\n\Z")

    def test_reader_gone(self):
        process = self.start_guest(guests.flood(60000))
        process.stdout.read(1)
        process.stdout.close()
        self.assertEqual(process.wait(run.TIMEOUT), 0)
        self.assertEqual(process.stderr.read(), b"")

    def test_reader_stuck(self):
        """Nobody reads the pipe, and the user wants the end."""
        process = self.start_guest(b"\xba\xf8\x03\xb0\x78\xee\xeb\xfd")  # mov dx, THR; mov al, 'x'; l: out dx, al; jmp l
        time.sleep(1)
        self.assertIsNone(process.poll())
        process.terminate()
        self.assertEqual(process.wait(run.TIMEOUT), 128 + signal.SIGTERM)

    def test_slow_reader_loses_nothing(self):
        process = self.start_guest(guests.flood(65535) + guests.HALT, stdout=subprocess.PIPE)
        reader = subprocess.run(["sh", "-c", "sleep 1; wc -c"], stdin=process.stdout, capture_output=True, timeout=run.TIMEOUT,
                                check=True)
        self.assertEqual(int(reader.stdout), 65535)

    def test_input(self):
        """More input than any buffer holds arrives whole, while the guest reads a byte at a time."""
        text = bytes(b"abcdefghijklmnop"[i % 16] for i in range(30000))
        process = self.start_guest(guests.echo(""), stdin=subprocess.PIPE)
        output, _ = process.communicate(text + b"q", run.TIMEOUT)
        self.assertEqual(process.returncode, 0)
        self.assertEqual(output, text)

    def test_input_is_not_commands(self):
        """Ctrl-a means something on a terminal only."""
        process = self.start_guest(guests.echo(""), stdin=subprocess.PIPE)
        output, _ = process.communicate(b"\x01xq", run.TIMEOUT)
        self.assertEqual((process.returncode, output), (0, b"\x01x"))

    def test_input_ends(self):
        """The end of the input is not the end of the guest, and costs nothing."""
        process = self.start_guest(guests.say("a") + guests.HALT)
        self.assertEqual(process.stdout.read(1), b"a")
        time.sleep(0.5)
        self.assertIsNone(process.poll())

    def test_odd_input(self):
        for path in ("/dev/zero", "/", "/dev/full", run.NADIR):
            done = self.shell(f"<{path}", guests.say("x") + guests.POWER_OFF)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"x", b""), path)

    def test_files(self):
        serial, debug = (os.path.join(self.directory, n) for n in ("serial", "debug"))
        done = self.run_guest(guests.say("one") + guests.out8(0xE9, ord("2")) + guests.POWER_OFF,
                              "--serial", "file:" + serial, "--debug-console", "file:" + debug)
        self.assertEqual((done.returncode, done.stdout), (0, b""))
        for path, text in ((serial, b"one"), (debug, b"2")):
            with open(path, "rb") as f:
                self.assertEqual(f.read(), text)

    def test_no_serial(self):
        done = self.run_guest(guests.say("one") + guests.out8(0xE9, ord("2")) + guests.POWER_OFF, "--serial", "none",
                              "--debug-console", "stdio")
        self.assertEqual((done.returncode, done.stdout), (0, b"2"))


class Diagnostics(run.Case):
    GUEST = guests.out8(0x80, 0x12) + guests.POWER_OFF

    def test_trace(self):
        done = self.run_guest(self.GUEST, "--trace", "io")
        self.assertRegex(done.stderr.decode(), r"nadir: debug: 7c05: port 0080 <- 12\n")

    def test_trace_translated(self):
        done = self.run_guest(self.GUEST, "--engine", "bt", "--trace", "in_asm,out_asm,exec")
        text = done.stderr.decode()
        self.assertRegex(text, r"debug: 7c00: translated, .* 16 bits")
        self.assertRegex(text, r"debug: +0{12}7c05: ee +out %al, %dx\n")
        self.assertRegex(text, r"debug: ; 0{12}7c03: b012 +mov \$0x12, %al\n.*: b012 +mov \$0x12, %al\n")
        self.assertRegex(text, r"debug: 7c00: block, CS 0 CPL 0 RSP 7c00\n")

    def test_trace_events(self):
        done = self.run_guest(b"\xcd\x03" + self.GUEST, "--engine", "bt", "--trace", "int")
        self.assertRegex(done.stderr.decode(), r"nadir: debug: 7c00: INT 03 at CPL 0\n")

    def test_log_file(self):
        path = os.path.join(self.directory, "log")
        done = self.run_guest(self.GUEST, "--trace", "io,exits", "--log-file", path)
        self.assertEqual(done.stderr, b"")
        with open(path, encoding="ascii") as f:
            self.assertIn("port 0080", f.read())

    def test_stats(self):
        done = self.run_guest(self.GUEST, "--stats")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stderr.decode(), re.compile(r"^port I/O +2 ", re.M))
        self.assertRegex(done.stderr.decode(), re.compile(r"^0000000000007c05  port I/O +80 +1 ", re.M))

    def test_stats_json(self):
        done = self.run_guest(self.GUEST, "--json")
        stats = json.loads(done.stderr)
        self.assertEqual(stats["exits"]["port I/O"]["count"], 2)
        self.assertIn({"rip": "0x7c05", "reason": "port I/O", "detail": 0x80, "count": 1},
                      [{k: v for k, v in site.items() if k != "nanoseconds"} for site in stats["sites"]])

    def test_exits_of_every_cpu(self):
        done = self.run_guest(guests.POWER_OFF, "--cpus", "8", "--stats", "--json")
        self.assertEqual(json.loads(done.stderr)["exits"]["port I/O"]["count"], 1)
