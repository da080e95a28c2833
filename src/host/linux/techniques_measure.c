/* Measuring for `nadir techniques`: the guest in a `nadir run` of its own, and its loops in this process (techniques.h). */
#define _GNU_SOURCE
#include "host/linux/techniques.h"

#include "cpu/host_cpuid.h"
#include "engine/engine.h"
#include "host/linux/loops.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS "1000"
#define NATIVE_TIMES 100
#define SECONDS "30" /* that one way may take */
#define OUTPUT_MAX 16384

extern const u8 techniques_guest[], techniques_guest_end[];

/* ---- natively ---- */

static int compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;
	return x < y ? -1 : x > y;
}

static u64 median_of(void (*work)(void))
{
	u64 sample[NATIVE_TIMES];
	for (unsigned i = 0; i < NATIVE_TIMES; i++) {
		u64 start = __builtin_ia32_rdtsc();
		work();
		sample[i] = __builtin_ia32_rdtsc() - start;
	}
	qsort(sample, NATIVE_TIMES, sizeof(*sample), compare);
	return sample[NATIVE_TIMES / 2];
}

/* Memory for the loops, in small pages, as the guest has them; NULL: there is none. */
static const void *loop_memory(void)
{
	static void *memory;
	if (memory)
		return memory;
	void *p = mmap(NULL, LOOP_MANY * LOOP_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	madvise(p, LOOP_MANY * LOOP_PAGE, MADV_NOHUGEPAGE);
	memset(p, 1, LOOP_MANY * LOOP_PAGE);
	memset(p, 0, LOOP_MANY * LOOP_PAGE);
	return memory = p;
}

static unsigned long loop_at;

static void load_few(void)
{
	loop_loads(loop_memory(), LOOP_FEW, &loop_at);
}

static void load_many(void)
{
	loop_loads(loop_memory(), LOOP_MANY, &loop_at);
}

static void execute_cpuid(void)
{
	(void)host_cpuid(1, 0);
}

static u64 native_arithmetic(void)
{
	return median_of(loop_arithmetic);
}

static u64 native_calls(void)
{
	return median_of(loop_calls);
}

static u64 native_hits(void)
{
	return loop_memory() ? median_of(load_few) : 0;
}

static u64 native_misses(void)
{
	return loop_memory() ? median_of(load_many) : 0;
}

static u64 native_cpuid(void)
{
	return median_of(execute_cpuid);
}

/* ---- what is measured ---- */

static const struct technique_kind kinds[] = {
	{ "user-arithmetic", "arithmetic and branches, user code", native_arithmetic, true },
	{ "user-calls", "calls and returns, user code", native_calls, true },
	{ "kernel-arithmetic", "arithmetic and branches, kernel code", native_arithmetic, true },
	{ "kernel-calls", "calls and returns, kernel code", native_calls, true },
	{ "int", "software interrupt and back", NULL },
	{ "cpuid", "CPUID", native_cpuid },
	{ "hypercall", "hypercall", NULL },
	{ "port-read", "IN of the PIC", NULL },
	{ "port-write", "OUT to port 0x80", NULL },
	{ "lapic-read", "local APIC read, by MMIO", NULL },
	{ "lapic-write", "local APIC write, by MMIO", NULL },
	{ "msr-read", "RDMSR", NULL },
	{ "msr-write", "WRMSR", NULL },
	{ "deadline", "WRMSR that arms the timer", NULL },
	{ "tpr-cr8", "TPR write, by CR8", NULL },
	{ "tpr-mmio", "TPR write, by MMIO", NULL },
	{ "eoi", "EOI, by MMIO", NULL },
	{ "self-ipi", "IPI to itself", NULL },
	{ "interrupt", "taking an interrupt", NULL },
	{ "hlt-wake", "HLT and wake-up", NULL },
	{ "user-hits", "2000 loads from 64 pages, user code", native_hits, true },
	{ "user-misses", "2000 loads from 8192 pages, user code", native_misses, true },
	{ "kernel-hits", "2000 loads from 64 pages, kernel code", native_hits, true },
	{ "kernel-misses", "2000 loads from 8192 pages, kernel code", native_misses, true },
	{ "page-fill", "first touch of a page just mapped", NULL },
	{ "page-fault", "page fault of the guest's own", NULL },
	{ "table-write", "write of a page-table entry", NULL },
	{ "cr3-load", "CR3 load", NULL },
	{ "invlpg", "INVLPG", NULL },
	{ "space-switch", "CR3 load, then 64 pages touched", NULL },
	{ "nested-fault", "store to memory that became writable", NULL },
};
static_assert(ARRAY_SIZE(kinds) <= TECHNIQUE_KINDS, "each kind has its row");

const struct technique_kind *technique_kind(unsigned row)
{
	return row < ARRAY_SIZE(kinds) ? &kinds[row] : NULL;
}

void technique_measure_native(u64 *cycles)
{
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		cycles[i] = kinds[i].native ? kinds[i].native() : 0;
}

/* ---- in a guest ---- */

/* "exits NAME: TIMES MEDIAN LEAST MEAN" */
static void parse_line(struct technique *t, const char *line)
{
	char name[32];
	unsigned long long median;
	if (sscanf(line, "exits %31[a-z0-9-]: %*u %llu", name, &median) != 2)
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kinds[i].name, name))
			t->cycles[i] = MAX(median, 1ull); /* less than can be measured */
}

static void parse(struct technique *t, char *output)
{
	char *rest = output;
	for (char *line; (line = strsep(&rest, "\n"));)
		parse_line(t, line);
}

/* A file that exists in memory alone; negative: there is none. */
static int guest_file(void)
{
	size_t size = (size_t)(techniques_guest_end - techniques_guest);
	int fd = memfd_create("exits", 0);
	if (fd >= 0 && write(fd, techniques_guest, size) != (ssize_t)size) {
		close(fd);
		return -1;
	}
	return fd;
}

static _Noreturn void run_guest(const struct technique *t, int guest, int output)
{
	static const char work[] = "rounds=" ROUNDS " loops=1";
	char path[40];
	const char *arguments[] = { "nadir", "run", "--kernel", path, "--engine", t->engine, "--memory", "64M", "--debug-exit", "--debug-console", "stdio", "--serial",
				    "none", "--append", work, "--direct", t->direct, NULL };
	snprintf(path, sizeof(path), "/proc/self/fd/%d", guest);
	if (!t->direct)
		arguments[ARRAY_SIZE(arguments) - 3] = NULL;
	if (dup2(output, STDOUT_FILENO) < 0 || dup2(output, STDERR_FILENO) < 0)
		_exit(127);
	alarm(strtoul(SECONDS, NULL, 10));
	execv("/proc/self/exe", (char *const *)arguments);
	_exit(127);
}

static size_t read_all(int fd, char *buffer, size_t size)
{
	size_t length = 0;
	ssize_t n;
	while (length < size - 1 && ((n = read(fd, buffer + length, size - 1 - length)) > 0 || (n < 0 && errno == EINTR)))
		length += n > 0 ? (size_t)n : 0;
	buffer[length] = 0;
	return length;
}

static void fail(struct technique *t, const char *why)
{
	snprintf(t->why_not, sizeof(t->why_not), "%s", why);
}

static void run(struct technique *t, int guest)
{
	char output[OUTPUT_MAX];
	int ends[2], status = 0;
	if (pipe2(ends, O_CLOEXEC)) {
		fail(t, strerror(errno));
		return;
	}
	fflush(stdout);
	pid_t pid = fork();
	if (!pid)
		run_guest(t, guest, ends[1]);
	close(ends[1]);
	if (pid > 0) {
		read_all(ends[0], output, sizeof(output));
		waitpid(pid, &status, 0);
	}
	close(ends[0]);
	if (pid < 0)
		fail(t, strerror(errno));
	else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		fail(t, "the guest did not end within " SECONDS " seconds");
	else if (!WIFEXITED(status) || WEXITSTATUS(status) != 1 || !strstr(output, " passed, 0 failed"))
		fail(t, "the guest that measures did not get through");
	else
		parse(t, output);
}

static const struct engine_ops *engine_of(const char *name)
{
	for (size_t i = 0; i < ENGINE_COUNT; i++)
		if (!strcmp(engines[i]->name, name))
			return engines[i];
	return NULL;
}

void technique_measure(struct technique *t)
{
	const char *why = "it is not built in";
	const struct engine_ops *engine = engine_of(t->engine);
	/* A KVM that kernels do not run on is no technique. */
	if (!engine || !(engine == &engine_kvm ? engine_preferred(engine, &why) : engine->available(&why))) {
		fail(t, why);
		return;
	}
	int guest = guest_file();
	if (guest < 0) {
		fail(t, strerror(errno));
		return;
	}
	run(t, guest);
	close(guest);
}
