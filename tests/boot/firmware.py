#!/usr/bin/env python3
"""Boot through firmware from the reset vector, and check what it did.

usage: firmware.py --nadir NADIR [--timeout SECONDS] TEST [-- OPTION...]

sector       SeaBIOS, a virtio disk with a boot sector of our own, and a reset
grub         SeaBIOS, GRUB on a virtio disk, Debian's cloud kernel
kernel       SeaBIOS, which loads the kernel that is given to nadir
ovmf-shell   OVMF to its shell
ovmf-kernel  OVMF, which loads that kernel by its EFI stub; its variables are kept
ovmf-grub    OVMF, GRUB for EFI on a FAT file system of a virtio disk, Debian's cloud kernel
cdrom        SeaBIOS, GRUB on a CD-ROM with Debian's cloud kernel, beside a SATA disk that has nothing to boot
ovmf-cdrom   the same medium under OVMF
memtest      SeaBIOS, GRUB, and memtest86+, but for its last test, which waits three minutes"""
import argparse
import glob
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading

import boot

CACHE = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
SEABIOS = "seabios/usr/share/seabios/bios-256k.bin"
OVMF = "ovmf/usr/share/OVMF/OVMF_CODE_4M.fd"
OVMF_VARIABLES = "ovmf/usr/share/OVMF/OVMF_VARS_4M.fd"
LINUX = "console=ttyS0 panic=-1"
SECTOR, MIB = 512, 1 << 20
PARTITION = MIB


def cached(pattern):
    """A file of an unpacked package."""
    found = glob.glob(os.path.join(CACHE, pattern))
    if not found:
        sys.exit(f"no {pattern} in {CACHE}: make test fetches it")
    return found[0]


class Failure(Exception):
    pass


class Machine:
    """One run of nadir in a directory of its own."""

    def __init__(self, args, work):
        self.args, self.work = args, work
        self.serial = self.debug = ""

    def path(self, name):
        return os.path.join(self.work, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data)
        return self.path(name)

    def initrd(self):
        subprocess.run([boot.INITRAMFS, cached("busybox/bin/busybox"), self.path("initrd"), os.path.join(boot.HERE, "script.sh")], check=True)
        return self.path("initrd")

    def run(self, *options, status=0, until=None):
        """Run to the end, or until the serial port has said something, which is then killed."""
        command = [self.args.nadir, "run", "--debug-console", "file:" + self.path("debug"), *options, *self.args.options]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                output, errors = process.communicate(timeout=self.args.timeout) if not until else self.read_until(process, until)
            except subprocess.TimeoutExpired:
                process.kill()
                output, errors = process.communicate()
                errors += b"timeout"
        self.serial = re.sub(r"\x1b\[[0-9;?=]*[A-Za-z]", "", output.decode(errors="replace").replace("\r", ""))
        with open(self.path("debug"), encoding="latin-1") as file:
            self.debug = file.read()
        if not until and process.returncode != status or errors.strip():
            raise Failure(f"exit status {process.returncode}, not {status}: {errors.decode(errors='replace')}")

    def read_until(self, process, pattern):
        output = b""
        timer = threading.Timer(self.args.timeout, process.kill)
        timer.start()
        for part in iter(lambda: os.read(process.stdout.fileno(), 4096), b""):
            output += part
            if re.search(pattern, output):
                break
        timer.cancel()
        process.terminate()
        return output, process.stderr.read()

    def expect(self, text, where):
        if text not in where:
            raise Failure(f"'{text}' is missing")

    def expect_linux(self):
        got = dict(line.split(": ", 1) for line in self.serial.splitlines() if ": " in line and not line.startswith("["))
        wrong = [f"{key}: expected '{value}', got '{got.get(key)}'" for key, value in boot.expected("x86_64", 1).items() if got.get(key) != value]
        if wrong:
            raise Failure("\n".join(wrong))


# ---- disks ----

def loader_area(boot_code, gap, size, kind):
    """What lies in front of a disk's one partition, of `size` bytes at 1 MiB: its table and a boot loader."""
    table = struct.pack("<B3xB3xII", 0x80, kind, PARTITION // SECTOR, size // SECTOR) + bytes(48)
    return (boot_code[:446].ljust(446, b"\0") + table + b"\x55\xaa" + gap).ljust(PARTITION, b"\0")


def partitioned(boot_code, gap, content, kind):
    return loader_area(boot_code, gap, len(content), kind) + content


def ext2(machine, files):
    root, image = machine.path("root"), machine.path("ext2")
    for name, source in files.items():
        os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
        shutil.copy(source, os.path.join(root, name))
    with open(image, "wb") as file:
        file.truncate(48 * MIB)
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext2", "-d", root, image], check=True)
    with open(image, "rb") as file:
        return file.read()


def grub_image(machine, platform, package, config, *modules):
    output = machine.path("grub-" + platform)
    subprocess.run(["grub-mkimage", "-d", os.path.dirname(cached(f"{package}/usr/lib/grub/{platform}/linux.mod")), "-O", platform, "-o", output,
                    "-p", "/boot/grub", "-c", machine.write("grub.cfg", config.encode()), *modules], check=True)
    with open(output, "rb") as file:
        return file.read()


def bios_loader(machine, config):
    """As grub-install makes it: boot.img for the first sector, the core image for behind it."""
    core = grub_image(machine, "i386-pc", "grub-pc-bin", config, "biosdisk", "part_msdos", "ext2", "linux", "linux16", "echo")
    with open(cached("grub-pc-bin/usr/lib/grub/i386-pc/boot.img"), "rb") as file:
        code = bytearray(file.read())
    code[0x66:0x68] = b"\x90\x90"  # trust the BIOS's drive number
    return bytes(code), core


def bios_disk(machine, files, config):
    return machine.write("disk", partitioned(*bios_loader(machine, config), ext2(machine, files), 0x83))


def efi_disk(machine, files, config):
    program = grub_image(machine, "x86_64-efi", "grub-efi-amd64-bin", config, "part_msdos", "fat", "linux", "echo")
    image = machine.path("fat")
    with open(image, "wb") as file:
        file.truncate(48 * MIB)
    subprocess.run(["mformat", "-i", image, "-F", "::"], check=True)
    subprocess.run(["mmd", "-i", image, "::/EFI", "::/EFI/BOOT", "::/boot"], check=True)
    for name, source in {"EFI/BOOT/BOOTX64.EFI": machine.write("efi", program), **files}.items():
        subprocess.run(["mcopy", "-i", image, source, "::/" + name], check=True)
    with open(image, "rb") as file:
        return machine.write("disk", partitioned(b"", b"", file.read(), 0xef))


CDROM_CONFIG = f"""echo GRUB runs
search --set root --file /boot/vmlinuz
linux /boot/vmlinuz {LINUX}
initrd /boot/initrd
boot
"""
LINUX_CONFIG = f"""echo GRUB runs
set root=(hd0,msdos1)
linux /boot/vmlinuz {LINUX}
initrd /boot/initrd
boot
"""
MEMTEST_CONFIG = """echo GRUB runs
set root=(hd0,msdos1)
linux16 /boot/memtest console=ttyS0,115200
boot
"""


def linux_files(machine):
    return {"boot/vmlinuz": cached("linux-cloud/boot/vmlinuz-*"), "boot/initrd": machine.initrd()}


# ---- tests ----

def test_sector(machine):
    code, image = machine.path("sector.o"), machine.path("sector.bin")
    subprocess.run(["cc", "-c", "-m32", "-o", code, os.path.join(boot.HERE, "sector.S")], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "--oformat", "binary", "-Ttext=0x7c00", "-o", image, code], check=True)
    with open(image, "rb") as file:
        sectors = file.read() + b"sector: second\n".ljust(SECTOR, b"\0")
    disk = machine.write("disk", sectors.ljust(MIB, b"\0"))
    machine.run("--firmware", cached(SEABIOS), "--memory", "64M", "--disk", "path=" + disk, "--debug-exit", status=21)
    machine.expect("SeaBIOS (version", machine.serial)
    machine.expect("Booting from Hard Disk", machine.serial)
    machine.expect("sector: con", machine.serial)  # the last characters wait for the next
    for line in ("Running on QEMU (q35)", "PCIe: using q35 mmconfig at 0xb0000000", "via xsdt", "sector: started\nsector: second"):
        machine.expect(line, machine.debug)
    if machine.debug.count("sector: second") != 2:
        raise Failure("it did not boot twice")


def test_grub(machine):
    machine.run("--firmware", cached(SEABIOS), "--disk", "path=" + bios_disk(machine, linux_files(machine), LINUX_CONFIG))
    machine.expect("GRUB runs", machine.serial)
    machine.expect_linux()


def kernel_options(machine):
    return ["--kernel", cached("linux-cloud/boot/vmlinuz-*"), "--initrd", machine.initrd(), "--append", LINUX]


def test_kernel(machine):
    machine.run("--firmware", cached(SEABIOS), *kernel_options(machine))
    machine.expect("Booting from ROM", machine.serial)
    machine.expect("DMI: nadir", machine.serial)
    machine.expect_linux()


def test_ovmf_shell(machine):
    machine.run("--firmware", cached(OVMF), "--memory", "128M", until=rb"Shell> ")
    machine.expect("UEFI Interactive Shell", machine.serial)


def test_ovmf_kernel(machine):
    variables = machine.path("variables")
    machine.run("--firmware", cached(OVMF), "--pflash", variables, *kernel_options(machine))
    machine.expect("efi: EFI v2.", machine.serial)
    machine.expect("DMI: nadir", machine.serial)
    machine.expect_linux()
    with open(cached(OVMF_VARIABLES), "rb") as template, open(variables, "rb") as file:
        before, after = template.read(), file.read()
    if len(before) != len(after) or before == after or "Boot0000".encode("utf-16le") not in after:
        raise Failure("the firmware's variables were not kept")


def test_ovmf_grub(machine):
    machine.run("--firmware", cached(OVMF), "--disk", "path=" + efi_disk(machine, linux_files(machine), LINUX_CONFIG))
    machine.expect("GRUB runs", machine.serial)
    machine.expect_linux()


def cdrom(machine):
    """A medium that a BIOS boots (El Torito, no emulation) and UEFI as well (a FAT image)."""
    modules = ["iso9660", "linux", "echo", "search", "search_fs_file"]
    core = grub_image(machine, "i386-pc", "grub-pc-bin", CDROM_CONFIG, "biosdisk", *modules)
    with open(cached("grub-pc-bin/usr/lib/grub/i386-pc/cdboot.img"), "rb") as file:
        bios = machine.write("bios.img", file.read() + core)
    program = machine.write("efi", grub_image(machine, "x86_64-efi", "grub-efi-amd64-bin", CDROM_CONFIG, "fat", *modules))
    efi = machine.write("efi.img", bytes(4 * MIB))
    subprocess.run(["mformat", "-i", efi, "::"], check=True)
    subprocess.run(["mmd", "-i", efi, "::/EFI", "::/EFI/BOOT"], check=True)
    subprocess.run(["mcopy", "-i", efi, program, "::/EFI/BOOT/BOOTX64.EFI"], check=True)
    os.makedirs(machine.path("cd/boot"))
    for name, source in {**linux_files(machine), "boot/bios.img": bios, "boot/efi.img": efi}.items():
        shutil.copy(source, machine.path("cd/" + name))
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-b", "boot/bios.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table",
                    "--grub2-boot-info", "-eltorito-alt-boot", "-e", "boot/efi.img", "-no-emul-boot", "-o", machine.path("cd.iso"), machine.path("cd")],
                   check=True, stderr=subprocess.DEVNULL)
    return ["--disk", "bus=sata,path=" + machine.write("disk", bytes(MIB)), "--cdrom", machine.path("cd.iso")]


def test_cdrom(machine):
    machine.run("--firmware", cached(SEABIOS), *cdrom(machine))
    machine.expect("Booting from Hard Disk", machine.serial)
    machine.expect("Booting from DVD/CD", machine.serial)
    machine.expect("GRUB runs", machine.serial)
    machine.expect_linux()


def test_ovmf_cdrom(machine):
    machine.run("--firmware", cached(OVMF), "--boot", "cdrom", *cdrom(machine))
    machine.expect("GRUB runs", machine.serial)
    machine.expect_linux()


def test_memtest(machine):
    disk = bios_disk(machine, {"boot/memtest": cached("memtest86+/boot/memtest86+x64.bin")}, MEMTEST_CONFIG)
    machine.run("--firmware", cached(SEABIOS), "--memory", "32M", "--disk", "path=" + disk, until=rb"#10 |Errors: +[1-9]")
    machine.expect("#10 ", machine.serial)
    machine.expect("Errors: 0", machine.serial)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--timeout", type=int, default=240)
    parser.add_argument("test")
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        machine = Machine(args, work)
        try:
            globals()["test_" + args.test.replace("-", "_")](machine)
        except Failure as failure:
            print(machine.debug[-4000:], machine.serial[-8000:], failure, sep="\n")
            return 1
    print(f"{args.test}: passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
