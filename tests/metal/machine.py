"""Emulated machines that boot nadir.elf, alone or from an image that GRUB boots, and what they say on their serial port."""
import os
import re
import selectors
import shlex
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = os.path.join(HERE, '..', '..', 'scripts')
sys.path.insert(0, os.path.join(HERE, '..', 'guest'))
import bochs  # noqa: E402  (beside the guests)

CACHE = os.environ.get('NADIR_CACHE', os.path.expanduser('~/.cache/nadir'))
OVMF = f'{CACHE}/ovmf/usr/share/ovmf/OVMF.fd'
END = 'all guests have ended'

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


def output_of(command, timeout, finished=finished, typed=(), done=None):
    """What the machine says on its serial port until all guests have ended. `typed` are pairs: what it has to say, one after the other, and what is typed then;
    `done` gets those that were."""
    text, end, typed, seen = b'', time.monotonic() + timeout, list(typed), 0
    done = [] if done is None else done
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
            while typed and typed[0][0] in text[seen:]:
                prompt, keys = typed.pop(0)
                done.append(prompt)
                seen = text.index(prompt, seen) + len(prompt)
                process.stdin.write(keys)
                process.stdin.flush()
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
    subprocess.run([f'{SCRIPTS}/iso.sh', f'{folder}/nadir.iso', options.nadir, '--append', append, *files], check=True)
    return f'{folder}/nadir.iso'
