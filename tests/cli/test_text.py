"""What nadir says about itself: help, version, manual page."""
import re
import shutil
import subprocess

import run


def long_options(text):
    return set(re.findall(r"^  .{3} (--[a-z-]+)", text, re.M))


class Text(run.Case):
    def test_help(self):
        for arguments in (["--help"], ["-h"], ["help"]):
            done = run.nadir(*arguments)
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            self.assertIn(b"usage: nadir run --kernel FILE", done.stdout)

    def test_run_help(self):
        done = run.nadir("run", "--help")
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertGreater(len(long_options(done.stdout.decode())), 15)
        self.assertRegex(done.stdout, rb"\nCPU models: .*\bhost\b.*\n")

    def test_version(self):
        done = run.nadir("--version")
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertRegex(done.stdout, rb"\Anadir [0-9]+\.[0-9]+\.[0-9]+\n\Z")

    def test_full_device(self):
        for arguments in (["--help"], ["--version"], ["run", "--help"], ["probe", "--help"], ["techniques", "--help"]):
            with open("/dev/full", "wb") as full:
                done = run.nadir(*arguments, stdout=full)
            self.expect_sentence(done, "No space left", status=1)

    def test_manual_page_renders(self):
        if not shutil.which("man"):
            self.skipTest("no man")
        done = subprocess.run(["man", "--warnings", "-l", run.MAN_PAGE], capture_output=True, timeout=run.TIMEOUT, check=False,
                              env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "MANPAGER": "cat", "MANWIDTH": "120"})
        if b"minimized" in done.stdout + done.stderr or b"command not found" in done.stderr:
            self.skipTest("man is not whole here")
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        for word in (b"SYNOPSIS", b"EXIT STATUS", b"--kernel"):
            self.assertIn(word, done.stdout)
