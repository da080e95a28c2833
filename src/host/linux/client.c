/* The client's side of the control socket. */
#define _GNU_SOURCE
#include "host/linux/client.h"

#include "host/linux/runtime.h"

#include <errno.h>
#include <http_parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY_MAX (20u << 20)

int client_connect(const char *who)
{
	char path[SOCKET_PATH_SIZE];
	if (runtime_socket(who, path) < 0)
		return -1;
	int fd = runtime_connect(path);
	if (fd >= 0)
		return fd;
	if (fd == -ECONNREFUSED || fd == -ENOENT)
		fprintf(stderr, "nadir: there is no running virtual machine '%s'; nadir list shows those there are\n", who);
	else
		fprintf(stderr, "nadir: %s: %s\n", path, strerror(-fd));
	return -1;
}

/* The first byte takes the files along (unix(7), SCM_RIGHTS). */
static ssize_t send_some(int fd, const char *text, size_t size, const struct passed_files *files)
{
	alignas(struct cmsghdr) char room[CMSG_SPACE(PASSED_FILES_MAX * sizeof(int))] = { 0 };
	size_t length = files ? files->count * sizeof(int) : 0;
	struct iovec vector = { (void *)(uintptr_t)text, size };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = room, .msg_controllen = CMSG_SPACE(length) };
	if (!length)
		return send(fd, text, size, MSG_NOSIGNAL);
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	*c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(length) };
	memcpy(CMSG_DATA(c), files->fd, length);
	return sendmsg(fd, &message, MSG_NOSIGNAL);
}

static bool send_request(int fd, const char *method, const char *path, const char *headers, const char *body, const struct passed_files *files)
{
	char *text = NULL;
	int size = asprintf(&text, "%s %s HTTP/1.1\r\nHost: nadir\r\nContent-Length: %zu\r\n%s\r\n%s", method, path, strlen(body), headers, body);
	bool good = size > 0;
	for (size_t sent = 0; good && sent < (size_t)size;) {
		ssize_t n = send_some(fd, text + sent, (size_t)size - sent, sent ? NULL : files);
		good = n >= 0 || errno == EINTR;
		sent += n > 0 ? (size_t)n : 0;
	}
	free(text);
	return good;
}

/* ---- an answer ---- */

struct reply {
	char *body;
	size_t size;
	bool complete;
};

static int on_body(http_parser *parser, const char *at, size_t length)
{
	struct reply *r = parser->data;
	char *body = r->size + length > BODY_MAX ? NULL : realloc(r->body, r->size + length + 1);
	if (!body)
		return -1;
	memcpy(body + r->size, at, length);
	r->body = body;
	r->size += length;
	body[r->size] = 0;
	return 0;
}

static int on_complete(http_parser *parser)
{
	((struct reply *)parser->data)->complete = true;
	return 0;
}

static bool read_reply(int fd, http_parser *parser, struct reply *r)
{
	static const http_parser_settings settings = { .on_body = on_body, .on_message_complete = on_complete };
	char buffer[4096];
	while (!r->complete) {
		ssize_t n = read(fd, buffer, sizeof(buffer));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 || http_parser_execute(parser, &settings, buffer, (size_t)n) != (size_t)n || (!n && !r->complete))
			return false;
	}
	return true;
}

/* The status, or -1; takes the connection over. */
static int ask(int fd, const char *method, const char *path, const char *sent, const struct passed_files *files, struct reply *reply)
{
	http_parser parser;
	http_parser_init(&parser, HTTP_RESPONSE);
	parser.data = reply;
	bool ok = send_request(fd, method, path, "Connection: close\r\n", sent ? sent : "", files) && read_reply(fd, &parser, reply);
	close(fd);
	if (!ok)
		free(reply->body);
	return ok ? (int)parser.status_code : -1;
}

int client_ask(int fd, const char *method, const char *path, const char *sent, char **body)
{
	struct reply reply = { 0 };
	int status = ask(fd, method, path, sent, NULL, &reply);
	*body = status < 0 ? NULL : reply.body;
	return status;
}

/* ---- for commands ---- */

static int complain(const char *who, struct json_object *json)
{
	struct json_object *error = NULL;
	bool told = json && json_object_object_get_ex(json, "error", &error);
	fprintf(stderr, "nadir: %s: %s\n", who, told ? json_object_get_string(error) : "what is at this socket does not answer as a virtual machine would");
	return -1;
}

int client_request_with(const char *who, const char *method, const char *path, const char *sent, const struct passed_files *files, struct json_object **json)
{
	struct reply reply = { 0 };
	int fd = client_connect(who);
	if (fd < 0)
		return -1;
	int status = ask(fd, method, path, sent, files, &reply);
	struct json_object *object = status > 0 && reply.body ? json_tokener_parse(reply.body) : NULL;
	if (status > 0)
		free(reply.body);
	int result = status >= 200 && status < 300 && (object || !json) ? 0 : complain(who, object);
	if (json && !result)
		*json = object;
	else
		json_object_put(object);
	return result;
}

int client_request(const char *who, const char *method, const char *path, const char *sent, struct json_object **json)
{
	return client_request_with(who, method, path, sent, NULL, json);
}

char *client_fetch(const char *who, const char *path, size_t *size)
{
	struct reply reply = { 0 };
	int fd = client_connect(who);
	if (fd < 0)
		return NULL;
	int status = ask(fd, "GET", path, NULL, NULL, &reply);
	*size = reply.size;
	if (status == 200 && reply.body)
		return reply.body;
	struct json_object *object = status > 0 && reply.body ? json_tokener_parse(reply.body) : NULL;
	complain(who, object);
	json_object_put(object);
	if (status > 0)
		free(reply.body);
	return NULL;
}

/* The head ends with an empty line. It is read byte by byte: what follows is the stream's. */
static int read_head(int fd)
{
	char head[2048];
	size_t n = 0;
	while (n < sizeof(head) - 1 && read(fd, head + n, 1) == 1) {
		n++;
		if (n >= 4 && !memcmp(head + n - 4, "\r\n\r\n", 4))
			return !strncmp(head, "HTTP/1.1 ", 9) ? atoi(head + 9) : -1;
	}
	return -1;
}

int client_stream(const char *who, int fd, const char *method, const char *path, bool upgrade)
{
	int status = send_request(fd, method, path, upgrade ? "Connection: Upgrade\r\nUpgrade: console\r\n" : "", "", NULL) ? read_head(fd) : -1;
	return status == (upgrade ? 101 : 200) ? 0 : complain(who, NULL);
}
