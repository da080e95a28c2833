"""Which CPUs run a machine, and its weight."""
import glob
import os
import time

import guests
import run


class Scheduling(run.Case):
    def threads(self, *more):
        """(CPUs, nice value) of each thread of a running machine."""
        process = self.start_guest(guests.say("a") + guests.DEAF_SPIN, "--cpus", "2", "--hang-timeout", "0", *more)
        self.assertEqual(process.stdout.read(1), b"a")
        return process, [(os.sched_getaffinity(int(path)), os.getpriority(os.PRIO_PROCESS, int(path)))
                         for path in map(os.path.basename, glob.glob(f"/proc/{process.pid}/task/*"))]

    def test_presets(self):
        _, threads = self.threads()
        self.assertEqual([cpus for cpus, _ in threads], [os.sched_getaffinity(0)] * 3)
        self.assertEqual({nice for _, nice in threads}, {os.getpriority(os.PRIO_PROCESS, 0)})

    def test_pin(self):
        for cpu in sorted(os.sched_getaffinity(0))[:2]:
            with self.subTest(cpu=cpu):
                _, threads = self.threads("--pin", str(cpu))
                self.assertEqual([cpus for cpus, _ in threads], [{cpu}] * 3)

    def test_weight(self):
        """Each step of nice is a quarter."""
        for weight, nice in (("100", os.getpriority(os.PRIO_PROCESS, 0)), ("80", 1), ("33", 5), ("1", 19)):
            with self.subTest(weight=weight):
                self.assertEqual({n for _, n in self.threads("--weight", weight)[1]}, {nice})

    def test_shares(self):
        """Two machines on one CPU, of which one weighs ten times as much: it gets several times as much."""
        cpu = str(min(os.sched_getaffinity(0)))
        machines = [self.threads("--pin", cpu, "--weight", weight)[0] for weight in ("50", "5")]
        before = [self.seconds(process) for process in machines]
        for _ in range(100):
            time.sleep(0.5)
            ran = [self.seconds(process) - was for process, was in zip(machines, before)]
            if ran[1] > 0.2:
                break
        self.assertGreater(ran[0], 3 * ran[1])

    @staticmethod
    def seconds(process):
        with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
