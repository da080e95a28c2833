/* Frames over sockets (net_stream.h). */
#define _GNU_SOURCE
#include "host/linux/net_stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IN_SIZE 0x40000u
#define CONTROL 0x80000000u /* in the word of the length */
#define LENGTH_MAX (sizeof(struct net_header) + NET_FRAME_MAX)
#define WORD sizeof(u32)
#define SMALL 2048u       /* frames up to this size are gathered, */
#define GATHERED 0x8000u  /* so much of them */

bool stream_init(struct stream *s, int fd, size_t out_most)
{
	*s = (struct stream){ .fd = fd, .in = malloc(IN_SIZE), .out_most = out_most };
	return s->in;
}

void stream_renew(struct stream *s, int fd)
{
	close(s->fd);
	*s = (struct stream){ .fd = fd, .in = s->in, .out = s->out, .out_size = s->out_size, .out_most = s->out_most, .level = s->level };
}

void stream_release(struct stream *s)
{
	close(s->fd);
	free(s->in);
	free(s->out);
	*s = (struct stream){ .fd = -1, .closed = true };
}

/* ---- in ---- */

/* False: nothing came. Whoever watches for edges relies on this having asked in vain. */
static bool read_more(struct stream *s)
{
	if (s->drained) {
		s->drained = false;
		return false;
	}
	memmove(s->in, s->in + s->in_begin, s->in_end - s->in_begin);
	s->in_end -= s->in_begin;
	s->in_begin = 0;
	size_t room = IN_SIZE - s->in_end;
	ssize_t n;
	do
		n = read(s->fd, s->in + s->in_end, room);
	while (n < 0 && errno == EINTR);
	if (n <= 0) {
		s->closed = !n || errno != EAGAIN;
		return false;
	}
	s->in_end += (size_t)n;
	s->drained = s->level && (size_t)n < room;
	return true;
}

static u32 word_at(const u8 *p)
{
	u32 word;
	memcpy(&word, p, sizeof(word));
	return ntohl(word);
}

/* What begins at in_begin, if all of it is there: its length, or 0. */
static u32 complete(struct stream *s, bool *control)
{
	size_t there = s->in_end - s->in_begin;
	if (there < WORD)
		return 0;
	u32 length = word_at(s->in + s->in_begin);
	*control = length & CONTROL;
	length &= ~CONTROL;
	u32 least = *control ? WORD : NET_FRAME_MIN + (s->headers_in ? sizeof(struct net_header) : 0);
	if (length < least || length > LENGTH_MAX || (*control && length > 64)) {
		s->closed = true;
		return 0;
	}
	return there >= WORD + length ? length : 0;
}

const u8 *stream_peek(struct stream *s, u32 *size)
{
	for (;;) {
		bool control;
		u32 length = s->closed ? 0 : complete(s, &control);
		if (!length) {
			if (s->closed || !read_more(s))
				return NULL;
			continue;
		}
		if (!control) {
			*size = length;
			return s->in + s->in_begin + WORD;
		}
		s->accepts = word_at(s->in + s->in_begin + WORD) & NET_OFFLOADS;
		s->headers_in = true;
		s->in_begin += WORD + length;
	}
}

void stream_next(struct stream *s)
{
	s->in_begin += WORD + word_at(s->in + s->in_begin);
}

/* ---- out ---- */

/* Room for `size` more bytes at the end. */
static bool make_room(struct stream *s, size_t size)
{
	size_t waits = s->out_end - s->out_begin;
	if (s->out_end + size <= s->out_size)
		return true;
	if (s->out_begin)
		memmove(s->out, s->out + s->out_begin, waits);
	s->out_begin = 0;
	s->out_end = waits;
	if (waits + size <= s->out_size)
		return true;
	size_t wanted = MAX(2 * s->out_size, waits + size);
	u8 *out = realloc(s->out, wanted);
	if (!out)
		return false;
	s->out = out;
	s->out_size = wanted;
	return true;
}

static void append(struct stream *s, const void *data, size_t size)
{
	if (size)
		memcpy(s->out + s->out_end, data, size);
	s->out_end += size;
}

/* How much was written; 0 if nothing could be. */
static size_t write_pieces(struct stream *s, const struct iovec *piece, int pieces)
{
	ssize_t n;
	do
		n = writev(s->fd, piece, pieces);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN)
		s->closed = true;
	return n > 0 ? (size_t)n : 0;
}

bool stream_flush(struct stream *s)
{
	while (s->out_end != s->out_begin && !s->closed) {
		size_t n = write_pieces(s, &(struct iovec){ s->out + s->out_begin, s->out_end - s->out_begin }, 1);
		if (!n)
			return s->closed;
		s->out_begin += n;
	}
	s->out_begin = s->out_end = 0;
	return true;
}

/* Queue all but the first `skip` bytes. What cannot be remembered would be half a frame: nothing can follow it. */
static void queue(struct stream *s, const struct iovec *piece, unsigned pieces, size_t size, size_t skip)
{
	if (!make_room(s, size - skip)) {
		s->closed = true;
		return;
	}
	for (unsigned i = 0; i < pieces; i++) {
		size_t n = MIN(skip, piece[i].iov_len);
		append(s, (const u8 *)piece[i].iov_base + n, piece[i].iov_len - n);
		skip -= n;
	}
}

/* Whether a frame of this size is gathered with others, to be written with them. */
static bool gather(struct stream *s, u32 length)
{
	return !s->closed && !s->out_begin && length <= SMALL && s->out_end <= GATHERED && s->out_end < MAX(s->out_most, GATHERED);
}

bool stream_send(struct stream *s, const struct iovec *piece, unsigned pieces)
{
	struct iovec all[STREAM_PIECES_MAX + 1];
	u32 length = 0;
	for (unsigned i = 0; i < pieces; i++)
		length += (u32)piece[i].iov_len;
	bool gathered = gather(s, length);
	if (!gathered && !stream_flush(s) && s->out_end - s->out_begin >= s->out_most)
		return false;
	if (s->closed)
		return true;
	memcpy(all + 1, piece, pieces * sizeof(*piece));
	u32 word = htonl(length);
	all[0] = (struct iovec){ &word, sizeof(word) };
	size_t done = gathered || s->out_end ? 0 : write_pieces(s, all, (int)pieces + 1);
	if (!s->closed && done != WORD + length)
		queue(s, all, pieces + 1, WORD + length, done);
	return true;
}

void stream_accept(struct stream *s, u32 offloads)
{
	u32 words[2] = { htonl(CONTROL | WORD), htonl(offloads) };
	s->headers_out = true;
	if (!s->closed)
		queue(s, &(struct iovec){ words, sizeof(words) }, 1, sizeof(words), 0);
	stream_flush(s);
}
