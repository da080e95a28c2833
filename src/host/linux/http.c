/* HTTP/1.1 requests, put together from what http_parser finds. */
#include "host/linux/http.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static struct http *http_of(http_parser *parser)
{
	return parser->data;
}

/* A callback that is not 0 ends the parsing. */
static int refuse(struct http *http, int status)
{
	http->error = status;
	return -1;
}

static int on_url(http_parser *parser, const char *at, size_t length)
{
	struct http *http = http_of(parser);
	size_t used = strlen(http->request.path);
	if (length >= HTTP_PATH_MAX - used)
		return refuse(http, 414);
	memcpy(http->request.path + used, at, length);
	http->request.path[used + length] = 0;
	return 0;
}

static int on_headers(http_parser *parser)
{
	bool too_large = parser->content_length != ULLONG_MAX && parser->content_length > HTTP_BODY_MAX;
	return too_large ? refuse(http_of(parser), 413) : 0;
}

static int on_body(http_parser *parser, const char *at, size_t length)
{
	struct http_request *r = &http_of(parser)->request;
	if (length > HTTP_BODY_MAX - r->body_size)
		return refuse(http_of(parser), 413);
	char *body = realloc(r->body, r->body_size + length + 1);
	if (!body)
		return refuse(http_of(parser), 503);
	memcpy(body + r->body_size, at, length);
	r->body = body;
	r->body_size += length;
	body[r->body_size] = 0;
	return 0;
}

static int on_complete(http_parser *parser)
{
	struct http *http = http_of(parser);
	http->complete = true;
	http->request.method = http_method_str((enum http_method)parser->method);
	http->request.keep_alive = http_should_keep_alive(parser);
	http->request.upgrade = parser->upgrade;
	http_parser_pause(parser, 1);
	return 0;
}

static const http_parser_settings settings = {
	.on_url = on_url,
	.on_headers_complete = on_headers,
	.on_body = on_body,
	.on_message_complete = on_complete,
};

void http_init(struct http *http)
{
	*http = (struct http){ 0 };
	http_parser_init(&http->parser, HTTP_REQUEST);
	http->parser.data = http;
}

enum http_result http_take(struct http *http, const char *bytes, size_t size, size_t *used)
{
	*used = size;
	if (http->error)
		return HTTP_REFUSED;
	*used = http_parser_execute(&http->parser, &settings, bytes, size);
	if (http->complete)
		return HTTP_COMPLETE;
	if (HTTP_PARSER_ERRNO(&http->parser) == HPE_OK)
		return HTTP_INCOMPLETE;
	http->error = http->error ? http->error : HTTP_PARSER_ERRNO(&http->parser) == HPE_HEADER_OVERFLOW ? 431 : 400;
	return HTTP_REFUSED;
}

void http_next(struct http *http)
{
	free(http->request.body);
	http->request = (struct http_request){ 0 };
	http->complete = false;
	http_parser_pause(&http->parser, 0);
}

void http_release(struct http *http)
{
	free(http->request.body);
	http->request.body = NULL;
}

const char *http_status_text(int status)
{
	static const struct {
		int status;
		const char *text;
	} rows[] = {
		{ 101, "Switching Protocols" }, { 200, "OK" }, { 204, "No Content" }, { 400, "Bad Request" }, { 404, "Not Found" },
		{ 405, "Method Not Allowed" }, { 408, "Request Timeout" }, { 409, "Conflict" }, { 413, "Content Too Large" }, { 414, "URI Too Long" },
		{ 426, "Upgrade Required" }, { 431, "Request Header Fields Too Large" }, { 500, "Internal Server Error" },
		{ 503, "Service Unavailable" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].status == status)
			return rows[i].text;
	return "Unknown";
}
