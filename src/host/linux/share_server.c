/* The process of a shared folder (share.h). It has the guest's memory, the folder, and two pipes; each of its threads takes the next request, carries it
 * out (fuse.h), and says so. It ends when nobody can write requests any more. */
#define _GNU_SOURCE
#include "host/linux/share_server.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS 4

static_assert(VIRTQ_PIECES_MAX <= FUSE_PIECES_MAX, "a request fits");

/* The one server of this process. */
static struct {
	const struct share_server *server;
	struct fuse_session *session;
	u8 *memory;
	pthread_barrier_t ready;
} self;

/* Pieces as guest RAM has them; nadir has checked them, but it may have been taken over. */
static bool place(const struct share_slot *slot, unsigned from, unsigned to, struct iovec *piece)
{
	u64 size = self.server->memory_size;
	for (unsigned i = from; i < to; i++) {
		u64 offset = __atomic_load_n(&slot->piece[i].offset, __ATOMIC_RELAXED), n = __atomic_load_n(&slot->piece[i].size, __ATOMIC_RELAXED);
		if (offset > size || n > size - offset)
			return false;
		piece[i - from] = (struct iovec){ self.memory + offset, n };
	}
	return true;
}

static u32 carry_out(struct share_slot *slot, struct fuse_worker *worker)
{
	struct iovec in[VIRTQ_PIECES_MAX], out[VIRTQ_PIECES_MAX];
	u32 readable = __atomic_load_n(&slot->readable, __ATOMIC_RELAXED), pieces = __atomic_load_n(&slot->pieces, __ATOMIC_RELAXED);
	if (pieces > VIRTQ_PIECES_MAX || readable > pieces || !place(slot, 0, readable, in) || !place(slot, readable, pieces, out))
		return 0;
	return fuse_serve(self.session, worker, in, readable, out, pieces - readable);
}

static bool tell(u32 index)
{
	ssize_t n;
	do
		n = write(self.server->answers, &index, sizeof(index));
	while (n < 0 && errno == EINTR);
	return n == sizeof(index);
}

static void *serve(void *opaque)
{
	struct fuse_worker *worker = opaque;
	u32 index;
	pthread_barrier_wait(&self.ready);
	for (;;) {
		ssize_t n = read(self.server->requests, &index, sizeof(index));
		if (n < 0 && errno == EINTR)
			continue;
		if (n != sizeof(index))
			_exit(0);
		if (index >= FS_REQUESTS_MAX)
			continue;
		struct share_slot *slot = &self.server->slot[index];
		slot->written = carry_out(slot, worker);
		if (!tell(index))
			_exit(0);
	}
}

/* ---- the start ---- */

static _Noreturn void give_up(const char *what, int error)
{
	fprintf(stderr, "nadir: --share: %s: %s\n", what, strerror(error));
	_exit(1);
}

/* Nothing of the VMM's: not its files, and not the terminal's signals. The descriptors that stay are where nothing of this moves over them. */
static void detach(struct share_server *s)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
		give_up("/dev/null", errno);
	int *keep[] = { &s->requests, &s->answers, &s->memory, &s->wishes.folder };
	for (unsigned i = 0; i < ARRAY_SIZE(keep); i++)
		*keep[i] = fcntl(*keep[i], F_DUPFD, 64);
	for (unsigned i = 0; i < ARRAY_SIZE(keep); i++)
		*keep[i] = dup2(*keep[i], 3 + (int)i);
	close_range(3 + ARRAY_SIZE(keep), ~0u, 0);
	signal(SIGPIPE, SIG_IGN);
	setsid();
	umask(0);
	prctl(PR_SET_NAME, "nadir-share");
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
}

/* A file that the guest knows is an open file here. */
static void raise_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static void make_threads(void)
{
	pthread_barrier_init(&self.ready, NULL, THREADS);
	for (unsigned i = 0; i + 1 < THREADS; i++) {
		pthread_t thread;
		struct fuse_worker *worker = malloc(sizeof(*worker));
		int error = worker ? pthread_create(&thread, NULL, serve, worker) : ENOMEM;
		if (error)
			give_up("its threads cannot be made", error);
	}
}

void share_serve(const struct share_server *server)
{
	struct share_server s = *server;
	self.server = &s;
	detach(&s);
	raise_limit();
	self.memory = mmap(NULL, s.memory_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, s.memory, 0);
	close(s.memory);
	if (self.memory == MAP_FAILED)
		give_up("the guest's memory cannot be mapped", errno);
	if (chdir("/proc/self/fd") < 0)
		give_up("/proc is needed", errno);
	int error = s.confine ? share_sandbox_files(s.wishes.folder, s.wishes.readonly) : 0;
	s.wishes.owners = geteuid() == 0;
	struct fuse_worker *worker = malloc(sizeof(*worker));
	self.session = fuse_session_create(&s.wishes);
	if (!worker || !self.session)
		give_up("its process cannot be started", ENOMEM);
	make_threads();
	if (!error && s.confine)
		error = share_sandbox_enter();
	if (error)
		give_up("its process cannot be confined (--sandbox off runs without)", -error);
	dup2(STDIN_FILENO, STDERR_FILENO);
	tell(SHARE_READY);
	serve(worker);
	_exit(0);
}
