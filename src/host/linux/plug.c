/* Disks and networks that come and go (plug.h). The lock is never held while the VM is called, whose own is taken around plug_ejected. */
#define _GNU_SOURCE
#include "host/linux/plug.h"

#include "dev/map.h"
#include "host/linux/api.h"
#include "host/linux/control.h"
#include "host/linux/device_text.h"
#include "host/linux/disks.h"
#include "host/linux/net.h"
#include "host/linux/sandbox_thread.h"
#include "host/linux/snapshot.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLACES MAX(DISKS_MAX, NETS_MAX)
static_assert(DISKS_MAX == BOARD_DISKS_MAX && NETS_MAX == BOARD_NETS_MAX, "the board's places");

/* What the thread is told to add; one at a time. */
struct job {
	enum board_kind kind;
	const char *option;
	struct passed_files *files;
	struct plug_device *device;
	const char *why;
	bool done;
};

struct place {
	bool taken, asked;
	unsigned slot;
	char *option;
};

/* The one machine's. */
static struct {
	struct vm *vm;
	bool confined;
	pthread_t thread;
	pthread_mutex_t lock; /* of what follows; the thread alone changes places */
	pthread_cond_t work, idle;
	struct place place[2][PLACES]; /* by enum board_kind */
	struct job *job;
	bool ejected, running, stop;
} plug = { .lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER };

static const char ended[] = "the virtual machine has ended";

static const struct kind {
	unsigned most, slot;
} kinds[] = {
	[BOARD_DISK] = { DISKS_MAX, PCI_SLOT_DISK },
	[BOARD_NET] = { NETS_MAX, PCI_SLOT_NET },
};

/* ---- places ---- */

static void take_place(enum board_kind kind, unsigned index, const char *option, bool has_slot)
{
	char *text = strdup(option);
	pthread_mutex_lock(&plug.lock);
	plug.place[kind][index] = (struct place){ .taken = true, .slot = has_slot ? kinds[kind].slot + index : 0, .option = text };
	pthread_mutex_unlock(&plug.lock);
}

static void leave_place(enum board_kind kind, unsigned index)
{
	pthread_mutex_lock(&plug.lock);
	free(plug.place[kind][index].option);
	plug.place[kind][index] = (struct place){ 0 };
	pthread_mutex_unlock(&plug.lock);
}

static struct plug_device describe(enum board_kind kind, unsigned index)
{
	const struct place *p = &plug.place[kind][index];
	return (struct plug_device){ kind, index, p->slot, p->asked, p->option ? p->option : "" };
}

/* Where the option wants it, or any place. Negative: there is none, and *why. */
static int find_place(enum board_kind kind, const char *option, const char **why)
{
	int slot = kind == BOARD_NET ? net_slot(option) : disk_slot(option);
	*why = slot < 0 ? "the option is wrong; the log of the machine says why" : slot ? "another device is in that slot"
	     : kind == BOARD_NET ? "the machine has as many networks as it can have" : "the machine has as many disks as it can have";
	if (slot)
		return slot > 0 && !plug.place[kind][(unsigned)slot - kinds[kind].slot].taken ? slot - (int)kinds[kind].slot : -1;
	for (unsigned i = 0; i < kinds[kind].most; i++)
		if (!plug.place[kind][i].taken)
			return (int)i;
	return -1;
}

static void tell(const char *event, enum board_kind kind, unsigned index)
{
	char id[API_ID_SIZE];
	api_device_id(kind == BOARD_NET ? "net" : "disk", index, id);
	control_event(event, id);
}

/* ---- in ---- */

/* Before the machine has it: from then on a snapshot may be taken. */
static void describe_to_snapshots(unsigned index, const struct job *job)
{
	const char *name = job->kind == BOARD_NET ? "net" : "disk";
	int text = passed_taking() ? passed_next() : plug.confined ? -1 : device_text_make(name, job->option);
	snapshot_device(job->kind, index, text);
	if (text >= 0)
		close(text);
}

static const char *add_disk(unsigned index, const struct job *job)
{
	struct block_backend backend;
	if (disk_begin(index, job->option, &backend) < 0)
		return "the disk cannot be opened from what was sent; the log of the machine says why";
	describe_to_snapshots(index, job);
	if (vm_plug_disk(plug.vm, index, &backend))
		return NULL;
	disk_end(index);
	return "there is not enough memory for the disk";
}

static const char *add_net(unsigned index, const struct job *job)
{
	struct net_backend backend;
	if (net_open(index, job->option, plug.confined, &backend) < 0)
		return "the network cannot be used from what was sent; the log of the machine says why";
	describe_to_snapshots(index, job);
	if (net_begin(index) < 0 || !vm_plug_net(plug.vm, index, &backend)) {
		net_close(index);
		return "there is not enough memory for the network";
	}
	backend.wake(backend.net); /* what came before nobody looked at */
	return NULL;
}

static const char *add(const struct job *job)
{
	const char *why;
	if (job->files->count)
		passed_take(job->files);
	int index = find_place(job->kind, job->option, &why);
	if (index >= 0)
		why = job->kind == BOARD_NET ? add_net((unsigned)index, job) : add_disk((unsigned)index, job);
	passed_end();
	if (why)
		return why;
	take_place(job->kind, (unsigned)index, job->option, true);
	*job->device = describe(job->kind, (unsigned)index);
	tell("device-added", job->kind, (unsigned)index);
	return NULL;
}

/* ---- out ---- */

static void end_ejected(void)
{
	enum board_kind kind;
	unsigned index;
	while (vm_take_ejected(plug.vm, &kind, &index)) {
		if (kind == BOARD_NET)
			net_close(index);
		else
			disk_end(index);
		leave_place(kind, index);
		tell("device-removed", kind, index);
	}
}

void plug_ejected(void *opaque)
{
	pthread_mutex_lock(&plug.lock);
	plug.ejected = true;
	pthread_cond_signal(&plug.work);
	pthread_mutex_unlock(&plug.lock);
}

const char *plug_remove(enum board_kind kind, unsigned index)
{
	struct place *p = &plug.place[kind][index < kinds[kind].most ? index : 0];
	pthread_mutex_lock(&plug.lock);
	bool there = index < kinds[kind].most && p->taken, has_slot = p->slot;
	p->asked |= there && has_slot;
	pthread_mutex_unlock(&plug.lock);
	if (there && !has_slot)
		return "a CD-ROM or SATA disk stays in the machine as long as it runs";
	return there && vm_ask_eject(plug.vm, kind, index) ? NULL : "there is no such device; nadir devices shows those there are";
}

void plug_list(void (*each)(void *opaque, const struct plug_device *device), void *opaque)
{
	pthread_mutex_lock(&plug.lock);
	for (unsigned kind = 0; kind < ARRAY_SIZE(kinds); kind++)
		for (unsigned i = 0; i < kinds[kind].most; i++) {
			const struct plug_device device = describe((enum board_kind)kind, i);
			if (plug.place[kind][i].taken)
				each(opaque, &device);
		}
	pthread_mutex_unlock(&plug.lock);
}

/* ---- the thread ---- */

static void *plug_thread(void *opaque)
{
	pthread_mutex_lock(&plug.lock);
	while (!plug.stop) {
		struct job *job = plug.job;
		bool ejected = plug.ejected;
		if (!job && !ejected) {
			pthread_cond_wait(&plug.work, &plug.lock);
			continue;
		}
		plug.ejected = false;
		pthread_mutex_unlock(&plug.lock);
		if (ejected)
			end_ejected();
		const char *why = job ? add(job) : NULL;
		pthread_mutex_lock(&plug.lock);
		if (!job)
			continue;
		job->why = why;
		job->done = true;
		plug.job = NULL;
		pthread_cond_broadcast(&plug.idle);
	}
	pthread_mutex_unlock(&plug.lock);
	return NULL;
}

const char *plug_add(enum board_kind kind, const char *option, struct passed_files *files, struct plug_device *device)
{
	struct job job = { .kind = kind, .option = option, .files = files, .device = device, .why = ended };
	if (plug.confined && !files->count)
		return "the machine has confined itself and opens nothing: nadir add-disk and nadir add-net send open files along";
	pthread_mutex_lock(&plug.lock);
	if (plug.running) {
		plug.job = &job;
		pthread_cond_signal(&plug.work);
	}
	while (plug.running && !job.done)
		pthread_cond_wait(&plug.idle, &plug.lock);
	pthread_mutex_unlock(&plug.lock);
	return job.why;
}

/* ---- life ---- */

void plug_init(struct vm *vm, bool confined)
{
	plug.vm = vm;
	plug.confined = confined;
	for (unsigned i = 0; i < DISKS_MAX; i++)
		if (disks_option(i))
			take_place(BOARD_DISK, i, disks_option(i), vm->config.backends.disk[i].bus == BLOCK_VIRTIO);
	for (unsigned i = 0; i < NETS_MAX; i++)
		if (nets_option(i))
			take_place(BOARD_NET, i, nets_option(i), true);
}

int plug_start(void)
{
	int error = sandbox_thread_create(&plug.thread, SANDBOX_PLUG, plug_thread, NULL);
	plug.running = !error;
	return error;
}

void plug_stop(void)
{
	pthread_mutex_lock(&plug.lock);
	bool running = plug.running;
	plug.stop = true;
	pthread_cond_signal(&plug.work);
	pthread_mutex_unlock(&plug.lock);
	if (running)
		pthread_join(plug.thread, NULL);
	pthread_mutex_lock(&plug.lock);
	plug.running = false;
	plug.job = NULL;
	pthread_cond_broadcast(&plug.idle);
	pthread_mutex_unlock(&plug.lock);
}
