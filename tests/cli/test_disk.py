"""Making disk images, and overlays, by the command and by --disk."""
import os

import guests
import run


class CreateDisk(run.Case):
    def path(self, name):
        return os.path.join(self.directory, name)

    def create(self, *arguments, status=0):
        done = run.nadir("create-disk", *arguments)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stderr.decode()

    def starts(self, *disks):
        options = [word for disk in disks for word in ("--disk", disk)]
        done = run.nadir(*self.options(guests.POWER_OFF, *options))
        self.assertEqual(done.stderr, b"")
        self.assertEqual(done.returncode, 0)

    def test_empty(self):
        self.create(self.path("a.img"), "1M")
        self.assertEqual(os.path.getsize(self.path("a.img")), 1 << 20)
        self.create(self.path("a.qcow2"), "20GiB")
        self.assertLess(os.path.getsize(self.path("a.qcow2")), 1 << 20)
        self.starts(f"path={self.path('a.img')}", f"path={self.path('a.qcow2')}")

    def test_overlay(self):
        self.create(self.path("base.img"), "1M")
        self.create(self.path("b.qcow2"), "--base", self.path("base.img"))
        self.create(self.path("c.qcow2"), "--base", self.path("b.qcow2"))
        self.starts(f"path={self.path('c.qcow2')}")
        self.starts(f"base={self.path('b.qcow2')},overlay={self.path('c.qcow2')}")
        self.starts(f"base={self.path('base.img')},overlay={self.path('new')}")
        self.assertTrue(os.path.exists(self.path("new")))

    def test_bases_are_shared(self):
        self.create(self.path("base.img"), "1M")
        self.starts(*(f"base={self.path('base.img')},overlay={self.path(name)}" for name in "xyz"))
        self.starts(f"path={self.path('base.img')},snapshot=on", f"path={self.path('base.img')},readonly=on")

    def test_other_base(self):
        for name in ("base.img", "other.img"):
            self.create(self.path(name), "1M")
        self.create(self.path("b.qcow2"), "--base", self.path("base.img"))
        done = run.nadir(*self.options(guests.POWER_OFF, "--disk", f"base={self.path('other.img')},overlay={self.path('b.qcow2')}"))
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"not an overlay", done.stderr)

    def test_formats_are_not_guessed(self):
        self.create(self.path("a.qcow2"), "1M")
        os.rename(self.path("a.qcow2"), self.path("a.img"))
        done = run.nadir(*self.options(guests.POWER_OFF, "--disk", f"path={self.path('a.img')}"))
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"format=qcow2 or format=raw", done.stderr)
        self.starts(f"path={self.path('a.img')},format=qcow2")
        self.starts(f"path={self.path('a.img')},format=raw")

    def test_refused(self):
        self.create(self.path("a.img"), "1M")
        for arguments in (["x"], [self.path("a.img"), "1M"], [self.path("b.img"), "1"], [self.path("b.img"), "0"], [self.path("b.img"), "-1M"],
                          [self.path("b.img"), "9999999999T"], [self.path("b.img"), "--base", self.path("a.img")],
                          [self.path("b.qcow2"), "--base", "/nonexistent/x"], ["/nonexistent/x", "1M"]):
            text = self.create(*arguments, status=2)
            self.assertTrue(text.startswith("nadir: create-disk") and text.count("\n") == 1, text)
        self.assertFalse(os.path.exists(self.path("b.qcow2")))

    def refused(self, sentence, *options):
        done = run.nadir(*self.options(guests.POWER_OFF, *options))
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stderr.count(b"\n"), 1)
        self.assertIn(sentence, done.stderr)

    def test_sata_and_cdrom(self):
        self.create(self.path("a.img"), "1M")
        self.create(self.path("b,c.iso"), "1M")
        disk = f"path={self.path('a.img')}"
        done = run.nadir(*self.options(guests.POWER_OFF, "--disk", disk + ",bus=sata", "--cdrom", self.path("b,c.iso"), "--boot", "cdrom,network"))
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.starts(disk + ",media=cdrom", disk + ",media=cdrom,bus=sata")
        self.refused(b"virtio or sata", "--disk", disk + ",bus=ide")
        self.refused(b"disk or cdrom", "--disk", disk + ",media=tape")
        self.refused(b"at bus=sata", "--disk", disk + ",media=cdrom,bus=virtio")
        self.refused(b"6 CD-ROMs and SATA disks", *["--cdrom", self.path("b,c.iso")] * 7)
        self.refused(b"order of cdrom", "--boot", "floppy")
        self.create(self.path("odd.iso"), "1536")
        self.refused(b"multiple of 2048", "--cdrom", self.path("odd.iso"))
