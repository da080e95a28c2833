#!/usr/bin/env python3
"""Take snapshots of test guests at random moments: the guest must not notice, and each snapshot must go on to the same end.

usage: snapshot.py [OPTION of run.py...] [--rounds N] [--seed N] [NAME...]
"""
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

import run

LIMIT = 60


def finish(process):
    try:
        output, _ = process.communicate(timeout=LIMIT)
        return process.returncode, output.decode(errors='replace')
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        return None, output.decode(errors='replace')


def start(command):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def ready(process, folder):
    """Whether nadir listens to the signal: it does when it makes the folder."""
    while process.poll() is None and not os.path.isdir(folder):
        time.sleep(0.001)
    return process.poll() is None


def snapshot_once(options, row, seconds, chance):
    """Trouble, or None; and whether there was a snapshot."""
    image = os.path.join(options.images, row['image'] + '.img')
    with tempfile.TemporaryDirectory() as work:
        folder = os.path.join(work, 'snapshots')
        process = start(run.nadir_command(options, row, image) + ['--snapshot-dir', folder])
        if ready(process, folder):
            time.sleep(chance.uniform(0, seconds))
            if process.poll() is None:
                process.send_signal(signal.SIGUSR2)
        status, output = finish(process)
        trouble = run.verdict(options, row, status, output)
        if trouble:
            return f'with a snapshot taken: {trouble}\n{output}', True
        snapshot = os.path.join(folder, '1')
        for _ in range(500):  # it may just be on its way to the disk
            if os.path.isdir(snapshot) or not os.path.isdir(folder) or not os.listdir(folder):
                break
            time.sleep(0.01)
        if not os.path.isdir(snapshot):
            return None, False
        command = [options.nadir, 'restore', snapshot] + chance.choice([[], ['--prefault']]) + options.restore_option
        restored_status, restored = finish(start(command))
        trouble = run.verdict(options, row, restored_status, output + restored)
        if not trouble and restored_status != 0 and restored_status != status:
            trouble = f'exit status {restored_status} instead of {status}'
        return trouble and f'restored: {trouble}\n{restored}', True


def main():
    options = run.arguments(lambda parser: (
        parser.add_argument('--rounds', type=int, default=3), parser.add_argument('--seed', type=int),
        parser.add_argument('--restore-option', action='append', default=[], help='an option for nadir restore')))
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    chance = random.Random(seed)
    passed = failed = 0
    for row in run.select(options):
        status, _, seconds = run.execute(options, row)
        taken = 0
        for _ in range(options.rounds):
            trouble, there = snapshot_once(options, row, seconds, chance)
            taken += there
            if trouble:
                break
        print(f'{"FAIL" if trouble else "ok  "} {row["name"]:<24} {row["engine"]:<8} {seconds:5.1f} s  {trouble or f"{taken} snapshots"}', flush=True)
        passed, failed = passed + (not trouble), failed + bool(trouble)
    print(f'{passed} passed, {failed} failed (--seed {seed})')
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
