/* qcow2 images: random requests against a model, on images of every shape that qemu-img makes, with qemu-img as the judge of what comes out; power
 * cuts, after which only leaks are allowed; several threads at once; damaged images. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/linux/qcow2.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (4352u * 1024 + 512)
#define SECTORS (SIZE / IMAGE_SECTOR)
#define PIECE_MAX 300000u

static char folder[] = "/tmp/nadir-qcow2-XXXXXX";
static bool judged; /* qemu-img is there */

/* ---- chance, and programs ---- */

static u64 state = 88172645463325252u;

static u64 chance(u64 below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

__attribute__((format(printf, 1, 2))) static int shell(const char *format, ...)
{
	char command[1024];
	va_list arguments;
	int length = snprintf(command, sizeof(command), "cd %s && ", folder);
	va_start(arguments, format);
	vsnprintf(command + length, sizeof(command) - (size_t)length, format, arguments);
	va_end(arguments);
	int status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void path_of(const char *name, char path[256])
{
	snprintf(path, 256, "%s/%s", folder, name);
}

static struct image *open_image(const char *name, bool readonly)
{
	char path[256];
	path_of(name, path);
	const struct image_wish wish = { .who = "test", .path = path, .format = "qcow2", .readonly = readonly };
	return image_open(&wish);
}

/* ---- a model: sectors that say who wrote them ---- */

struct mark {
	u32 sector, id;
	u8 rest[IMAGE_SECTOR - 8];
};

static struct mark model[SECTORS], buffer[SECTORS];
static u32 last_id;

static void mark_range(u32 first, u32 count)
{
	last_id++;
	for (u32 i = first; i < first + count; i++) {
		model[i] = (struct mark){ .sector = i, .id = last_id };
		memset(model[i].rest, (int)last_id, sizeof(model[i].rest));
	}
}

/* Sectors in a few parts of odd sizes. */
static unsigned cut(struct mark *at, u32 count, struct iovec *vector)
{
	u8 *p = (u8 *)at;
	u64 left = (u64)count * IMAGE_SECTOR;
	unsigned n = 0;
	while (left && n < 7) {
		u64 size = n == 6 ? left : chance(left + 1);
		vector[n++] = (struct iovec){ p, size };
		p += size;
		left -= size;
	}
	return n;
}

static void check_all(struct image *image)
{
	struct iovec vector[8];
	for (u32 first = 0, count; first < SECTORS; first += count) {
		u64 wanted = 1 + chance(700);
		count = (u32)MIN(SECTORS - first, wanted);
		unsigned parts = cut(buffer + first, count, vector);
		assert_int_equal(image->ops->read(image, vector, parts, (u64)first * IMAGE_SECTOR, (u64)count * IMAGE_SECTOR), 0);
	}
	assert_memory_equal(buffer, model, sizeof(model));
}

static void random_place(u32 *first, u32 *count)
{
	u64 wanted = 1 + chance(chance(4) ? 20 : PIECE_MAX / IMAGE_SECTOR);
	*first = (u32)chance(SECTORS);
	*count = (u32)MIN(wanted, SECTORS - *first);
}

static void do_write(struct image *image)
{
	struct iovec vector[8];
	u32 first, count;
	random_place(&first, &count);
	mark_range(first, count);
	unsigned parts = cut(model + first, count, vector);
	assert_int_equal(image->ops->write(image, vector, parts, (u64)first * IMAGE_SECTOR, (u64)count * IMAGE_SECTOR), 0);
}

static void do_zero(struct image *image)
{
	u32 first, count;
	random_place(&first, &count);
	memset(model + first, 0, count * sizeof(*model));
	assert_int_equal(image->ops->zero(image, (u64)first * IMAGE_SECTOR, (u64)count * IMAGE_SECTOR, chance(2)), 0);
}

/* What was discarded may be anything that was there, or zeros. */
static void do_discard(struct image *image)
{
	static const struct mark zeros;
	u32 first, count;
	random_place(&first, &count);
	assert_int_equal(image->ops->discard(image, (u64)first * IMAGE_SECTOR, (u64)count * IMAGE_SECTOR), 0);
	for (u32 i = first; i < first + count; i++) {
		struct iovec vector = { buffer + i, IMAGE_SECTOR };
		assert_int_equal(image->ops->read(image, &vector, 1, (u64)i * IMAGE_SECTOR, IMAGE_SECTOR), 0);
		if (!memcmp(buffer + i, &zeros, IMAGE_SECTOR))
			model[i] = zeros;
		assert_memory_equal(buffer + i, model + i, IMAGE_SECTOR);
	}
}

static void do_read(struct image *image)
{
	struct iovec vector[8];
	u32 first, count;
	random_place(&first, &count);
	unsigned parts = cut(buffer + first, count, vector);
	u64 offset = (u64)first * IMAGE_SECTOR, size = (u64)count * IMAGE_SECTOR;
	memset(buffer + first, 0xaa, size);
	if (!image->ops->try_read(image, vector, parts, offset, size))
		assert_int_equal(image->ops->read(image, vector, parts, offset, size), 0);
	assert_memory_equal(buffer + first, model + first, size);
}

static void do_something(struct image *image)
{
	switch (chance(16)) {
	case 0:
		assert_int_equal(image->ops->flush(image), 0);
		break;
	case 1:
		do_zero(image);
		break;
	case 2:
		do_discard(image);
		break;
	case 3 ... 8:
		do_read(image);
		break;
	default:
		do_write(image);
	}
}

/* ---- images of every shape ---- */

static void write_model(const char *name)
{
	char path[256];
	path_of(name, path);
	FILE *file = fopen(path, "we");
	assert_non_null(file);
	assert_int_equal(fwrite(model, 1, sizeof(model), file), sizeof(model));
	assert_int_equal(fclose(file), 0);
}

static void judge(const char *name)
{
	if (!judged)
		return;
	write_model("model.raw");
	assert_int_equal(shell("qemu-img check -q -f qcow2 %s >check.txt 2>&1 || { s=$?; cat check.txt; exit $s; }", name), 0);
	assert_int_equal(shell("qemu-img compare -q -f raw -F qcow2 model.raw %s", name), 0);
}

/* A few sessions of random requests. */
static void exercise(const char *name)
{
	for (unsigned session = 0; session < 3; session++) {
		struct image *image = open_image(name, false);
		assert_non_null(image);
		assert_int_equal(image->size, SIZE);
		check_all(image);
		for (unsigned i = 0; i < 150; i++)
			do_something(image);
		check_all(image);
		image_close(image);
		judge(name);
	}
}

static void qemu_images(void **test_state)
{
	static const char *const options[] = {
		"", "-o cluster_size=512", "-o cluster_size=512,refcount_bits=64", "-o cluster_size=4k,refcount_bits=1", "-o cluster_size=2M",
		"-o compat=0.10", "-o compat=0.10,cluster_size=1k", "-o refcount_bits=4,cluster_size=16k", "-o preallocation=metadata",
		"-o lazy_refcounts=on",
	};
	if (!judged)
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		memset(model, 0, sizeof(model));
		assert_int_equal(shell("rm -f a.qcow2 && qemu-img create -q -f qcow2 %s a.qcow2 %u", options[i], SIZE), 0);
		exercise("a.qcow2");
	}
}

static void qemu_images_with_contents(void **test_state)
{
	static const char *const makes[] = {
		"convert -q -f raw -O qcow2 model.raw a.qcow2",
		"convert -q -c -f raw -O qcow2 model.raw a.qcow2",
		"convert -q -c -f raw -O qcow2 -o compression_type=zstd,cluster_size=32k model.raw a.qcow2",
		"create -q -f qcow2 -b model.raw -F raw a.qcow2",
		"create -q -f qcow2 -b base.qcow2 -F qcow2 -o cluster_size=8k a.qcow2",
		"create -q -f qcow2 -b base.qcow2 -F qcow2 -o compat=0.10 a.qcow2",
	};
	if (!judged)
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(makes); i++) {
		memset(model, 0, sizeof(model));
		for (unsigned j = 0; j < 12; j++) {
			u32 first, count;
			random_place(&first, &count);
			mark_range(first, count);
		}
		write_model("base.raw");
		assert_int_equal(shell("cp base.raw model.raw && qemu-img convert -q -f raw -O qcow2 base.raw base.qcow2 && rm -f a.qcow2 && "
				       "qemu-img %s && sed -i s/model.raw/base.raw\\ / a.qcow2",
				       makes[i]),
				 0);
		if (!strncmp(makes[i], "create -q -f qcow2 -b model", 27))
			assert_int_equal(shell("qemu-img rebase -u -f qcow2 -F raw -b base.raw a.qcow2"), 0);
		exercise("a.qcow2");
	}
}

/* Clusters that a snapshot refers to stay as they are. */
static void internal_snapshots_are_kept(void **test_state)
{
	if (!judged)
		skip();
	memset(model, 0, sizeof(model));
	assert_int_equal(shell("rm -f a.qcow2 && qemu-img create -q -f qcow2 -o cluster_size=4k a.qcow2 %u", SIZE), 0);
	exercise("a.qcow2");
	assert_int_equal(shell("qemu-img snapshot -c one a.qcow2 && cp model.raw then.raw"), 0);
	exercise("a.qcow2");
	assert_int_equal(shell("qemu-img snapshot -a one a.qcow2 && qemu-img compare -q -f raw -F qcow2 then.raw a.qcow2 && qemu-img check -q a.qcow2"), 0);
}

static void images_of_our_own(void **test_state)
{
	char path[256], behind[256];
	path_of("own.qcow2", path);
	path_of("front.qcow2", behind);
	const struct image_wish own = { "test", path }, front = { "test", behind };
	memset(model, 0, sizeof(model));
	assert_int_equal(image_create(&own, SIZE, NULL), 0);
	exercise("own.qcow2");
	assert_int_equal(image_create(&front, 0, &own), 0);
	exercise("front.qcow2");
	assert_int_equal(image_create(&own, SIZE, NULL), -1); /* it is there already */
}

static void throwaway_images_leave_nothing(void **test_state)
{
	char path[256];
	path_of("base.raw", path);
	memset(model, 0, sizeof(model));
	mark_range(0, 3000);
	write_model("base.raw");
	const struct image_wish wish = { .who = "test", .path = path };
	struct image *image = image_open_throwaway(&wish);
	assert_non_null(image);
	check_all(image);
	for (unsigned i = 0; i < 300; i++)
		do_something(image);
	check_all(image);
	image_close(image);
	memset(model, 0, sizeof(model));
	last_id -= last_id ? 1 : 0;
	image = image_open(&wish);
	assert_non_null(image);
	struct iovec vector = { buffer, sizeof(buffer) };
	assert_int_equal(image->ops->read(image, &vector, 1, 0, sizeof(buffer)), 0);
	assert_int_equal(buffer[2999].sector, 2999);
	assert_int_equal(buffer[3000].sector, 0);
	image_close(image);
}

/* ---- power cuts ---- */

#define FILE_SIZE (32u << 20)

/* A file whose power can be cut: what was written since the last flush may be there or not, each write for itself. */
struct cuttable {
	struct image image;
	u8 *stable, *now;
	u64 end;
	struct change {
		u64 offset, size;
		u8 *data;
	} change[16384];
	unsigned changes;
	bool dead; /* nothing changes any more */
};

static struct cuttable *cuttable_of(struct image *image)
{
	return container_of(image, struct cuttable, image);
}

static int cuttable_read(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	if (offset + size > FILE_SIZE)
		return -EIO;
	vector_fill(vector, count, cuttable_of(image)->now + offset);
	return 0;
}

static int cuttable_flush(struct image *image)
{
	struct cuttable *c = cuttable_of(image);
	for (unsigned i = 0; i < c->changes && !c->dead; i++) {
		memcpy(c->stable + c->change[i].offset, c->change[i].data, c->change[i].size);
		free(c->change[i].data);
	}
	c->changes = 0;
	return 0;
}

static void note(struct cuttable *c, u64 offset, u64 size)
{
	struct change *change = &c->change[c->changes++];
	*change = (struct change){ offset, size, malloc(size) };
	memcpy(change->data, c->now + offset, size);
	c->end = MAX(c->end, offset + size);
	assert_true(c->changes < ARRAY_SIZE(c->change));
}

static int cuttable_write(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	struct cuttable *c = cuttable_of(image);
	if (offset + size > FILE_SIZE)
		return -ENOSPC;
	if (c->dead)
		return 0;
	for (u64 at = offset, i = 0; i < count; at += vector[i++].iov_len)
		memcpy(c->now + at, vector[i].iov_base, vector[i].iov_len);
	while (size) { /* it may be torn between two sectors */
		u64 wanted = (1 + chance(128)) * IMAGE_SECTOR - offset % IMAGE_SECTOR, piece = MIN(size, wanted);
		note(c, offset, piece);
		offset += piece;
		size -= piece;
	}
	return 0;
}

static int cuttable_discard(struct image *image, u64 offset, u64 size)
{
	struct cuttable *c = cuttable_of(image);
	if (c->dead)
		return 0;
	memset(c->now + offset, (int)chance(2) * 0xdd, size);
	note(c, offset, size);
	return 0;
}

static void cuttable_close(struct image *image)
{
}

static const struct image_ops cuttable_ops = { .read = cuttable_read, .write = cuttable_write, .discard = cuttable_discard, .flush = cuttable_flush,
					       .close = cuttable_close };

static void cut_power(struct cuttable *c, bool in_order)
{
	unsigned kept = (unsigned)chance(c->changes + 1);
	for (unsigned i = 0; i < c->changes; i++) {
		if (in_order ? i < kept : chance(2))
			memcpy(c->stable + c->change[i].offset, c->change[i].data, c->change[i].size);
		free(c->change[i].data);
	}
	c->changes = 0;
	memcpy(c->now, c->stable, FILE_SIZE);
}

static void dump(const struct cuttable *c, const char *name)
{
	char path[256];
	path_of(name, path);
	FILE *file = fopen(path, "we");
	assert_non_null(file);
	assert_int_equal(fwrite(c->now, 1, c->end, file), c->end);
	assert_int_equal(fclose(file), 0);
}

/* Since the last flush: what it covered, and where zeros were written. */
static u32 flushed_id[SECTORS], last_flushed;
static bool zeroed[SECTORS];

static void remember_flush(void)
{
	for (u32 i = 0; i < SECTORS; i++)
		flushed_id[i] = model[i].id;
	memset(zeroed, 0, sizeof(zeroed));
	last_flushed = last_id;
}

/* Each sector is as it was at the last flush, or as it was written later; it is the model from now on. */
static void check_survivors(struct image *image)
{
	struct iovec vector = { buffer, sizeof(buffer) };
	assert_int_equal(image->ops->read(image, &vector, 1, 0, sizeof(buffer)), 0);
	for (u32 i = 0; i < SECTORS; i++) {
		if (buffer[i].id == flushed_id[i] || (!buffer[i].id && zeroed[i]))
			continue;
		if (buffer[i].sector != i || buffer[i].id <= last_flushed || buffer[i].id > last_id)
			fail_msg("sector %u holds %u of %u, flushed was %u, the last flush at %u, now is %u", i, buffer[i].id, buffer[i].sector,
				 flushed_id[i], last_flushed, last_id);
	}
	memcpy(model, buffer, sizeof(model));
}

static void work_a_while(struct image *image)
{
	for (unsigned i = (unsigned)chance(60); i; i--) {
		switch (chance(12)) {
		case 0:
			assert_int_equal(image->ops->flush(image), 0);
			remember_flush();
			break;
		case 1:
			do_zero(image);
			break;
		case 2:
			do_discard(image);
			break;
		default:
			do_write(image);
		}
		for (u32 s = 0; s < SECTORS; s++)
			zeroed[s] |= !model[s].id;
	}
}

/* Open what the cut left, as after a new start, and judge it. */
static struct image *after_cut(struct cuttable *c, const struct image_wish *wish)
{
	c->image.size = c->end;
	struct image *image = qcow2_open(&c->image, wish, NULL, false, 0);
	assert_non_null(image);
	check_survivors(image);
	remember_flush();
	if (!judged)
		return image;
	dump(c, "cut.qcow2");
	int status = shell("qemu-img check -q -f qcow2 cut.qcow2 >check.txt 2>&1 || { s=$?; [ $s = 3 ] || cat check.txt; exit $s; }");
	assert_true(status == 0 || status == 3); /* 3: leaks */
	return image;
}

static void cut_often(const char *name)
{
	const struct image_wish wish = { .who = "test", .path = name };
	char path[256];
	path_of(name, path);
	static struct cuttable c;
	c = (struct cuttable){ .image = { .ops = &cuttable_ops }, .stable = calloc(1, FILE_SIZE), .now = calloc(1, FILE_SIZE) };
	FILE *file = fopen(path, "re");
	c.end = fread(c.now, 1, FILE_SIZE, file);
	fclose(file);
	memcpy(c.stable, c.now, FILE_SIZE);
	memset(model, 0, sizeof(model));
	remember_flush();
	for (unsigned round = 0; round < 12; round++) {
		struct image *image = after_cut(&c, &wish);
		work_a_while(image);
		cut_power(&c, round & 1);
		c.dead = true; /* what closing writes is lost */
		image_close(image);
		c.dead = false;
	}
	free(c.stable);
	free(c.now);
}

static void power_cuts_leak_at_most(void **test_state)
{
	static const char *const options[] = { "", "-o cluster_size=4k", "-o cluster_size=512,refcount_bits=64", "-o compat=0.10,cluster_size=1k" };
	if (!judged)
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		assert_int_equal(shell("rm -f a.qcow2 && qemu-img create -q -f qcow2 %s a.qcow2 %u", options[i], SIZE), 0);
		cut_often("a.qcow2");
	}
}

/* ---- at once ---- */

struct worker {
	pthread_t thread;
	struct image *image;
	u32 first, count;
	u64 seed;
};

static void *work(void *opaque)
{
	struct worker *w = opaque;
	for (unsigned i = 0; i < 300; i++) {
		w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
		u32 first = w->first + (u32)(w->seed >> 33) % (w->count - 8), id = i + 1;
		for (u32 s = first; s < first + 8; s++) {
			model[s] = (struct mark){ .sector = s, .id = id };
			memset(model[s].rest, (int)id, sizeof(model[s].rest));
		}
		struct iovec vector = { model + first, 8 * IMAGE_SECTOR };
		if (w->image->ops->write(w->image, &vector, 1, first * 512ull, 8 * IMAGE_SECTOR))
			abort();
		if (i % 50 == 0 && w->image->ops->flush(w->image))
			abort();
		if (i % 7 == 0) {
			memset(model + first, 0, 8 * IMAGE_SECTOR);
			if (w->image->ops->zero(w->image, first * 512ull, 8 * IMAGE_SECTOR, i & 1))
				abort();
		}
	}
	return NULL;
}

static void several_threads(void **test_state)
{
	char path[256];
	struct worker worker[4];
	path_of("threads.qcow2", path);
	const struct image_wish wish = { "test", path };
	memset(model, 0, sizeof(model));
	assert_int_equal(image_create(&wish, SIZE, NULL), 0);
	struct image *image = open_image("threads.qcow2", false);
	for (u32 i = 0; i < ARRAY_SIZE(worker); i++) {
		worker[i] = (struct worker){ .image = image, .first = i * 1500, .count = 1500, .seed = i };
		assert_int_equal(pthread_create(&worker[i].thread, NULL, work, &worker[i]), 0);
	}
	for (u32 i = 0; i < ARRAY_SIZE(worker); i++)
		pthread_join(worker[i].thread, NULL);
	check_all(image);
	image_close(image);
	judge("threads.qcow2");
}

/* ---- refusals ---- */

static void damaged_images_are_refused(void **test_state)
{
	static const struct {
		u64 offset;
		u32 value;
		unsigned size;
	} rows[] = {
		{ 0, 0x514649fa, 4 }, { 4, 1, 4 }, { 4, 4, 4 }, { 16, 2000, 4 }, { 20, 8, 4 }, { 20, 22, 4 }, { 24, 1u << 31, 4 }, { 28, 511, 4 },
		{ 32, 1, 4 }, { 36, 0, 4 }, { 36, 0xffffffff, 4 }, { 44, 1, 4 }, { 44, 0xffff0000, 4 }, { 52, 0, 4 }, { 56, 0, 4 },
		{ 56, 0xffffffff, 4 }, { 76, 1, 4 }, { 76, 2, 4 }, { 76, 4, 4 }, { 76, 16, 4 }, { 72, 1, 4 }, { 96, 7, 4 }, { 100, 103, 4 },
		{ 100, 65537, 4 },
	};
	char path[256];
	path_of("bad.qcow2", path);
	const struct image_wish wish = { "test", path };
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		unlink(path);
		assert_int_equal(image_create(&wish, SIZE, NULL), 0);
		int fd = open(path, O_RDWR | O_CLOEXEC);
		u32 value = __builtin_bswap32(rows[i].value);
		if (rows[i].offset == 16) { /* a name that is too long */
			u64 at = __builtin_bswap64(200);
			assert_int_equal(pwrite(fd, &at, 8, 8), 8);
		}
		assert_int_equal(pwrite(fd, &value, 4, (off_t)rows[i].offset), 4);
		close(fd);
		assert_null(open_image("bad.qcow2", false));
	}
	assert_int_equal(truncate(path, 50), 0);
	assert_null(open_image("bad.qcow2", false));
}

static void loops_and_strangers_behind_are_refused(void **test_state)
{
	if (!judged)
		skip();
	assert_int_equal(shell("rm -f a.qcow2 b.qcow2; qemu-img create -q -f qcow2 a.qcow2 1M && qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2 && "
			       "qemu-img rebase -u -f qcow2 -b b.qcow2 -F qcow2 a.qcow2"),
			 0);
	assert_null(open_image("a.qcow2", true));
	static const char *const names[] = { "nbd://localhost/x", "json:{}", "/nonexistent/x" };
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(shell("qemu-img rebase -u -f qcow2 -b '%s' -F raw a.qcow2", names[i]), 0);
		assert_null(open_image("a.qcow2", false));
	}
}

static int setup(void **test_state)
{
	assert_non_null(mkdtemp(folder));
	judged = !shell("command -v qemu-img >/dev/null");
	return 0;
}

static int teardown(void **test_state)
{
	return shell("rm -rf '%s'", folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(images_of_our_own),
		cmocka_unit_test(throwaway_images_leave_nothing),
		cmocka_unit_test(several_threads),
		cmocka_unit_test(damaged_images_are_refused),
		cmocka_unit_test(loops_and_strangers_behind_are_refused),
		cmocka_unit_test(qemu_images),
		cmocka_unit_test(qemu_images_with_contents),
		cmocka_unit_test(internal_snapshots_are_kept),
		cmocka_unit_test(power_cuts_leak_at_most),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
