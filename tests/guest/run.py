#!/usr/bin/env python3
"""Run the test guests on nadir, or on QEMU or Bochs to check the guests themselves.

A guest speaks through the debug console (port 0xe9) and ends through the debug-exit port 0xf4; both programs then exit
with (v << 1) | 1. One line for each run, then "N passed, N failed"; a failed run's output is shown.
"""

import argparse
import concurrent.futures
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
import time

import bochs
import guests

HERE = os.path.dirname(os.path.abspath(__file__))


def nadir_command(options, run, image):
    command = [options.nadir, 'run', '--kernel', image, '--engine', run['engine'], '--memory', '64M', '--debug-exit',
               '--debug-console', 'stdio', '--serial', 'none', '--cpu', run.get('cpu', 'host')]
    if run.get('cpus', 1) > 1:
        command += ['--cpus', str(run['cpus'])]
    if run.get('append'):
        command += ['--append', run['append']]
    return command + run.get('options', []) + options.option


def qemu_command(options, run, image):
    command = ['qemu-system-x86_64', '-accel', 'tcg', '-cpu', run.get('qemu_cpu', 'max'), '-m', '64M', '-kernel', image,
               '-display', 'none', '-serial', 'none', '-monitor', 'none', '-nodefaults', '-no-reboot', '-debugcon', 'stdio',
               '-device', 'isa-debug-exit,iobase=0xf4,iosize=0x4', '-smp', str(run.get('cpus', 1))]
    if run.get('append'):
        command += ['-append', run['append']]
    return command


def execute(options, run):
    """Run one guest: (status, output, seconds). The status is None after a timeout."""
    image = os.path.join(options.images, run['image'] + '.img')
    if options.bochs:
        with tempfile.TemporaryDirectory() as folder:
            return execute_command(options, run, bochs.command(folder, options.bochs, image))
    return execute_command(options, run, (qemu_command if options.qemu else nadir_command)(options, run, image))


def execute_command(options, run, command):
    start = time.monotonic()
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=run.get('timeout', options.timeout))
        status, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        status, output = None, error.stdout or b''
    return status, output.decode(errors='replace'), time.monotonic() - start


def verdict(options, run, status, output):
    """None if the run came out as the list says, else a sentence."""
    if options.bochs:
        return bochs_verdict(run, output)
    if status is None:
        return 'timed out'
    if 'nadir: bug' in output or 'bt and step differ' in output or status < 0:
        return f'nadir itself failed (status {status})'
    if run.get('any_status'):
        return None
    expected = run.get('qemu_status' if options.qemu else 'status', run.get('status', 1))
    if status not in (expected if isinstance(expected, tuple) else (expected,)):
        return f'exit status {status}, expected {expected}'
    if status == 1 and not re.search(r'\d+ passed, 0 failed', output):
        return 'no result'  # QEMU and nadir give 1 for troubles of their own, too
    if 'in_place' in run:
        trouble = place_verdict(run, output)
        if trouble:
            return trouble
    text = run.get('output')
    if text and not options.qemu and text not in output:
        return f'the output lacks "{text}"'
    return None


def place_obstacle():
    """Why this host cannot run code in place, or None: Linux tells programs of FSGSBASE by bit 1 of AT_HWCAP2."""
    library = ctypes.CDLL(None)
    library.getauxval.restype = ctypes.c_ulong
    library.getauxval.argtypes = [ctypes.c_ulong]
    return None if library.getauxval(26) & 2 else 'no FSGSBASE for programs'


def place_verdict(run, output):
    """None if enough was run in place, or the host does not allow it, else a sentence."""
    counts = {text: int(number) for number, text in re.findall(r'^(?:nadir:)?\s*(\d+)  (.*)$', output, re.M)}
    runs, breaks = counts.get('runs of code in place', 0), counts.get('left code in place: break point', 0)
    why = place_obstacle()
    if why:
        print(f'skip {run["name"]:<24} {run["engine"]:<5} that code was run in place: {why}')
        return None
    if runs < run['in_place']:
        return f'{runs} runs of code in place, expected {run["in_place"]}'
    return None if breaks else 'no break point was taken in place'


def bochs_verdict(run, output):
    """As many checks may fail as Bochs is known to fail."""
    counts = re.search(r'(\d+) passed, (\d+) failed', output)
    if not counts:
        return 'no result'
    known, why = guests.BOCHS.get(run['image'].split('-')[0], (0, ''))
    if int(counts[2]) > known:
        return f'{counts[2]} failed; known of Bochs: {known} {why}'
    return None


def select(options):
    names = options.names
    for run in guests.runs():
        name = run.get('name', run['image'])
        if names and not any(n in name for n in names) or run.get('long', False) != options.long:
            continue
        if options.bochs:
            plain = not any(key in run for key in ('cpus', 'append', 'cpu', 'status', 'any_status'))
            if plain and guests.BOCHS.get(run['image'].split('-')[0], (0,))[0] is not None:
                yield dict(run, engine='bochs', name=name)
            continue
        if options.qemu:
            yield dict(run, engine='qemu', name=name)
            continue
        for engine in options.engine.split(','):
            if engine == 'lockstep' and run.get('cpus', 1) > 1:
                continue
            if engine in run.get('engines', [engine]):
                yield dict(run, engine=engine, name=name)


def report(options, run, result):
    status, output, seconds = result
    trouble = verdict(options, run, status, output)
    lines = output.strip().splitlines()
    counts = [line for line in lines if re.fullmatch(r'\d+ passed, \d+ failed', line)]
    summary = (counts or lines or [''])[-1]
    print(f'{"ok  " if not trouble else "FAIL"} {run["name"]:<24} {run["engine"]:<5} {seconds:5.1f} s  {trouble or summary}')
    if trouble or options.verbose:
        print('\n'.join('    ' + line for line in lines[-40:]))
    sys.stdout.flush()
    return not trouble


def kvm_obstacles(options):
    """None if the host's KVM runs everything; else what it does not run, by the starts of names, or one reason for all."""
    probe = subprocess.run([options.nadir, 'probe', '--json'], stdout=subprocess.PIPE, timeout=options.timeout)
    report = json.loads(probe.stdout)
    engine = next(e for e in report['engines'] if e['name'] == 'kvm')
    if not engine['available']:
        return engine['why_not']
    if report['kvm']['runs_unmodified_kernels']:
        return None
    print(f'kvm: {report["kvm"]["verdict"]}')
    return {start: why for why, starts in guests.KVM_SOFTWARE.items() for start in starts}


def obstacle(options, run, kvm):
    """Why the run is left out, or None."""
    if options.qemu:
        return run.get('not_on_qemu')
    if run['engine'] != 'kvm' or not kvm:
        return None
    if isinstance(kvm, str):
        return kvm
    return next((why for start, why in kvm.items() if run['name'].startswith(start)), None)


def arguments(add=lambda parser: None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--nadir', default='build/src/host/linux/nadir')
    parser.add_argument('--images', default='build/tests/guest')
    parser.add_argument('--qemu', action='store_true', help='run on qemu-system-x86_64 (TCG) instead')
    parser.add_argument('--bochs', metavar='MODEL', help="run on Bochs instead, with this CPU model: corei7_skylake_x...")
    parser.add_argument('--engine', default='step', help='engines, separated by commas')
    parser.add_argument('--option', action='append', default=[], help="a further option of nadir's, --NAME=VALUE")
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--timeout', type=float, default=60)
    parser.add_argument('--long', action='store_true', help='the runs that take a minute, and no others')
    parser.add_argument('--verbose', action='store_true', help="show every guest's output")
    parser.add_argument('names', nargs='*', help='parts of names of the runs wanted (default: all)')
    add(parser)
    return parser.parse_args()


def main():
    options = arguments()
    passed = failed = 0
    wanted, skipped = [], 0
    kvm = kvm_obstacles(options) if 'kvm' in options.engine.split(',') else None
    for run in select(options):
        why = obstacle(options, run, kvm)
        if why:
            print(f'skip {run["name"]:<24} {run["engine"]:<5} {why}')
            skipped += 1
        else:
            wanted.append(run)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for run, result in zip(wanted, pool.map(lambda r: execute(options, r), wanted)):
            if report(options, run, result):
                passed += 1
            else:
                failed += 1
    print(f'{passed} passed, {failed} failed')
    return 77 if skipped and not passed and not failed else 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
