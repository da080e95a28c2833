/* The FUSE server on a real folder: what it does for a client that behaves, and what it refuses to one that does not. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/linux/fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char top[] = "/tmp/nadir-fuse-XXXXXX";
static int folder;
static struct fuse_session *session;
static struct fuse_worker worker;
static u8 answer[0x10000];
static u32 answered;

/* ---- a client ---- */

/* Send a request of `size` bytes behind the header, in two pieces. The error of the answer, 1 if there is none. */
static int ask_raw(u32 opcode, u64 node, const void *data, size_t size, u32 length, size_t room)
{
	u8 request[0x2000];
	struct fuse_in_header header = { .len = length, .opcode = opcode, .unique = 77, .nodeid = node, .uid = geteuid(), .gid = getegid() };
	memcpy(request, &header, sizeof(header));
	memcpy(request + sizeof(header), data, size);
	size += sizeof(header);
	const struct iovec in[] = { { request, size / 2 }, { request + size / 2, size - size / 2 } };
	const struct iovec out[] = { { answer, MIN(room, (size_t)7) }, { answer + 7, room - MIN(room, (size_t)7) } };
	answered = fuse_serve(session, &worker, in, 2, out, 2);
	if (!answered)
		return 1;
	struct fuse_out_header head;
	memcpy(&head, answer, sizeof(head));
	assert_int_equal(head.len, answered);
	assert_int_equal(head.unique, 77);
	return head.error;
}

static int ask(u32 opcode, u64 node, const void *argument, size_t size, const void *more, size_t more_size)
{
	u8 data[0x1800];
	memcpy(data, argument ? argument : "", size);
	memcpy(data + size, more ? more : "", more_size);
	size += more_size;
	return ask_raw(opcode, node, data, size, (u32)(sizeof(struct fuse_in_header) + size), sizeof(answer));
}

#define REPLY(type) ((const type *)(const void *)(answer + sizeof(struct fuse_out_header)))

static int ask_name(u32 opcode, u64 node, const char *name)
{
	return ask(opcode, node, NULL, 0, name, strlen(name) + 1);
}

static int start(bool readonly)
{
	const struct fuse_wishes wishes = { .folder = folder, .readonly = readonly };
	const struct fuse_init_in init = { .major = 7, .minor = 31, .flags = FUSE_DO_READDIRPLUS | FUSE_WRITEBACK_CACHE };
	session = fuse_session_create(&wishes);
	return ask(FUSE_INIT, 0, &init, sizeof(init), NULL, 0);
}

static u64 lookup(const char *name)
{
	assert_int_equal(ask_name(FUSE_LOOKUP, FUSE_ROOT_ID, name), 0);
	return REPLY(struct fuse_entry_out)->nodeid;
}

static int open_node(u64 node, u32 flags, u64 *handle)
{
	const struct fuse_open_in open = { .flags = flags };
	int error = ask(FUSE_OPEN, node, &open, sizeof(open), NULL, 0);
	*handle = error ? 0 : REPLY(struct fuse_open_out)->fh;
	return error;
}

/* ---- the folder ---- */

static void put_file(const char *name, const char *text)
{
	int fd = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static int group_setup(void **state)
{
	char path[64];
	assert_non_null(mkdtemp(top));
	snprintf(path, sizeof(path), "%s/inside", top);
	assert_int_equal(mkdir(path, 0755), 0);
	folder = open(path, O_RDONLY | O_DIRECTORY);
	put_file("file", "contents");
	put_file("../secret", "secret");
	assert_int_equal(mkdirat(folder, "sub", 0755), 0);
	assert_int_equal(symlinkat("../secret", folder, "link"), 0);
	assert_int_equal(symlinkat("..", folder, "up"), 0);
	assert_int_equal(mkfifoat(folder, "pipe", 0666), 0);
	umask(0);
	return chdir("/proc/self/fd");
}

static int group_teardown(void **state)
{
	char command[64];
	snprintf(command, sizeof(command), "rm -r %s", top);
	return system(command);
}

static int setup(void **state)
{
	return start(false);
}

static int setup_readonly(void **state)
{
	return start(true);
}

static int teardown(void **state)
{
	fuse_session_destroy(session);
	return 0;
}

/* ---- tests ---- */

static void agrees_on_what_it_knows(void **state)
{
	const struct fuse_init_in init = { .major = 7, .minor = 31, .flags = FUSE_DO_READDIRPLUS | FUSE_WRITEBACK_CACHE | FUSE_POSIX_LOCKS };
	assert_int_equal(ask(FUSE_INIT, 0, &init, sizeof(init), NULL, 0), 0);
	assert_int_equal(REPLY(struct fuse_init_out)->major, 7);
	assert_int_equal(REPLY(struct fuse_init_out)->minor, 31);
	assert_int_equal(REPLY(struct fuse_init_out)->flags, FUSE_DO_READDIRPLUS);
	const struct fuse_init_in newer = { .major = 8 }, older = { .major = 7, .minor = 12 };
	assert_int_equal(ask(FUSE_INIT, 0, &newer, sizeof(newer), NULL, 0), 0);
	assert_int_equal(REPLY(struct fuse_init_out)->major, 7);
	assert_int_equal(ask(FUSE_INIT, 0, &older, sizeof(older), NULL, 0), -EPROTO);
}

static void reads_and_writes(void **state)
{
	u64 handle, node = lookup("file");
	assert_int_equal(REPLY(struct fuse_entry_out)->attr.size, 8);
	assert_int_equal(open_node(node, O_RDWR, &handle), 0);
	const struct fuse_write_in write = { .fh = handle, .offset = 8, .size = 5 };
	assert_int_equal(ask(FUSE_WRITE, node, &write, sizeof(write), " more, and what is too much", 27), 0);
	assert_int_equal(REPLY(struct fuse_write_out)->size, 5);
	const struct fuse_read_in read = { .fh = handle, .offset = 4, .size = 100 };
	assert_int_equal(ask(FUSE_READ, node, &read, sizeof(read), NULL, 0), 0);
	assert_int_equal(answered, sizeof(struct fuse_out_header) + 9);
	assert_memory_equal(REPLY(u8), "ents more", 9);
	const struct fuse_setattr_in cut = { .valid = FATTR_SIZE | FATTR_MODE, .size = 8, .mode = 0600 };
	assert_int_equal(ask(FUSE_SETATTR, node, &cut, sizeof(cut), NULL, 0), 0);
	assert_int_equal(REPLY(struct fuse_attr_out)->attr.size, 8);
	assert_int_equal(REPLY(struct fuse_attr_out)->attr.mode, S_IFREG | 0600);
	const struct fuse_release_in release = { .fh = handle };
	assert_int_equal(ask(FUSE_RELEASE, node, &release, sizeof(release), NULL, 0), 0);
	assert_int_equal(ask(FUSE_READ, node, &read, sizeof(read), NULL, 0), -EBADF);
}

static void one_file_is_one_node(void **state)
{
	u64 node = lookup("file");
	const struct fuse_link_in link = { .oldnodeid = node };
	assert_int_equal(ask(FUSE_LINK, FUSE_ROOT_ID, &link, sizeof(link), "other", 6), 0);
	assert_int_equal(REPLY(struct fuse_entry_out)->nodeid, node);
	assert_int_equal(ask_name(FUSE_UNLINK, FUSE_ROOT_ID, "other"), 0);
	/* It was told of twice. */
	const struct fuse_forget_in once = { .nlookup = 1 };
	const struct fuse_getattr_in which = { 0 };
	assert_int_equal(ask(FUSE_FORGET, node, &once, sizeof(once), NULL, 0), 1);
	assert_int_equal(ask(FUSE_GETATTR, node, &which, sizeof(which), NULL, 0), 0);
	assert_int_equal(ask(FUSE_FORGET, node, &once, sizeof(once), NULL, 0), 1);
	assert_int_equal(ask(FUSE_GETATTR, node, &which, sizeof(which), NULL, 0), -ESTALE);
	assert_int_equal(ask(FUSE_FORGET, FUSE_ROOT_ID, &(struct fuse_forget_in){ ~0ull }, sizeof(once), NULL, 0), 1);
	assert_int_equal(ask(FUSE_GETATTR, FUSE_ROOT_ID, &which, sizeof(which), NULL, 0), 0);
}

static void never_leaves_the_folder(void **state)
{
	static const char *const names[] = { "..", ".", "", "sub/..", "/etc", "../secret", "sub/" };
	u64 handle;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(ask_name(FUSE_LOOKUP, FUSE_ROOT_ID, names[i]), -EINVAL);
		assert_int_equal(ask_name(FUSE_UNLINK, FUSE_ROOT_ID, names[i]), -EINVAL);
		const struct fuse_mkdir_in mode = { .mode = 0755 };
		assert_int_equal(ask(FUSE_MKDIR, FUSE_ROOT_ID, &mode, sizeof(mode), names[i], strlen(names[i]) + 1), -EINVAL);
	}
	assert_int_equal(open_node(lookup("link"), O_RDONLY, &handle), -ELOOP);
	u64 up = lookup("up");
	assert_int_equal(REPLY(struct fuse_entry_out)->attr.mode & S_IFMT, S_IFLNK);
	assert_int_equal(ask_name(FUSE_LOOKUP, up, "secret"), -ENOTDIR);
	assert_int_equal(ask_name(FUSE_READLINK, up, ""), 0);
	assert_memory_equal(REPLY(char), "..", 2);
	const struct fuse_create_in create = { .flags = O_RDWR | O_CREAT, .mode = 0644 };
	assert_int_equal(ask(FUSE_CREATE, FUSE_ROOT_ID, &create, sizeof(create), "link", 5), -ELOOP);
	const struct fuse_setattr_in cut = { .valid = FATTR_SIZE };
	assert_int_equal(ask(FUSE_SETATTR, lookup("link"), &cut, sizeof(cut), NULL, 0), -EINVAL);
}

static void opens_nothing_but_files(void **state)
{
	u64 handle;
	assert_int_equal(open_node(lookup("pipe"), O_RDONLY, &handle), -EACCES);
	const struct fuse_create_in create = { .flags = O_RDWR | O_CREAT, .mode = 0644 };
	assert_int_equal(ask(FUSE_CREATE, FUSE_ROOT_ID, &create, sizeof(create), "pipe", 5), -EACCES);
	const struct fuse_mknod_in device = { .mode = S_IFCHR | 0666, .rdev = 0x103 };
	assert_int_equal(ask(FUSE_MKNOD, FUSE_ROOT_ID, &device, sizeof(device), "null", 5), -EPERM);
	assert_int_equal(open_node(FUSE_ROOT_ID, O_RDONLY, &handle), -EISDIR);
}

static void lists_folders(void **state)
{
	const struct fuse_open_in open = { 0 };
	assert_int_equal(ask(FUSE_OPENDIR, FUSE_ROOT_ID, &open, sizeof(open), NULL, 0), 0);
	struct fuse_read_in read = { .fh = REPLY(struct fuse_open_out)->fh, .size = 120 };
	unsigned names = 0;
	do { /* so little room that it takes several */
		assert_int_equal(ask(FUSE_READDIR, FUSE_ROOT_ID, &read, sizeof(read), NULL, 0), 0);
		for (u32 at = sizeof(struct fuse_out_header); at < answered; names++) {
			struct fuse_dirent d;
			memcpy(&d, answer + at, sizeof(d));
			read.offset = d.off;
			at += (u32)FUSE_DIRENT_SIZE(&d);
		}
	} while (answered > sizeof(struct fuse_out_header));
	assert_int_equal(names, 7); /* file, sub, link, up, pipe, "." and ".." */
	read.offset = 0;
	read.size = 4096;
	assert_int_equal(ask(FUSE_READDIRPLUS, FUSE_ROOT_ID, &read, sizeof(read), NULL, 0), 0);
	assert_true(answered > 7 * sizeof(struct fuse_direntplus));
	u64 handle;
	assert_int_equal(open_node(lookup("file"), O_RDONLY, &handle), 0);
	read.fh = handle;
	assert_int_equal(ask(FUSE_READDIR, FUSE_ROOT_ID, &read, sizeof(read), NULL, 0), -EBADF);
}

static void attributes_are_those_of_programs(void **state)
{
	u64 node = lookup("file");
	const u32 set[] = { 3, 0 };
	const struct fuse_getxattr_in get = { .size = 100 }, size = { 0 };
	int error = ask(FUSE_SETXATTR, node, set, sizeof(set), "user.a/b\0xyz", 12);
	if (error != -EOPNOTSUPP) { /* the file system has them */
		assert_int_equal(error, 0);
		assert_int_equal(ask(FUSE_GETXATTR, node, &get, sizeof(get), "user.a/b", 9), 0);
		assert_memory_equal(REPLY(char), "xyz", 3);
		assert_int_equal(ask(FUSE_LISTXATTR, node, &size, sizeof(size), NULL, 0), 0);
		assert_int_equal(REPLY(struct fuse_getxattr_out)->size, 9);
		assert_int_equal(ask_name(FUSE_REMOVEXATTR, node, "user.a/b"), 0);
	}
	assert_int_equal(ask(FUSE_SETXATTR, node, set, sizeof(set), "trusted.a\0xyz", 13), -EOPNOTSUPP);
	assert_int_equal(ask(FUSE_SETXATTR, node, set, sizeof(set), "user.a\0xy", 9), -EINVAL); /* less than it says */
	assert_int_equal(ask(FUSE_GETXATTR, node, &get, sizeof(get), "security.capability", 20), -ENODATA);
}

static void changes_nothing_where_it_may_not(void **state)
{
	u64 handle, node = lookup("file");
	const struct fuse_setattr_in cut = { .valid = FATTR_SIZE };
	assert_int_equal(open_node(node, O_WRONLY, &handle), -EROFS);
	assert_int_equal(open_node(node, O_RDONLY | O_TRUNC, &handle), -EROFS);
	assert_int_equal(open_node(node, O_RDONLY, &handle), 0);
	assert_int_equal(ask(FUSE_SETATTR, node, &cut, sizeof(cut), NULL, 0), -EROFS);
	assert_int_equal(ask_name(FUSE_UNLINK, FUSE_ROOT_ID, "file"), -EROFS);
}

static void survives_nonsense(void **state)
{
	static const u8 zeros[200];
	const u32 head = sizeof(struct fuse_in_header);
	assert_int_equal(ask_raw(FUSE_GETATTR, 1, zeros, 3, head + 3, sizeof(answer)), -EINVAL);	/* too short */
	assert_int_equal(ask_raw(FUSE_GETATTR, 1, zeros, 16, head + 17, sizeof(answer)), -EINVAL); /* says more than there is */
	assert_int_equal(ask_raw(FUSE_GETATTR, 1, zeros, 16, 5, sizeof(answer)), -EINVAL);
	assert_int_equal(ask_raw(FUSE_GETATTR, 1, zeros, 16, head + 16, 40), -EINVAL); /* no room for the answer, */
	assert_int_equal(ask_raw(FUSE_GETATTR, 1, zeros, 16, head + 16, 8), 1);	       /* or for any */
	assert_int_equal(ask_raw(FUSE_LOOKUP, 1, "abc", 3, head + 3, sizeof(answer)), -EINVAL); /* a name without an end */
	assert_int_equal(ask_raw(99, 1, zeros, 16, head + 16, sizeof(answer)), -ENOSYS);
	assert_int_equal(ask(FUSE_GETATTR, 0, zeros, 16, NULL, 0), -ESTALE);
	assert_int_equal(ask(FUSE_GETATTR, ~0ull, zeros, 16, NULL, 0), -ESTALE);
	const struct iovec none = { NULL, 0 };
	assert_int_equal(fuse_serve(session, &worker, &none, 1, &none, 1), 0);
	assert_int_equal(ask(FUSE_DESTROY, 0, NULL, 0, NULL, 0), 0);
	assert_int_equal(ask(FUSE_GETATTR, 1, zeros, 16, NULL, 0), -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(agrees_on_what_it_knows, setup, teardown),
		cmocka_unit_test_setup_teardown(reads_and_writes, setup, teardown),
		cmocka_unit_test_setup_teardown(one_file_is_one_node, setup, teardown),
		cmocka_unit_test_setup_teardown(never_leaves_the_folder, setup, teardown),
		cmocka_unit_test_setup_teardown(opens_nothing_but_files, setup, teardown),
		cmocka_unit_test_setup_teardown(lists_folders, setup, teardown),
		cmocka_unit_test_setup_teardown(attributes_are_those_of_programs, setup, teardown),
		cmocka_unit_test_setup_teardown(changes_nothing_where_it_may_not, setup_readonly, teardown),
		cmocka_unit_test_setup_teardown(survives_nonsense, setup, teardown),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
