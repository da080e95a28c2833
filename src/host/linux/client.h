/* Asking a running VM by its control socket (client.c). */
#ifndef NADIR_HOST_LINUX_CLIENT_H
#define NADIR_HOST_LINUX_CLIENT_H

#include "arch/types.h"
#include "host/linux/passed_files.h"

#include <json-c/json.h>

/* Connect to a VM, by its name or the path of its socket. The descriptor, or -1 after one sentence on stderr. */
int client_connect(const char *who);

/* Ask, on a connection of its own, which this closes; `sent` is the body of the request, or NULL. The status of the answer, and its body (NULL: empty; the caller frees it); or -1, if what
 * came was no answer. */
int client_ask(int fd, const char *method, const char *path, const char *sent, char **body);
/* The same for a VM by name: 0 if the status tells of success, else -1 after one sentence on stderr. *json (may be NULL) is the body; the caller
 * puts it. */
int client_request(const char *who, const char *method, const char *path, const char *sent, struct json_object **json);
/* The same, and open files go along; they stay the caller's. */
int client_request_with(const char *who, const char *method, const char *path, const char *sent, const struct passed_files *files, struct json_object **json);
/* Fetch what is at `path` of a VM by name: its bytes, which the caller frees; NULL after one sentence on stderr. */
char *client_fetch(const char *who, const char *path, size_t *size);
/* Begin a stream: send the request (with `upgrade`, for the console), and read the head of the answer and nothing behind it. 0, or -1 after one sentence on
 * stderr. */
int client_stream(const char *who, int fd, const char *method, const char *path, bool upgrade);

#endif
