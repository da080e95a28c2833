#!/usr/bin/env python3
"""What is on the screen, read from screenshots.

usage: display.py --nadir NADIR TEST [-- OPTION...]

text      Linux' vgacon in text mode, without firmware
bochs     Linux' bochs-drm, with its console in the linear frame buffer
seabios   SeaBIOS, which finds nothing to boot
grub      SeaBIOS, and GRUB on a virtio disk
memtest   SeaBIOS, which loads memtest86+
vnc       Linux' vgacon, seen by two clients of VNC, which also type
input     what such a client does, read by Linux from a virtio keyboard and tablet, and from the PS/2 keyboard without them
clients   a password, asked of gtk-vnc's and TightVNC's clients"""
import argparse
import glob
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

import boot
import firmware
import rfb
import screen

DRM = ["gpu/drm/drm", "gpu/drm/drm_kms_helper", "gpu/drm/ttm/ttm", "gpu/drm/drm_ttm_helper", "gpu/drm/drm_vram_helper", "gpu/drm/tiny/bochs"]


class Machine(firmware.Machine):
    """A machine that stays, and whose screen is looked at until it shows what is expected."""

    def start(self, *options):
        environment = dict(os.environ, XDG_RUNTIME_DIR=self.work)
        self.environment = environment
        self.process = subprocess.Popen([self.args.nadir, "run", "--name", "screen", "--vga", "std", "--serial", "file:" + self.path("serial"), *options,
                                         *self.args.options], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)

    def stop(self):
        self.process.kill()
        return self.process.communicate()[1].decode(errors="replace")

    def look(self, glyphs):
        """Size and text of the screen; None while there is no machine to ask."""
        done = subprocess.run([self.args.nadir, "screenshot", "screen", self.path("screen.png")], env=self.environment, capture_output=True, check=False)
        if done.returncode:
            return None
        with open(self.path("screen.png"), "rb") as file:
            width, height, lines = screen.decode_png(file.read())
        return (width, height), screen.text(width, height, lines, glyphs)

    def wait_for(self, texts, size):
        end, seen, glyphs = time.monotonic() + self.args.timeout, None, screen.font()
        while time.monotonic() < end and self.process.poll() is None:
            seen = self.look(glyphs)
            if seen and seen[0] == size and all(text in seen[1] for text in texts):
                return
            time.sleep(0.5)
        raise firmware.Failure(f"the screen does not show {texts} in {size}: {seen and seen[0]}\n{seen and seen[1]}")


INPUT = ["input/evdev", "virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_modern_dev", "virtio/virtio_pci_legacy_dev", "virtio/virtio_pci", "virtio/virtio_input"]


def linux(machine, package, modules, *options, script="display.sh", files=()):
    kernel = firmware.cached(f"{package}/boot/vmlinuz-*")
    drivers = glob.glob(os.path.join(firmware.CACHE, package, "lib", "modules", "*"))[0] + "/kernel/drivers/"
    listed = machine.write("modules", "".join(os.path.basename(name) + "\n" for name in modules).encode())
    subprocess.run([boot.INITRAMFS, firmware.cached("busybox/bin/busybox"), machine.path("initrd"), os.path.join(boot.HERE, script), listed, *files,
                    *[drivers + name + ".ko" for name in modules]], check=True)
    machine.start("--kernel", kernel, "--initrd", machine.path("initrd"), "--append", "console=ttyS0 console=tty0 panic=-1", *options)


def test_text(machine):
    linux(machine, "linux-cloud", [])
    machine.wait_for(["line 60\nhello from tty0"], (720, 400))


def test_bochs(machine):
    linux(machine, "linux-generic", DRM)
    machine.wait_for(["line 23\nline 24\n", "line 57\nline 58\n"], (1024, 768))  # Linux has a font of its own, almost the same


def test_seabios(machine):
    machine.start("--firmware", firmware.cached(firmware.SEABIOS))
    machine.wait_for(["SeaBIOS (version", "No bootable device."], (720, 400))


def test_grub(machine):
    menu = machine.write("grub.cfg.menu", b"set timeout=1000\nmenuentry 'Entry of the test' {\n\techo no\n}\n")
    disk = firmware.bios_disk(machine, {"boot/grub/grub.cfg": menu}, "set prefix=(hd0,msdos1)/boot/grub\n")
    machine.start("--firmware", firmware.cached(firmware.SEABIOS), "--disk", "path=" + disk)
    machine.wait_for(["GNU GRUB", "Entry of the test"], (720, 400))


def test_memtest(machine):
    machine.start("--firmware", firmware.cached(firmware.SEABIOS), "--memory", "64M", "--kernel", firmware.cached("memtest86+/boot/memtest86+x64.bin"))
    machine.wait_for(["Memtest86", "v6.10", "Testing:"], (720, 400))


def see(machine, client, texts):
    """Until the client's picture shows the texts."""
    end, seen, glyphs = time.monotonic() + machine.args.timeout, "", screen.font()
    while time.monotonic() < end:
        client.update()
        seen = screen.text(client.width, client.height, [bytes(line) for line in client.lines], glyphs)
        if all(text in seen for text in texts):
            return
    raise firmware.Failure(f"a client does not see {texts}:\n{seen}")


def test_vnc(machine):
    place = machine.path("vnc")
    linux(machine, "linux-cloud", [], "--vnc", "unix:" + place)
    clients = [rfb.Client(place, encoding, machine.args.timeout) for encoding in (rfb.RAW, rfb.ZRLE)]
    for client in clients:
        see(machine, client, ["line 60\nhello from tty0"])
        machine.wait_for(["hello from tty0"], (720, 400))
        with open(machine.path("screen.png"), "rb") as file:
            if screen.decode_png(file.read()) != (client.width, client.height, [bytes(line) for line in client.lines]):
                raise firmware.Failure("a client sees something else than the screenshot shows")
    clients[0].type("nadir 42\n")
    see(machine, clients[1], ["typed: nadir 42"])
    clients[1].type("by symbol; /-=\n", by_code=False)
    clients[1].pointer(100, 100, 1)
    see(machine, clients[0], ["typed: by symbol; /-="])
    if not all(client.codes for client in clients):
        raise firmware.Failure("the server does not take codes of keys")


def wait_for_line(machine, text, place="serial"):
    """Until the guest has printed it on its serial port: all lines of it."""
    end, seen = time.monotonic() + machine.args.timeout, []
    while time.monotonic() < end and machine.process.poll() is None:
        if os.path.exists(machine.path(place)):
            with open(machine.path(place), errors="replace") as file:
                seen = file.read().splitlines()
        if text in seen:
            return seen
        time.sleep(0.1)
    raise firmware.Failure("\n".join(seen) + f"\nthere is no line '{text}'")


def test_input(machine):
    program, place = machine.path("input_guest"), machine.path("vnc")
    shutil.copy(machine.args.guest, program)
    linux(machine, "linux-cloud", INPUT, "--vnc", "unix:" + place, script="input.sh", files=[program])
    wait_for_line(machine, "reads: nadir tablet")
    client = rfb.Client(place, timeout=machine.args.timeout)
    see(machine, client, [])
    client.pointer(719, 399)
    client.pointer(100, 0, 1)
    client.pointer(100, 0)
    client.pointer(100, 0, 8)
    client.pointer(100, 200, 4)
    client.pointer(100, 200)
    wait_for_line(machine, "reads: nadir keyboard")
    client.type("a\n")
    wait_for_line(machine, "without virtio")
    client.type("nadir 42\n")
    lines = wait_for_line(machine, "script: end")
    at = 100 * 0x7FFF // 719
    expected = ["axis: 0 to 32767", f"3 0 {0x7FFF}", f"3 1 {0x7FFF}", f"3 0 {at}", "3 1 0", "1 272 1", "1 272 0", "2 8 1", f"3 1 {200 * 0x7FFF // 399}", "1 273 1", "1 273 0",
                "1 30 1", "1 30 0", "1 28 1", "1 28 0", "typed: a", "typed: nadir 42", "errors: 0"]
    got = [line.split(": ")[-1] if line.startswith("event: ") else line for line in lines if line.startswith(("event: ", "axis: ", "errors: ", "typed: "))]
    if got != expected:
        raise firmware.Failure("\n".join(lines) + f"\nexpected {expected}, got {got}")


# As vncpasswd keeps them.
OBSCURE = {"secret": bytes.fromhex("2e2dbf576eb06c9e"), "wrong": bytes.fromhex("b07fa26065bf41c0")}


def gvnccapture(machine, display, password):
    """gtk-vnc's client, which asks for the password at a terminal: text of the screen."""
    here, there = os.openpty()
    picture, said, end = machine.path("captured.png"), b"", time.monotonic() + machine.args.timeout
    process = subprocess.Popen(["gvnccapture", f"localhost:{display}", picture], stdin=there, stdout=there, stderr=there, start_new_session=True)
    while process.poll() is None and time.monotonic() < end:
        if select.select([here], [], [], 1)[0]:
            said += os.read(here, 1000)
        elif b"Password: " in said:  # again and again: what it was not ready for is thrown away
            os.write(here, password.encode() + b"\n")
    if process.poll() is None:
        process.kill()
    if process.wait():
        raise firmware.Failure(f"gvnccapture says {said}")
    with open(picture, "rb") as file:
        return screen.text(*screen.decode_png(file.read()), screen.font())


def vncsnapshot(machine, display, password):
    """TightVNC's client of RFB 3.3: size of the picture, or None."""
    picture, secret = machine.path("captured.jpg"), machine.write("obscure", OBSCURE[password])
    done = subprocess.run(["vncsnapshot", "-quiet", "-passwd", secret, f"localhost:{display}", picture], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          timeout=machine.args.timeout, check=False)
    if done.returncode:
        return None
    with open(picture, "rb") as file:
        data = file.read()
    height, width = struct.unpack(">HH", data[data.index(b"\xff\xc0") + 5 :][:4])
    return width, height


def test_clients(machine):
    for name, package in (("gvnccapture", "gvncviewer"), ("vncsnapshot", "vncsnapshot")):
        if not shutil.which(name):
            raise firmware.Failure(f"there is no {name}; Debian's package {package} has it")
    secret = machine.write("password", b"secret\n")
    with socket.socket() as probe:  # clients take numbers below 100 only for displays
        for display in range(20, 100):
            try:
                probe.bind(("127.0.0.1", 5900 + display))
                break
            except OSError:
                pass
    machine.start("--firmware", firmware.cached(firmware.SEABIOS), "--vnc", f":{display},password-file={secret}")
    machine.wait_for(["No bootable device."], (720, 400))
    seen = gvnccapture(machine, display, "secret")
    if "No bootable device." not in seen:
        raise firmware.Failure(f"gvnccapture sees {seen}")
    if vncsnapshot(machine, display, "secret") != (720, 400):
        raise firmware.Failure("vncsnapshot does not see the screen")
    if vncsnapshot(machine, display, "wrong"):
        raise firmware.Failure("vncsnapshot comes in with a wrong password")


TESTS = {"input": test_input, "clients": test_clients, "text": test_text, "bochs": test_bochs, "seabios": test_seabios, "grub": test_grub, "memtest": test_memtest, "vnc": test_vnc}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--guest", help="the program of the test input")
    parser.add_argument("--timeout", type=float, default=150)
    parser.add_argument("test", choices=TESTS)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        machine = Machine(args, work)
        try:
            TESTS[args.test](machine)
            wrong = ""
        except firmware.Failure as failure:
            wrong = str(failure)
        finally:
            errors = machine.stop()
    if wrong or errors.strip():
        sys.exit(f"{wrong}\n{errors}")
    print(f"{args.test}: ok")


if __name__ == "__main__":
    main()
