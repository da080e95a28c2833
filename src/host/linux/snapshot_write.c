/* Writing snapshots. A snapshot is made in a folder whose name begins with a dot, made durable, and renamed: it is there as a whole or not at all. */
#define _GNU_SOURCE
#include "host/linux/snapshot_write.h"

#include "dev/map.h"
#include "host/linux/crc32c.h"
#include "host/linux/device_text.h"
#include "host/linux/options.h"
#include "host/linux/snapshot_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* A snapshot in the making. */
struct work {
	const struct snapshot_writer *writer;
	char name[SNAPSHOT_NAME_MAX + 1], partial[SNAPSHOT_NAME_MAX + 16];
	int folder; /* of this snapshot */
	u8 id[SNAPSHOT_ID_SIZE];
	int error; /* errno of what failed first, and: */
	const char *failed;
};

static bool fail(struct work *w, const char *what)
{
	if (!w->error) {
		w->error = errno ? errno : EIO;
		w->failed = what;
	}
	return false;
}

/* ---- bytes ---- */

static bool read_all(int fd, void *data, size_t size)
{
	for (u8 *p = data; size;) {
		ssize_t n = read(fd, p, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		size -= (size_t)n;
	}
	return true;
}

static int create_file(struct work *w, const char *name)
{
	int fd = openat(w->folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		fail(w, name);
	return fd;
}

static bool finish_file(struct work *w, int fd, const char *name, bool good)
{
	if (!good)
		fail(w, name);
	if (close(fd) < 0)
		fail(w, name);
	return !w->error;
}

/* ---- description and state ---- */

static const char *const kind_names[] = { [BOARD_DISK] = "disk", [BOARD_NET] = "net" };
static const unsigned kind_slots[] = { [BOARD_DISK] = PCI_SLOT_DISK, [BOARD_NET] = PCI_SLOT_NET };

/* Where a key begins in the option. */
static bool has(const char *option, const char *key)
{
	const char *p = strstr(option, key);
	return p && (p == option || p[-1] == ',');
}

/* Its place is part of what the guest sees, and others may have left. */
static void describe_device(FILE *out, enum board_kind kind, unsigned index, const char *option)
{
	char *placed = NULL;
	bool fixed = has(option, "slot=") || has(option, "bus=sata") || has(option, "media=cdrom");
	if (asprintf(&placed, fixed ? "%s" : "%s,slot=%u", option, kind_slots[kind] + index) < 0)
		return;
	options_write(out, kind_names[kind], placed);
	free(placed);
}

static bool describe_devices(struct work *w, FILE *out, const struct snapshot_order *order)
{
	const struct snapshot_devices *d = &w->writer->devices;
	for (unsigned kind = 0; kind < ARRAY_SIZE(kind_names); kind++)
		for (unsigned i = 0; i < BOARD_DISKS_MAX; i++) {
			bool cdrom = kind == BOARD_DISK && d->cdroms & BIT(i);
			if (cdrom || !(order->there[kind] & BIT(i)))
				continue;
			if (!d->option[kind][i]) {
				errno = ENODATA;
				return fail(w, "the description of a disk or network that was added");
			}
			describe_device(out, (enum board_kind)kind, i, d->option[kind][i]);
		}
	return true;
}

static bool write_description(struct work *w, const struct snapshot_order *order)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	if (!out)
		return fail(w, SNAPSHOT_DESCRIPTION);
	fputs(w->writer->description, out);
	bool good = describe_devices(w, out, order);
	if (fclose(out) || !good) {
		free(text);
		return fail(w, SNAPSHOT_DESCRIPTION);
	}
	int fd = create_file(w, SNAPSHOT_DESCRIPTION);
	good = fd >= 0 && finish_file(w, fd, SNAPSHOT_DESCRIPTION, snapshot_write_at(fd, text, size, 0));
	free(text);
	return good;
}

static bool write_state(struct work *w, const u8 *state, u64 size)
{
	struct state_header h = { .version = SNAPSHOT_VERSION_PLAIN, .tsc_khz = (u32)(host_tsc_hz() / 1000), .size = size, .state_crc = crc32c(state, size) };
	memcpy(h.magic, STATE_MAGIC, sizeof(h.magic));
	memcpy(h.id, w->id, sizeof(h.id));
	h.crc = crc32c(&h, offsetof(struct state_header, crc));
	int fd = create_file(w, SNAPSHOT_STATE);
	return fd >= 0 && finish_file(w, fd, SNAPSHOT_STATE, snapshot_write_at(fd, &h, sizeof(h), 0) && snapshot_write_at(fd, state, size, sizeof(h)));
}

/* ---- memory ---- */

/* Beside it, or where else it is: what this snapshot lacks must be there. */
static bool write_base(struct work *w, const struct snapshot_order *order)
{
	int base = openat(w->folder, order->base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool good = base >= 0 && snapshot_memory_is(base, order->base_id);
	if (base >= 0)
		close(base);
	if (!good) {
		errno = base < 0 ? errno : ESTALE;
		return fail(w, "the snapshot that it is based on");
	}
	char line[SNAPSHOT_PATH_MAX + 1];
	int n = snprintf(line, sizeof(line), "%s\n", order->base), fd = create_file(w, SNAPSHOT_BASE);
	return fd >= 0 && finish_file(w, fd, SNAPSHOT_BASE, snapshot_write_at(fd, line, (size_t)n, 0));
}

static bool write_memory(struct work *w, const struct snapshot_order *order, const u64 *written)
{
	struct snapshot_memory memory = { .file = w->writer->memory, .size = w->writer->memory_size, .id = w->id, .zstd = order->zstd };
	if (order->base[0]) {
		memory.base_id = order->base_id;
		memory.written = written;
	}
	int fd = create_file(w, SNAPSHOT_MEMORY);
	return fd >= 0 && finish_file(w, fd, SNAPSHOT_MEMORY, snapshot_memory_write(&memory, fd));
}

/* ---- the folder ---- */

bool snapshot_name_ok(const char *name)
{
	size_t length = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
	return length && length <= SNAPSHOT_NAME_MAX && !name[length] && name[0] != '.' && name[0] != '-' && name[0] != '_';
}

static const char *const files[] = { SNAPSHOT_DESCRIPTION, SNAPSHOT_STATE, SNAPSHOT_MEMORY, SNAPSHOT_BASE };

/* What a writer that was killed left there goes, too. */
static void remove_partial(struct work *w)
{
	int folder = openat(w->writer->folder, w->partial, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	for (size_t i = 0; folder >= 0 && i < ARRAY_SIZE(files); i++)
		unlinkat(folder, files[i], 0);
	if (folder >= 0)
		close(folder);
	unlinkat(w->writer->folder, w->partial, AT_REMOVEDIR);
}

static void choose_name(struct work *w)
{
	unsigned number = 0;
	do
		snprintf(w->name, sizeof(w->name), "%u", ++number);
	while (!faccessat(w->writer->folder, w->name, F_OK, AT_SYMLINK_NOFOLLOW));
}

static bool make_folder(struct work *w, const struct snapshot_order *order)
{
	if (!order->name[0])
		choose_name(w);
	else if (snapshot_name_ok(order->name))
		memcpy(w->name, order->name, sizeof(w->name));
	else {
		errno = EINVAL;
		return fail(w, "its name");
	}
	if (!faccessat(w->writer->folder, w->name, F_OK, AT_SYMLINK_NOFOLLOW)) {
		errno = EEXIST;
		return fail(w, w->name);
	}
	snprintf(w->partial, sizeof(w->partial), ".%s.partial", w->name);
	remove_partial(w);
	if (mkdirat(w->writer->folder, w->partial, 0700) < 0)
		return fail(w, w->name);
	w->folder = openat(w->writer->folder, w->partial, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return w->folder >= 0 || fail(w, w->name);
}

static bool sync_file(struct work *w, const char *name)
{
	int fd = openat(w->folder, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && !strcmp(name, SNAPSHOT_BASE))
		return true;
	bool good = fd >= 0 && fsync(fd) >= 0;
	if (fd >= 0)
		close(fd);
	return good || fail(w, name);
}

static bool complete(struct work *w)
{
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (!sync_file(w, files[i]))
			return false;
	if (fsync(w->folder) < 0 || renameat2(w->writer->folder, w->partial, w->writer->folder, w->name, RENAME_NOREPLACE) < 0)
		return fail(w, w->name);
	/* It is there; whether its name outlives a power cut at once is the folder's affair. */
	fsync(w->writer->folder);
	return true;
}

/* ---- orders ---- */

static void answer(const struct work *w)
{
	struct snapshot_answer a = { 0 };
	memcpy(a.result.name, w->name, sizeof(a.result.name));
	memcpy(a.id, w->id, sizeof(a.id));
	if (w->error)
		snprintf(a.result.error, sizeof(a.result.error), "%s: %s", w->failed, strerror(w->error));
	(void)!write(w->writer->socket, &a, sizeof(a));
}

static bool copy(struct work *w, const struct snapshot_order *order, const u8 *data)
{
	const u64 *written = (const u64 *)(const void *)data;
	return make_folder(w, order) && write_description(w, order) && (!order->base[0] || write_base(w, order)) &&
	       write_state(w, data + order->map_size, order->state_size) && write_memory(w, order, written);
}

static void obey(const struct snapshot_writer *writer, struct snapshot_order *order, const u8 *data)
{
	struct work w = { .writer = writer, .folder = -1 };
	order->name[SNAPSHOT_NAME_MAX] = order->base[sizeof(order->base) - 1] = 0;
	if (getrandom(w.id, sizeof(w.id), 0) != sizeof(w.id))
		fail(&w, "random bytes");
	bool copied = !w.error && copy(&w, order, data);
	if (copied)
		answer(&w);
	if (!copied || !complete(&w))
		remove_partial(&w);
	answer(&w);
	if (w.folder >= 0)
		close(w.folder);
}

static bool order_good(const struct snapshot_writer *writer, const struct snapshot_order *order)
{
	u64 map = order->base[0] ? (writer->memory_size / PAGE_SIZE + 63) / 64 * sizeof(u64) : 0;
	return order->state_size <= STATE_SIZE_MAX && order->map_size == map;
}

/* The first part of an order, perhaps with a file. */
static bool read_order(int socket, struct snapshot_order *order, int *file)
{
	alignas(struct cmsghdr) char room[CMSG_SPACE(sizeof(int))];
	struct iovec vector = { order, sizeof(*order) };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room) };
	ssize_t n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	const struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	*file = -1;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(file, CMSG_DATA(c), sizeof(*file));
	return n > 0 && read_all(socket, (u8 *)order + n, sizeof(*order) - (size_t)n);
}

static void note_device(struct snapshot_writer *writer, const struct snapshot_order *order, int file)
{
	if (order->kind >= ARRAY_SIZE(kind_names) || order->index >= BOARD_DISKS_MAX)
		return;
	char **option = &writer->devices.option[order->kind][order->index];
	free(*option);
	*option = file < 0 ? NULL : device_text_read(file, kind_names[order->kind]);
}

static bool take_snapshot(const struct snapshot_writer *writer, struct snapshot_order *order)
{
	u8 *data = order_good(writer, order) ? malloc(order->map_size + order->state_size) : NULL;
	bool good = data && read_all(writer->socket, data, order->map_size + order->state_size);
	if (good)
		obey(writer, order, data);
	free(data);
	return good;
}

_Noreturn void snapshot_write_all(struct snapshot_writer *writer)
{
	struct snapshot_order order = { 0 };
	bool good = true;
	int file;
	while (good && read_order(writer->socket, &order, &file)) {
		if (order.is_device)
			note_device(writer, &order, file);
		else
			good = take_snapshot(writer, &order);
		if (file >= 0)
			close(file);
	}
	_exit(0);
}
