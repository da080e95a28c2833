#!/usr/bin/env python3
"""Boot nadir.elf on an emulated machine, with test guests as multiboot modules, and judge what they print.

usage: run.py --nadir nadir.elf --images FOLDER [--machine qemu] [NAME...]
"""
import argparse
import concurrent.futures
import os
import re
import selectors
import subprocess
import sys
import time

# Guests by what nadir needs for them: faults in generated code, interrupts and timers, every mode. (fpu_xsave fails here as in TCG itself, which
# raises no floating-point exceptions.)
GUESTS = ('flags-64', 'b1_ring-64', 'exceptions-32', 'exceptions-64', 'strings-64', 'paging-64', 'b5_interrupts-64', 'smc-64',
          'segments-32', 'v86-32', 'task_switch-32', 'apic-64', 'pic_pit-32', 'alignment-64')
END = 'all guests have ended'


def qemu(options, guest):
    return ['qemu-system-x86_64', '-accel', 'tcg', '-cpu', 'max', '-m', '256', '-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot',
            '-kernel', options.nadir, '-append', '--debug-exit --no-reboot ' + options.append, '-initrd', f'{options.images}/{guest}.img']


def output_of(command, timeout):
    """What the machine says on its serial port until all guests have ended."""
    text, end = b'', time.monotonic() + timeout
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process, \
            selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while END.encode() not in text and b'nadir: stopped' not in text and time.monotonic() < end:
            if not selector.select(1):
                continue
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                break
            text += data
        process.kill()
    return text.decode(errors='replace')


def verdict(output):
    if 'nadir: bug' in output:
        return 'nadir itself failed'
    if END not in output:
        return 'timed out'
    counts = re.findall(r'(\d+) passed, (\d+) failed', output)
    return None if counts and all(failed == '0' and passed != '0' for passed, failed in counts) else 'no result, or failures'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--nadir', default='build/src/host/metal/nadir.elf')
    parser.add_argument('--images', default='build/tests/guest')
    parser.add_argument('--append', default='--engine step', help="nadir's command line")
    parser.add_argument('--timeout', type=float, default=120)
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--verbose', action='store_true')
    parser.add_argument('names', nargs='*', default=GUESTS)
    options = parser.parse_args()
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for guest, output in zip(options.names, pool.map(lambda name: output_of(qemu(options, name), options.timeout), options.names)):
            trouble = verdict(output)
            lines = output.strip().splitlines()
            result = trouble or next(line for line in lines if ' passed, ' in line)
            print(f'{"FAIL" if trouble else "ok  "} {guest:<20} {result}')
            if trouble or options.verbose:
                print('\n'.join('    ' + line for line in lines[-40:]))
            sys.stdout.flush()
            failed += trouble is not None
    print(f'{len(options.names) - failed} passed, {failed} failed')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
