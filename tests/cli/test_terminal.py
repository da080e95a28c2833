"""On a terminal: raw mode, Ctrl-a, and the terminal as it was whatever happens."""
import os
import pty
import select
import signal
import subprocess
import termios
import time

import guests
import run

CTRL_A = b"\x01"


class Terminal(run.Case):
    def setUp(self):
        super().setUp()
        self.master, self.slave = pty.openpty()
        self.addCleanup(os.close, self.master)
        self.addCleanup(os.close, self.slave)
        self.before = termios.tcgetattr(self.slave)
        self.screen = b""

    def start(self, guest, *more):
        process = self.start_guest(guest, *more, stdin=self.slave, stdout=self.slave, stderr=self.slave)
        return process

    def wait_for(self, text):
        """Read the screen until it shows `text`."""
        end = time.monotonic() + run.TIMEOUT
        while text not in self.screen and time.monotonic() < end:
            if select.select([self.master], [], [], 0.1)[0]:
                self.screen += os.read(self.master, 65536)
        self.assertIn(text, self.screen)

    def press(self, keys):
        os.write(self.master, keys)

    def expect_end(self, process, status):
        end = time.monotonic() + run.TIMEOUT
        while process.poll() is None and time.monotonic() < end:
            if select.select([self.master], [], [], 0.05)[0]:
                self.screen += os.read(self.master, 65536)
        while select.select([self.master], [], [], 0)[0]:
            self.screen += os.read(self.master, 65536)
        self.assertEqual(process.returncode, status, self.screen)
        self.assertEqual(termios.tcgetattr(self.slave), self.before)

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def test_quit(self):
        process = self.start(guests.echo("ready"))
        self.wait_for(b"ready")
        self.assertTrue(self.is_raw())
        self.press(CTRL_A + b"x")
        self.expect_end(process, 0)

    def test_quit_while_it_spins(self):
        process = self.start(guests.say("ready") + guests.DEAF_SPIN)
        self.wait_for(b"ready")
        self.press(CTRL_A + b"x")
        self.expect_end(process, 0)

    def test_keys(self):
        process = self.start(guests.echo("ready"))
        self.wait_for(b"ready")
        self.press(b"\x03\x1a\x04" + CTRL_A + CTRL_A + CTRL_A + b"a" + CTRL_A + b"?" + CTRL_A + b"zfin")
        self.wait_for(b"fin")
        self.assertIn(b"\x03\x1a\x04\x01\x01", self.screen)
        self.assertNotIn(b"zfin", self.screen)
        self.assertIn(b"Ctrl-a x  end the virtual machine\r\n", self.screen)
        self.press(b"q")
        self.expect_end(process, 0)

    def test_statistics(self):
        process = self.start(guests.echo("ready"))
        self.wait_for(b"ready")
        self.press(CTRL_A + b"s")
        self.wait_for(b"port I/O")
        self.wait_for(b"halted")
        self.press(b"q")
        self.expect_end(process, 0)
        self.assertEqual(self.screen.count(b"\n"), self.screen.count(b"\r\n"))

    def test_poweroff(self):
        self.expect_end(self.start(guests.say("bye") + guests.POWER_OFF), 0)
        self.assertEqual(self.screen, b"bye")

    def test_crash(self):
        process = self.start(guests.TRIPLE_FAULT)
        self.expect_end(process, 3)
        self.assertIn(b"triple fault", self.screen)
        self.assertEqual(self.screen.count(b"\n"), self.screen.count(b"\r\n"))

    def test_signals(self):
        for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGQUIT, 131),
                               (signal.SIGABRT, -6), (signal.SIGSEGV, -11), (signal.SIGBUS, -7), (signal.SIGILL, -4)):
            with self.subTest(signal=number):
                self.screen = b""
                process = self.start(guests.echo("ready"))
                self.wait_for(b"ready")
                self.assertTrue(self.is_raw())
                process.send_signal(number)
                self.expect_end(process, status)

    def test_refused(self):
        """Nothing is done to the terminal before it is known that the machine can start."""
        self.expect_end(self.start(b"x" * (1 << 20)), 2)

    def test_no_input(self):
        """Without the serial port on the terminal, the keyboard stays the shell's."""
        process = self.start(guests.say("x") + guests.HALT, "--serial", "none", "--debug-console", "stdio")
        time.sleep(0.5)
        self.assertFalse(self.is_raw())
        process.terminate()
        self.expect_end(process, 143)

    def test_terminal_gone(self):
        """The terminal is closed under a running machine."""
        master, slave = pty.openpty()
        process = self.start_guest(guests.echo("ready"), stdin=slave, stdout=slave, stderr=subprocess.DEVNULL,
                                   start_new_session=True)
        os.close(slave)
        while not select.select([master], [], [], 1)[0]:
            self.assertIsNone(process.poll())
        os.close(master)
        time.sleep(0.3)
        process.terminate()
        self.assertEqual(process.wait(run.TIMEOUT), 143)
