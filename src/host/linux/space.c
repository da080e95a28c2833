/* The VMM's side of the port's spaces: each is a process that the server (space_server.c) made of nothing but the runtime
 * (space_runtime.S).
 *
 * The memory of all spaces is one object, a slot each, mapped here for ever. What a space has written is not believed: a wrong answer is a
 * broken space. */
#define _GNU_SOURCE
#include "host/linux/space.h"

#include "arch/regs.h"
#include "host/linux/memory.h"
#include "host/linux/memory_lazy.h"
#include "host/linux/space_handoff.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ADDRESS_END (HOST_SPACE_END - PAGE_SIZE) /* Linux keeps the last page free */
#define OWN_MAPS 64 /* more than a space has of its own */

enum slot_state { SLOT_FREE, SLOT_USED, SLOT_ENDING };

struct slot {
	struct host_space space;
	enum slot_state state;
	struct handoff handoff;
	u8 *ram;
	u64 ram_size;
	u64 code, code_size;
	u64 maps; /* at most so many mappings are there */
	bool failed; /* nothing more can be done with it */
	int process; /* pidfd; -1: none */
	u64 pass[2];
};

static struct {
	const char *why; /* there are no spaces; NULL: there are */
	u64 hole;
	int socket;
	u8 *shared;
	u64 lowest; /* address that may be mapped */
	u64 maps_max;
	pthread_mutex_t lock; /* slot states */
	pthread_mutex_t asking; /* one at a time waits for the server's reply */
	struct slot slot[SPACE_SLOTS];
} spaces = { .why = "spaces were not asked for", .socket = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .asking = PTHREAD_MUTEX_INITIALIZER };

/* ---- start ---- */

static u64 read_number(const char *path, u64 otherwise)
{
	FILE *file = fopen(path, "r");
	unsigned long long number;
	bool good = file && fscanf(file, "%llu", &number) == 1;
	if (file)
		fclose(file);
	return good ? number : otherwise;
}

static const char *map_slots(int *file)
{
	const size_t size = (size_t)SPACE_SLOTS * SPACE_SLOT_SIZE;
	*file = memfd_create("nadir-spaces", MFD_CLOEXEC);
	if (*file < 0 || ftruncate(*file, (off_t)size) < 0)
		return "no memory object for spaces can be made";
	spaces.shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, *file, 0);
	return spaces.shared == MAP_FAILED ? "no address space is left for spaces" : NULL;
}

static const char *fork_server(int file)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return "no socket can be made";
	pid_t pid = fork();
	if (!pid)
		space_server(pair[1], file, spaces.shared, spaces.hole);
	char ready;
	close(pair[1]);
	spaces.socket = pair[0];
	return pid < 0 ? "no process can be made" : read(pair[0], &ready, 1) != 1 ? "the server of spaces could not set itself up" : NULL;
}

static const char *start(void)
{
	int file = -1;
	spaces.maps_max = read_number("/proc/sys/vm/max_map_count", 65530);
	spaces.lowest = read_number("/proc/sys/vm/mmap_min_addr", 65536);
	handoff_start();
	spaces.hole = space_hole_choose();
	const char *why = spaces.hole ? map_slots(&file) : "no hole for them is free in this program's address space";
	why = why ? why : fork_server(file);
	if (file >= 0)
		close(file);
	return why;
}

void space_start(void)
{
	memset(spaces.slot, 0, sizeof(spaces.slot));
	spaces.why = start();
}

int space_socket(void)
{
	return spaces.socket;
}

u64 host_space_hole(const char **why)
{
	if (!spaces.why)
		return spaces.hole;
	*why = spaces.why;
	return 0;
}

u64 host_space_leave(void)
{
	return spaces.why ? 0 : spaces.hole + SPACE_RUNTIME + space_runtime_leave;
}

u64 host_space_enter_place(void)
{
	return spaces.why ? 0 : spaces.hole + SPACE_RUNTIME + space_runtime_enter_place;
}

/* ---- requests to the server ---- */

static bool send_request(const struct space_request *request, const int *files)
{
	union {
		char bytes[CMSG_SPACE(SPACE_FILES * sizeof(int))];
		struct cmsghdr header;
	} control = { { 0 } };
	struct iovec data = { (void *)(uintptr_t)request, sizeof(*request) };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1 };
	if (files) {
		control.header = (struct cmsghdr){ CMSG_LEN(SPACE_FILES * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.header), files, SPACE_FILES * sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	ssize_t n;
	do {
		n = sendmsg(spaces.socket, &message, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n == sizeof(*request);
}

/* The server's answer, to SPACE_CREATE with files. */
static bool receive_reply(int *files)
{
	char there = 0;
	union {
		char bytes[CMSG_SPACE(SPACE_REPLY_FILES * sizeof(int))];
		struct cmsghdr header;
	} control;
	const size_t size = SPACE_REPLY_FILES * sizeof(*files);
	struct iovec data = { &there, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n;
	do {
		n = recvmsg(spaces.socket, &message, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n != 1 || !there || !files)
		return n == 1 && there;
	const struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
	if (!rights || rights->cmsg_len != CMSG_LEN(size))
		return false;
	memcpy(files, CMSG_DATA(rights), size);
	return true;
}

static bool ask(const struct space_request *r, const int *files, int *reply_files)
{
	pthread_mutex_lock(&spaces.asking);
	bool good = send_request(r, files) && receive_reply(reply_files);
	pthread_mutex_unlock(&spaces.asking);
	return good;
}

static bool ask_for_process(struct slot *s, const struct space_request *r, const int *files)
{
	int reply[SPACE_REPLY_FILES];
	if (!ask(r, files, reply))
		return false;
	s->process = reply[SPACE_FILE_PROCESS];
	s->handoff.ring = reply[SPACE_FILE_RING];
	return true;
}

static void close_files(struct slot *s)
{
	if (s->process >= 0)
		close(s->process);
	if (s->handoff.ring >= 0)
		close(s->handoff.ring);
	s->process = s->handoff.ring = -1;
}

/* ---- creation ---- */

/* A slot whose last process has ended. */
static struct slot *take_slot(void)
{
	struct slot *found = NULL;
	pthread_mutex_lock(&spaces.lock);
	for (unsigned i = 0; !found && i < SPACE_SLOTS; i++) {
		struct slot *s = &spaces.slot[i];
		if (s->state == SLOT_FREE || (s->state == SLOT_ENDING && handoff_dead(&s->handoff)))
			found = s;
	}
	if (found)
		found->state = SLOT_USED;
	pthread_mutex_unlock(&spaces.lock);
	return found;
}

static void release_slot(struct slot *s, enum slot_state state)
{
	pthread_mutex_lock(&spaces.lock);
	s->state = state;
	pthread_mutex_unlock(&spaces.lock);
}

static bool init_slot(struct slot *s, const struct host_code *code, void *ram, u64 ram_size)
{
	u8 *shared = spaces.shared + (u64)(s - spaces.slot) * SPACE_SLOT_SIZE;
	if (madvise(shared, SPACE_SLOT_SIZE, MADV_REMOVE) < 0)
		memset(shared, 0, SPACE_SLOT_SIZE);
	*s = (struct slot){
		.space = { .window = (struct host_space_window *)(void *)shared, .tables = shared + SPACE_TABLES - SPACE_WINDOW,
			   .window_there = spaces.hole + SPACE_WINDOW, .tables_there = spaces.hole + SPACE_TABLES },
		.state = SLOT_USED,
		.ram = ram,
		.ram_size = ram_size,
		.code = (u64)(uintptr_t)code->rx,
		.code_size = code->size,
		.maps = OWN_MAPS,
		.process = -1,
	};
	if (getrandom(s->pass, sizeof(s->pass), 0) != sizeof(s->pass))
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(s->pass); i++)
		s->pass[i] &= ~0ull << 32;
	handoff_init(&s->handoff, (struct space_control *)(void *)(shared + SPACE_CONTROL - SPACE_WINDOW),
		     (struct space_answer *)(void *)(shared + SPACE_ANSWER - SPACE_WINDOW), s->pass);
	return true;
}

static bool in_hole(const struct host_code *code)
{
	return (u64)(uintptr_t)code->rx - spaces.hole < HOST_SPACE_HOLE;
}

struct host_space *host_space_create(const struct host_code *code, void *ram, u64 ram_size, size_t tables_size)
{
	const int files[SPACE_FILES] = { [SPACE_FILE_RAM] = memory_file(ram), [SPACE_FILE_CODE] = memory_file(code->rx) };
	if (spaces.why || files[0] < 0 || files[1] < 0 || !in_hole(code) || tables_size > SPACE_TABLES_MAX)
		return NULL;
	struct slot *s = take_slot();
	if (!s)
		return NULL;
	if (!init_slot(s, code, ram, ram_size)) {
		release_slot(s, SLOT_FREE);
		return NULL;
	}
	const struct space_request r = {
		.operation = SPACE_CREATE,
		.slot = (u32)(s - spaces.slot),
		.tables_size = tables_size,
		.code = s->code,
		.code_size = s->code_size,
		.pass = { s->pass[0], s->pass[1] },
	};
	bool good = ask_for_process(s, &r, files) && handoff_await(&s->handoff, true);
	__atomic_store_n(&s->handoff.control->block, SYSCALL_DISPATCH_FILTER_BLOCK, __ATOMIC_SEQ_CST);
	if (good)
		return &s->space;
	host_space_destroy(&s->space);
	return NULL;
}

void host_space_destroy(struct host_space *space)
{
	struct slot *s = container_of(space, struct slot, space);
	const struct space_request r = { .operation = SPACE_KILL, .slot = (u32)(s - spaces.slot) };
	if (!handoff_dead(&s->handoff))
		send_request(&r, NULL);
	close_files(s);
	(void)madvise(s->space.tables, SPACE_TABLES_MAX, MADV_REMOVE); /* the rest is small, and tells when the process has ended */
	release_slot(s, SLOT_ENDING);
}

/* ---- mappings ---- */

/* Have the queued commands carried out, and run, if it is to. False: the space is lost. */
static bool request(struct slot *s, bool run)
{
	bool answered = handoff_request(&s->handoff, s->pass, run);
	s->failed = s->failed || !answered || s->handoff.answer->kind == KIND_FAILED;
	return answered;
}

static bool goes_on(const struct space_command *old, const struct space_command *new)
{
	return old->flags && old->flags == new->flags && old->protection == new->protection && old->address + old->size == new->address &&
	       old->offset + old->size == new->offset;
}

/* A command at the end of the queue, or more of the last one. */
static int queue(struct slot *s, const struct space_command *new)
{
	struct space_control *c = s->handoff.control;
	struct space_command *last = c->count ? &c->command[c->count - 1] : NULL;
	if (s->failed || s->maps >= spaces.maps_max)
		return -1;
	if (last && goes_on(last, new)) {
		last->size += new->size;
		return 0;
	}
	if (c->count == SPACE_COMMANDS && !request(s, false))
		return -1;
	if (s->failed)
		return -1;
	c->command[c->count++] = *new;
	s->maps++;
	return 0;
}

static bool overlap(u64 a, u64 a_end, u64 b, u64 b_end)
{
	return a < b_end && b < a_end;
}

int host_space_map(struct host_space *space, u64 gla, void *hva, u64 size, enum host_space_access access)
{
	struct slot *s = container_of(space, struct slot, space);
	u64 offset = (u64)((u8 *)hva - s->ram);
	if (gla < spaces.lowest || gla >= ADDRESS_END || size > ADDRESS_END - gla)
		return -1;
	if (offset >= s->ram_size || size > s->ram_size - offset || overlap(gla, gla + size, spaces.hole, spaces.hole + HOST_SPACE_HOLE))
		return -1;
	lazy_ready(hva, size);
	return queue(s, &(struct space_command){ gla, size, offset, (u32)(PROT_READ | (access == SPACE_WRITE ? PROT_WRITE : access == SPACE_EXEC ? PROT_EXEC : 0)),
						 MAP_SHARED | MAP_FIXED | MAP_NORESERVE | MAP_POPULATE });
}

/* What remains of [gla, end) within [from, to). */
static int unmap_within(struct slot *s, u64 gla, u64 end, u64 from, u64 to)
{
	gla = MAX(gla, from);
	end = MIN(end, to);
	return gla < end ? queue(s, &(struct space_command){ .address = gla, .size = end - gla }) : 0;
}

int host_space_unmap(struct host_space *space, u64 gla, u64 size)
{
	struct slot *s = container_of(space, struct slot, space);
	u64 end = gla + size;
	if (end < gla || end > HOST_SPACE_END)
		return -1;
	bool all = gla <= spaces.lowest && end >= ADDRESS_END;
	if (all) {
		s->maps = OWN_MAPS;
		s->handoff.control->count = 0;
	}
	if (unmap_within(s, gla, end, 0, spaces.hole))
		return -1;
	return unmap_within(s, gla, end, spaces.hole + HOST_SPACE_HOLE, ADDRESS_END);
}

/* ---- running ---- */

static void read_trap(const struct slot *s, struct host_trap *trap)
{
	const struct host_space_regs *regs = &s->space.window->regs;
	*trap = (struct host_trap){
		.pc = regs->rip,
		.vector = (u32)s->handoff.answer->vector,
		.error_code = (u32)s->handoff.answer->error,
		.address = s->handoff.answer->address,
		.rflags = regs->rflags,
	};
}

static bool translated(const struct slot *s, u64 pc)
{
	return pc - s->code < s->code_size;
}

/* Whether code in place can have been there: at the guest's addresses, or at any that it jumped to in vain. */
static bool placed(u64 pc)
{
	return is_canonical(pc, 48) && pc - spaces.hole >= HOST_SPACE_HOLE;
}

static enum host_space_exit read_answer(const struct slot *s, struct host_trap *trap, bool in_place)
{
	read_trap(s, trap);
	bool there = translated(s, trap->pc), place = in_place && placed(trap->pc);
	switch (__atomic_load_n(&s->handoff.answer->kind, __ATOMIC_RELAXED)) {
	case KIND_LEFT:
		return SPACE_LEFT;
	case KIND_TRAP:
		return (there || place) && trap->vector < 32 ? SPACE_TRAP : SPACE_BROKEN;
	case KIND_SYSCALL:
		return place ? SPACE_SYSCALL : SPACE_BROKEN;
	case KIND_BREAK:
		return place ? SPACE_AT_BREAK : SPACE_BROKEN;
	case KIND_STOPPED:
		return place || (there && in_place) ? SPACE_STOPPED : SPACE_BROKEN;
	case KIND_FAILED:
		return SPACE_GONE;
	default:
		return SPACE_BROKEN;
	}
}

bool host_space_runs_in_place(void)
{
	return !spaces.why && handoff_fsgsbase();
}

bool host_space_break(struct host_space *space, const u64 *address, unsigned count)
{
	struct slot *s = container_of(space, struct slot, space);
	struct space_request r = { .operation = SPACE_BREAK, .slot = (u32)(s - spaces.slot), .breaks_count = count };
	for (unsigned i = 0; i < MIN(count, HOST_SPACE_BREAKS); i++)
		r.breaks[i] = address[i];
	return count <= HOST_SPACE_BREAKS && !s->failed && !handoff_dead(&s->handoff) && ask(&r, NULL, NULL);
}

void host_space_stop(u32 *stop)
{
	__atomic_store_n(stop, 1, __ATOMIC_SEQ_CST);
	u64 offset = (u64)((u8 *)stop - spaces.shared);
	if (spaces.why || offset >= (u64)SPACE_SLOTS * SPACE_SLOT_SIZE)
		return;
	const struct slot *s = &spaces.slot[offset / SPACE_SLOT_SIZE];
	const struct space_control *c = (const struct space_control *)(const void *)stop;
	if (__atomic_load_n(&c->in_place, __ATOMIC_SEQ_CST))
		syscall(SYS_pidfd_send_signal, __atomic_load_n(&s->process, __ATOMIC_RELAXED), SPACE_STOP_SIGNAL, NULL, 0);
}

/* The process may still run what we do not know; when it has ended, it does not. */
static enum host_space_exit broken(struct slot *s)
{
	if (!handoff_dead(&s->handoff))
		send_request(&(struct space_request){ .operation = SPACE_KILL, .slot = (u32)(s - spaces.slot) }, NULL);
	handoff_await_end(&s->handoff);
	return SPACE_BROKEN;
}

enum host_space_exit host_space_run(struct host_space *space, struct host_trap *trap, bool in_place)
{
	struct slot *s = container_of(space, struct slot, space);
	struct host_space_regs *regs = &space->window->regs;
	struct space_control *c = s->handoff.control;
	u64 flags = RFLAGS_STATUS | RFLAGS_DF | (in_place ? RFLAGS_AC | RFLAGS_ID | RFLAGS_NT : 0);
	regs->rflags = (regs->rflags & flags) | RFLAGS_FIXED1 | RFLAGS_IF;
	if (s->failed || handoff_dead(&s->handoff) || !is_canonical(regs->fs_base, 48) || !is_canonical(regs->gs_base, 48))
		return SPACE_GONE;
	c->gs_base = in_place && !translated(s, regs->rip) ? regs->gs_base : space->window_there;
	__atomic_store_n(&c->in_place, in_place, __ATOMIC_SEQ_CST);
	bool answered = request(s, true);
	__atomic_store_n(&c->in_place, 0, __ATOMIC_SEQ_CST);
	enum host_space_exit how = answered ? read_answer(s, trap, in_place) : SPACE_BROKEN;
	return how == SPACE_BROKEN ? broken(s) : how;
}
