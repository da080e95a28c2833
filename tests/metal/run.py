#!/usr/bin/env python3
"""Boot nadir.elf on emulated machines, with test guests as multiboot modules, and judge what they print.

usage: run.py --nadir nadir.elf --images FOLDER [NAME...]

Guests run one after the other on QEMU, which loads nadir.elf itself; then those that run by AMD-V ("svm IMAGE [CPUS]"), also
without nested paging ("shadow IMAGE [CPUS]", "vtlb IMAGE [CPUS]"). "vmx IMAGE [CPUS]" runs one by VT-x on Bochs.
Then an image made by scripts/iso.sh, which GRUB boots: with several CPUs and several guests, by UEFI, and on Bochs as an Intel and as an AMD CPU; there,
with guests that run by VT-x.
"""
import argparse
import concurrent.futures
import glob
import hashlib
import os
import random
import re
import selectors
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = os.path.join(HERE, '..', '..', 'scripts')
sys.path.insert(0, os.path.join(HERE, '..', 'guest'))
import bochs  # noqa: E402  (beside the guests)

CACHE = os.environ.get('NADIR_CACHE', os.path.expanduser('~/.cache/nadir'))
# Guests by what nadir needs for them: faults in generated code, interrupts and timers, every mode. (fpu_xsave fails here as in TCG itself, which
# raises no floating-point exceptions; apic takes a timer back within a millisecond, which is too short here.)
GUESTS = ('flags-64', 'b1_ring-64', 'exceptions-32', 'exceptions-64', 'strings-64', 'paging-64', 'b5_interrupts-64', 'smc-64', 'segments-32',
          'v86-32', 'task_switch-32', 'pic_pit-32', 'alignment-64')
END = 'all guests have ended'

# By AMD-V guests run on TCG's own CPU, and are told so, as its deviations are not nadir's. Not debug (TCG forgets armed break points when it enters a
# guest), paging-32 (a MOV to CR3 with bad PDPTEs succeeds on TCG; the next MOV to CR4 is nadir's, and fails) and garbage-32 (user code's IRET takes VM from the
# stack on TCG, without any hypervisor too).
SVM = [f'{name}-{width}' for name in ('alignment', 'apic', 'b1_ring', 'b3_sensitive', 'b4_transitions', 'b5_interrupts', 'b7_hidden', 'debuggee',
                                      'double_fault', 'exceptions', 'flags', 'fpu_xsave', 'gates', 'io_permission', 'iret', 'mmio', 'msr_cpuid',
                                      'neighbours', 'segments', 'smc', 'strings') for width in (32, 64)]
SVM += ['apic_exits-64', 'ioapic-32', 'legacy-32', 'narrow-32', 'paging-64', 'pic_pit-32', 'place-64', 'place_code-64', 'place_state-64', 'real_mode-32',
        'task_switch-32', 'v86-32', 'smp-64', 'smp-64 2', 'litmus-64 2', 'litmus-64 4', 'startup-64 4', 'torture-64 2', 'paravirt-64 2', 'garbage-64']

# The same without nested paging, by both back ends. Not task_switch-32 and double_fault: TCG has no intercept for task switches, and loads the CR3 of a TSS
# itself; and a fault while it delivers an injected page fault does not become #DF.
SHADOWED = [f'{mmu} {name}' for mmu in ('shadow', 'vtlb') for name in (
    'b5_interrupts-32', 'exceptions-32', 'exceptions-64', 'gates-64', 'mmio-64', 'msr_cpuid-64', 'neighbours-64', 'paging-64', 'real_mode-32', 'segments-32',
    'smc-64', 'strings-64', 'v86-32', 'smp-64 2', 'litmus-64 4', 'startup-64 4', 'paravirt-64 2')]

# By VT-x guests run on Bochs, several on one machine: "IMAGE [CPUS]". Not those with which Bochs itself deviates (BOCHS in ../guest/guests.py); and few with
# timers that are too short for a CPU which many share. Not paravirt: where the processor delivers interrupts, no EOI is left to be spared.
VMX = [
    [f'{name}-{width}' for name in ('alignment', 'b1_ring', 'b3_sensitive', 'b7_hidden') for width in (32, 64)],
    [f'{name}-{width}' for name in ('debug', 'exceptions', 'io_permission', 'mmio') for width in (32, 64)],
    [f'{name}-{width}' for name in ('debuggee', 'double_fault', 'flags', 'msr_cpuid') for width in (32, 64)],
    [f'{name}-{width}' for name in ('segments', 'paging', 'neighbours') for width in (32, 64)] + ['task_switch-32', 'v86-32'],
    ['real_mode-32', 'legacy-32', 'narrow-32', 'ioapic-32', 'gates-32', 'b4_transitions-32', 'place_state-64', 'apic-32', 'apic-64'],
    ['b5_interrupts-32', 'b5_interrupts-64'],
    ['strings-32', 'strings-64', 'smp-64 2', 'litmus-64 2'],
]

# By AMD-V on Bochs, likewise; not debug, since Bochs leaves a guest at #DB before DR6 says why, which the manual does not.
AMD = [f'{name}-{width}' for name in ('alignment', 'b1_ring', 'b3_sensitive', 'b7_hidden', 'flags', 'io_permission', 'mmio', 'msr_cpuid') for width in (32, 64)]
AMD_SHADOWED = ('flags-64', 'b3_sensitive-64', 'b7_hidden-32', 'mmio-64')
VMX_SHADOWED = ('flags-64', 'exceptions-32', 'b7_hidden-32', 'real_mode-32')  # without EPT; where real mode is step's

# Several guests on one machine, by description files: their names, and what they run.
SEVERAL = {
    'one': 'kernel = flags-64.img\nengine = step\n',
    'two': 'kernel = exceptions-64.img\nengine = bt\n',
    'three': 'kernel = smp-64.img\ncpus = 2\nappend = "cpus=2"\nweight = 50\n',
}

# Ordinary guests, which measure no time, and what must not disturb them, on fewer CPUs than there are vCPUs: endless work, a storm of interrupts, one that halts for
# ever, one that spins with interrupts off, random writes to everything, random code.
ORDINARY = {
    'flags': 'kernel = flags-64.img\nengine = bt\n',
    'exceptions': 'kernel = exceptions-64.img\nengine = step\n',
}
HOSTILE = {
    'loop': 'kernel = noise-64.img\nappend = "mode=0"\nengine = bt\n',
    'storm': 'kernel = noise-64.img\nappend = "mode=1"\nengine = bt\ncap = 50\n',
    'halted': 'kernel = noise-64.img\nappend = "mode=2"\nengine = bt\n',
    'spin': 'kernel = spin-64.img\nengine = bt\nhang-timeout = 0\npin = 1\nweight = 10000\n',
    'chaos': 'kernel = chaos-64.img\nappend = "seed=4 steps=1000000000 all=1"\nengine = bt\non-crash = reset\n',
    'garbage': 'kernel = garbage-32.img\nappend = "seed=5 rounds=1000000000"\nengine = bt\non-crash = reset\n',
}

BOCHS = """\
megs: 256
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file={folder}/vga.bin
ata0-master: type=cdrom, path={iso}, status=inserted
boot: cdrom
display_library: term
com1: enabled=1, mode=file, dev={folder}/serial
log: {folder}/log
panic: action=fatal
error: action=ignore
cpu: model={model}, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=0
clock: sync=none
"""


def qemu(*arguments, cpus=1):
    return ['qemu-system-x86_64', '-accel', 'tcg', '-cpu', 'max,+svm', '-m', '512', '-smp', str(cpus), '-nodefaults', '-display', 'none', '-serial',
            'stdio', '-no-reboot', *arguments]


def on_qemu(options, guest, append=None, cpus=1):
    return qemu('-kernel', options.nadir, '-append', '--debug-exit --no-reboot --end reset ' + (append or options.append), '-initrd',
                f'{options.images}/{guest}.img', cpus=cpus)


def finished(text):
    return END.encode() in text or b'nadir: stopped' in text


def output_of(command, timeout, finished=finished, keys=b'', prompt=b'passed, '):
    """What the machine says on its serial port until all guests have ended; `keys` are typed when it has said `prompt`."""
    text, end = b'', time.monotonic() + timeout
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process, \
            selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not finished(text) and time.monotonic() < end:
            if not selector.select(1):
                continue
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                break
            text += data
            if keys and prompt in text:
                process.stdin.write(keys)
                process.stdin.flush()
                keys = b''
        process.kill()
    return text.decode(errors='replace')


def output_of_bochs(folder, iso, model, timeout):
    """Likewise; Bochs writes the serial port to a file, and wants a terminal of its own."""
    bochs.write_video_rom(folder)
    with open(f'{folder}/bochsrc', 'w', encoding='ascii') as file:
        file.write(BOCHS.format(folder=folder, iso=iso, model=model))
    with open(f'{folder}/commands', 'w', encoding='ascii') as file:
        file.write('c\n')  # Debian's Bochs has its debugger built in
    line = f'exec bochs -q -f {shlex.quote(folder)}/bochsrc -rc {shlex.quote(folder)}/commands'
    text, end = b'', time.monotonic() + timeout
    # Bochs reads memory that it has not written, which the test runner fills.
    environment = dict(os.environ, TERM='linux', MALLOC_PERTURB_='0')
    with subprocess.Popen(['script', '-qfec', line, '/dev/null'], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        while not finished(text) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.2)
            if os.path.exists(f'{folder}/serial'):
                with open(f'{folder}/serial', 'rb') as file:
                    text = file.read()
        process.terminate()
    return text.decode(errors='replace')


def verdict(output, guests=1):
    """None, or what is wrong: every guest prints a count of checks, and none has failed."""
    if 'nadir: bug' in output or 'nadir: error' in output:
        return 'nadir itself failed'
    if END not in output:
        return 'timed out'
    counts = re.findall(r'(\d+) passed, (\d+) failed', output)
    if len(counts) != guests:
        return f'{len(counts)} results, not {guests}'
    return None if all(failed == '0' and passed != '0' for passed, failed in counts) else 'failures'


def make_iso(options, folder, descriptions, append='--debug-exit --no-reboot --end reset', files=()):
    """Of these descriptions and their kernels, test guests, if no other files are given."""
    files = list(files)
    kernels = not files
    for name, text in descriptions.items():
        files.append(f'{folder}/{name}.vm')
        with open(files[-1], 'w', encoding='ascii') as file:
            file.write(text)
        if kernels:
            files.append(options.images + '/' + re.search(r'kernel = (\S+)', text)[1])
    files = list(dict.fromkeys(files))
    subprocess.run([f'{HERE}/../../scripts/iso.sh', f'{folder}/nadir.iso', options.nadir, '--append', append, *files], check=True)
    return f'{folder}/nadir.iso'


def several(options, folder):
    iso = make_iso(options, folder, SEVERAL)
    output = output_of(qemu('-cdrom', iso, cpus=4), options.timeout)
    return output, verdict(output, 3) or (None if '4 CPUs' in output else 'not all CPUs were started')


def neighbours(options, folder):
    """The ordinary guests pass beside the hostile ones, all of which are still there, and Ctrl-a s says who got what."""
    iso = make_iso(options, folder, {**ORDINARY, **HOSTILE}, '--debug-exit --memory 16M')

    def all_ended(text):
        return b'nadir: stopped' in text or all(re.search(rb'nadir: %s ended with status \d+\r' % name.encode(), text) for name in ORDINARY)
    output = output_of(qemu('-cdrom', iso, cpus=2), options.timeout, all_ended, b'\x01s')
    threads = set(re.findall(r'^nadir: (\w+/\d+) +\d+ +\d+ +\d+ ', output, re.MULTILINE))
    trouble = ('nadir itself failed' if 'nadir: bug' in output or 'nadir: error' in output else
               next((f'{name} did not pass' for name in ORDINARY if f'nadir: {name} ended with status 1\r' not in output), None) or
               next((f'Ctrl-a s does not tell of {name}' for name in HOSTILE if f'{name}/0' not in threads), None) or
               (None if re.search(r'nadir: [1-9]\d* interrupts of the serial port\r', output) else 'what is typed comes without interrupts'))
    return output, trouble


# Machines that share the image of a disk and are at one network; another is at a network of its own.
VIRTIO = 'kernel = virtio-64.img\nengine = {engine}\nappend = "me={me} others=3"\ndisk = path=disk.img,serial=shared\nnet = switch\n'
DISK_SECTORS = 2051


def disks(options, folder):
    with open(f'{folder}/disk.img', 'wb') as file:
        for sector in range(DISK_SECTORS):
            file.write(struct.pack('<I508x', (sector * 0x01000193 + 1) & 0xffffffff))
    guests = {f'disk{me}': VIRTIO.format(me=me, engine=engine) for me, engine in ((1, 'step'), (2, 'bt'), (3, 'bt'))}
    guests['alone'] = guests['disk1'].replace('others=3', 'others=1').replace('switch', 'switch,name=other,mac=52:54:00:12:34:56') + 'cdrom = other.iso\n'
    shutil.copy(f'{folder}/disk.img', f'{folder}/other.iso')
    os.truncate(f'{folder}/other.iso', 64 << 10)
    iso = make_iso(options, folder, guests, '--debug-exit --no-reboot --memory 16M', [f'{options.images}/virtio-64.img', f'{folder}/disk.img', f'{folder}/other.iso'])
    output = output_of(qemu('-cdrom', iso, cpus=2), options.timeout)
    return output, verdict(output, 4)


LINUX = 'kernel = vmlinuz\ninitrd = initrd\nmemory = 192M\nengine = {engine}\nappend = "console=ttyS0 quiet me={me} other={other}"\n' \
        'disk = path=disk.img,serial=shared\nnet = switch,name=lan,mac=52:54:00:00:00:0{me}\n'


def short(data):
    return hashlib.md5(data).hexdigest()[:12]


def linux_files(folder):
    """Debian's cloud kernel, a busybox that runs linux.sh, and the image of a disk."""
    modules = glob.glob(f'{CACHE}/linux-cloud/lib/modules/*/kernel')[0]
    shutil.copy(glob.glob(f'{CACHE}/linux-cloud/boot/vmlinuz-*')[0], f'{folder}/vmlinuz')
    names = ['drivers/virtio/virtio', 'drivers/virtio/virtio_ring', 'drivers/virtio/virtio_pci_modern_dev', 'drivers/virtio/virtio_pci_legacy_dev',
             'drivers/virtio/virtio_pci', 'net/core/failover', 'drivers/net/net_failover', 'drivers/net/virtio_net', 'drivers/block/virtio_blk']
    subprocess.run([f'{HERE}/../../scripts/initramfs.sh', f'{CACHE}/busybox/bin/busybox', f'{folder}/initrd', f'{HERE}/linux.sh',
                    *(f'{modules}/{name}.ko' for name in names)], check=True)
    image = random.Random(1).randbytes(4 << 20)
    with open(f'{folder}/disk.img', 'wb') as file:
        file.write(image)
    return [f'{folder}/{name}' for name in ('vmlinuz', 'initrd', 'disk.img')], image


def devices(options, folder):
    """Two Linux guests with one disk image, which neither sees the other write, and a network between them."""
    files, image = linux_files(folder)
    engine = re.search(r'--engine (\S+)', options.append)
    guests = {f'linux{me}': LINUX.format(me=me, other=3 - me, engine='svm' if not engine or engine[1] == 'step' else engine[1]) for me in (1, 2)}
    output = output_of(qemu('-m', '1024', '-cdrom', make_iso(options, folder, guests, '--no-reboot', files), cpus=2), options.timeout)
    wanted = {f'image: {short(image)}': 2, 'own: guest 1': 1, 'own: guest 2': 1, f'rest: {short(image[512:])}': 2, 'ping: 3 packets received': 2,
              f'got: {short(image[512:])}': 1, 'powered itself off': 2}
    trouble = next((f'{output.count(text)} times "{text}", not {times}' for text, times in wanted.items() if output.count(text) != times), None)
    return output, trouble if END in output else trouble or 'timed out'


def power_off(options, folder):
    """The machine switches itself off, by ACPI as two chipsets and UEFI have it."""
    output, trouble = '', None
    iso = make_iso(options, folder, {'one': SEVERAL['one']}, '--debug-exit --no-reboot --end poweroff')
    for machine in (['-machine', 'pc'], ['-machine', 'q35'], ['-machine', 'q35', '-bios', f'{CACHE}/ovmf/usr/share/ovmf/OVMF.fd']):
        with subprocess.Popen(qemu(*machine, '-cdrom', iso), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            timer = threading.Timer(options.timeout, process.kill)
            timer.start()
            output = process.communicate()[0].decode(errors='replace')
            timer.cancel()
        trouble = trouble or verdict(output) or (f'{" ".join(machine)} is still on' if process.returncode else None)
    return output, trouble


def uefi(options, folder):
    iso = make_iso(options, folder, {'one': SEVERAL['one']})
    output = output_of(qemu('-bios', f'{CACHE}/ovmf/usr/share/ovmf/OVMF.fd', '-cdrom', iso, cpus=2), options.timeout)
    return output, verdict(output)


def svm(options, name):
    mmu, guest, cpus = (name + ' 1').split()[:3]
    mmu = mmu.replace('svm', 'auto')
    append = f'--engine svm --mmu {mmu} --cpus {cpus} --append "cpus={cpus} tcg=1"'
    output = output_of(on_qemu(options, guest, append, min(int(cpus), 2)), options.timeout)
    return output, verdict(output)


def linux(cpus, mmu='auto'):
    """Debian's kernel by AMD-V to a shell, which says how many CPUs it has."""
    def run(options, folder):
        for package, name in ('linux-image-cloud-amd64', 'linux-cloud'), ('busybox-static', 'busybox'):
            subprocess.run([f'{SCRIPTS}/guest-package.sh', package, f'{CACHE}/{name}'], check=True)
        subprocess.run([f'{SCRIPTS}/initramfs.sh', f'{CACHE}/busybox/bin/busybox', f'{folder}/shell.cpio.gz'], check=True)
        kernel = glob.glob(f'{CACHE}/linux-cloud/boot/vmlinuz-*')[0]
        append = f'--engine svm --mmu {mmu} --end reset --memory 256M --cpus {cpus}'
        command = qemu('-kernel', options.nadir, '-append', append, '-initrd', f'{kernel} console=ttyS0 quiet,{folder}/shell.cpio.gz', cpus=cpus)
        output = output_of(command, options.timeout, keys=b'echo it has "$(nproc)" CPUs; poweroff -f\n', prompt=b'nadir:/#')
        return output, None if f'it has {cpus} CPUs' in output and 'powered itself off' in output else 'no shell, or not all CPUs'
    return run


def linux_on_bochs(model, engine):
    """Debian's kernel, which runs a script. Its decompression takes long with interrupts off."""
    def run(options, folder):
        for package, name in ('linux-image-cloud-amd64', 'linux-cloud'), ('busybox-static', 'busybox'):
            subprocess.run([f'{SCRIPTS}/guest-package.sh', package, f'{CACHE}/{name}'], check=True)
        shutil.copy(glob.glob(f'{CACHE}/linux-cloud/boot/vmlinuz-*')[0], f'{folder}/vmlinuz')
        subprocess.run([f'{SCRIPTS}/initramfs.sh', f'{CACHE}/busybox/bin/busybox', f'{folder}/initrd', f'{HERE}/../boot/script.sh'], check=True)
        guest = f'kernel = vmlinuz\ninitrd = initrd\nmemory = 160M\nengine = {engine}\nhang-timeout = 0\nappend = "console=ttyS0 quiet"\n'
        iso = make_iso(options, folder, {'linux': guest}, '--no-reboot', [f'{folder}/vmlinuz', f'{folder}/initrd'])
        output = output_of_bochs(folder, iso, model, options.timeout)
        wanted = ('kernel: Linux x86_64', 'sum: 500500', 'pipe: abc', 'script: end', 'powered itself off')
        return output, next((f'does not say "{text}"' for text in wanted if text not in output), None)
    return run


def on_bochs(model):
    def run(options, folder):
        iso = make_iso(options, folder, {'one': SEVERAL['one']}, '--debug-exit --no-reboot')
        output = output_of_bochs(folder, iso, model, options.timeout)
        return output, verdict(output)
    return run


def vmx(names, model='corei7_skylake_x', mmu='auto', engine='vmx'):
    def run(options, folder):
        memory = 160 // len(names)
        guests = {}
        for name in names:
            image, cpus = (name + ' 1').split()[:2]
            guests[image.replace('-', '_')] = (f'kernel = {image}.img\nengine = {engine}\nmmu = {mmu}\nmemory = {memory}M\ncpus = {cpus}\n'
                                               f'append = "cpus={cpus} rounds=20"\n')
        output = output_of_bochs(folder, make_iso(options, folder, guests, '--debug-exit --no-reboot'), model, options.timeout)
        passed = set(re.findall(r'nadir: (\w+) ended with status 1\b', output))
        trouble = 'nadir itself failed' if 'nadir: bug' in output or 'nadir: error' in output else next((f'{name} did not pass' for name in guests if name not in passed), None)
        return output, trouble
    return run


# What of the local APIC is left to nadir, for a guest that uses it thousands of times, with all that the processor has and without parts of it: how often it may leave at most, for
# all reasons together that have to do with it.
APIC_REASONS = ('control-register access', 'APIC access', 'APIC write', 'virtualized EOI', 'TPR below threshold', 'RDMSR', 'WRMSR', 'EPT violation', 'interrupt window')
LOCAL_APIC = {  # what the guest is without, and the most exits
    'all': ('vpid', 60),
    'polled': ('interrupt-delivery', 4000),
    'written': ('apic-registers', 6000),
    'msrs': ('apic-access', 6000),
    'emulated': ('tpr-shadow', 20000),
}


def local_apic(options, folder):
    guests = {name: f'kernel = apic_exits-64.img\nengine = vmx\nwithout = {without}\n' for name, (without, _) in LOCAL_APIC.items()}
    guests['ioapic'] = 'kernel = ioapic-32.img\nengine = vmx\n'
    output = output_of_bochs(folder, make_iso(options, folder, guests, '--debug-exit --no-reboot --memory 16M --stats'), 'corei7_skylake_x', options.timeout)
    trouble = verdict(output, len(guests))
    for name, (_, most) in LOCAL_APIC.items():
        left = sum(int(count) for count, reason in re.findall(fr'nadir: {name}: +(\d+)  times left by ([^\r\n]+)', output) if reason in APIC_REASONS)
        trouble = trouble or (f'{name}: {left} exits because of the local APIC' if not 0 < left <= most else None)
    return output, trouble


MACHINES = {
    'Linux, 1 CPU': linux(1),
    'Linux, 2 CPUs': linux(2),
    'Linux, 4 CPUs': linux(4),
    'Linux, 2 CPUs, vtlb': linux(2, 'vtlb'),
    'Linux, 2 CPUs, shadow': linux(2, 'shadow'),
    '4 CPUs, 3 guests': several,
    'hostile neighbours': neighbours,
    'disks and a network': disks,
    'power off': power_off,
    'UEFI': uefi,
    'Bochs Skylake-X': on_bochs('corei7_skylake_x'),
    'Bochs Ryzen': on_bochs('ryzen'),
    'Bochs Penryn': on_bochs('core2_penryn_t9600'),
    'Linux, Bochs AMD-V': linux_on_bochs('ryzen', 'svm'),
    'Linux, Bochs VT-x': linux_on_bochs('corei7_skylake_x', 'vmx'),
    'Linux, Bochs VT-x Penryn': linux_on_bochs('core2_penryn_t9600', 'vmx'),
    'Bochs AMD-V 1': vmx(AMD[:8], 'ryzen', engine='svm'),
    'Bochs AMD-V 2': vmx(AMD[8:], 'ryzen', engine='svm'),
    'Bochs AMD-V vtlb': vmx((*AMD_SHADOWED, 'paging-64'), 'ryzen', 'vtlb', 'svm'),
    'Bochs AMD-V shadow': vmx(AMD_SHADOWED, 'ryzen', 'shadow', 'svm'),
    'Bochs VT-x vtlb': vmx(VMX_SHADOWED, mmu='vtlb'),
    'Bochs VT-x Penryn': vmx(VMX_SHADOWED, 'core2_penryn_t9600'),
    'Bochs VT-x local APIC': local_apic,
    **{f'Bochs VT-x {i + 1}': vmx(names) for i, names in enumerate(VMX)},
}

# Only by name: on emulated CPUs two Linux guests take minutes to boot, with a software engine many.
SLOW = {'Linux, disk and network': devices}


def run_one(options, name):
    if name in MACHINES or name in SLOW:
        with tempfile.TemporaryDirectory() as folder:
            return {**MACHINES, **SLOW}[name](options, folder)
    if name.startswith('vmx '):
        with tempfile.TemporaryDirectory() as folder:
            return vmx([name[4:]])(options, folder)
    if name.startswith(('svm ', 'shadow ', 'vtlb ')):
        return svm(options, name)
    output = output_of(on_qemu(options, name), options.timeout)
    return output, verdict(output)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--nadir', default='build/src/host/metal/nadir.elf')
    parser.add_argument('--images', default='build/tests/guest')
    parser.add_argument('--append', default='--engine step', help="nadir's command line, for guests on QEMU")
    parser.add_argument('--timeout', type=float, default=180)
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--verbose', action='store_true')
    parser.add_argument('names', nargs='*', default=[*GUESTS, *('svm ' + name for name in SVM), *SHADOWED, *MACHINES])
    options = parser.parse_args()
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for name, (output, trouble) in zip(options.names, pool.map(lambda name: run_one(options, name), options.names)):
            lines = output.strip().splitlines()
            result = trouble or '; '.join(re.findall(r'\d+ passed, \d+ failed', output))
            print(f'{"FAIL" if trouble else "ok  "} {name:<20} {result}')
            if trouble or options.verbose:
                print('\n'.join('    ' + line for line in lines[-40:]))
            sys.stdout.flush()
            failed += trouble is not None
    print(f'{len(options.names) - failed} passed, {failed} failed')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
