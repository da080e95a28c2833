/* Taking snapshots: hold the VM, save its state, have the writer copy it with the memory, release the VM (snapshot.h). */
#define _GNU_SOURCE
#include "host/linux/snapshot.h"

#include "host/linux/control.h"
#include "host/linux/event.h"
#include "host/linux/log.h"
#include "host/linux/memory.h"
#include "host/linux/memory_lazy.h"
#include "host/linux/sandbox.h"
#include "host/linux/snapshot_base.h"
#include "host/linux/snapshot_read.h"
#include "host/linux/snapshot_sandbox.h"
#include "host/linux/snapshot_write.h"
#include "vm/state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* The one writer of the process. */
static struct {
	int socket; /* to the writer; 0: there is none */
	bool compress;
	bool is_base; /* the one being written is known to snapshot_base.h */
	char folder[PATH_MAX]; /* where they go; resolved */
	bool busy; /* an answer is still to come; atomic */
	void (*done)(const struct snapshot_result *result);
	pthread_mutex_t lock; /* of what is sent: orders are whole */
} snapshots = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool fail(struct snapshot_result *result, const char *why)
{
	snprintf(result->error, sizeof(result->error), "%s", why);
	return false;
}

/* ---- with the writer ---- */

static bool send_bytes(const void *data, size_t size)
{
	for (const u8 *p = data; size;) {
		ssize_t n = write(snapshots.socket, p, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		size -= (size_t)n;
	}
	return true;
}

static bool receive(struct snapshot_result *result, u8 id[SNAPSHOT_ID_SIZE])
{
	struct snapshot_answer answer = { 0 };
	size_t done = 0;
	while (done < sizeof(answer)) {
		ssize_t n = read(snapshots.socket, (u8 *)&answer + done, sizeof(answer) - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return fail(result, "the process that writes snapshots has ended");
		done += (size_t)n;
	}
	*result = answer.result;
	memcpy(id, answer.id, SNAPSHOT_ID_SIZE);
	result->name[SNAPSHOT_NAME_MAX] = result->error[sizeof(result->error) - 1] = 0;
	return !result->error[0];
}

static void completed(void *opaque)
{
	struct snapshot_result result = { 0 };
	u8 id[SNAPSHOT_ID_SIZE];
	if (!receive(&result, id) && snapshots.is_base)
		snapshot_base_drop(); /* nothing else is based on it yet: `busy` */
	event_enable(snapshots.socket, false);
	__atomic_store_n(&snapshots.busy, false, __ATOMIC_RELEASE);
	snapshots.done(&result);
	event_wake();
}

/* A device's order is small: it is sent at once. */
void snapshot_device(enum board_kind kind, unsigned index, int text)
{
	struct snapshot_order order = { .is_device = true, .kind = kind, .index = index };
	alignas(struct cmsghdr) char room[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec vector = { &order, sizeof(order) };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room) };
	if (!snapshots.socket)
		return;
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	*c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(text)) };
	memcpy(CMSG_DATA(c), &text, sizeof(text));
	if (text < 0)
		message.msg_controllen = 0;
	pthread_mutex_lock(&snapshots.lock);
	ssize_t n = sendmsg(snapshots.socket, &message, MSG_NOSIGNAL);
	if (n > 0)
		send_bytes((u8 *)&order + n, sizeof(order) - (size_t)n);
	pthread_mutex_unlock(&snapshots.lock);
}

/* ---- taking ---- */

/* Memory that was restored lazily, and is wanted: what was written since the base, or all. */
static void make_ready(struct vm *vm, const struct snapshot_base *base)
{
	if (!base)
		lazy_finish();
	for (u64 page = 0; base && page < vm->config.memory >> PAGE_SHIFT; page++)
		if (base->written[page / 64] >> page % 64 & 1)
			lazy_ready(vm->memory + (page << PAGE_SHIFT), PAGE_SIZE);
}

static bool copy(struct vm *vm, const struct snapshot_wish *wish, const struct snapshot_base *base, const u8 *state, size_t size, const u32 there[2],
		 struct snapshot_result *result)
{
	bool by_default = wish->compression == COMPRESSION_DEFAULT;
	struct snapshot_order order = { .state_size = size, .zstd = by_default ? snapshots.compress : wish->compression == COMPRESSION_ZSTD };
	unsigned depth = base ? base->depth + 1 : 1;
	char path[SNAPSHOT_NAME_MAX + 4];
	u8 id[SNAPSHOT_ID_SIZE];
	memcpy(order.name, wish->name ? wish->name : "", wish->name ? strlen(wish->name) : 0);
	if (base) {
		memcpy(order.base_id, base->id, sizeof(order.base_id));
		snprintf(order.base, sizeof(order.base), "%s", base->path);
		order.map_size = ram_log_words(&vm->ram) * sizeof(u64);
	}
	make_ready(vm, base);
	memcpy(order.there, there, sizeof(order.there));
	pthread_mutex_lock(&snapshots.lock);
	bool sent = send_bytes(&order, sizeof(order)) && send_bytes(base ? base->written : NULL, order.map_size) && send_bytes(state, size);
	pthread_mutex_unlock(&snapshots.lock);
	if (!sent)
		return fail(result, "the process that writes snapshots has ended");
	if (!receive(result, id))
		return false;
	snprintf(path, sizeof(path), "../%s", result->name);
	snapshots.is_base = snapshot_base_add(vm, result->name, path, id, depth);
	return true;
}

/* *base: what the snapshot is to be based on, or NULL. */
static bool find_base(struct vm *vm, const struct snapshot_wish *wish, const struct snapshot_base **base, struct snapshot_result *result)
{
	snapshot_base_update(vm);
	*base = wish->incremental ? snapshot_base_find(wish->base) : NULL;
	if (wish->incremental && !*base && wish->base)
		return fail(result, "there is no snapshot of that name that this machine went on from, or that was taken of it since it started");
	if (wish->incremental && !*base)
		return fail(result, "there is no snapshot that an incremental one could be based on: take a full one first");
	if (*base && (*base)->depth >= SNAPSHOT_CHAIN_MAX)
		return fail(result, "the snapshot would need too many others: take a full one");
	return true;
}

static void find_devices(struct vm *vm, u32 there[2])
{
	for (unsigned kind = 0; kind < 2; kind++) {
		there[kind] = 0;
		for (unsigned i = 0; i < BOARD_DISKS_MAX; i++)
			there[kind] |= vm_has(vm, (enum board_kind)kind, i) ? (u32)BIT(i) : 0;
	}
}

static bool save(struct vm *vm, const struct snapshot_wish *wish, struct snapshot_result *result)
{
	const struct snapshot_base *base;
	u32 there[2], still[2];
	size_t size = vm_state_size(vm);
	u8 *state = malloc(size);
	bool good = state || fail(result, "out of memory");
	find_devices(vm, there);
	good = good && find_base(vm, wish, &base, result) && vm_save(vm, state, size, result->error, sizeof(result->error));
	find_devices(vm, still);
	good = good && (!memcmp(there, still, sizeof(there)) || fail(result, "a disk or network came or went at this moment: try again"));
	good = good && copy(vm, wish, base, state, size, there, result);
	free(state);
	return good;
}

bool snapshot_take(struct vm *vm, const struct snapshot_wish *wish, void (*done)(const struct snapshot_result *result), struct snapshot_result *result)
{
	*result = (struct snapshot_result){ 0 };
	if (!snapshots.socket)
		return fail(result, "the machine has no folder for snapshots: it was started without --snapshot-dir");
	if (wish->name && !snapshot_name_ok(wish->name))
		return fail(result, "the name of a snapshot is of letters, digits, '.', '_' and '-', and begins with a letter or digit");
	if (__atomic_exchange_n(&snapshots.busy, true, __ATOMIC_ACQUIRE))
		return fail(result, "another snapshot is being written");
	snapshots.done = done;
	vm_hold(vm);
	bool good = vm_settle(vm) || fail(result, "the machine has ended");
	good = good && (vm_flush_disks(vm) == 0 || fail(result, "a disk could not be written")) && save(vm, wish, result);
	vm_release(vm);
	if (good)
		event_enable(snapshots.socket, true);
	else
		__atomic_store_n(&snapshots.busy, false, __ATOMIC_RELEASE);
	event_wake();
	return good;
}

void snapshot_tell(const struct snapshot_result *result)
{
	if (result->error[0])
		host_log(LOG_ERROR, "the snapshot could not be written: %s", result->error);
	else
		host_log(LOG_INFO, "the snapshot %s is complete", result->name);
	control_event(result->error[0] ? "snapshot-failed" : "snapshot", result->error[0] ? result->error : result->name);
}

/* ---- by a signal ---- */

static volatile sig_atomic_t wanted;

static void on_signal(int number)
{
	int saved = errno;
	wanted = true;
	event_wake();
	errno = saved;
}

void snapshot_woken(struct vm *vm)
{
	struct snapshot_result result;
	/* While another one is being written, the wish stays (completed). */
	if (!wanted || __atomic_load_n(&snapshots.busy, __ATOMIC_ACQUIRE))
		return;
	wanted = false;
	if (!snapshot_take(vm, &(struct snapshot_wish){ 0 }, snapshot_tell, &result))
		snapshot_tell(&result);
}

/* ---- the writer's start ---- */

static int complain(const char *folder, const char *why)
{
	fprintf(stderr, "nadir: --snapshot-dir: %s: %s\n", folder, why);
	return -1;
}

static int open_folder(const char *folder)
{
	if (mkdir(folder, 0700) < 0 && errno != EEXIST)
		return complain(folder, strerror(errno));
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return complain(folder, strerror(errno));
	if (faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) < 0) {
		close(fd);
		return complain(folder, strerror(errno));
	}
	return fd;
}

static int compare(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static void confine(const struct snapshot_writer *writer, const char *base)
{
	int error = snapshot_sandbox_enter(writer->folder, base ? open(base, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1);
	if (!error)
		return;
	host_log(LOG_ERROR, "the writer of snapshots cannot be confined (%s); --sandbox off runs without", strerror(-error));
	_exit(1);
}

/* Nothing of nadir's but what writing needs, and none of the terminal's signals. */
_Noreturn static void become_writer(struct snapshot_writer *writer, const struct snapshot_place *place)
{
	int keep[] = { STDIN_FILENO - 1, STDERR_FILENO, writer->socket, writer->folder, writer->memory };
	static const int ignored[] = { SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR2 };
	qsort(keep, ARRAY_SIZE(keep), sizeof(keep[0]), compare);
	for (size_t i = 0; i < ARRAY_SIZE(keep); i++) {
		unsigned first = (unsigned)(keep[i] + 1), last = i + 1 < ARRAY_SIZE(keep) ? (unsigned)keep[i + 1] - 1 : UINT_MAX;
		if (first <= last)
			close_range(first, last, 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		signal(ignored[i], SIG_IGN);
	setsid();
	prctl(PR_SET_NAME, "nadir-snapshots");
	if (place->confine)
		confine(writer, place->base);
	snapshot_write_all(writer);
}

int snapshot_start(const struct snapshot_place *place, const struct vm *vm)
{
	const char *folder = place->folder;
	/* Whoever sees the folder may send the signal. */
	sigaction(SIGUSR2, &(struct sigaction){ .sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_RESTART }, NULL);
	int ends[2], fd = open_folder(folder);
	if (fd < 0)
		return -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		close(fd);
		return complain(folder, strerror(errno));
	}
	struct snapshot_writer writer = { .socket = ends[1], .folder = fd, .memory = memory_file(vm->memory), .memory_size = vm->config.memory,
					  .description = place->description,
					  .devices = place->devices };
	snapshots.compress = place->compress;
	if (!realpath(folder, snapshots.folder)) {
		close(fd);
		return complain(folder, strerror(errno));
	}
	pid_t pid = fork();
	if (!pid)
		become_writer(&writer, place);
	close(ends[1]);
	close(fd);
	if (pid < 0)
		return complain(folder, strerror(errno));
	snapshots.socket = ends[0];
	sandbox_allow_sending(snapshots.socket);
	if (event_watch(ends[0], completed, NULL) < 0)
		return complain(folder, "there are too many descriptors to watch");
	event_enable(ends[0], false);
	return 0;
}

void snapshot_went_on(struct vm *vm, const char *folder, const struct snapshot *from)
{
	char path[PATH_MAX], beside[PATH_MAX + 4];
	const char *last = realpath(folder, path) ? strrchr(path, '/') : NULL;
	if (!last)
		return;
	bool same = (size_t)(last - path) == strlen(snapshots.folder) && !memcmp(path, snapshots.folder, (size_t)(last - path));
	snprintf(beside, sizeof(beside), "%s%s", same ? "../" : "", same ? last + 1 : path);
	snapshot_base_add(vm, last + 1, beside, from->id, from->depth);
}
