/* Guests: from modules to machines, and what becomes of them. */
#include "host/metal/guest.h"

#include "engine/hw/features.h"
#include "host/metal/console.h"
#include "host/metal/devices.h"
#include "host/metal/lan.h"
#include "host/metal/log.h"
#include "host/metal/options.h"
#include "host/metal/pages.h"
#include "host/metal/serial.h"
#include "host/metal/thread.h"
#include "host/port.h"
#include "lib/string.h"
#include "vm/report.h"
#include "vm/stats_table.h"
#include "vm/vm.h"

#define GUESTS_MAX 32

struct guest {
	struct guest_options options;
	char name[24];
	const struct boot_module *kernel, *initrd; /* initrd: may be NULL */
	struct console console;
	struct vm *vm; /* NULL: it has not begun, or has ended */
	bool waits; /* for another guest's end */
	struct sched_group group; /* its vCPUs */
	u64 pin; /* where they may run; 0: anywhere */
	struct devices *devices;
	u32 running; /* vCPU threads that have not returned; atomic */
	struct guest_cpu {
		struct guest *guest;
		unsigned index;
	} cpu[VM_CPUS_MAX];
};

static struct {
	struct guest *guest[GUESTS_MAX];
	unsigned count;
	u32 ended; /* counts vCPU threads that have returned; atomic */
	struct host_lock lock; /* held while a guest is looked at from outside, or goes */
} guests;

/* ---- what machines tell us ---- */

static void guest_ended(void *opaque)
{
}

static void report_line(void *opaque, const char *line)
{
	const struct guest *g = opaque;
	log_line("%s: %s", g->name, line);
}

static void serial_ready(void *opaque)
{
	const struct guest *g = opaque;
	host_lock(&guests.lock);
	if (g->vm && vm_ended(g->vm) == VM_RUNNING)
		vm_serial_input(g->vm);
	host_unlock(&guests.lock);
}

static void show_stats_of(struct guest *g)
{
	struct stats *sum = host_alloc(sizeof(*sum));
	if (!sum || !g->vm) {
		host_free(sum);
		return;
	}
	vm_stats(g->vm, sum);
	stats_table(sum, report_line, g);
	for (unsigned i = 0; i < g->vm->config.cpus && g->vm->config.engine->report; i++)
		g->vm->config.engine->report(&g->vm->cpu[i]->vcpu, report_line, g);
	devices_report(g->devices, report_line, g);
	host_free(sum);
}

/* Of every thread: what it may, what it got, and how long it waited for a CPU when something woke it. */
static void show_threads(void)
{
	log_line("%-16s %3s %6s %5s %10s %10s %9s  %s", "thread", "CPU", "weight", "cap %", "ran ms", "waited ms", "wakes", "then ran after us: median, p99, most");
	for (const struct thread *t = thread_first(); t; t = t->all) {
		const struct histogram *h = &t->latency;
		log_line("%-16s %3u %6u %5u %10llu %10llu %9llu  %llu, %llu, %llu", t->name, t->cpu->index, t->weight * 100 / THREAD_WEIGHT, t->group ? t->group->cap : 0,
			 (unsigned long long)(t->ran / 1000000), (unsigned long long)(t->waited / 1000000), (unsigned long long)h->count,
			 (unsigned long long)histogram_permille(h, 500) / 1000, (unsigned long long)histogram_permille(h, 990) / 1000,
			 (unsigned long long)h->most / 1000);
	}
}

/* The threads, then of every guest why it left. */
static void show_stats(void)
{
	show_threads();
	log_line("%u interrupts of the serial port%s", serial_interrupts(), serial_has_interrupts() ? "" : ", which is asked every 10 ms instead");
	log_line("%llu of %llu MiB are free", (unsigned long long)pages_available() >> 8, (unsigned long long)pages_total() >> 8);
	host_lock(&guests.lock);
	for (unsigned i = 0; i < guests.count; i++)
		show_stats_of(guests.guest[i]);
	host_unlock(&guests.lock);
}

static void panic_dump(void)
{
	for (unsigned i = 0; i < guests.count; i++)
		for (unsigned n = 0; guests.guest[i]->vm && n < guests.guest[i]->vm->config.cpus; n++)
			report_vcpu(&guests.guest[i]->vm->cpu[n]->vcpu, report_line, guests.guest[i]);
}

/* ---- making ---- */

static bool is_description(const struct boot_module *m)
{
	size_t n = string_length(m->name);
	return n > 3 && !memcmp(m->name + n - 3, ".vm", 3);
}

#define fail(...) (log_line("error: " __VA_ARGS__), NULL)

/* The name is what the description is called, unless it says otherwise. */
static void name_guest(struct guest *g, const char *file)
{
	if (g->options.name)
		host_snprintf(g->name, sizeof(g->name), "%s", g->options.name);
	else
		host_snprintf(g->name, sizeof(g->name), "%.*s", (int)string_length(file) - 3, file);
}

static enum host_log_level log_level(const char *name)
{
	return string_equal(name, "error") ? LOG_ERROR : string_equal(name, "info") ? LOG_INFO : string_equal(name, "debug") ? LOG_DEBUG : LOG_WARN;
}

/* Once: what is slower than this project's users may expect. */
static void tell_of_software(const struct engine_ops *engine)
{
	static bool told;
	if (!told && !string_equal(engine->name, "svm") && !string_equal(engine->name, "vmx"))
		log_line("guests run by %s, as neither VT-x nor AMD-V can be used here", engine->name);
	told = true;
}

static const struct engine_ops *find_engine(const char *name)
{
	const char *why;
	const struct engine_ops *engine = engine_find(name);
	if (!engine)
		return fail("there is no engine '%s'", name);
	if (!engine->available(&why))
		return fail("the engine %s cannot run here: %s", name, why);
	if (string_equal(name, "auto"))
		tell_of_software(engine);
	return engine;
}

static enum mmu_mode mmu_mode(const char *name)
{
	return string_equal(name, "nested") ? MMU_NESTED : string_equal(name, "shadow") ? MMU_SHADOW : string_equal(name, "vtlb") ? MMU_VTLB : MMU_AUTO;
}

static u64 without(const char *list)
{
	u64 set = 0;
	if (list)
		hw_techniques_read(list, &set);
	return set;
}

/* Make the machine. Its kernel and initial RAM disk stay where the boot loader put them. */
static struct vm *create_vm(struct guest *g, const struct boot_info *info)
{
	const struct guest_options *o = &g->options;
	const struct boot_module *kernel = g->kernel, *initrd = g->initrd;
	char error[256];
	bool user_error;
	const struct engine_ops *engine = find_engine(o->engine);
	if (!engine)
		return NULL;
	struct vm_config config = {
		.memory = o->memory & PAGE_MASK,
		.cpus = (unsigned)o->cpus,
		.cpu_model = o->cpu,
		.engine = engine,
		.direct = DIRECT_OFF,
		.mmu_mode = mmu_mode(o->mmu),
		.without = without(o->without),
		.boot = { .kernel = physical(kernel->base), .kernel_size = kernel->size, .cmdline = o->append },
		.backends = { .serial_put = console_put, .serial_get = console_get, .serial = &g->console, .debug_put = console_put,
			      .debug = &g->console, .debug_exit = o->debug_exit },
		.on_crash = string_equal(o->on_crash, "reset") ? CRASH_RESET : CRASH_REPORT,
		.hang_timeout = o->hang_timeout,
		.no_reboot = o->no_reboot,
		.stats_by_site = o->stats,
		.ended = guest_ended,
		.report = report_line,
		.opaque = g,
	};
	if (initrd) {
		config.boot.initrd = physical(initrd->base);
		config.boot.initrd_size = initrd->size;
	}
	boot_protocol_find(o->protocol, &config.boot.protocol);
	g->devices = devices_open(o, info, &config.backends, error, sizeof(error));
	struct vm *vm = g->devices ? vm_create(&config, error, sizeof(error), &user_error) : NULL;
	return vm ? vm : fail("%s: %s", g->name, error);
}

static struct guest *new_guest(void)
{
	struct guest *g = guests.count < GUESTS_MAX ? host_alloc(sizeof(*g)) : NULL;
	if (!g)
		return fail("there is no room for another guest");
	options_init(&g->options);
	return g;
}

/* Where its threads may run, and how much. */
static bool set_limits(struct guest *g)
{
	const struct guest_options *o = &g->options;
	g->group.cap = (u32)o->cap;
	if (o->pin && (!options_cpu_list(o->pin, &g->pin) || (g->pin & ~mask_of(cpu_count))))
		return fail("%s: pin: there are %u CPUs, the first is 0, and '%s' names others", g->name, cpu_count, o->pin);
	return true;
}

/* False: it cannot be made. */
static bool make_vm(struct guest *g, const struct boot_info *info)
{
	struct vm *vm = set_limits(g) ? create_vm(g, info) : NULL;
	if (!vm)
		devices_close(g->devices);
	host_lock(&guests.lock);
	g->vm = vm;
	host_unlock(&guests.lock);
	return vm != NULL;
}

static void add_guest(struct guest *g, const struct boot_info *info, const struct boot_module *kernel, const struct boot_module *initrd)
{
	log_set_level(log_level(g->options.log_level));
	g->kernel = kernel;
	g->initrd = initrd;
	g->waits = g->options.after;
	g->console.name = g->name;
	g->console.ready = serial_ready;
	g->console.opaque = g;
	if (!g->waits && !make_vm(g, info)) {
		host_free(g);
		return;
	}
	console_add(&g->console);
	guests.guest[guests.count++] = g;
}

/* The command line is read anew for each, since reading changes it. False: it is wrong, for all. */
static bool read_command_line(struct guest_options *options, const struct boot_info *info)
{
	char error[256], *copy = host_alloc(BOOT_TEXT_MAX); /* stays: options point into it */
	if (!copy)
		return fail("out of memory");
	memcpy(copy, info->cmdline, BOOT_TEXT_MAX);
	return options_read_line(options, copy, error, sizeof(error)) || fail("%s", error);
}

/* The text needs a byte more. */
static bool read_description(struct guest *g, const struct boot_module *m)
{
	char error[256], *text = host_alloc(m->size + 1);
	if (!text)
		return fail("out of memory");
	memcpy(text, physical(m->base), m->size);
	return options_read_file(&g->options, m->name, text, m->size, error, sizeof(error)) || fail("%s", error);
}

static void make_described(const struct boot_info *info, const struct boot_module *m)
{
	struct guest *g = new_guest();
	if (!g || !read_description(g, m) || !read_command_line(&g->options, info))
		return;
	const char *kernel_name = g->options.kernel, *initrd_name = g->options.initrd;
	const struct boot_module *kernel = kernel_name ? boot_info_find(info, kernel_name) : NULL;
	const struct boot_module *initrd = initrd_name ? boot_info_find(info, initrd_name) : NULL;
	name_guest(g, m->name);
	if (!kernel || (initrd_name && !initrd)) {
		const char *missing = kernel ? initrd_name : kernel_name;
		log_line("error: %s: there is no module '%s'", m->name, missing ? missing : "(kernel)");
		return;
	}
	add_guest(g, info, kernel, initrd);
}

static void make_plain(const struct boot_info *info)
{
	struct guest *g = new_guest();
	if (!g || !read_command_line(&g->options, info))
		return;
	if (!g->options.append)
		g->options.append = info->module[0].arguments;
	host_snprintf(g->name, sizeof(g->name), "%s", g->options.name ? g->options.name : "guest");
	add_guest(g, info, &info->module[0], info->modules > 1 ? &info->module[1] : NULL);
}

static void make_guests(const struct boot_info *info)
{
	bool described = false;
	for (unsigned i = 0; i < info->modules; i++)
		described |= is_description(&info->module[i]);
	for (unsigned i = 0; i < info->modules && described; i++)
		if (is_description(&info->module[i]))
			make_described(info, &info->module[i]);
	if (!info->modules)
		log_line("error: there is no guest: the boot loader loaded no module");
	else if (!described)
		make_plain(info);
}

/* ---- running ---- */

static void run_cpu(void *opaque)
{
	const struct guest_cpu *cpu = opaque;
	vm_run_vcpu(cpu->guest->vm, cpu->index);
	__atomic_fetch_sub(&cpu->guest->running, 1, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&guests.ended, 1, __ATOMIC_SEQ_CST);
	host_wake(&guests.ended);
}

static void start(struct guest *g)
{
	struct thread_setup setup = { .name = g->name, .mask = g->pin, .group = &g->group, .weight = (u32)(g->options.weight * THREAD_WEIGHT / 100) };
	g->running = g->vm->config.cpus;
	if (!devices_start(g->devices, g->vm, &setup))
		host_panic("no memory for a thread");
	for (unsigned i = 0; i < g->vm->config.cpus; i++) {
		char name[THREAD_NAME_MAX];
		g->cpu[i] = (struct guest_cpu){ g, i };
		host_snprintf(name, sizeof(name), "%s/%u", g->name, i);
		setup.name = name;
		setup.run = run_cpu;
		setup.opaque = &g->cpu[i];
		setup.vector = true;
		if (!thread_create(&setup))
			host_panic("no memory for a thread");
	}
}

/* The networks' thread: nobody's in particular. */
static void run_networks(void *opaque)
{
	for (;;)
		lan_wait();
}

static void finish(struct guest *g)
{
	static const char *const how[] = { "runs", "powered itself off", "rebooted", "ended", "crashed", "was stopped", "could not go on" };
	console_flush(&g->console);
	if (vm_ended(g->vm) == VM_DEBUG_EXIT)
		log_line("%s ended with status %d", g->name, g->vm->exit_status);
	else
		log_line("%s %s", g->name, how[vm_ended(g->vm)]);
	if (g->options.stats)
		show_stats_of(g);
	struct vm *vm = g->vm;
	devices_stop(g->devices);
	host_lock(&guests.lock);
	g->vm = NULL;
	host_unlock(&guests.lock);
	vm_destroy(vm);
	devices_close(g->devices);
}

/* Those that waited for the end of `ended` begin, with what it has left. */
static void begin_after(const struct guest *ended, const struct boot_info *info)
{
	for (unsigned i = 0; i < guests.count; i++) {
		struct guest *g = guests.guest[i];
		if (!g->waits || !string_equal(g->options.after, ended->name))
			continue;
		g->waits = false;
		if (make_vm(g, info))
			start(g);
	}
}

/* Finish those whose threads have all returned; false: nobody runs any more. */
static bool finish_ended(const struct boot_info *info)
{
	bool left = false;
	for (unsigned i = 0; i < guests.count; i++) {
		struct guest *g = guests.guest[i];
		if (!g->vm || __atomic_load_n(&g->running, __ATOMIC_SEQ_CST))
			continue;
		finish(g);
		begin_after(g, info);
	}
	for (unsigned i = 0; i < guests.count; i++)
		left |= guests.guest[i]->vm != NULL;
	return left;
}

static void report_left_over(void)
{
	for (unsigned i = 0; i < guests.count; i++)
		if (guests.guest[i]->waits)
			log_line("error: %s did not begin: no guest '%s' has ended before", guests.guest[i]->name, guests.guest[i]->options.after);
}

enum guests_end guests_run(struct boot_info *info)
{
	struct guest_options machine;
	options_init(&machine);
	log_set_panic_dump(panic_dump);
	if (read_command_line(&machine, info))
		make_guests(info);
	const struct thread_setup networks = { .name = "networks", .run = run_networks };
	if (!thread_create(&networks))
		host_panic("no memory for a thread");
	for (unsigned i = 0; i < guests.count; i++)
		if (guests.guest[i]->vm)
			start(guests.guest[i]);
	console_start(show_stats);
	for (;;) {
		u32 ended = __atomic_load_n(&guests.ended, __ATOMIC_SEQ_CST);
		if (!finish_ended(info))
			break;
		host_wait(&guests.ended, ended, HOST_NEVER);
	}
	report_left_over();
	return string_equal(machine.end, "reset") ? GUESTS_RESET : string_equal(machine.end, "poweroff") ? GUESTS_POWER_OFF : GUESTS_HALT;
}
