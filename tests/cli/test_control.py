"""Running machines and the commands and clients that ask them: names, the control socket, consoles, hostile clients."""
import contextlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import termios
import time

import guests
import run

COMPLETION = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../completions/nadir")
LISTEN_HALT = b"\xfb" + guests.HALT  # sti; hlt


class Control(run.Case):
    def setUp(self):
        super().setUp()
        self.environment = dict(os.environ, XDG_RUNTIME_DIR=self.directory)

    def nadir(self, *arguments, **options):
        return run.nadir(*arguments, env=self.environment, **options)

    def path(self, name="web"):
        return os.path.join(self.directory, "nadir", name + ".sock")

    def start(self, guest=guests.say("up") + LISTEN_HALT, *more, name="web", **options):
        """A machine of that name which has said "up" on standard output, if that is where its console is."""
        process = self.start_guest(guest, "--name", name, *more, env=self.environment, **options)
        self.wait_until(lambda: os.path.exists(self.path(name)) or process.poll() is not None)
        self.assertIsNone(process.poll(), process.poll() is not None and process.stderr.read())
        self.curl("/api/v1/vmm.ping", name=name)  # from then on it has its guest in memory
        return process

    def wait_until(self, condition):
        end = time.monotonic() + run.TIMEOUT
        while not condition() and time.monotonic() < end:
            time.sleep(0.02)
        self.assertTrue(condition())

    def ok(self, *arguments, **options):
        done = self.nadir(*arguments, **options)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return done.stdout.decode()

    def curl(self, path, *arguments, name="web"):
        """(status, body)"""
        done = subprocess.run(["curl", "-sS", "--max-time", str(run.TIMEOUT), "-w", "\n%{http_code}", "--unix-socket", self.path(name),
                               *arguments, "http://nadir" + path], capture_output=True, text=True, timeout=2 * run.TIMEOUT, check=True)
        body, status = done.stdout.rsplit("\n", 1)
        return int(status), body

    def put(self, what):
        return self.curl("/api/v1/vm." + what, "-X", "PUT")

    def info(self):
        status, body = self.curl("/api/v1/vm.info")
        self.assertEqual(status, 200)
        return json.loads(body)

    def connect(self, name="web"):
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.settimeout(run.TIMEOUT)
        client.connect(self.path(name))
        return client


class Names(Control):
    def test_list(self):
        self.assertEqual(self.ok("list").count("\n"), 1)
        web, data = self.start(name="web"), self.start(name="data-1.x")
        rows = self.ok("list").splitlines()
        self.assertEqual([row.split()[:3] for row in rows[1:]], [["data-1.x", str(data.pid), "Running"], ["web", str(web.pid), "Running"]])
        self.assertEqual(self.ok("list", "--names"), "data-1.x\nweb\n")
        web.kill()
        web.wait()
        self.assertEqual([vm["name"] for vm in json.loads(self.ok("list", "--json"))], ["data-1.x"])
        self.assertFalse(os.path.exists(self.path("web")), "a socket that nobody listens at is left")

    def test_taken(self):
        self.start()
        again = run.nadir(*self.options(guests.POWER_OFF, "--name", "web"), env=self.environment)
        self.expect_sentence(again, "--name", "is running")

    def test_left_behind(self):
        """The socket of a machine that was killed is no obstacle."""
        process = self.start()
        process.kill()
        process.wait()
        self.assertTrue(os.path.exists(self.path()))
        done = run.nadir(*self.options(guests.POWER_OFF, "--name", "web"), env=self.environment)
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_own_place(self):
        path = os.path.join(self.directory, "s")
        self.start_guest(LISTEN_HALT, "--api-socket", path)
        self.wait_until(lambda: os.path.exists(path))
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        self.ok("pause", path)

    def test_wrong(self):
        for name in ("", "-x", ".x", "a/b", "a b", "x" * 65):
            with self.subTest(name=name):
                self.expect_sentence(run.nadir(*self.options(guests.POWER_OFF, f"--name={name}"), env=self.environment), "--name")
        for command in ("stop", "pause", "resume", "reset", "console", "stats"):
            with self.subTest(command=command):
                self.expect_sentence(self.nadir(command, "nobody"), "nobody", status=1)
                self.expect_sentence(self.nadir(command), command)
                self.assertIn("usage: nadir " + command, self.ok(command, "--help"))
        self.expect_sentence(self.nadir("list", "x"), "list")
        self.expect_sentence(run.nadir(*self.options(guests.POWER_OFF, "--api-socket", "/nonexistent/x")), "--api-socket")
        self.expect_sentence(run.nadir(*self.options(guests.POWER_OFF, "--api-socket", self.file("f", b"x"))), "not a socket")

    def test_folder_of_others(self):
        """A folder that others can write is not trusted."""
        os.mkdir(os.path.join(self.directory, "nadir"))
        os.chmod(os.path.join(self.directory, "nadir"), 0o777)
        self.expect_sentence(run.nadir(*self.options(guests.POWER_OFF, "--name", "web"), env=self.environment), "only you can write")


class Orders(Control):
    def test_pause(self):
        self.start()
        self.ok("pause", "web")
        self.assertEqual(self.info()["state"], "Paused")
        before = json.loads(self.curl("/api/v1/vm.counters")[1])["time_nanoseconds"]
        time.sleep(0.1)
        self.assertEqual(json.loads(self.curl("/api/v1/vm.counters")[1])["time_nanoseconds"], before)
        self.assertEqual(self.put("resume"), (204, ""))
        self.assertEqual(self.info()["state"], "Running")

    def test_begin_paused(self):
        process = self.start(guests.say("up") + LISTEN_HALT, "--paused")
        self.assertEqual(self.info()["state"], "Paused")
        self.assertFalse(select.select([process.stdout], [], [], 0.3)[0])
        self.assertEqual(self.put("boot"), (204, ""))
        self.assertEqual(process.stdout.read(2), b"up")
        self.assertEqual(self.info()["state"], "Running")

    def test_reset(self):
        process = self.start()
        self.assertEqual(process.stdout.read(2), b"up")
        self.ok("reset", "web")
        self.assertEqual(process.stdout.read(2), b"up")

    def test_stop(self):
        process = self.start(guests.DEAF_SPIN, "--hang-timeout", "0")
        done = self.nadir("stop", "--timeout", "1", "web")
        self.expect_sentence(done, "--force", status=1)
        self.ok("stop", "--force", "web")
        self.assertEqual(process.wait(run.TIMEOUT), 0)

    def test_power_button(self):
        """The guest sees the button in its PM1 status register, and powers off."""
        wait = b"\xba\x01\x06" + b"\xec\xa8\x01\x74\xfb"  # mov dx, PM1 status + 1; l: in al, dx; test al, PWRBTN >> 8; jz l
        process = self.start(wait + guests.POWER_OFF)
        self.ok("stop", "web")
        self.assertEqual(process.wait(run.TIMEOUT), 0)

    def test_stop_stuck_output(self):
        """Nobody reads what the guest writes, and yet it ends."""
        process = self.start(guests.flood(65535)[:-len(guests.POWER_OFF)] * 4 + guests.POWER_OFF)
        time.sleep(0.5)
        self.ok("stop", "--force", "web")
        self.assertEqual(process.wait(run.TIMEOUT), 0)

    def test_events(self):
        process = self.start()
        events = self.connect()
        events.sendall(b"GET /api/v1/vm.events HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIn(b"200 OK", events.recv(4096))
        for order in ("pause", "resume", "reboot", "shutdown"):
            self.assertEqual(self.put(order)[0], 204)
        text = b""
        while chunk := events.recv(4096):
            text += chunk
        found = [json.loads(line) for line in text.split(b"\r\n") if line.startswith(b"{")]
        self.assertEqual([(event["event"], event.get("detail")) for event in found],
                         [("paused", None), ("resumed", None), ("reset", None), ("ended", "stopped")])
        self.assertTrue(text.endswith(b"0\r\n\r\n"))
        self.assertEqual(process.wait(run.TIMEOUT), 0)

    def test_statistics(self):
        self.assertEqual(self.start().stdout.read(2), b"up")
        text = self.ok("stats", "--once", "web")
        self.assertRegex(text, r"(?m)^web: [0-9.]+ s of guest time, [0-9.]+ MiB")
        self.assertRegex(text, r"(?m)^port I/O +2 ")
        self.assertEqual(json.loads(self.ok("stats", "--json", "web"))["exits"]["port I/O"]["count"], 2)
        status, metrics = self.curl("/metrics")
        self.assertEqual(status, 200)
        self.assertIn('nadir_exits_total{vm="web",reason="port I/O"} 2\n', metrics)
        self.assertTrue(metrics.endswith("# EOF\n"))

    def test_idle_costs_nothing(self):
        process = self.start()
        self.connect()

        def ticks():
            with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
                return sum(int(word) for word in file.read().rsplit(")", 1)[1].split()[11:13])
        time.sleep(0.3)
        before = ticks()
        time.sleep(1)
        self.assertLess(ticks() - before, 10)


class Completion(Control):
    """bash completes commands, options, their choices, and names."""

    def complete(self, *words):
        script = (f"source {COMPLETION}; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _nadir; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
        done = subprocess.run(["bash", "-c", script, "bash", run.NADIR, *words], capture_output=True, text=True, env=self.environment,
                              timeout=run.TIMEOUT, check=True)
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    def test_words(self):
        self.start(name="web-1")
        self.assertEqual(self.complete("sto"), ["stop"])
        self.assertEqual(self.complete("stop", "we"), ["web-1"])
        self.assertEqual(self.complete("stop", "--f"), ["--force"])
        self.assertEqual(self.complete("run", "--kern"), ["--kernel"])
        self.assertEqual(self.complete("run", "--on-crash", "re"), ["report", "reset"])
        self.assertEqual(self.complete("run", "--kernel", self.file("vmlinuz", b"")[:-2]), [os.path.join(self.directory, "vmlinuz")])


class Hostile(Control):
    def test_requests(self):
        self.start()
        for path in ("/", "/api/v1/", "/api/v1/vm.launch", "/api/v1/../vm.info"):
            self.assertEqual(self.curl(path)[0], 404)
        self.assertEqual(self.curl("/api/v1/vm.info", "-X", "DELETE")[0], 405)
        self.assertEqual(self.curl("/api/v1/vm.console", "-X", "PUT")[0], 426)
        self.assertEqual(self.curl("/api/v1/vm.info", "-H", "X: " + "x" * 100000)[0], 431)
        self.assertEqual(self.curl("/" + "x" * 5000)[0], 414)
        self.assertEqual(self.info()["state"], "Running")

    def test_rubbish(self):
        self.start()
        for rubbish in (b"\0" * 100, b"\x16\x03\x01\x02", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n: \r\n\r\n", os.urandom(5000)):
            client = self.connect()
            client.sendall(rubbish)
            self.assertIn(b" 400 ", client.recv(4096))
            client.close()
        self.assertEqual(self.info()["state"], "Running")

    def test_many(self):
        """More clients than there are places, idle, half-way through a request, and gone: a further one is answered."""
        self.start()
        clients = [self.connect() for _ in range(60)]
        for client in clients[::2]:
            with contextlib.suppress(BrokenPipeError):  # it had to make room
                client.sendall(b"GET /api/v1/vm.info HTT")
        for client in clients[::3]:
            client.close()
        self.assertEqual(self.info()["state"], "Running")

    def test_streams(self):
        """Streams end at their limit, and requests still get through."""
        self.start()
        for _ in range(40):
            self.connect().sendall(b"GET /api/v1/vm.events HTTP/1.1\r\n\r\n")
        self.assertEqual(self.info()["state"], "Running")

    def test_no_reader(self):
        """A client that asks and asks, and reads nothing."""
        self.start()
        client = self.connect()
        client.setblocking(False)
        try:
            for _ in range(2000):
                client.send(b"GET /metrics HTTP/1.1\r\n\r\n" * 10)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass
        self.assertEqual(self.info()["state"], "Running")

    def test_pipeline(self):
        self.start()
        client = self.connect()
        client.sendall(b"GET /api/v1/vmm.ping HTTP/1.1\r\n\r\n" * 20 + b"GET /api/v1/vmm.ping HTTP/1.0\r\n\r\n")
        text = b""
        while chunk := client.recv(65536):
            text += chunk
        self.assertEqual(text.count(b"200 OK"), 21)


class Consoles(Control):
    """Where the serial port can be, and nadir console."""

    def read_until(self, fd, text):
        got, end = b"", time.monotonic() + run.TIMEOUT
        while text not in got and time.monotonic() < end:
            if select.select([fd], [], [], 0.1)[0]:
                got += os.read(fd, 65536)
        self.assertIn(text, got)
        return got

    def test_console(self):
        process = self.start(guests.echo("ready"), "--serial", "none")
        done = self.nadir("console", "web", input=b"helloq", stdin=None)
        self.assertEqual((done.returncode, done.stdout), (0, b"readyhello"))
        self.assertEqual(process.wait(run.TIMEOUT), 0)

    def test_two_beside_stdio(self):
        """What was said before is shown to those who come later; all see everything."""
        process = self.start(guests.echo("ready"))
        self.assertEqual(process.stdout.read(5), b"ready")
        clients = [self.connect(), self.connect()]
        for client in clients:
            client.sendall(b"PUT /api/v1/vm.console HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: console\r\n\r\n")
            self.read_until(client.fileno(), b"\r\n\r\nready")
        clients[0].sendall(b"x")
        for client in clients:
            self.read_until(client.fileno(), b"x")
        self.assertEqual(process.stdout.read(1), b"x")

    def test_detach(self):
        self.start(guests.echo("ready"), "--serial", "none")
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        before = termios.tcgetattr(slave)
        for keys, status in ((b"\x1d", 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
            with self.subTest(keys=keys):
                # pylint: disable=consider-using-with
                client = subprocess.Popen([run.NADIR, "console", "web"], stdin=slave, stdout=slave, stderr=slave, env=self.environment)
                self.addCleanup(run.end, client)
                self.read_until(master, b"ready")
                self.assertNotEqual(termios.tcgetattr(slave), before)
                os.write(master, b"ab\x03")
                self.read_until(master, b"ab\x03")
                if isinstance(keys, bytes):
                    os.write(master, keys)
                else:
                    client.send_signal(keys)
                self.assertEqual(client.wait(run.TIMEOUT), status)
                self.assertEqual(termios.tcgetattr(slave), before)
                while select.select([master], [], [], 0.1)[0]:
                    os.read(master, 65536)
        self.assertEqual(self.info()["state"], "Running")

    def test_pty(self):
        process = self.start(guests.echo("ready"), "--serial", "pty")
        path = re.fullmatch(r"nadir: --serial is at (/dev/pts/\d+)\n", process.stderr.readline().decode())[1]
        for _ in range(2):  # programs come and go
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
            os.write(fd, b"ping\r")
            self.read_until(fd, b"ping\r")
            os.close(fd)
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        os.write(fd, b"q")
        self.assertEqual(process.wait(run.TIMEOUT), 0)
        os.close(fd)

    def test_pty_without_reader(self):
        self.assertEqual(self.run_guest(guests.flood(65535), "--serial", "pty").returncode, 0)

    def test_socket(self):
        path = os.path.join(self.directory, "console")
        process = self.start(guests.echo("ready"), "--serial", "unix:" + path)
        for word in (b"one", b"two"):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(run.TIMEOUT)
                client.connect(path)
                client.sendall(word)
                self.read_until(client.fileno(), word)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(b"q")
            self.assertEqual(process.wait(run.TIMEOUT), 0)

    def test_rotation(self):
        path = os.path.join(self.directory, "log")
        guest = b"".join(guests.flood(5000)[:-len(guests.POWER_OFF)].replace(b"\xb0x", b"\xb0" + bytes([letter])) for letter in b"abcdef")
        done = self.run_guest(guest + guests.POWER_OFF, "--serial", f"file:{path},size=8K,keep=2")
        self.assertEqual(done.returncode, 0, done.stderr)
        parts = []
        for name in (path + ".2", path + ".1", path):
            with open(name, "rb") as file:
                parts.append(file.read())
            self.assertLessEqual(len(parts[-1]), 8192)
        whole = b"".join(letter * 5000 for letter in (b"a", b"b", b"c", b"d", b"e", b"f"))
        self.assertTrue(whole.endswith(b"".join(parts)) and len(b"".join(parts)) > 12000)
        self.assertFalse(os.path.exists(path + ".3"))

    def test_rotation_at_start(self):
        path = self.file("log", b"before")
        done = self.run_guest(guests.say("now") + guests.POWER_OFF, "--serial", f"file:{path},size=8K")
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(path, "rb") as now, open(path + ".1", "rb") as before:
            self.assertEqual((now.read(), before.read()), (b"now", b"before"))

    def test_wrong(self):
        for where, word in (("file:x,size=1", "size"), ("file:x,size=", "size"), ("file:x,size=8Q", "size"), ("file:x,size=8K,keep=99", "16"),
                            ("file:x,keep=2", "size=SIZE"), ("file:,size=8K", "path"), ("unix:", "unix:PATH"), ("unix:/nonexistent/x", "/nonexistent/x"),
                            ("unix:/" + "x" * 200, "shorter"), ("pty:x", "pty")):
            with self.subTest(where=where):
                self.expect_sentence(self.run_guest(guests.POWER_OFF, "--serial", where, cwd=self.directory), "--serial", word)
