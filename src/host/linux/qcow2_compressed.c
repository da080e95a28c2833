/* Compressed clusters of qcow2 images (qcow2.h): read only, one at a time. The one read last is kept, since a guest mostly asks for its parts one
 * after the other. */
#define _GNU_SOURCE
#include "host/linux/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define ZSTD_WINDOW_MAX 24 /* bits: more memory than this is not needed for a cluster, whatever the data says */
#define DEFLATE_WINDOW (-12) /* raw deflate, 4 KiB */

struct qcow2_range qcow2_packed_range(const struct qcow2 *q, u64 entry)
{
	unsigned offset_bits = 62 - (q->cluster_bits - 8);
	u64 offset = entry & (BIT(offset_bits) - 1), sectors = (entry >> offset_bits & (BIT(q->cluster_bits - 8) - 1)) + 1;
	return (struct qcow2_range){ offset, sectors * IMAGE_SECTOR - offset % IMAGE_SECTOR };
}

/* What is behind the compressed data, up to the end of the sector, means nothing. */
static int unpack_deflate(struct qcow2 *q, u8 *packed, u64 size)
{
	z_stream stream = { .next_in = packed, .avail_in = (uInt)size, .next_out = q->unpacked_data, .avail_out = (uInt)q->cluster_size };
	if (inflateInit2(&stream, DEFLATE_WINDOW) != Z_OK)
		return -ENOMEM;
	int result = inflate(&stream, Z_FINISH);
	bool good = (result == Z_STREAM_END || result == Z_BUF_ERROR) && !stream.avail_out;
	inflateEnd(&stream);
	return good ? 0 : -EIO;
}

static int unpack_zstd(struct qcow2 *q, const u8 *packed, u64 size)
{
	ZSTD_inBuffer in = { packed, size, 0 };
	ZSTD_outBuffer out = { q->unpacked_data, q->cluster_size, 0 };
	ZSTD_DStream *stream = ZSTD_createDStream();
	size_t result = stream ? ZSTD_DCtx_setParameter(stream, ZSTD_d_windowLogMax, ZSTD_WINDOW_MAX) : 0;
	while (stream && out.pos < out.size) {
		size_t in_before = in.pos, out_before = out.pos;
		result = ZSTD_decompressStream(stream, &out, &in);
		if (ZSTD_isError(result) || (in.pos == in_before && out.pos == out_before))
			break;
	}
	ZSTD_freeDStream(stream);
	return !stream ? -ENOMEM : out.pos == out.size && !ZSTD_isError(result) ? 0 : -EIO;
}

static int unpack(struct qcow2 *q, u64 entry)
{
	const struct qcow2_range r = qcow2_packed_range(q, entry);
	u8 *packed = malloc(r.size);
	const struct iovec vector = { packed, r.size };
	if (!q->unpacked_data)
		q->unpacked_data = malloc(q->cluster_size);
	int error = packed && q->unpacked_data ? q->file->ops->read(q->file, &vector, 1, r.offset, r.size) : -ENOMEM;
	q->unpacked = 0;
	if (!error)
		error = q->zstd ? unpack_zstd(q, packed, r.size) : unpack_deflate(q, packed, r.size);
	free(packed);
	q->unpacked = error ? 0 : entry;
	return error;
}

int qcow2_read_packed(struct qcow2 *q, u64 entry, const struct iovec *vector, unsigned count, u64 skip)
{
	pthread_mutex_lock(&q->unpack);
	int error = q->unpacked == entry ? 0 : unpack(q, entry);
	if (!error)
		vector_fill(vector, count, q->unpacked_data + skip);
	pthread_mutex_unlock(&q->unpack);
	return error;
}
