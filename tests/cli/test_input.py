"""Bad input: one sentence, status 2."""
import os
import subprocess

import guests
import run


class Commands(run.Case):
    def test_no_command(self):
        done = run.nadir()
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"usage: nadir run", done.stderr)

    def test_unknown_command(self):
        for word in ("start", "--bogus", "-x", "", "RUN"):
            with self.subTest(word=word):
                self.refused(word, words=["there is no command", word])

    def test_probe_arguments(self):
        self.refused("probe", "--bogus", words=["--json"])
        self.refused("probe", "--json", "x", words=["--json"])
        self.refused("techniques", "--bogus", words=["--json"])

    def test_no_guest(self):
        self.refused("run", words=["--kernel"])


class Options(run.Case):
    # The option parser has a unit test of its own; these are what later stages refuse.
    BAD = [
        (["--bogus"], "--bogus"),
        (["--memory", "lots"], "--memory"),
        (["--memory", "1M"], "--memory"),
        (["--memory", "99999T"], "--memory"),
        (["--cpus", "0"], "--cpus"),
        (["--cpus", "1000"], "--cpus"),
        (["--pin", "0-"], "--pin"),
        (["--pin", "1-0"], "--pin"),
        (["--pin", "0,,1"], "--pin"),
        (["--pin", "1023"], "--pin"),
        (["--weight", "0"], "--weight"),
        (["--weight", "10001"], "--weight"),
        (["--cpu", "bogus"], "bogus"),
        (["--cpu", ""], "CPU model"),
        (["--cpu", "host,+bogus"], "bogus"),
        (["--cpu", "host,avx"], "avx"),
        (["--cpu", "host,"], "CPU"),
        (["--engine", "warp"], "--engine"),
        (["--direct", "sometimes"], "--direct"),
        (["--engine", "lockstep", "--cpus", "2"], "--cpus"),
        (["--protocol", "carrier-pigeon"], "--protocol"),
        (["--serial", "bogus"], "--serial"),
        (["--serial", "file:"], "--serial"),
        (["--serial", "file:/nonexistent/x"], "/nonexistent/x"),
        (["--debug-console", "bogus"], "--debug-console"),
        (["--log-file", "/nonexistent/x"], "--log-file"),
        (["--log-level", "loud"], "--log-level"),
        (["--on-crash", "cry"], "--on-crash"),
        (["--hang-timeout", "never"], "--hang-timeout"),
        (["--trace", "bogus"], "--trace"),
        (["--trace", "io,,msr"], "--trace"),
        (["--trace", "exec,in_asm", "--engine", "step"], "--trace"),
        (["--sandbox", "maybe"], "--sandbox"),
        (["--console", "bogus"], "--console"),
        (["--vga", "monochrome"], "--vga"),
        (["--net", "user,tftp=/nonexistent"], "/nonexistent"),
        (["--net", "user,tftp=/dev/null"], "tftp"),
        (["--net", "user,bootfile=" + 200 * "x"], "127"),
        (["--vnc", "bogus"], "--vnc"),
        (["--vnc", ":1000"], "--vnc"),
        (["--vnc", ":1x"], "--vnc"),
        (["--vnc", "0.0.0.0:5901"], "password"),
        (["--vnc", "127.0.0.1:0"], "--vnc"),
        (["--vnc", "127.0.0.2:5901"], "password"),
        (["--vnc", "127.1:5901"], "--vnc"),
        (["--vnc", ":99,password-file=/nonexistent"], "/nonexistent"),
        (["--vnc", ":99,password-file=/dev/null"], "password"),
        (["--vnc", ":99,password-file=/proc/version"], "8 characters"),
        (["--vnc", ":99,password=secret"], "--vnc"),
        (["--vnc", "unix:/nonexistent/x"], "--vnc"),
        (["--console", "stdio"], "--serial none"),
        (["--port", "bogus"], "name=NAME"),
        (["--port", "name=,to=none"], "name=NAME"),
        (["--port", "name=" + "x" * 33 + ",to=none"], "name=NAME"),
        (["--port", "name=a,to=bogus"], "--port"),
        (["--balloon", "bogus"], "--balloon"),
        (["--balloon", "size="], "--balloon"),
        (["--balloon", "size=1M,"], "--balloon"),
        (["--disk", "bogus"], "--disk"),
        (["--disk", "readonly=on"], "path=FILE"),
        (["--disk", "path=/nonexistent/x"], "/nonexistent/x"),
        (["--disk", "path=/tmp"], "directory"),
        (["--disk", "path=/dev/null"], "/dev/null"),
        (["--disk", "path=/dev/null,colour=red"], "colour"),
        (["--disk", "path=/dev/null,format=vmdk"], "vmdk"),
        (["--disk", "path=/bin/sh,readonly=on,format=qcow2"], "not a qcow2 image"),
        (["--disk", "base=/bin/sh"], "overlay"),
        (["--disk", "base=/bin/sh,overlay=/nonexistent/x"], "/nonexistent/x"),
        (["--disk", "base=/bin/sh,overlay=/tmp/x,snapshot=on"], "snapshot"),
        (["--share", "bogus"], "path=FOLDER"),
        (["--share", "tag=x"], "path=FOLDER"),
        (["--share", "path=/nonexistent/x"], "/nonexistent/x"),
        (["--share", "path=/bin/sh"], "not a folder"),
        (["--share", "path=/tmp,colour=red"], "colour"),
        (["--share", "path=/tmp,readonly=maybe"], "on or off"),
        (["--share", "path=/tmp,cache=some"], "auto, none or always"),
        (["--share", "path=/tmp,tag=" + 37 * "x"], "36 characters"),
        (["--share", "path=/tmp", "--share", "path=/tmp"], "tag=NAME"),
        (["--vsock", "bogus"], "cid=N,path=SOCKET"),
        (["--vsock", "cid=3"], "cid=N,path=SOCKET"),
        (["--vsock", "cid=2,path=/tmp/x"], "4294967294"),
        (["--vsock", "cid=4294967295,path=/tmp/x"], "4294967294"),
        (["--vsock", "cid=3,path=/nonexistent/x"], "/nonexistent/x"),
        (["--net", "bogus"], "user, tap and switch"),
        (["--net", "user,colour=red"], "hostfwd"),
        (["--net", "user,path=/x"], "hostfwd"),
        (["--net", "user,hostfwd"], "KEY=VALUE"),
        (["--net", "user,hostfwd=tcp:80"], "tcp:127.0.0.1:2222-:22"),
        (["--net", "user,hostfwd=tcp:192.0.2.1:80-:80"], "tcp:192.0.2.1:80-:80"),
        (["--net", "user,net=10.0.2.0/30"], "10.0.2.0/24"),
        (["--net", "user,ipv6=maybe"], "maybe"),
        (["--net", "user,mac=01:00:00:00:00:00"], "station"),
        (["--net", "user,queues=4"], "pairs"),
        (["--net", "tap,ifname=x,queues=0"], "pairs"),
        (["--net", "tap"], "ifname"),
        (["--net", "tap,ifname=nadir-none"], "nadir-none"),
        (["--net", "switch"], "path"),
        (["--net", "switch,path=/nonexistent/x"], "/nonexistent/x"),
        (["--net", "switch,path=/" + 200 * "x"], "107"),
        ([word for _ in range(9) for word in ("--net", "user")], "8 times"),
        (["--kernel"], "--kernel"),
        (["stray"], "'stray' cannot be read as the description"),
        (["stray", "astray"], "astray"),
    ]

    def test_bad(self):
        for arguments, word in self.BAD:
            with self.subTest(arguments=arguments):
                self.expect_sentence(self.run_guest(guests.POWER_OFF, *arguments), word)


class Files(run.Case):
    def test_missing(self):
        guest = self.file("guest", guests.POWER_OFF)
        self.refused("run", "--kernel", "/nonexistent", words=["--kernel", "/nonexistent", "No such file"])
        self.refused("run", "--kernel", "", words=["--kernel"])
        self.refused(*run.guest_options(guest, "--initrd", "/nonexistent"), words=["--initrd", "/nonexistent"])

    def test_not_a_file(self):
        pipe = os.path.join(self.directory, "pipe")
        os.mkfifo(pipe)
        for path in (self.directory, pipe, "/dev/null", "/dev/zero"):
            with self.subTest(path=path):
                self.refused("run", "--kernel", path, words=["--kernel", path])
                self.refused(*self.options(guests.POWER_OFF, "--initrd", path), words=["--initrd", path])

    def test_unreadable(self):
        path = self.file("secret", b"x")
        os.chmod(path, 0)
        os.chmod(self.directory, 0o755)
        options = {"user": 65534} if os.geteuid() == 0 else {}
        try:
            if run.nadir("--version", **options).returncode:
                self.skipTest("others cannot run nadir here")
        except PermissionError:
            self.skipTest("others cannot run nadir here")
        self.refused("run", "--kernel", path, words=["--kernel", "Permission denied"], **options)

    def test_empty(self):
        empty = self.file("empty", b"")
        self.refused("run", "--kernel", empty, words=["--kernel", "empty"])
        self.refused(*self.options(guests.POWER_OFF, "--initrd", empty), words=["--initrd", "empty"])

    def test_foreign(self):
        for name, content in (("text", b"hello\n" * 1000), ("byte", b"\0"), ("zeros", bytes(1 << 20)),
                              ("gzip", b"\x1f\x8b\x08" + bytes(5000)), ("elf", b"\x7fELF" + b"\x02" * 100)):
            with self.subTest(name=name):
                self.refused("run", "--kernel", self.file(name, content), words=["not a bootable image"])
        self.refused("run", "--kernel", run.NADIR, words=["not a bootable image"])

    def test_forced_protocol(self):
        """An image that is not what the user says it is."""
        text = self.file("text", b"hello\n" * 1000)
        for protocol in ("linux64", "linux32", "pvh", "multiboot1", "multiboot2", "firmware"):
            with self.subTest(protocol=protocol):
                self.refused("run", "--kernel", text, "--protocol", protocol, words=["firmware" if protocol == "firmware" else "kernel"])

    def test_firmware(self):
        rom = self.file("rom", bytes(128 << 10))
        self.refused("run", "--firmware", "/nonexistent", words=["--firmware", "No such file"])
        self.refused("run", "--firmware", self.file("odd", bytes(1000)), words=["firmware", "multiple of 4 KiB"])
        self.refused("run", "--firmware", self.file("huge", bytes((16 << 20) + 4096)), words=["firmware", "16 MiB"])
        self.refused("run", "--firmware", rom, "--pflash", "/nonexistent/vars", words=["--pflash", "template"])
        self.refused("run", "--firmware", rom, "--pflash", self.file("vars", bytes(1000)), words=["--pflash", "4 KiB"])
        self.refused("run", "--firmware", rom, "--pflash", "/", words=["--pflash"])
        self.refused("run", "--kernel", rom, "--pflash", rom, words=["--pflash", "--firmware"])
        big = self.file("OVMF_CODE.fd", bytes(512 << 10))
        self.refused("run", "--firmware", big, "--kernel", self.file("text", b"hello\n" * 1000), words=["kernel", "bzImage"])

    def test_too_large(self):
        huge = self.file("huge", b"")
        os.truncate(huge, 1 << 40)
        self.refused("run", "--kernel", huge, words=["--kernel", "larger"])
        self.refused(*self.options(guests.POWER_OFF, "--initrd", huge), words=["--initrd", "larger"])
        flat = self.file("flat", bytes(1 << 20))
        self.refused(*run.guest_options(flat), words=["kernel", "fit"])

    def test_too_little_memory(self):
        self.expect_sentence(self.run_guest(guests.POWER_OFF, "--memory", "2M", "--initrd", self.file("initrd", bytes(3 << 20))),
                             "--initrd")


class RealKernel(run.Case):
    """A distribution kernel cut off, or in too small a machine."""

    def setUp(self):
        super().setUp()
        cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
        boot = os.path.join(cache, "linux-cloud", "boot")
        names = [n for n in (os.listdir(boot) if os.path.isdir(boot) else []) if n.startswith("vmlinuz")]
        if not names:
            self.skipTest("no kernel in the cache: make test fetches it")
        self.kernel = os.path.join(boot, names[0])

    def test_truncated(self):
        with open(self.kernel, "rb") as f:
            kernel = f.read()
        for size in (1, 511, 512, 600, 1024, 4096, 20000, len(kernel) // 2, len(kernel) - 4096):
            with self.subTest(size=size):
                self.refused("run", "--kernel", self.file("cut", kernel[:size]))

    def test_too_little_memory(self):
        for size in ("2M", "4M", "8M", "16M", "24M"):
            with self.subTest(size=size):
                self.refused("run", "--kernel", self.kernel, "--memory", size, words=["memory"])

    def test_long_command_line(self):
        self.refused("run", "--kernel", self.kernel, "--append", "x" * 100000, words=["command line"])

    def test_initrd_does_not_fit(self):
        initrd = self.file("initrd", bytes(100 << 20))
        self.refused("run", "--kernel", self.kernel, "--memory", "128M", "--initrd", initrd, words=["initrd"])


class Limits(run.Case):
    def test_no_address_space(self):
        """The host gives no memory: a failure of the host, in one sentence, status 1."""
        done = subprocess.run(["sh", "-c", 'ulimit -v 200000; exec "$0" "$@"', run.NADIR,
                               *self.options(guests.POWER_OFF, "--memory", "64G")],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=run.TIMEOUT, check=False)
        self.expect_sentence(done, "memory", status=1)

    def test_no_threads(self):
        if os.geteuid() == 0:
            self.skipTest("the limit on threads does not hold for root")
        done = subprocess.run(["sh", "-c", 'ulimit -u 1; exec "$0" "$@"', run.NADIR, *self.options(guests.POWER_OFF)],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=run.TIMEOUT, check=False)
        self.expect_sentence(done, "thread", status=1)
