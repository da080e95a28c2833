"""Starting nadir, and what its answers have in common."""
import contextlib
import os
import subprocess
import tempfile
import unittest

NADIR = MAN_PAGE = None  # set by cli.py
TIMEOUT = 30


def nadir(*arguments, **options):
    """Run it to its end: a CompletedProcess."""
    options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    return subprocess.run([NADIR, *arguments], timeout=TIMEOUT, check=False, **options)


def guest_options(path, *more):
    return ["run", "--kernel", path, "--protocol", "flat", "--memory", "4M", *more]


class Case(unittest.TestCase):
    """A test with a directory of its own."""

    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.directory = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="nadir-cli-"))

    def file(self, name, content):
        path = os.path.join(self.directory, name)
        with open(path, "wb") as out:
            out.write(content)
        return path

    def options(self, guest, *more):
        """The command line that starts this guest."""
        return guest_options(self.file("guest", guest), *more)

    def run_guest(self, guest, *more, **options):
        return nadir(*self.options(guest, *more), **options)

    def start_guest(self, guest, *more, **options):
        """The running process, killed when the test ends."""
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        # pylint: disable=consider-using-with
        process = subprocess.Popen([NADIR, *self.options(guest, *more)], **options)
        self.addCleanup(end, process)
        return process

    def expect_sentence(self, done, *words, status=2):
        """One sentence on stderr that begins with nadir's name and has these words; nothing on stdout; the status."""
        text = done.stderr.decode()
        self.assertEqual(done.returncode, status, text)
        self.assertEqual(done.stdout or b"", b"")
        self.assertTrue(text.startswith("nadir: "), text)
        self.assertTrue(text.endswith("\n"), text)
        self.assertEqual(text.count("\n"), 1, text)
        for word in words:
            self.assertIn(word, text)

    def refused(self, *arguments, words=(), **options):
        self.expect_sentence(nadir(*arguments, **options), *words)


def end(process):
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()
