/* Shared folders (share.h): from requests of the device to the folder's process and back. */
#define _GNU_SOURCE
#include "host/linux/share.h"

#include "host/linux/memory.h"
#include "host/linux/sandbox_thread.h"
#include "host/linux/share_server.h"
#include "host/port.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ANSWERS_AT_ONCE 64

struct share {
	unsigned index;
	struct share_server server;
	char tag[FS_TAG_SIZE + 1];
	u8 *memory; /* guest RAM; NULL until share_start, as is `slot` */
	int requests, answers;
	struct share_slot *slot;
	void (*completed)(void *opaque, unsigned index);
	void *opaque;
	pthread_t thread;
	bool running, stopping; /* the last: atomic */

	pthread_mutex_t lock; /* of all that follows */
	pthread_cond_t idle;
	struct fs_request *given[FS_REQUESTS_MAX]; /* those that the process has, by their index */
	unsigned unfinished;
	struct fs_request *done;
	bool told; /* `completed` was called, and has not yet found `done` empty */
	bool lost; /* the process is gone */
};

/* All of the process. */
static struct share *all[SHARES_MAX];

static int complain(const char *what, const char *why)
{
	fprintf(stderr, "nadir: --share: %s: %s\n", what, why);
	return -1;
}

/* ---- requests ---- */

/* What the guest is told when nobody is there to answer: an input/output error, if it waits for an answer at all. */
static void refuse(struct fs_request *r)
{
	struct fuse_in_header in;
	struct fuse_out_header out = { .len = sizeof(out), .error = -EIO };
	r->written = 0;
	if (!r->readable || r->piece->size < sizeof(in) || r->pieces == r->readable || r->piece[r->readable].size < sizeof(out))
		return;
	memcpy(&in, r->piece->data, sizeof(in));
	out.unique = in.unique;
	memcpy(r->piece[r->readable].data, &out, sizeof(out));
	r->written = sizeof(out);
}

/* Write down where it is. False: part of it is not in RAM but in some ROM. */
static bool fill(const struct share *s, struct share_slot *slot, const struct fs_request *r)
{
	slot->readable = r->readable;
	slot->pieces = r->pieces;
	slot->written = 0;
	for (unsigned i = 0; i < r->pieces; i++) {
		u64 offset = (u64)(r->piece[i].data - s->memory);
		if (offset > s->server.memory_size || r->piece[i].size > s->server.memory_size - offset)
			return false;
		slot->piece[i].offset = offset;
		slot->piece[i].size = r->piece[i].size;
	}
	return true;
}

/* With the lock. */
static void finish(struct share *s, struct fs_request *r)
{
	s->given[r->index] = NULL;
	r->next = s->done;
	s->done = r;
	if (!--s->unfinished)
		pthread_cond_broadcast(&s->idle);
}

/* If it cannot be written, the process is gone, and the thread will find it out. */
static bool share_submit(void *share, struct fs_request *request)
{
	struct share *s = share;
	pthread_mutex_lock(&s->lock);
	bool possible = !s->lost && fill(s, &s->slot[request->index], request);
	if (possible) {
		s->given[request->index] = request;
		s->unfinished++;
	}
	pthread_mutex_unlock(&s->lock);
	if (!possible) {
		refuse(request);
		return true;
	}
	const u32 index = request->index;
	while (write(s->requests, &index, sizeof(index)) < 0 && errno == EINTR)
		;
	return false;
}

static struct fs_request *share_completed(void *share)
{
	struct share *s = share;
	pthread_mutex_lock(&s->lock);
	struct fs_request *r = s->done;
	if (r)
		s->done = r->next;
	else
		s->told = false;
	pthread_mutex_unlock(&s->lock);
	return r;
}

static void share_drain(void *share)
{
	struct share *s = share;
	pthread_mutex_lock(&s->lock);
	while (s->unfinished)
		pthread_cond_wait(&s->idle, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

/* ---- the thread ---- */

static void tell(struct share *s, bool new)
{
	bool due = new && !s->told;
	s->told |= due;
	pthread_mutex_unlock(&s->lock);
	if (due)
		s->completed(s->opaque, s->index);
}

static void take_answers(struct share *s, const u32 *index, size_t count)
{
	bool any = false;
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < count; i++) {
		struct fs_request *r = index[i] < FS_REQUESTS_MAX ? s->given[index[i]] : NULL;
		if (!r)
			continue;
		r->written = s->slot[index[i]].written;
		finish(s, r);
		any = true;
	}
	tell(s, any);
}

static void lose(struct share *s)
{
	bool any = false;
	pthread_mutex_lock(&s->lock);
	s->lost = true;
	for (unsigned i = 0; i < FS_REQUESTS_MAX; i++) {
		struct fs_request *r = s->given[i];
		if (!r)
			continue;
		refuse(r);
		finish(s, r);
		any = true;
	}
	tell(s, any);
}

static void *share_thread(void *opaque)
{
	struct share *s = opaque;
	u32 index[ANSWERS_AT_ONCE];
	for (;;) {
		ssize_t n = read(s->answers, index, sizeof(index));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		take_answers(s, index, (size_t)n / sizeof(*index));
	}
	if (!__atomic_load_n(&s->stopping, __ATOMIC_SEQ_CST))
		host_log(LOG_ERROR, "the process of the shared folder '%s' has ended: its files cannot be reached any more", s->tag);
	lose(s);
	return NULL;
}

/* ---- the option ---- */

struct wishes {
	char *path, *tag, *readonly, *cache;
};

static const struct {
	const char *name;
	size_t offset; /* in struct wishes */
} keys[] = {
	{ "path", offsetof(struct wishes, path) },
	{ "tag", offsetof(struct wishes, tag) },
	{ "readonly", offsetof(struct wishes, readonly) },
	{ "cache", offsetof(struct wishes, cache) },
};

static int parse_word(char *word, struct wishes *w)
{
	char *value = strchr(word, '=');
	if (!value)
		return complain(word, "it is not of the form KEY=VALUE, as in path=FOLDER,tag=NAME");
	*value++ = 0;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (strcmp(word, keys[i].name) != 0)
			continue;
		*(char **)(void *)((char *)w + keys[i].offset) = value;
		return 0;
	}
	return complain(word, "there is no such key; the keys are path, tag, readonly and cache");
}

/* Which of the words it is; the first one if it was not given; -1 after one sentence on stderr. */
static int choice(const char *value, const char *const *word, int words, const char *why)
{
	if (!value)
		return 0;
	for (int i = 0; i < words; i++)
		if (!strcmp(value, word[i]))
			return i;
	return complain(value, why);
}

static int parse(char *text, struct wishes *w, struct share *s)
{
	static const char *const switches[] = { "off", "on" };
	static const char *const caches[] = { [FUSE_CACHE_AUTO] = "auto", [FUSE_CACHE_NONE] = "none", [FUSE_CACHE_ALWAYS] = "always" };
	char *rest = text;
	for (char *word = strsep(&rest, ","); word; word = strsep(&rest, ","))
		if (parse_word(word, w) < 0)
			return -1;
	if (!w->path || !*w->path)
		return complain("path", "no folder is given; write path=FOLDER");
	if (w->tag && (!*w->tag || strlen(w->tag) > FS_TAG_SIZE))
		return complain(w->tag, "a tag has 1 to 36 characters");
	snprintf(s->tag, sizeof(s->tag), "%s", w->tag ? w->tag : "share");
	int readonly = choice(w->readonly, switches, ARRAY_SIZE(switches), "readonly is on or off");
	int cache = choice(w->cache, caches, ARRAY_SIZE(caches), "cache is auto, none or always");
	s->server.wishes.readonly = readonly;
	s->server.wishes.cache = (enum fuse_cache)cache;
	return readonly < 0 || cache < 0 ? -1 : 0;
}

/* What can be found wrong with the folder now, need not be found by the guest. */
static int open_folder(struct share *s, const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	s->server.wishes.folder = fd;
	if (fd < 0)
		return complain(path, errno == ENOTDIR ? "it is not a folder" : strerror(errno));
	if (!s->server.wishes.readonly && faccessat(fd, ".", W_OK, AT_EACCESS) < 0)
		return complain(path, errno == EACCES || errno == EROFS ? "you may not write there; add readonly=on" : strerror(errno));
	return 0;
}

static void share_close(struct share *s)
{
	if (s->answers >= 0)
		close(s->answers);
	if (s->server.wishes.folder >= 0)
		close(s->server.wishes.folder);
	if (s->slot)
		munmap(s->slot, FS_REQUESTS_MAX * sizeof(*s->slot));
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->idle);
	free(s);
}

static bool tag_is_new(const struct share *s)
{
	for (unsigned i = 0; i < s->index; i++)
		if (!strcmp(all[i]->tag, s->tag))
			return false;
	return true;
}

static int open_option(struct share *s, const char *option)
{
	struct wishes w = { 0 };
	char *text = strdup(option);
	if (!text)
		return complain(option, strerror(errno));
	int error = parse(text, &w, s) < 0 || open_folder(s, w.path) < 0;
	if (!error && !tag_is_new(s))
		error = complain(s->tag, "another folder has this tag; give each its own by tag=NAME");
	free(text);
	return error ? -1 : 0;
}

int share_open(unsigned index, const char *option, struct fs_backend *backend)
{
	struct share *s = calloc(1, sizeof(*s));
	if (!s)
		return complain(option, strerror(errno));
	s->index = index;
	s->requests = s->answers = s->server.wishes.folder = -1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->idle, NULL);
	if (open_option(s, option) < 0) {
		share_close(s);
		return -1;
	}
	*backend = (struct fs_backend){ .submit = share_submit, .completed = share_completed, .drain = share_drain, .share = s };
	memcpy(backend->tag, s->tag, sizeof(backend->tag));
	all[index] = s;
	return 0;
}

/* ---- life ---- */

/* The process says why it is not ready. */
static int wait_ready(const struct share *s)
{
	u32 index = 0;
	ssize_t n;
	do
		n = read(s->answers, &index, sizeof(index));
	while (n < 0 && errno == EINTR);
	return n == sizeof(index) && index == SHARE_READY ? 0 : -1;
}

static int start(struct share *s, void *memory, u64 size, bool confine)
{
	int requests[2], answers[2];
	void *slots = mmap(NULL, FS_REQUESTS_MAX * sizeof(*s->slot), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (slots == MAP_FAILED || pipe2(requests, O_CLOEXEC) < 0 || pipe2(answers, O_CLOEXEC) < 0)
		return complain(s->tag, strerror(errno));
	s->memory = memory;
	s->slot = slots;
	s->requests = requests[1];
	s->answers = answers[0];
	s->server.requests = requests[0];
	s->server.answers = answers[1];
	s->server.memory = memory_file(memory);
	s->server.memory_size = size;
	s->server.slot = slots;
	s->server.confine = confine;
	pid_t pid = fork();
	if (!pid)
		share_serve(&s->server);
	close(requests[0]);
	close(answers[1]);
	return pid < 0 ? complain(s->tag, strerror(errno)) : wait_ready(s);
}

int shares_start(void *memory, u64 size, bool confine)
{
	for (unsigned i = 0; i < SHARES_MAX && all[i]; i++)
		if (start(all[i], memory, size, confine) < 0)
			return -1;
	return 0;
}

int shares_run(void (*completed)(void *opaque, unsigned index), void *opaque)
{
	for (unsigned i = 0; i < SHARES_MAX && all[i]; i++) {
		struct share *s = all[i];
		s->completed = completed;
		s->opaque = opaque;
		int error = sandbox_thread_create(&s->thread, SANDBOX_SHARE, share_thread, s);
		if (error)
			return error;
		s->running = true;
	}
	return 0;
}

/* A process ends when it reads that nothing will come, and its thread then. */
void shares_stop(void)
{
	for (unsigned i = 0; i < SHARES_MAX && all[i]; i++) {
		struct share *s = all[i];
		__atomic_store_n(&s->stopping, true, __ATOMIC_SEQ_CST);
		if (s->requests >= 0)
			close(s->requests);
		s->requests = -1;
		if (s->running)
			pthread_join(s->thread, NULL);
		s->running = false;
	}
}

void shares_close(void)
{
	shares_stop();
	for (unsigned i = 0; i < SHARES_MAX && all[i]; i++) {
		share_close(all[i]);
		all[i] = NULL;
	}
}
