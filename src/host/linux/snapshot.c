/* Taking snapshots: hold the VM, save its state, have the writer copy it with the memory, release the VM (snapshot.h). */
#define _GNU_SOURCE
#include "host/linux/snapshot.h"

#include "host/linux/event.h"
#include "host/linux/memory.h"
#include "host/linux/memory_lazy.h"
#include "host/linux/snapshot_write.h"
#include "vm/state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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
	bool busy; /* an answer is still to come; atomic */
	void (*done)(void *opaque, const char *name, const char *error);
	void *opaque;
} snapshots;

static bool fail(char *error, size_t size, const char *why)
{
	snprintf(error, size, "%s", why);
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

static void receive(struct snapshot_answer *answer)
{
	size_t done = 0;
	while (done < sizeof(*answer)) {
		ssize_t n = read(snapshots.socket, (u8 *)answer + done, sizeof(*answer) - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			*answer = (struct snapshot_answer){ .error = "the process that writes snapshots has ended" };
			return;
		}
		done += (size_t)n;
	}
	answer->name[SNAPSHOT_NAME_MAX] = answer->error[sizeof(answer->error) - 1] = 0;
}

static void completed(void *opaque)
{
	struct snapshot_answer answer;
	receive(&answer);
	event_enable(snapshots.socket, false);
	__atomic_store_n(&snapshots.busy, false, __ATOMIC_RELEASE);
	snapshots.done(snapshots.opaque, answer.name, answer.error[0] ? answer.error : NULL);
	event_wake();
}

/* ---- taking ---- */

static bool copy(const char *name, const u8 *state, size_t size, char *error, size_t error_size)
{
	struct snapshot_order order = { .state_size = size };
	struct snapshot_answer answer;
	memcpy(order.name, name ? name : "", name ? strlen(name) : 0);
	lazy_finish();
	if (!send_bytes(&order, sizeof(order)) || !send_bytes(state, size))
		return fail(error, error_size, "the process that writes snapshots has ended");
	receive(&answer);
	return !answer.error[0] || fail(error, error_size, answer.error);
}

static bool save(struct vm *vm, const char *name, char *error, size_t error_size)
{
	size_t size = vm_state_size(vm);
	u8 *state = malloc(size);
	bool good = state ? vm_save(vm, state, size, error, error_size) && copy(name, state, size, error, error_size) :
			    fail(error, error_size, "out of memory");
	free(state);
	return good;
}

bool snapshot_take(struct vm *vm, const char *name, void (*done)(void *opaque, const char *name, const char *error), void *opaque, char *error,
		   size_t error_size)
{
	if (!snapshots.socket)
		return fail(error, error_size, "there is no folder for snapshots: start nadir with --snapshot-dir");
	if (name && !snapshot_name_ok(name))
		return fail(error, error_size, "the name of a snapshot is of letters, digits, '.', '_' and '-', and begins with a letter or digit");
	if (__atomic_exchange_n(&snapshots.busy, true, __ATOMIC_ACQUIRE))
		return fail(error, error_size, "another snapshot is being written");
	vm_hold(vm);
	bool good = vm_settle(vm) ? save(vm, name, error, error_size) : fail(error, error_size, "the VM has ended");
	vm_release(vm);
	if (!good) {
		__atomic_store_n(&snapshots.busy, false, __ATOMIC_RELEASE);
		return false;
	}
	snapshots.done = done;
	snapshots.opaque = opaque;
	event_enable(snapshots.socket, true);
	event_wake();
	return true;
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

static void tell(void *opaque, const char *name, const char *error)
{
	if (error)
		host_log(LOG_ERROR, "the snapshot %s could not be written: %s", name, error);
	else
		host_log(LOG_INFO, "the snapshot %s is complete", name);
}

void snapshot_woken(struct vm *vm)
{
	char error[256];
	/* While another one is being written, the wish stays (completed). */
	if (!wanted || __atomic_load_n(&snapshots.busy, __ATOMIC_ACQUIRE))
		return;
	wanted = false;
	if (!snapshot_take(vm, NULL, tell, NULL, error, sizeof(error)))
		host_log(LOG_ERROR, "no snapshot was taken: %s", error);
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

/* Nothing of nadir's but what writing needs, and none of the terminal's signals. */
_Noreturn static void become_writer(const struct snapshot_writer *writer)
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
	snapshot_write_all(writer);
}

int snapshot_start(const char *folder, const char *description, const struct vm *vm)
{
	/* Whoever sees the folder may send the signal. */
	sigaction(SIGUSR2, &(struct sigaction){ .sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_RESTART }, NULL);
	int ends[2], fd = open_folder(folder);
	if (fd < 0)
		return -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return complain(folder, strerror(errno));
	struct snapshot_writer writer = { .socket = ends[1], .folder = fd, .memory = memory_file(vm->memory), .memory_size = vm->config.memory,
					  .description = description };
	pid_t pid = fork();
	if (!pid)
		become_writer(&writer);
	close(ends[1]);
	close(fd);
	if (pid < 0)
		return complain(folder, strerror(errno));
	snapshots.socket = ends[0];
	if (event_watch(ends[0], completed, NULL) < 0)
		return complain(folder, "there are too many descriptors to watch");
	event_enable(ends[0], false);
	return 0;
}
