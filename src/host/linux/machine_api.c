/* What the control API asks of a VM, done. */
#define _GNU_SOURCE
#include "host/linux/machine_api.h"

#include "host/linux/console.h"
#include "host/linux/control.h"
#include "host/linux/display.h"
#include "host/linux/plug.h"
#include "host/linux/snapshot.h"
#include "host/port.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The one machine of the process. */
static struct {
	struct vm *vm;
	const pthread_t *thread;
	int statm; /* /proc/self/statm, opened before confinement */
} machine;

static const char ended[] = "the virtual machine has ended";

/* ---- orders ---- */

static bool paused(void *opaque)
{
	return __atomic_load_n(&machine.vm->paused, __ATOMIC_RELAXED);
}

static const char *pause_vm(void *opaque)
{
	vm_pause(machine.vm, true);
	if (!vm_settle(machine.vm))
		return ended;
	return vm_flush_disks(machine.vm) < 0 ? "a disk could not be written" : NULL;
}

static const char *resume(void *opaque)
{
	vm_pause(machine.vm, false);
	return NULL;
}

static const char *power_button(void *opaque)
{
	vm_power_button(machine.vm);
	control_event("power-button", NULL);
	return NULL;
}

static const char *reset(void *opaque)
{
	vm_reset(machine.vm);
	return NULL;
}

static const char *stop(void *opaque)
{
	console_hurry();
	vm_stop(machine.vm);
	return NULL;
}

static const char *resize(void *opaque, u64 size)
{
	if (!machine.vm->config.backends.balloon)
		return "the virtual machine has no balloon device (--balloon)";
	vm_resize_balloon(machine.vm, size);
	return NULL;
}

/* The control thread answers one request at a time. */
static const char *snapshot(void *opaque, const struct snapshot_wish *wish, char name[128])
{
	static struct snapshot_result result;
	if (!snapshot_take(machine.vm, wish, snapshot_tell, &result))
		return result.error;
	memcpy(name, result.name, sizeof(result.name));
	return NULL;
}

static const char *screenshot(void *opaque, u8 **file, size_t *size)
{
	return display_png(machine.vm, file, size);
}

/* ---- devices ---- */

static const char *kind_name(enum board_kind kind)
{
	return kind == BOARD_NET ? "net" : "disk";
}

static enum board_kind kind_of(const char *name)
{
	return strcmp(name, "net") ? BOARD_DISK : BOARD_NET;
}

static struct api_device as_api(const struct plug_device *d)
{
	return (struct api_device){ kind_name(d->kind), d->index, d->slot, d->asked, d->option };
}

static const char *add_device(void *opaque, const char *kind, const char *option, struct passed_files *files, struct api_device *device)
{
	struct plug_device added = { 0 };
	const char *why = plug_add(kind_of(kind), option, files, &added);
	*device = as_api(&added);
	device->option = option;
	return why;
}

static const char *remove_device(void *opaque, const char *kind, unsigned index)
{
	return plug_remove(kind_of(kind), index);
}

struct each {
	void (*each)(void *list, const struct api_device *device);
	void *list;
};

static void list_one(void *opaque, const struct plug_device *device)
{
	const struct each *e = opaque;
	const struct api_device d = as_api(device);
	e->each(e->list, &d);
}

static void list_devices(void *opaque, void (*each)(void *list, const struct api_device *device), void *list)
{
	plug_list(list_one, &(struct each){ each, list });
}

/* ---- counters ---- */

static u64 thread_time(pthread_t thread)
{
	clockid_t clock;
	struct timespec t = { 0 };
	if (pthread_getcpuclockid(thread, &clock) || clock_gettime(clock, &t) < 0)
		return 0;
	return (u64)t.tv_sec * 1000000000u + (u64)t.tv_nsec;
}

/* proc(5), /proc/pid/statm: the second number is the resident pages. */
static u64 resident(void)
{
	char text[128];
	u64 pages = 0;
	if (machine.statm < 0 || lseek(machine.statm, 0, SEEK_SET) < 0)
		return 0;
	ssize_t n = read(machine.statm, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = 0;
	char *second;
	(void)strtoull(text, &second, 10);
	pages = strtoull(second, NULL, 10);
	return pages << PAGE_SHIFT;
}

static u64 ticks_to_ns(u64 ticks)
{
	return (u64)((double)ticks * 1e9 / (double)host_tsc_hz());
}

static void engine_line(void *opaque, const char *line)
{
	counters_add_line(opaque, line);
}

static void count_cpu(struct counters *c, unsigned index)
{
	struct vm_cpu *cpu = machine.vm->cpu[index];
	const struct stats *s = &cpu->stats;
	struct counters_cpu *to = &c->cpu[index];
	*to = (struct counters_cpu){ .interrupts = s->interrupts, .halted = s->halted_ns, .busy = thread_time(machine.thread[index]) };
	for (unsigned i = 0; i < EXIT_REASON_COUNT; i++) {
		to->exits += s->reason[i].count;
		c->exit[i].count += s->reason[i].count;
		c->exit[i].nanoseconds += ticks_to_ns(s->reason[i].ticks);
	}
	c->interrupts += s->interrupts;
	if (cpu->vcpu.engine->report)
		cpu->vcpu.engine->report(&cpu->vcpu, engine_line, c);
}

static void count_disk(struct counters_disk *to, unsigned index)
{
	struct block_count n[BLOCK_KINDS] = { 0 };
	vm_disk_count(machine.vm, index, n);
	*to = (struct counters_disk){ n[BLOCK_READ].requests, n[BLOCK_READ].bytes, n[BLOCK_WRITE].requests, n[BLOCK_WRITE].bytes,
				      n[BLOCK_FLUSH].requests };
}

static void count_net(struct counters_net *to, unsigned index)
{
	struct net_count n = { 0 };
	vm_net_count(machine.vm, index, &n);
	*to = (struct counters_net){ n.tx_frames, n.tx_bytes, n.rx_frames, n.rx_bytes };
}

/* Places up to the last that is taken. */
static unsigned places(enum board_kind kind, unsigned most)
{
	while (most && !vm_has(machine.vm, kind, most - 1))
		most--;
	return most;
}

static void count(void *opaque, struct counters *c)
{
	c->time = vm_time(machine.vm);
	c->resident = resident();
	struct vm_balloon balloon = vm_balloon(machine.vm);
	c->balloon_wanted = balloon.wanted;
	c->balloon_actual = balloon.actual;
	c->reported = balloon.reported;
	c->cpus = machine.vm->config.cpus;
	for (unsigned i = 0; i < c->cpus; i++)
		count_cpu(c, i);
	c->disks = places(BOARD_DISK, BOARD_DISKS_MAX);
	for (unsigned i = 0; i < c->disks; i++)
		count_disk(&c->disk[i], i);
	c->nets = places(BOARD_NET, BOARD_NETS_MAX);
	for (unsigned i = 0; i < c->nets; i++)
		count_net(&c->net[i], i);
}

/* ---- life ---- */

void machine_api_open(void)
{
	machine.statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
}

void machine_api_init(struct api_vm *api, struct vm *vm, const struct run_options *options, const pthread_t *thread)
{
	machine.vm = vm;
	machine.thread = thread;
	*api = (struct api_vm){
		.info = { .name = options->name,
			  .engine = vm->config.engine->name,
			  .kernel = options->kernel,
			  .serial = options->serial,
			  .cpus = vm->config.cpus,
			  .memory = vm->config.memory },
		.paused = paused,
		.pause = pause_vm,
		.resume = resume,
		.power_button = power_button,
		.reset = reset,
		.stop = stop,
		.resize = resize,
		.snapshot = snapshot,
		.add = add_device,
		.remove = remove_device,
		.devices = list_devices,
		.screenshot = screenshot,
		.count = count,
	};
}

const char *machine_end_name(enum vm_end end)
{
	static const char *const names[] = {
		[VM_RUNNING] = "running", [VM_POWEROFF] = "powered off", [VM_REBOOT] = "rebooted", [VM_DEBUG_EXIT] = "debug exit",
		[VM_CRASHED] = "crashed", [VM_STOPPED] = "stopped",	 [VM_FAILED] = "failed",
	};
	return names[end];
}

void machine_event(void *opaque, enum vm_event event)
{
	static const char *const names[] = { [VM_EVENT_PAUSED] = "paused", [VM_EVENT_RESUMED] = "resumed", [VM_EVENT_RESET] = "reset" };
	control_event(names[event], NULL);
}
