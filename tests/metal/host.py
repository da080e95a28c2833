"""The host's own part of nadir.elf on QEMU: what guests leave to each other, keys, what firmware and processors differ in, page tables, and the panic."""
import os
import re
import socket
import subprocess
import time

from machine import END, make_iso, on_qemu, output_of, qemu, verdict

# ---- what one guest leaves to another ----

SCRUB = 'kernel = scrub-64.img\ndebug-exit = on\nappend = "megabytes={megabytes} pattern={pattern} end={end} rounds={rounds}"\nmemory = {megabytes}M\n'


def scrubbing(options, folder):
    """One after the other, each with more than half of the memory there is; and two that share a CPU all the time."""
    chain = {'first': (1, 'engine = bt\n'), 'second': (2, 'engine = svm\nno-reboot = on\nafter = first\n'), 'third': (0, 'engine = svm\nafter = second\n'),
             'fourth': (0, 'engine = svm\nmmu = vtlb\nafter = third\n')}
    guests = {name: SCRUB.format(megabytes=260, pattern=i + 1, end=end, rounds=10) + keys for i, (name, (end, keys)) in enumerate(chain.items())}
    for name, pattern in ('left', 11), ('right', 12):
        guests[name] = SCRUB.format(megabytes=32, pattern=pattern, end=0, rounds=2000) + 'engine = svm\npin = 0\n'
    output = output_of(qemu('-cdrom', make_iso(options, folder, guests, '--end reset'), cpus=2), options.timeout)
    kept = output.count('nothing was found, and everything kept')
    ends = {'first': 'crashed', 'second': 'rebooted'}
    trouble = next((f'{name} has not {how}' for name, how in ends.items() if f'nadir: {name} {how}' not in output), None)
    return output, (verdict(output, len(guests) - len(ends)) or trouble or ('a check failed' if 'FAILED' in output else None) or
                    (None if kept == len(guests) else f'{kept} guests have got to their end'))


# ---- keys ----

ECHO = 'kernel = echo-64.img\nengine = svm\nappend = "me={me}"\nmemory = 16M\n'


def keys(options, folder):
    iso = make_iso(options, folder, {'one': ECHO.format(me=1), 'two': ECHO.format(me=2)})
    typed = [(b'is ready', b''), (b'is ready', b'x'), (b'guest 1: key 78', b'\x01n'), (b'two is in front', b'y'), (b'guest 2: key 79', b'\x01h'),
             (b'two is in front; lines of others have their names in front', b'\x01s'), (b' MiB are free', b'\x01a'), (b'guest 2: key 01', b'\x01\x01'),
             (b'guest 2: key 01', b'\x01n'), (b'one is in front', b'q'), (b'guest 1: key 71', b'\x01n'), (b'two is in front', b'q')]
    done = []
    output = output_of(qemu('-cdrom', iso), options.timeout, typed=typed, done=done)
    return output, verdict(output, 2) or (None if len(done) == len(typed) else f'does not say {typed[len(done)][0].decode()}')


# ---- machines ----

def machine(says, *arguments, cpus=2, chip='pc'):
    """On such a machine a guest on each CPU passes, and nadir says what it has found."""
    def run(options, folder):
        # A guest by a software engine that runs everywhere, and one with interprocessor interrupts.
        iso = make_iso(options, folder, {'flags': 'kernel = flags-64.img\nengine = step\n', 'smp': 'kernel = smp-64.img\nengine = bt\ncpus = 2\nappend = "cpus=2"\n'})
        output = output_of(qemu('-machine', chip, '-cdrom', iso, *arguments, cpus=cpus), options.timeout)
        return output, verdict(output, 2) or (None if re.search(says, output) else f'does not say: {says}')
    return run


# ---- the host while it runs ----

IDLE = '--append mode=2 --engine bt --memory 16M'


class Running:
    """nadir.elf with a guest that halts for ever, with QEMU's monitor and its stub for debuggers."""

    def __init__(self, options, folder, cpus=2):
        self.log, self.monitor, self.stub, self.options = f'{folder}/log', f'{folder}/monitor', f'{folder}/gdb', options
        command = on_qemu(options, 'noise-64', IDLE, cpus)
        command[command.index('-serial') + 1] = f'file:{self.log}'
        command += ['-monitor', f'unix:{self.monitor},server=on,wait=off', '-chardev', f'socket,path={self.stub},server=on,wait=off,id=gdb', '-gdb', 'chardev:gdb']
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self.end = time.monotonic() + options.timeout

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def output(self):
        if not os.path.exists(self.log):
            return ''
        with open(self.log, encoding='utf-8', errors='replace') as file:
            return file.read()

    def wait(self, text):
        while text not in self.output() and time.monotonic() < self.end:
            time.sleep(0.2)
        return text in self.output()

    def ask(self, command):
        """What the monitor answers."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(self.monitor)
            text = b''
            for line in (b'', command.encode() + b'\n'):
                connection.sendall(line)
                text = b''
                while not text.endswith(b'(qemu) '):
                    text += connection.recv(65536)
        return text.decode()

    def debug(self, *commands):
        """Do that on a CPU which is in the host, idle."""
        with open(f'{self.stub}.commands', 'w', encoding='ascii') as file:
            file.write('\n'.join(['set pagination off', f'target remote {self.stub}', *commands, 'detach']) + '\n')
        return subprocess.run(['gdb', '-q', '-batch', '-nx', '-x', file.name, self.options.nadir], capture_output=True, text=True, timeout=120, check=False).stdout


READY = ' MiB of memory'


def page_tables(options, folder):
    """Nothing is writable and executable, low addresses mean nothing, and a guest's memory is where the host reaches it for the guest, and nowhere else."""
    with Running(options, folder) as host:
        host.wait(READY)
        time.sleep(3)
        memory = int(re.search(r'memory is at (\d+)', host.debug('printf "memory is at %lu\\n", guests.guest[0]->vm->memory'))[1])
        rows = [(int(virtual, 16), int(physical, 16), flags) for virtual, physical, flags in
                re.findall(r'^([0-9a-f]{16}): ([0-9a-f]{16}) (\S+)', host.ask('info tlb'), re.MULTILINE)]
        output = host.output()
    of_guest, others = set(), {}
    for virtual, physical, flags in rows:
        if 'W' in flags and 'X' not in flags:
            return output, f'{virtual:x} is writable and executable'
        if virtual < 1 << 47:
            return output, f'{virtual:x} is mapped'
        for page in range(physical, physical + (2 << 20 if 'P' in flags else 4096), 4096):
            if memory <= virtual < memory + (16 << 20):
                of_guest.add(page)
            else:
                others[page] = virtual
    twice = [page for page in of_guest if page in others]
    trouble = f'{others[twice[0]]:x} is memory of the guest, too' if twice else None
    return output, trouble if len(of_guest) == 4096 else f'the guest has {len(of_guest)} pages'


def panic(says, *commands, ask=None):
    def run(options, folder):
        with Running(options, folder) as host:
            host.wait(READY)
            time.sleep(3)
            debugger = host.debug(*commands) if commands else ''
            if ask:
                host.ask(ask)
            stopped = host.wait('nadir: stopped; addr2line')
            output = host.output()
        trouble = None if stopped and re.search(says, output) and re.search(r'on CPU \d, thread ', output) and '  at ffffffff8' in output else f'does not say: {says}'
        return output + (debugger if trouble else ''), trouble
    return run


# To where the stack ends: the next page is none.
TO_STACKS_END = """python
a = int(gdb.parse_and_eval("$rsp")) & 0xfffffffffffff000
try:
    while True:
        gdb.selected_inferior().read_memory(a - 1, 1)
        a -= 4096
except gdb.MemoryError:
    gdb.execute(f"set $rsp = {a:#x}")
end"""
PUSH = 'set $rip = (unsigned long) &log_line'

BELOW_STACK = r'bug: #PF \(error 2\) at ffffffff8\S+, address ffff\S+ff8\b'

CASES = {
    'scrubbing': scrubbing,
    'keys': keys,
    'xAPIC': machine('2 CPUs', '-cpu', 'max,-x2apic'),
    'Intel IOMMU, MCFG': machine('1 IOMMUs', '-device', 'intel-iommu', chip='q35'),
    'AMD IOMMU': machine('1 IOMMUs', '-device', 'amd-iommu', chip='q35'),
    'page tables': page_tables,
    'panic: data is not code': panic(r'bug: #PF \(error 11\)', 'set $rip = (unsigned long) &cpus'),
    'panic: guard page': panic(BELOW_STACK, 'thread 1', TO_STACKS_END, PUSH),
    'panic: guard page, CPU 1': panic(BELOW_STACK, 'thread 2', TO_STACKS_END, PUSH),
    'panic: #DF': panic(r'bug: #DF \(error 0\)', 'set var idt[14].type = 0', 'set var idt[11].type = 0', 'set $rip = (unsigned long) &cpus'),
    'panic: #MC': panic(r'bug: #MC[\s\S]*bank 2: status b200000000000400', ask='mce 0 2 0xb200000000000400 0 0 0'),
}
