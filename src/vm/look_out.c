/* Looking out for work in HLT (look_out.h).
 *
 * Who waits for an answer from the network halts for tens of microseconds, and half of them go into waking it: somebody makes a system call for that, and
 * a CPU that slept takes its time. So after short waits the next one is spent looking at the vCPU's wake word, twice as long each time, up to 0.1 ms. A wait that
 * was long, as an idle guest's are, ends this: no CPU is burnt by who has nothing to do.
 *
 * Those who are waited for need a CPU, too. So one must be left when all vCPUs run, and a thread that had to wait for its own CPU, which the host is asked
 * at times, finds the machine too busy for this: it sleeps at once for a tenth of a second. */
#include "vm/look_out.h"

#include "host/port.h"

#define FIRST 20000u  /* ns */
#define MOST 100000u
#define SHORT 200000u /* a wait that others like it may follow */
#define PERIOD 10000000u
#define CROWDED 20u /* if it waited for a CPU for so small a part of a period */
#define PAUSES 16

static bool crowded(struct vm_cpu *cpu, u64 now)
{
	u64 period = now - cpu->look_out.looked;
	if (period < PERIOD)
		return now < cpu->look_out.not_before;
	u64 delay = host_run_delay();
	if (delay - cpu->look_out.delay > period / CROWDED)
		cpu->look_out.not_before = now + 10 * PERIOD;
	cpu->look_out.looked = now;
	cpu->look_out.delay = delay;
	return now < cpu->look_out.not_before;
}

bool vm_look_out(struct vm_cpu *cpu, u64 start, u64 deadline, bool (*has_work)(struct vm_cpu *cpu))
{
	u64 end = MIN(start + cpu->look_out.length, deadline);
	if (!cpu->look_out.length || crowded(cpu, start))
		return false;
	u32 wake = __atomic_load_n(&cpu->wake, __ATOMIC_SEQ_CST);
	while (!has_work(cpu)) {
		while (__atomic_load_n(&cpu->wake, __ATOMIC_RELAXED) == wake) {
			if (host_now() >= end)
				return false;
			for (unsigned i = 0; i < PAUSES; i++)
				__builtin_ia32_pause();
		}
		wake = __atomic_load_n(&cpu->wake, __ATOMIC_SEQ_CST);
	}
	return true;
}

void vm_look_out_learn(struct vm_cpu *cpu, u64 start, u64 end)
{
	if (end - start > SHORT || !host_may_look_out(cpu->vm->config.cpus))
		cpu->look_out.length = 0;
	else
		cpu->look_out.length = MIN(MAX(cpu->look_out.length * 2, FIRST), MOST);
}
