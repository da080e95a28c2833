/* The control API: bytes of a client, in pieces. Whatever they are, requests keep their limits, and each gets one answer, whose body is text. */
#include "host/linux/api.h"
#include "input.h"

#include <stdlib.h>
#include <string.h>

static bool paused(void *opaque)
{
	return false;
}

static const char *order(void *opaque)
{
	return opaque;
}

static const char *resize(void *opaque, u64 balloon)
{
	CHECK(balloon <= INT64_MAX);
	return NULL;
}

static const char *snapshot(void *opaque, const struct snapshot_wish *wish, char name[128])
{
	name[0] = 0;
	return NULL;
}

static const char *screenshot(void *opaque, u8 **file, size_t *size)
{
	*size = 0;
	*file = NULL;
	return "no";
}

static const char *add(void *opaque, const char *kind, const char *option, struct passed_files *files, struct api_device *device)
{
	*device = (struct api_device){ kind, 0, 4, false, option };
	CHECK(!files->count);
	return strlen(option) & 1 ? "no" : NULL;
}

static const char *remove_device(void *opaque, const char *kind, unsigned index)
{
	CHECK(index < 1000 && (!strcmp(kind, "disk") || !strcmp(kind, "net")));
	return NULL;
}

static void devices(void *opaque, void (*each)(void *list, const struct api_device *device), void *list)
{
	each(list, &(struct api_device){ "disk", 0, 4, true, "path=x" });
}

static void count(void *opaque, struct counters *c)
{
	c->cpus = 1;
	c->exit[EXIT_IO].count = 1;
	counters_add_line(c, " 1  one");
}

static void answer(const struct http_request *request)
{
	static const struct api_vm vm = { .info = { .name = "fuzz" }, .paused = paused, .pause = order, .resume = order, .power_button = order,
					  .reset = order, .stop = order, .resize = resize, .snapshot = snapshot, .screenshot = screenshot, .add = add, .remove = remove_device,
					  .devices = devices, .count = count };
	struct api_response response;
	CHECK(strlen(request->path) < HTTP_PATH_MAX && request->body_size <= HTTP_BODY_MAX && request->method);
	CHECK(!request->body_size == !request->body);
	api_answer(&vm, request, &response);
	CHECK(response.status >= 101 && response.status < 600 && strcmp(http_status_text(response.status), "Unknown"));
	CHECK(response.body ? strlen(response.body) == response.size && response.type : !response.size);
	free(response.body);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct http http;
	http_init(&http);
	while (size > 1) {
		size_t used, piece = MIN((size_t)bytes[0] + 1, size - 1);
		char *copy = malloc(piece);
		memcpy(copy, bytes + 1, piece);
		enum http_result result = http_take(&http, copy, piece, &used);
		free(copy);
		if (result == HTTP_REFUSED) {
			CHECK(http.error >= 400);
			break;
		}
		CHECK(used && used <= piece);
		if (result == HTTP_COMPLETE) {
			bool go_on = http.request.keep_alive && !http.request.upgrade;
			answer(&http.request);
			http_next(&http);
			if (!go_on)
				break;
		}
		bytes += used + 1;
		size -= used + 1;
	}
	http_release(&http);
	return 0;
}
