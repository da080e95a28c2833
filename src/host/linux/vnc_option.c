/* What --vnc says: where to listen, and the password (vnc.h). */
#define _GNU_SOURCE
#include "host/linux/vnc.h"

#include "host/linux/rfb.h"
#include "host/linux/runtime.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT_FIRST 5900
#define DISPLAYS_MAX 1000
#define PASSWORD_KEY ",password-file="

int vnc_complain(const char *where, const char *why)
{
	fprintf(stderr, "nadir: --vnc: '%s': %s\n", where, why);
	return -1;
}

static int listen_at(const char *where, struct in_addr host, unsigned long port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((u16)port), .sin_addr = host };
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) && !bind(fd, (void *)&address, sizeof(address)) && !listen(fd, 8))
		return fd;
	vnc_complain(where, strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

/* :N is display N of this machine, at port 5900 + N; or an address and a port. */
static int listen_tcp(const char *where, bool password)
{
	struct in_addr host = { htonl(INADDR_LOOPBACK) };
	char name[64], *end = NULL;
	const char *colon = strrchr(where, ':');
	size_t length = colon ? (size_t)(colon - where) : 0;
	unsigned long number = colon && colon[1] >= '0' && colon[1] <= '9' ? strtoul(colon + 1, &end, 10) : 0;
	snprintf(name, sizeof(name), "%.*s", (int)MIN(length, sizeof(name) - 1), where);
	if (!end || *end || (length && strcmp(name, "localhost") && inet_pton(AF_INET, name, &host) != 1))
		return vnc_complain(where, "this is not one of :DISPLAY, ADDRESS:PORT or unix:PATH");
	if (!length)
		return number < DISPLAYS_MAX ? listen_at(where, host, PORT_FIRST + number) : vnc_complain(where, "there is no such display; :0 to :999");
	if (!password && host.s_addr != htonl(INADDR_LOOPBACK))
		return vnc_complain(where, "clients are not asked for a password, so that only this machine's can be served; add password-file, or lead others here by SSH");
	return number && number < 65536 ? listen_at(where, host, number) : vnc_complain(where, "there is no such port");
}

/* The first line of the file. */
static int read_password(const char *path, char *password)
{
	char line[64] = "";
	FILE *file = fopen(path, "re");
	const char *why = !file ? strerror(errno) : !fgets(line, sizeof(line), file) ? "there is no password in this file" : NULL;
	if (file)
		fclose(file);
	line[strcspn(line, "\r\n")] = 0;
	if (!why && !*line)
		why = "there is no password in this file's first line";
	if (!why && strlen(line) > RFB_PASSWORD_MAX)
		why = "VNC's passwords have 8 characters at most, and that in this file has more";
	if (!why)
		memcpy(password, line, strlen(line) + 1);
	explicit_bzero(line, sizeof(line));
	return why ? vnc_complain(path, why) : 0;
}

int vnc_listen(const char *option, char *password)
{
	char where[PATH_MAX];
	const char *key = strstr(option, PASSWORD_KEY);
	size_t length = key ? (size_t)(key - option) : strlen(option);
	*password = 0;
	if (length >= sizeof(where))
		return vnc_complain(option, "this is too long");
	snprintf(where, sizeof(where), "%.*s", (int)length, option);
	if (key && read_password(key + strlen(PASSWORD_KEY), password) < 0)
		return -1;
	return strncmp(where, "unix:", 5) ? listen_tcp(where, *password) : runtime_listen("vnc", where + 5);
}
