"""Snapshots: taken by a signal, gone on from, and refused when they are not what they were."""
import os
import shutil
import signal
import struct
import subprocess
import sys
import time

import guests
import run

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "boot"))
import snapshot_memory  # pylint: disable=wrong-import-position


class Snapshots(run.Case):
    def setUp(self):
        super().setUp()
        self.folder = os.path.join(self.directory, "snapshots")

    def path(self, name="1"):
        return os.path.join(self.folder, name)

    def start(self, *more, **options):
        """An echoing guest that has said hello."""
        guest = self.start_guest(guests.echo("hello"), "--snapshot-dir", self.folder, *more, stdin=subprocess.PIPE, **options)
        self.assertEqual(guest.stdout.read(5), b"hello")
        return guest

    def take(self, guest, name="1"):
        guest.send_signal(signal.SIGUSR2)
        end = time.monotonic() + run.TIMEOUT
        while not os.path.isdir(self.path(name)):
            self.assertIsNone(guest.poll())
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def snapshot(self, *more):
        guest = self.start(*more)
        self.take(guest)
        run.end(guest)
        return self.path()

    def restore(self, folder, *more):
        return run.nadir("restore", folder, *more, input=b"again q", stdin=None)

    def test_goes_on(self):
        guest = self.start()
        self.take(guest)
        self.take(guest, "2")
        guest.stdin.write(b"abc")
        guest.stdin.flush()
        self.assertEqual(guest.stdout.read(3), b"abc")  # it goes on, too
        run.end(guest)
        self.assertEqual(sorted(os.listdir(self.folder)), ["1", "2"])
        self.assertEqual(sorted(os.listdir(self.path())), ["memory", "state", "vm.conf"])
        for name in ("1", "2", "1"):
            done = self.restore(self.path(name))
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"again ", b""))

    def test_command(self):
        """By the control socket; the machine goes on from it under its name, when that is free."""
        environment = dict(os.environ, XDG_RUNTIME_DIR=self.directory)
        guest = self.start("--name", "web", env=environment)
        done = run.nadir("snapshot", "web", env=environment)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"1\n", b""))
        while not os.path.isdir(self.path()):
            time.sleep(0.01)
        done = run.nadir("restore", self.path(), env=environment, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 2, done.stderr)  # the name is taken
        guest.stdin.write(b"q")
        guest.stdin.close()
        guest.wait(run.TIMEOUT)
        self.assertEqual(run.nadir("restore", self.path(), env=environment, input=b"again q", stdin=None).stdout, b"again ")
        plain = self.start_guest(guests.echo("hello"), "--name", "plain", env=environment)
        self.assertEqual(plain.stdout.read(5), b"hello")
        done = run.nadir("snapshot", "plain", env=environment)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"--snapshot-dir", done.stderr)
        self.refused("snapshot", words=["name"])

    def test_options(self):
        folder = self.snapshot("--engine", "step")
        for more in ([], ["--engine", "bt"], ["--prefault"], ["--sandbox", "off"], ["--stats"]):
            done = self.restore(folder, *more)
            self.assertEqual((done.returncode, done.stdout), (0, b"again "))
            self.assertEqual("exits" in done.stderr.decode(), "--stats" in more)
        self.refused("restore", folder, "--memory", "8M", words=["4 MiB"])
        self.refused("restore", folder, "--cpus", "2", words=["another machine"])
        self.refused("run", "--kernel", self.file("k", b"x"), "--prefault", words=["nadir restore"])

    def test_without_kernel(self):
        """The kernel is needed for a reboot only."""
        folder = self.snapshot()
        os.unlink(os.path.join(self.directory, "guest"))
        self.assertEqual(self.restore(folder).stdout, b"again ")

    def test_snapshot_of_restored(self):
        """Memory that was not used is in the next snapshot all the same."""
        folder, guest = self.snapshot(), None
        guest = subprocess.Popen([run.NADIR, "restore", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # pylint: disable=consider-using-with
        self.addCleanup(run.end, guest)
        guest.stdin.write(b"x")
        guest.stdin.flush()
        self.assertEqual(guest.stdout.read(1), b"x")
        self.take(guest, "2")
        run.end(guest)
        with open(os.path.join(folder, "memory"), "rb") as first, open(os.path.join(self.path("2"), "memory"), "rb") as second:
            self.assertEqual(first.read()[4096:], second.read()[4096:])
        shutil.rmtree(folder)
        self.assertEqual(self.restore(self.path("2")).stdout, b"again ")

    def test_bad_folder(self):
        self.expect_sentence(self.run_guest(guests.HALT, "--snapshot-dir", "/proc/nothing"), "--snapshot-dir")
        self.refused("restore", "/nonexistent", words=["/nonexistent"])
        self.refused("restore", self.directory, words=["vm.conf"])

    def damage(self, folder, name, change):
        """A copy of the snapshot with one file changed."""
        copy = os.path.join(self.directory, "copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        path = os.path.join(copy, name)
        with open(path, "rb") as file:
            data = bytearray(file.read())
        data = change(data)
        with open(path, "wb") as file:
            file.write(data)
        return copy

    def test_damaged(self):
        folder = self.snapshot()

        def flip(at):
            def change(data):
                data[at] ^= 0x10
                return data
            return change

        def cut(size):
            return lambda data: data[:size]

        newer = lambda data: data[:8] + struct.pack("<I", 99) + data[12:]
        for name in ("state", "memory"):
            self.refused("restore", self.damage(folder, name, newer), words=[name, "newer"])
            self.refused("restore", self.damage(folder, name, flip(0)), words=[name, "not a file of a snapshot"])
            self.refused("restore", self.damage(folder, name, flip(20)), words=[name, "damaged"])
            self.refused("restore", self.damage(folder, name, cut(10)), words=[name, "truncated"])
            self.refused("restore", self.damage(folder, name, cut(-1)), words=[name, "truncated"])
            self.refused("restore", self.damage(folder, name, flip(-1)), words=[name, "damaged"])
            self.refused("restore", self.damage(folder, name, cut(0)), words=[name, "truncated"])
        self.refused("restore", self.damage(folder, "state", flip(2000)), words=["state", "damaged"])
        broken = self.damage(folder, "memory", flip(4096 + 0x7C00))
        self.refused("restore", broken, "--prefault", words=["memory", "damaged"])
        self.expect_sentence(self.restore(broken), "memory", "damaged", status=1)

    def order(self, environment, *words, name="web"):
        """`nadir snapshot`, as soon as the one before is wholly on the disk."""
        end = time.monotonic() + run.TIMEOUT
        done = run.nadir("snapshot", *words, name, env=environment)
        while b"another snapshot" in done.stderr and time.monotonic() < end:
            time.sleep(0.02)
            done = run.nadir("snapshot", *words, name, env=environment)
        return done

    def chain(self, *more):
        """Two snapshots based on a full one, one on the other; the guest has read a letter before each."""
        environment = dict(os.environ, XDG_RUNTIME_DIR=self.directory)
        guest = self.start("--name", "web", *more, env=environment)
        for number in range(1, 4):
            guest.stdin.write(b"x")
            guest.stdin.flush()
            self.assertEqual(guest.stdout.read(1), b"x")
            done = self.order(environment, *(["--incremental"] if number > 1 else []))
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"%d\n" % number, b""))
            while not os.path.isdir(self.path(str(number))):
                time.sleep(0.01)
        return guest, environment

    def test_incremental(self):
        guest, environment = self.chain()
        done = self.order(environment, "--incremental=1", "--as", "b", "--compression", "zstd")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"b\n", b""))
        while not os.path.isdir(self.path("b")):
            time.sleep(0.01)
        for wrong, word in (("--incremental=7", b"that name"), ("--as=../x", b"name of a snapshot")):
            done = self.order(environment, wrong)
            self.assertEqual((done.returncode, done.stdout), (1, b""))
            self.assertIn(word, done.stderr)
        shutil.move(self.path("2"), self.path("away"))
        done = self.order(environment, "--incremental=2")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"based on", done.stderr)
        shutil.move(self.path("away"), self.path("2"))
        run.end(guest)
        self.assertEqual(sorted(os.listdir(self.path("2"))), ["base", "memory", "state", "vm.conf"])
        self.assertLess(os.stat(os.path.join(self.path("3"), "memory")).st_size, 1 << 18)
        for name in ("1", "2", "3", "b"):
            for more in ([], ["--prefault"]):
                done = self.restore(self.path(name), *more)
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"again ", b""))
        for words in (["--compression", "lzma"], ["--incremental"], ["--as"], ["a", "b"], ["--full", "a"]):
            self.refused("snapshot", *words, words=["snapshot"])
        self.refused("run", "--kernel", self.file("k", b"x"), "--snapshot-compression", "lzma", words=["zstd"])

    def test_incremental_of_restored(self):
        """What was never read from the base is not read for the next snapshot either."""
        run.end(self.chain("--snapshot-compression", "zstd")[0])
        environment = dict(os.environ, XDG_RUNTIME_DIR=self.directory)
        guest = subprocess.Popen([run.NADIR, "restore", self.path("3")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)  # pylint: disable=consider-using-with
        self.addCleanup(run.end, guest)
        guest.stdin.write(b"x")
        guest.stdin.flush()
        self.assertEqual(guest.stdout.read(1), b"x")
        done = self.order(environment, "--incremental=3", "--as", "4")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"4\n", b""))
        while not os.path.isdir(self.path("4")):
            time.sleep(0.01)
        with open(os.path.join(self.path("4"), "base"), encoding="ascii") as file:
            self.assertEqual(file.read(), "../3\n")
        run.end(guest)
        self.assertEqual(self.restore(self.path("4")).stdout, b"again ")
        moved = os.path.join(self.directory, "moved")
        shutil.move(self.folder, moved)  # all together
        self.assertEqual(self.restore(os.path.join(moved, "4"), "--snapshot-dir", self.folder).stdout, b"again ")

    def test_log(self):
        """With each engine, the log has the pages that a guest writes, and no others."""
        environment = dict(os.environ, XDG_RUNTIME_DIR=self.directory)
        for engine in ("step", "bt", "lockstep", "kvm"):
            self.folder = os.path.join(self.directory, engine)
            guest = self.start_guest(guests.scribble(), "--snapshot-dir", self.folder, "--name", engine, "--engine", engine, env=environment)
            greeting = guest.stdout.read(5)
            if engine == "kvm" and not greeting and guest.wait(run.TIMEOUT) == 2:
                continue  # this host's KVM cannot be used
            self.assertEqual(greeting, b"hello")
            for words in (["--as", "full"], ["--as", "log", "--incremental"]):
                time.sleep(0.3)
                done = self.order(environment, *words, name=engine)
                self.assertEqual((done.returncode, done.stderr), (0, b""))
            self.assertEqual(run.nadir("pause", engine, env=environment).returncode, 0)
            for words in (["--as", "last", "--incremental=full"], ["--as", "whole"]):
                self.assertEqual(self.order(environment, *words, name=engine).returncode, 0)
            while not os.path.isdir(self.path("whole")):
                time.sleep(0.01)
            run.end(guest)
            statistics = {}
            before, last = snapshot_memory.read(self.path("full")), snapshot_memory.read(self.path("last"), statistics)
            self.assertEqual(snapshot_memory.differing(last, snapshot_memory.read(self.path("whole"))), [])
            self.assertEqual(snapshot_memory.differing(before, last), list(range(0x10000, 0x80000, 0x2000)), engine)
            self.assertEqual(statistics["stored"], 0x70000 // 0x2000, engine)

    def test_bad_base(self):
        run.end(self.chain()[0])
        folder = self.path("3")

        def change(name, file, at):
            path = os.path.join(self.path(name), file)
            with open(path, "r+b") as f:
                f.seek(at)
                byte = f.read(1)[0]
                f.seek(at)
                f.write(bytes([byte ^ 1]))

        def swap(a, b):
            for source, target in ((a, "t"), (b, a), ("t", b)):
                shutil.move(self.path(source), self.path(target))

        self.assertEqual(self.restore(folder).stdout, b"again ")
        swap("1", "2")
        self.refused("restore", folder, words=["its base", "not the snapshot"])
        swap("1", "2")
        shutil.move(self.path("1"), self.path("away"))
        self.refused("restore", folder, words=["its base", "3/../2/../1", "No such file"])
        os.mkdir(self.path("1"))
        self.refused("restore", folder, words=["its base", "memory", "No such file"])
        os.rmdir(self.path("1"))
        shutil.move(self.path("away"), self.path("1"))
        for name, file, at in (("1", "memory", 20), ("2", "memory", 20), ("2", "memory", 60), ("2", "memory", 4096 + 100)):
            change(name, file, at)
            self.refused("restore", folder, "--prefault", words=["memory", "damaged"])
            change(name, file, at)
        with open(os.path.join(self.path("2"), "base"), "w", encoding="ascii") as file:
            file.write("../2\n")
        self.refused("restore", folder, words=["its base"])
        os.unlink(os.path.join(self.path("2"), "base"))
        self.refused("restore", folder, words=["its base", "base: No such file"])

    def test_mixed_up(self):
        guest = self.start()
        self.take(guest)
        self.take(guest, "2")
        run.end(guest)
        shutil.copy(os.path.join(self.path("2"), "memory"), os.path.join(self.path(), "memory"))
        self.refused("restore", self.path(), words=["another snapshot"])
