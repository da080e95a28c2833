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
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading

import host
import linux
from machine import OVMF, make_iso, on_qemu, output_of, output_of_bochs, qemu, verdict

# Guests by what nadir needs for them: faults in generated code, interrupts and timers, every mode. (fpu_xsave fails here as in TCG itself, which
# raises no floating-point exceptions; apic takes a timer back within a millisecond, which is too short here.)
GUESTS = ('flags-64', 'b1_ring-64', 'exceptions-32', 'exceptions-64', 'strings-64', 'paging-64', 'b5_interrupts-64', 'smc-64', 'segments-32',
          'v86-32', 'task_switch-32', 'pic_pit-32', 'alignment-64')

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

def several(options, folder):
    iso = make_iso(options, folder, SEVERAL)
    output = output_of(qemu('-cdrom', iso, cpus=4), options.timeout)
    return output, verdict(output, 3) or (None if '4 CPUs' in output else 'not all CPUs were started')


def neighbours(options, folder):
    """The ordinary guests pass beside the hostile ones, all of which are still there, and Ctrl-a s says who got what."""
    iso = make_iso(options, folder, {**ORDINARY, **HOSTILE}, '--debug-exit --memory 16M')

    def all_ended(text):
        return b'nadir: stopped' in text or all(re.search(rb'nadir: %s ended with status \d+\r' % name.encode(), text) for name in ORDINARY)
    output = output_of(qemu('-cdrom', iso, cpus=2), options.timeout, all_ended, [(b'passed, ', b'\x01s')])
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


def power_off(options, folder):
    """The machine switches itself off, by ACPI as two chipsets and UEFI have it."""
    output, trouble = '', None
    iso = make_iso(options, folder, {'one': SEVERAL['one']}, '--debug-exit --no-reboot --end poweroff')
    for machine in (['-machine', 'pc'], ['-machine', 'q35'], ['-machine', 'q35', '-bios', OVMF]):
        with subprocess.Popen(qemu(*machine, '-cdrom', iso), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            timer = threading.Timer(options.timeout, process.kill)
            timer.start()
            output = process.communicate()[0].decode(errors='replace')
            timer.cancel()
        trouble = trouble or verdict(output) or (f'{" ".join(machine)} is still on' if process.returncode else None)
    return output, trouble


def svm(options, name):
    mmu, guest, cpus = (name + ' 1').split()[:3]
    mmu = mmu.replace('svm', 'auto')
    append = f'--engine svm --mmu {mmu} --cpus {cpus} --append "cpus={cpus} tcg=1"'
    output = output_of(on_qemu(options, guest, append, min(int(cpus), 2)), options.timeout)
    return output, verdict(output)


def linux_on_bochs(model, engine):
    """Debian's kernel, which runs a script. Its decompression takes long with interrupts off."""
    def run(options, folder):
        guest = f'kernel = vmlinuz\ninitrd = initrd\nmemory = 160M\nengine = {engine}\nhang-timeout = 0\nappend = "console=ttyS0 quiet"\n'
        iso = make_iso(options, folder, {'linux': guest}, '--no-reboot', linux.script_files(folder))
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
    **linux.CASES,
    **host.CASES,
    '4 CPUs, 3 guests': several,
    'hostile neighbours': neighbours,
    'disks and a network': disks,
    'power off': power_off,
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

# Only with --long: on emulated CPUs these take minutes.
LONG = linux.LONG


def run_one(options, name):
    if name in MACHINES or name in LONG:
        with tempfile.TemporaryDirectory() as folder:
            return {**MACHINES, **LONG}[name](options, folder)
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
    parser.add_argument('--timeout', type=float, default=300)
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--long', action='store_true', help='those that take minutes instead')
    parser.add_argument('--verbose', action='store_true')
    parser.add_argument('names', nargs='*')
    options = parser.parse_args()
    options.names = options.names or [*LONG] if options.long else options.names or [*GUESTS, *('svm ' + name for name in SVM), *SHADOWED, *MACHINES]
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
