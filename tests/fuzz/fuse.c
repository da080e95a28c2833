/* A client of the FUSE server that asks for anything: mostly sensible requests on the files of a small folder, with anything in them. Whatever it asks, what
 * is beside the folder stays as it was, and is never shown. */
#define _GNU_SOURCE
#include "host/linux/fuse.h"
#include "input.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECRET "this is not for you"
#define DATA_MAX 256u
#define FILE_MAX 0x100000

static const char *const names[] = { "a", "b", "c", "sub", "link", "up", "pipe", "..", ".", "../secret", "sub/a", "user.x", "" };

static char path[] = "/dev/shm/nadir-fuzz-XXXXXX";
static int here, top = -1, folder;
static struct fuse_worker worker;
static u8 request[0x1000], answer[0x2000];

static void put(int where, const char *name, const char *text)
{
	int fd = openat(where, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

/* Remove all that is in a folder, whose descriptor is given up. */
static void empty(int where)
{
	DIR *list = fdopendir(where);
	CHECK(list);
	fchmod(where, 0700);
	for (struct dirent *d; (d = readdir(list));) {
		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
			continue;
		int inner = openat(where, d->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
		if (inner >= 0)
			empty(inner);
		unlinkat(where, d->d_name, inner >= 0 ? AT_REMOVEDIR : 0);
	}
	closedir(list);
}

static void end(void)
{
	empty(top);
	rmdir(path);
}

/* Files stay small. */
static void create(void)
{
	const struct rlimit limit = { FILE_MAX, FILE_MAX };
	if (access("/dev/shm", W_OK) < 0)
		memcpy(path, "/tmp////", 8);
	here = open(".", O_RDONLY | O_DIRECTORY);
	CHECK(mkdtemp(path) && (top = open(path, O_RDONLY | O_DIRECTORY)) >= 0 && !setrlimit(RLIMIT_FSIZE, &limit));
	signal(SIGXFSZ, SIG_IGN);
	umask(0);
	atexit(end);
}

/* The folder as every input finds it. */
static void fill(void)
{
	empty(openat(top, ".", O_RDONLY | O_DIRECTORY));
	CHECK(!mkdirat(top, "inside", 0777));
	put(top, "secret", SECRET);
	folder = openat(top, "inside", O_RDONLY | O_DIRECTORY);
	put(folder, "a", "contents of a");
	CHECK(!mkdirat(folder, "sub", 0777) && !symlinkat("../secret", folder, "link") && !symlinkat("..", folder, "up") && !mkfifoat(folder, "pipe", 0666));
}

static void check_outside(void)
{
	char text[64] = { 0 };
	struct stat st;
	int fd = openat(top, "secret", O_RDONLY);
	CHECK(fd >= 0 && read(fd, text, sizeof(text)) == (ssize_t)strlen(SECRET) && !strcmp(text, SECRET));
	CHECK(!fstat(fd, &st) && st.st_nlink == 1 && (st.st_mode & 07777) == 0644);
	close(fd);
}

/* Without a branch for each byte, from which the fuzzer would learn what to write. */
static bool tells_secret(void)
{
	bool found = false;
	for (size_t at = 0; at + sizeof(SECRET) <= sizeof(answer); at++) {
		u8 difference = 0;
		for (size_t i = 0; i + 1 < sizeof(SECRET); i++)
			difference |= answer[at + i] ^ (u8)SECRET[i];
		found |= !difference;
	}
	return found;
}

static void ask(struct fuse_session *session, struct input *in)
{
	u8 how = input_u8(in);
	struct fuse_in_header header = { .opcode = input_u8(in) % 56, .nodeid = how & 1 ? input_u8(in) % 8 : FUSE_ROOT_ID, .uid = 1000, .gid = 1000 };
	u32 size = sizeof(header);
	for (unsigned n = input_u8(in) % 96; n; n--)
		request[size++] = how & 2 ? input_u8(in) % 8 : input_u8(in) & input_u8(in) & input_u8(in);
	for (unsigned n = how >> 2 & 3; n; n--) {
		const char *name = names[input_u8(in) % ARRAY_SIZE(names)];
		memcpy(request + size, name, strlen(name) + 1);
		size += (u32)strlen(name) + 1;
	}
	header.len = how & 16 ? input_u8(in) : size;
	memcpy(request, &header, sizeof(header));
	/* No time is lost by storage. */
	if (header.opcode == FUSE_SYNCFS || header.opcode == FUSE_FSYNC || header.opcode == FUSE_FSYNCDIR)
		return;
	u32 split = input_u8(in) % size, room = how & 32 ? input_u8(in) : (u32)sizeof(answer);
	const struct iovec ins[] = { { request, split }, { request + split, size - split } }, outs[] = { { answer, room / 3 }, { answer + room / 3, room - room / 3 } };
	memset(answer, 0, sizeof(answer));
	u32 written = fuse_serve(session, &worker, ins, 2, outs, 2);
	CHECK(written <= room && (!written || written >= sizeof(struct fuse_out_header)));
	CHECK(!tells_secret());
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input in = { data, size };
	if (top < 0)
		create();
	fill();
	CHECK(!chdir("/proc/self/fd"));
	const struct fuse_wishes wishes = { .folder = folder, .readonly = input_u8(&in) & 1, .cache = input_u8(&in) % 3 };
	struct fuse_session *session = fuse_session_create(&wishes);
	struct {
		struct fuse_in_header header;
		struct fuse_init_in init;
	} init = { { .len = sizeof(init), .opcode = FUSE_INIT }, { .major = 7, .minor = 36, .flags = ~0u } };
	CHECK(fuse_serve(session, &worker, &(struct iovec){ &init, sizeof(init) }, 1, &(struct iovec){ answer, sizeof(answer) }, 1));
	for (unsigned i = 0; in.left && i < DATA_MAX; i++)
		ask(session, &in);
	fuse_session_destroy(session);
	close(folder);
	check_outside();
	CHECK(!fchdir(here));
	return 0;
}
