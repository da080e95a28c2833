/* What a kernel is asked to do all day, one small thing at a time: kernel NAME COUNT repeats NAME, and prints what it counted. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

static void must(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

/* The null system call; through syscall(), as the C library may remember the answer. */
static long do_getppid(long count)
{
	long same = 0;
	pid_t parent = getppid();

	for (long i = 0; i < count; i++)
		same += syscall(SYS_getppid) == parent;
	return same;
}

/* Two processes that wake each other. */
static long do_pingpong(long count)
{
	int there[2], back[2];
	long sum = 0;
	unsigned char byte = 0;

	must(!pipe(there) && !pipe(back), "pipe");
	pid_t child = fork();
	must(child >= 0, "fork");
	if (!child) {
		close(there[1]);
		while (read(there[0], &byte, 1) == 1) {
			byte++;
			must(write(back[1], &byte, 1) == 1, "write");
		}
		_exit(0);
	}
	for (long i = 0; i < count; i++) {
		byte = (unsigned char)i;
		must(write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1, "pipe");
		sum += byte;
	}
	close(there[1]);
	must(waitpid(child, NULL, 0) == child, "waitpid");
	return sum;
}

static long do_fork(long count)
{
	long sum = 0;

	for (long i = 0; i < count; i++) {
		int status;
		pid_t child = fork();
		must(child >= 0, "fork");
		if (!child)
			_exit((int)(i & 127));
		must(waitpid(child, &status, 0) == child, "waitpid");
		sum += WEXITSTATUS(status);
	}
	return sum;
}

static long run_programs(long count, char *const argv[])
{
	long sum = 0;

	for (long i = 0; i < count; i++) {
		int status;
		pid_t child = fork();
		must(child >= 0, "fork");
		if (!child) {
			execv(argv[0], argv);
			_exit(99);
		}
		must(waitpid(child, &status, 0) == child, "waitpid");
		sum += WEXITSTATUS(status);
	}
	return sum;
}

/* A static program: this one, which exits with 7. */
static long do_exec(long count)
{
	return run_programs(count, (char *[]){"/proc/self/exe", "exit", "7", NULL});
}

/* A dynamic program with address space randomization: the loader and the C library each time. */
static long do_exec_dynamic(long count)
{
	return run_programs(count, (char *[]){"/bench/exit7", NULL});
}

static long do_exit(long count)
{
	exit((int)count);
}

/* Page faults: map, touch each page once, unmap. */
static long do_mmap(long count)
{
	const size_t size = 256 * PAGE;
	long sum = 0;

	for (long i = 0; i < count; i++) {
		unsigned char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		must(at != MAP_FAILED, "mmap");
		for (size_t page = 0; page < size; page += PAGE)
			at[page] = (unsigned char)i;
		sum += at[0] + at[size - PAGE];
		munmap(at, size);
	}
	return sum;
}

static long do_files(long count)
{
	long bytes = 0;
	char name[64];

	for (long i = 0; i < count; i++) {
		snprintf(name, sizeof name, "/tmp/file%ld", i % 100);
		int fd = open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
		must(fd >= 0, name);
		bytes += write(fd, name, strlen(name));
		close(fd);
		must(!unlink(name), "unlink");
	}
	return bytes;
}

static volatile sig_atomic_t caught;
static unsigned char *fault_page;

static void on_signal(int number)
{
	caught++;
}

static long do_signals(long count)
{
	struct sigaction action = {.sa_handler = on_signal};

	must(!sigaction(SIGUSR1, &action, NULL), "sigaction");
	for (long i = 0; i < count; i++)
		kill(getpid(), SIGUSR1);
	return caught;
}

static void on_fault(int number)
{
	caught++;
	mprotect(fault_page, PAGE, PROT_READ | PROT_WRITE);
}

/* A protection fault, handled by the process, as garbage collectors do. */
static long do_faults(long count)
{
	struct sigaction action = {.sa_handler = on_fault};

	must(!sigaction(SIGSEGV, &action, NULL), "sigaction");
	fault_page = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(fault_page != MAP_FAILED, "mmap");
	for (long i = 0; i < count; i++) {
		*(volatile unsigned char *)fault_page = (unsigned char)i;
		mprotect(fault_page, PAGE, PROT_READ);
	}
	return caught;
}

/* A pipe's bandwidth: COUNT times 64 KiB. */
static long do_bandwidth(long count)
{
	static unsigned char buffer[65536];
	int ends[2];
	long sum = 0;
	ssize_t got;

	must(!pipe(ends), "pipe");
	pid_t child = fork();
	must(child >= 0, "fork");
	if (!child) {
		close(ends[0]);
		for (long i = 0; i < count; i++) {
			memset(buffer, (int)(i & 255), 64);
			must(write(ends[1], buffer, sizeof buffer) == (ssize_t)sizeof buffer, "write");
		}
		_exit(0);
	}
	close(ends[1]);
	while ((got = read(ends[0], buffer, sizeof buffer)) > 0)
		sum += got;
	must(waitpid(child, NULL, 0) == child, "waitpid");
	return sum;
}

static const struct {
	const char *name;
	long (*run)(long count);
} table[] = {
	{"getppid", do_getppid}, {"pingpong", do_pingpong}, {"fork", do_fork}, {"exec", do_exec},
	{"exec-dynamic", do_exec_dynamic}, {"exit", do_exit}, {"mmap", do_mmap}, {"files", do_files},
	{"signals", do_signals}, {"faults", do_faults}, {"bandwidth", do_bandwidth},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc == 3 && i < sizeof table / sizeof *table; i++) {
		if (!strcmp(table[i].name, argv[1])) {
			printf("%s %ld\n", argv[1], table[i].run(atol(argv[2])));
			return 0;
		}
	}
	fprintf(stderr, "usage: kernel NAME COUNT\n");
	return 2;
}
