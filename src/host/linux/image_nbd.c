/* Remote images (image_nbd.h). Each of a disk's threads has a connection of its own if the server knows that there are several (multi-conn: what one
 * has flushed, all have); else they take turns at one. Data goes through a buffer of the connection's, never between the socket and guest
 * memory: so a request that is given up leaves nothing behind that is still being written.
 *
 * A server that does not answer for a minute is given up, as is one that is gone: the guest sees errors, and a machine never waits for ever. */
#define _GNU_SOURCE
#include "host/linux/image_nbd.h"

#include "host/linux/library.h"

#include <errno.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECTIONS 4u	     /* of one image: as many as a disk has threads */
#define PIECE_MAX (1u << 20) /* bytes of one request to the server */
#define PATIENCE 60000	     /* milliseconds without a sign of life */
#define SOCKETS_MAX 64u
#define LIBRARY "libnbd.so.0"

/* What is called of libnbd, without nbd_. */
#define FUNCTIONS(F) \
	F(nbd_, aio_command_completed) F(nbd_, aio_disconnect) F(nbd_, aio_flush) F(nbd_, aio_get_fd) F(nbd_, aio_is_closed) F(nbd_, aio_is_dead) \
	F(nbd_, aio_pread) F(nbd_, aio_pwrite) F(nbd_, aio_trim) F(nbd_, aio_zero) F(nbd_, can_flush) F(nbd_, can_multi_conn) F(nbd_, can_trim) \
	F(nbd_, can_zero) F(nbd_, close) F(nbd_, connect_uri) F(nbd_, create) F(nbd_, get_block_size) F(nbd_, get_errno) F(nbd_, get_error) \
	F(nbd_, get_size) F(nbd_, is_read_only) F(nbd_, poll) F(nbd_, set_uri_allow_local_file) F(nbd_, set_uri_allow_tls) \
	F(nbd_, set_uri_allow_transports)

static struct {
	FUNCTIONS(LIBRARY_MEMBER)
} lib; /* loaded by the first image */

struct connection {
	pthread_mutex_t lock;
	struct nbd_handle *nbd;
	u8 *buffer; /* PIECE_MAX bytes */
	bool lost;
};

struct remote {
	struct image image;
	struct connection connection[CONNECTIONS];
	unsigned connections;
	u64 piece;
	bool flushes, zeroes, trims;
};

/* Of the process. Written while images are opened, before other threads are there. */
static int sockets[SOCKETS_MAX];
static unsigned socket_count;

unsigned nbd_sockets(const int **all)
{
	*all = sockets;
	return socket_count;
}

static struct remote *remote_of(struct image *image)
{
	return container_of(image, struct remote, image);
}

/* ---- requests ---- */

/* A connection that nobody uses; those that are lost last. */
static struct connection *take(struct remote *r)
{
	for (unsigned i = 0; i < r->connections; i++) {
		struct connection *c = &r->connection[i];
		if (pthread_mutex_trylock(&c->lock))
			continue;
		if (!c->lost)
			return c;
		pthread_mutex_unlock(&c->lock);
	}
	pthread_mutex_lock(&r->connection[0].lock);
	return &r->connection[0];
}

static void put(struct connection *c)
{
	pthread_mutex_unlock(&c->lock);
}

/* Wait for the answer to a request; 0 or a negative error number. */
static int await(struct connection *c, int64_t cookie)
{
	int done = cookie < 0 ? -1 : 0;
	while (!done) {
		done = lib.aio_command_completed(c->nbd, (u64)cookie);
		if (!done && lib.poll(c->nbd, PATIENCE) <= 0) {
			c->lost = true;
			return -EIO;
		}
	}
	if (done > 0)
		return 0;
	int error = lib.get_errno();
	c->lost |= lib.aio_is_dead(c->nbd) > 0 || lib.aio_is_closed(c->nbd) > 0;
	return error ? -error : -EIO;
}

static void gather(const struct iovec *vector, unsigned count, u8 *to)
{
	for (unsigned i = 0; i < count; i++) {
		memcpy(to, vector[i].iov_base, vector[i].iov_len);
		to += vector[i].iov_len;
	}
}

static int move(struct connection *c, bool write, const struct iovec *part, unsigned parts, u64 offset, u64 size)
{
	if (!write) {
		int error = await(c, lib.aio_pread(c->nbd, c->buffer, size, offset, NBD_NULL_COMPLETION, 0));
		if (!error)
			vector_fill(part, parts, c->buffer);
		return error;
	}
	gather(part, parts, c->buffer);
	return await(c, lib.aio_pwrite(c->nbd, c->buffer, size, offset, NBD_NULL_COMPLETION, 0));
}

static int transfer(struct remote *r, bool write, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	struct connection *c = take(r);
	int error = c->lost ? -EIO : 0;
	for (u64 done = 0; done < size && !error;) {
		struct iovec part[IMAGE_VECTOR_MAX];
		u64 n = MIN(size - done, r->piece);
		unsigned parts = vector_slice(vector, count, done, n, part);
		error = move(c, write, part, parts, offset + done, n);
		done += n;
	}
	put(c);
	return error;
}

static int remote_read(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	return transfer(remote_of(image), false, vector, count, offset, size);
}

static int remote_write(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	return transfer(remote_of(image), true, vector, count, offset, size);
}

static int write_zeros(struct image *image, u64 offset, u64 size)
{
	static u8 zeros[65536];
	int error = 0;
	for (u64 done = 0; done < size && !error; done += MIN(size - done, sizeof(zeros))) {
		const struct iovec vector = { zeros, MIN(size - done, sizeof(zeros)) };
		error = remote_write(image, &vector, 1, offset + done, vector.iov_len);
	}
	return error;
}

static int remote_zero(struct image *image, u64 offset, u64 size, bool unmap)
{
	struct remote *r = remote_of(image);
	if (!r->zeroes || !size)
		return write_zeros(image, offset, size);
	struct connection *c = take(r);
	int error = c->lost ? -EIO : await(c, lib.aio_zero(c->nbd, size, offset, NBD_NULL_COMPLETION, unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE));
	put(c);
	return error;
}

/* A server that cannot give storage back keeps it: that is allowed. */
static int remote_discard(struct image *image, u64 offset, u64 size)
{
	struct remote *r = remote_of(image);
	if (!r->trims || !size)
		return 0;
	struct connection *c = take(r);
	int error = c->lost ? -EIO : await(c, lib.aio_trim(c->nbd, size, offset, NBD_NULL_COMPLETION, 0));
	put(c);
	return error;
}

/* A server that knows no flush has no cache that could be lost. */
static int remote_flush(struct image *image)
{
	struct remote *r = remote_of(image);
	if (!r->flushes)
		return 0;
	struct connection *c = take(r);
	int error = c->lost ? -EIO : await(c, lib.aio_flush(c->nbd, NBD_NULL_COMPLETION, 0));
	put(c);
	return error;
}

/* ---- life ---- */

/* Say good-bye, as far as that is possible without waiting. */
static void remote_close(struct image *image)
{
	struct remote *r = remote_of(image);
	for (unsigned i = 0; i < r->connections; i++) {
		struct connection *c = &r->connection[i];
		if (c->nbd && !c->lost)
			lib.aio_disconnect(c->nbd, 0);
		lib.close(c->nbd);
		free(c->buffer);
		pthread_mutex_destroy(&c->lock);
	}
	free(r);
}

static const struct image_ops remote_ops = {
	.read = remote_read,
	.write = remote_write,
	.zero = remote_zero,
	.discard = remote_discard,
	.flush = remote_flush,
	.close = remote_close,
};

static int complain(const struct image_wish *w, const char *why)
{
	fprintf(stderr, "nadir: %s: %s: %s\n", w->who, w->path, why);
	return -1;
}

/* Nothing of the URI may read files or start programs, and there is no encryption. */
static bool connect_to(struct connection *c, const char *uri)
{
	c->nbd = lib.create();
	c->buffer = malloc(PIECE_MAX);
	return c->nbd && c->buffer && !lib.set_uri_allow_local_file(c->nbd, false) && !lib.set_uri_allow_tls(c->nbd, LIBNBD_TLS_DISABLE) &&
	       !lib.set_uri_allow_transports(c->nbd, LIBNBD_ALLOW_TRANSPORT_TCP | LIBNBD_ALLOW_TRANSPORT_UNIX) && !lib.connect_uri(c->nbd, uri);
}

/* One more connection. False: errno and libnbd's message say why. */
static bool add_connection(struct remote *r, const char *uri)
{
	struct connection *c = &r->connection[r->connections++];
	pthread_mutex_init(&c->lock, NULL);
	if (!connect_to(c, uri))
		return false;
	int fd = lib.aio_get_fd(c->nbd);
	if (fd >= 0 && socket_count < SOCKETS_MAX)
		sockets[socket_count++] = fd;
	return fd >= 0;
}

/* What the server offers, and whether that will do. */
static int look_at(struct remote *r, const struct image_wish *w)
{
	struct nbd_handle *nbd = r->connection[0].nbd;
	int64_t size = lib.get_size(nbd), least = lib.get_block_size(nbd, LIBNBD_SIZE_MINIMUM), most = lib.get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);
	if (size < 0)
		return complain(w, lib.get_error());
	if (least > IMAGE_SECTOR)
		return complain(w, "its server takes no requests of 512 bytes; nbdkit's filter blocksize makes such a one");
	if (lib.is_read_only(nbd) > 0 && !w->readonly)
		return complain(w, "it can only be read; add readonly=on");
	r->image.size = (u64)size;
	r->image.readonly = w->readonly;
	r->piece = most >= (int64_t)IMAGE_SECTOR ? MIN((u64)most & ~(u64)(IMAGE_SECTOR - 1), PIECE_MAX) : PIECE_MAX;
	r->flushes = lib.can_flush(nbd) > 0;
	r->zeroes = lib.can_zero(nbd) > 0;
	r->trims = lib.can_trim(nbd) > 0;
	return 0;
}

/* More connections make it faster: one that cannot be made is done without. */
static void add_more(struct remote *r, const char *uri)
{
	while (r->connections < CONNECTIONS && lib.can_multi_conn(r->connection[0].nbd) > 0) {
		if (add_connection(r, uri))
			continue;
		struct connection *c = &r->connection[--r->connections];
		lib.close(c->nbd);
		free(c->buffer);
		pthread_mutex_destroy(&c->lock);
		return;
	}
}

static int load_library(const struct image_wish *wish)
{
	static const char *const names[] = { FUNCTIONS(LIBRARY_NAME) };
	const char *why;
	return lib.create || library_load(LIBRARY, names, (void **)&lib, ARRAY_SIZE(names), &why) ? 0 : complain(wish, why);
}

struct image *nbd_open(const struct image_wish *wish)
{
	if (strncmp(wish->path, "nbd://", 6) && strncmp(wish->path, "nbd+unix://", 11)) {
		complain(wish, "it is not a URI such as nbd://HOST/EXPORT or nbd+unix:///EXPORT?socket=PATH");
		return NULL;
	}
	if (load_library(wish) < 0)
		return NULL;
	struct remote *r = calloc(1, sizeof(*r));
	if (!r) {
		complain(wish, strerror(ENOMEM));
		return NULL;
	}
	r->image.ops = &remote_ops;
	r->image.remote = true;
	if (!add_connection(r, wish->path))
		complain(wish, lib.get_error() ? lib.get_error() : strerror(ENOMEM));
	else if (!look_at(r, wish)) {
		add_more(r, wish->path);
		return &r->image;
	}
	remote_close(&r->image);
	return NULL;
}
