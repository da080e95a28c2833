"""The running machine is confined (A7)."""
import glob
import os
import re
import subprocess
import tempfile
import time

import guests
import run


class Sandbox(run.Case):
    def status(self, *more):
        """The Seccomp and NoNewPrivs lines of every thread while the guest runs."""
        process = self.start_guest(guests.say("a") + guests.DEAF_SPIN, "--cpus", "3", "--hang-timeout", "0", *more)
        self.assertEqual(process.stdout.read(1), b"a")
        found = []
        for path in glob.glob(f"/proc/{process.pid}/task/*/status"):
            with open(path, encoding="ascii") as f:
                fields = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
            found.append((fields["Seccomp"], fields["NoNewPrivs"]))
        self.assertEqual(len(found), 4)
        return found, process.pid

    def test_on(self):
        self.assertEqual(set(self.status()[0]), {("2", "1")})

    def test_roles(self):
        """Each thread has a filter of its own beside the process's, whatever it is for."""
        with tempfile.TemporaryDirectory() as folder:
            disk = os.path.join(folder, "disk")
            with open(disk, "wb") as file:
                file.truncate(1 << 20)
            process = self.start_guest(guests.say("a") + guests.DEAF_SPIN, "--hang-timeout", "0", "--disk", f"path={disk}", "--net", "user", "--share",
                                       f"path={folder}", "--vsock", f"cid=3,path={folder}/vsock", "--gdb", f"unix:{folder}/gdb",
                                       "--vnc", f"unix:{folder}/vnc", "--api-socket", f"{folder}/api")
            self.assertEqual(process.stdout.read(1), b"a")
            roles = ("nadir", "vcpu", "disk", "net", "share", "vsock", "debugger", "display", "control", "plug")
            with open("/proc/self/status", encoding="ascii") as status:
                mine = self.filters(status)
            wanted = dict.fromkeys(roles, None if mine is None else mine + 2)
            for _ in range(300):  # threads that have nothing to do yet may not have begun
                found = self.filters_by_name(process.pid)
                found.pop("ring", None)  # not every kernel lets everybody have one
                if found == wanted:
                    break
                time.sleep(0.1)
        self.assertEqual(found, wanted)

    def filters_by_name(self, pid):
        """Of each thread; of several with the same name, the fewest."""
        found = {}
        for path in glob.glob(f"/proc/{pid}/task/*"):
            with open(f"{path}/comm", encoding="ascii") as name, open(f"{path}/status", encoding="ascii") as status:
                name, filters = name.read().strip(), self.filters(status)
            found[name] = min(filters, found.get(name, filters)) if filters is not None else None
        return found

    @staticmethod
    def filters(status):
        """How many there are; None: this kernel does not tell."""
        return next((int(line.split()[1]) for line in status if line.startswith("Seccomp_filters:")), None)

    def test_namespaces(self):
        """Nothing has a path, and there is no network, where the kernel allows that."""
        if subprocess.run(["unshare", "-Urmn", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
            self.skipTest("no namespaces without privileges")
        _, pid = self.status()
        self.assertEqual(os.listdir(f"/proc/{pid}/root"), [])
        for kind in ("user", "mnt", "net", "ipc"):
            self.assertNotEqual(os.readlink(f"/proc/{pid}/ns/{kind}"), os.readlink(f"/proc/self/ns/{kind}"))
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            self.assertIn("CapEff:\t0000000000000000\n", f.read())

    def check_helper(self, name, files, *options, nulls=3):
        """A helper process of that name is confined, has but these files open, and ends with its machine."""
        process = self.start_guest(guests.say("a") + guests.DEAF_SPIN, "--hang-timeout", "0", *options)
        self.assertEqual(process.stdout.read(1), b"a")
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as f:
            children = {open(f"/proc/{pid}/comm", encoding="ascii").read().strip(): pid for pid in f.read().split()}
        pid = children[name]
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            status = f.read()
        self.assertIn("Seccomp:\t2\n", status)
        self.assertIn("NoNewPrivs:\t1\n", status)
        targets = [os.readlink(path) for path in glob.glob(f"/proc/{pid}/fd/*")]
        self.assertEqual(sorted(re.sub(r"\d+", "", target) for target in targets), sorted(nulls * ["/dev/null"] + files))
        process.kill()
        process.wait()
        self.assertTrue(self.ends(pid), "it outlives its machine")

    def test_network(self):
        self.check_helper("nadir-net", ["socket:[]"], "--net", "user")

    def test_share(self):
        with tempfile.TemporaryDirectory(prefix="nadir-share-") as folder:
            self.check_helper("nadir-share", ["pipe:[]", "pipe:[]", re.sub(r"\d+", "", folder)], "--share", f"path={folder}")

    def test_vsock(self):
        with tempfile.TemporaryDirectory() as folder:
            self.check_helper("nadir-vsock", 2 * ["socket:[]"], "--vsock", f"cid=3,path={folder}/socket")

    def test_display(self):
        with tempfile.TemporaryDirectory() as folder:
            self.check_helper("nadir-vnc", 2 * ["socket:[]"], "--vnc", f"unix:{folder}/vnc", nulls=2)

    def test_keeper(self):
        with tempfile.TemporaryDirectory() as folder:
            place = f"{folder}/switch"
            with subprocess.Popen([run.NADIR, "switch", "--path", place], stderr=subprocess.DEVNULL) as switch:
                while not os.path.exists(place) and switch.poll() is None:
                    time.sleep(0.1)
                time.sleep(0.3)
                try:
                    self.check_helper("nadir-keeper", ["socket:[]"], "--net", f"switch,path={place}")
                finally:
                    switch.kill()

    @staticmethod
    def ends(pid):
        for _ in range(300):
            if not os.path.exists(f"/proc/{pid}/exe"):
                return True
            try:
                os.readlink(f"/proc/{pid}/exe")
            except OSError:
                return True  # gone, or waiting for its parent to notice
            time.sleep(0.1)
        return False

    def test_off(self):
        self.assertEqual({s for s, _ in self.status("--sandbox", "off")[0]}, {self.mine()})

    @staticmethod
    def mine():
        with open("/proc/self/status", encoding="ascii") as f:
            return next(line.split()[1] for line in f if line.startswith("Seccomp:"))

    def test_files(self):
        """Nothing stays open but the standard files, the event loop's, memory and the way to the server of spaces; no memory is writable and
        executable."""
        _, pid = self.status()
        targets = [os.readlink(path) for path in glob.glob(f"/proc/{pid}/fd/*") if int(os.path.basename(path)) > 2]
        for target in targets:
            self.assertRegex(target, r"^(anon_inode:\[?(eventfd|timerfd)\]?|/proc/\d+/task/\d+/schedstat|pipe:.*|/memfd:nadir-(ram|code) .*|socket:.*)$")
        self.assertLessEqual(sum(target.startswith("socket:") for target in targets), 1)
        with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
            self.assertEqual([line for line in f if line.split()[1].startswith("rwx")], [])
