"""Run a guest on Bochs 2.7: a third reading of the manuals, to check the guests' expectations where QEMU deviates.

Bochs boots from a disk only: a boot sector (bochs_boot.S), then the guest. It writes port 0xe9 to its terminal and ends
when the guest writes "Shutdown" to port 0x8900.
"""

import os
import shlex
import struct
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
CYLINDER = 16 * 63 * 512

CONFIGURATION = """\
megs: 64
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file={folder}/vga.bin
ata0-master: type=disk, path={folder}/disk.img, mode=flat, cylinders={cylinders}, heads=16, spt=63
boot: disk
display_library: term
port_e9_hack: enabled=1
log: {folder}/log
panic: action=fatal
error: action=ignore
cpu: model={model}, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=0
clock: sync=none
"""


def boot_sector(folder):
    """The boot sector, assembled."""
    subprocess.run(['gcc', '-m32', '-c', '-o', f'{folder}/boot.o', f'{HERE}/bochs_boot.S'], check=True)
    subprocess.run(['ld', '-m', 'elf_i386', '-Ttext', '0x7c00', '--oformat', 'binary', '-o', f'{folder}/boot.bin',
                    f'{folder}/boot.o'], check=True)
    with open(f'{folder}/boot.bin', 'rb') as file:
        return bytearray(file.read())


def write_disk(folder, image):
    """The boot sector and the guest without its debugging information; returns the disk's cylinders."""
    subprocess.run(['objcopy', '--strip-debug', image, f'{folder}/guest.elf'], check=True, stderr=subprocess.DEVNULL)
    with open(f'{folder}/guest.elf', 'rb') as file:
        guest = file.read()
    sector = boot_sector(folder)
    struct.pack_into('<I', sector, 0x1f6, (len(guest) + 511) // 512 + 1)
    cylinders = max(20, (len(guest) + 512) // CYLINDER + 1)
    with open(f'{folder}/disk.img', 'wb') as file:
        file.write((bytes(sector) + guest).ljust(cylinders * CYLINDER, b'\0'))
    return cylinders


def write_video_rom(folder):
    """A video BIOS that does nothing: Bochs wants one."""
    rom = bytearray(32768)
    rom[0:4] = b'\x55\xaa\x40\xcb'
    rom[-1] = -sum(rom) & 255
    with open(f'{folder}/vga.bin', 'wb') as file:
        file.write(rom)


def command(folder, model, image):
    """The command line that runs `image` with all its files in `folder`."""
    write_video_rom(folder)
    with open(f'{folder}/bochsrc', 'w') as file:
        file.write(CONFIGURATION.format(folder=folder, model=model, cylinders=write_disk(folder, image)))
    with open(f'{folder}/commands', 'w') as file:
        file.write('c\n')  # Debian's Bochs has its debugger built in
    bochs = f'bochs -q -f {shlex.quote(folder)}/bochsrc -rc {shlex.quote(folder)}/commands'
    return ['script', '-qfec', bochs, '/dev/null']  # it wants a terminal
