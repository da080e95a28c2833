/* HTTP/1.1 on one connection (http.c): requests in, responses out, bytes that the caller moves. The parsing is http_parser's.
 *
 * A connection takes one request at a time; what follows waits. The peer is untrusted: everything has a limit. */
#ifndef NADIR_HOST_LINUX_HTTP_H
#define NADIR_HOST_LINUX_HTTP_H

#include "arch/types.h"
#include "host/linux/passed_files.h"

#include <http_parser.h>

#define HTTP_PATH_MAX 256
#define HTTP_BODY_MAX 65536

struct http_request {
	const char *method; /* "GET", "PUT", ... */
	char path[HTTP_PATH_MAX];
	char *body; /* body_size bytes; NULL if there are none */
	size_t body_size;
	bool keep_alive; /* the connection goes on after the response */
	bool upgrade; /* the client offers to go on with another protocol */
	struct passed_files *files; /* that came along; the caller's. NULL: none can */
};

struct http {
	http_parser parser;
	struct http_request request;
	int error; /* status of the response that says why the connection must end, or 0 */
	bool complete;
};

enum http_result { HTTP_INCOMPLETE, HTTP_COMPLETE, HTTP_REFUSED };

void http_init(struct http *http);
/* Take bytes; *used is how many. HTTP_COMPLETE: http->request is complete, and the rest waits until http_next. HTTP_REFUSED: answer http->error, then
 * close. */
enum http_result http_take(struct http *http, const char *bytes, size_t size, size_t *used);
/* The request has been answered. */
void http_next(struct http *http);
void http_release(struct http *http);

const char *http_status_text(int status);

#endif
