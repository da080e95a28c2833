/* Runs in the guest: finds an input device by its name, says what it is, and prints what comes from it until a button or key is released.
 *
 * usage: input_guest NAME COUNT: that many releases */
#include <fcntl.h>
#include <linux/input.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int find(const char *name)
{
	for (int i = 0; i < 16; i++) {
		char path[32], found[80] = "";
		snprintf(path, sizeof(path), "/dev/input/event%d", i);
		int fd = open(path, O_RDONLY);
		if (fd >= 0 && ioctl(fd, EVIOCGNAME(sizeof(found) - 1), found) >= 0 && !strcmp(found, name))
			return fd;
		if (fd >= 0)
			close(fd);
	}
	return -1;
}

int main(int argc, char **argv)
{
	struct input_absinfo axis;
	struct input_event e;
	int fd = argc == 3 ? find(argv[1]) : -1, left = argc == 3 ? atoi(argv[2]) : 0;
	if (fd < 0)
		return puts("input: there is none");
	if (ioctl(fd, EVIOCGABS(ABS_Y), &axis) >= 0)
		printf("axis: %d to %d\n", axis.minimum, axis.maximum);
	printf("reads: %s\n", argv[1]);
	fflush(stdout);
	while (left && read(fd, &e, sizeof(e)) == sizeof(e)) {
		if (e.type != EV_SYN)
			printf("event: %s: %d %d %d\n", argv[1], e.type, e.code, e.value);
		fflush(stdout);
		left -= e.type == EV_KEY && !e.value;
	}
	return 0;
}
