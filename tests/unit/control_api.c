/* The control API: HTTP requests in pieces of any size, what is refused, every route, and the forms of the counters. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/linux/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a VM that only remembers ---- */

static char done[128];
static bool is_paused;
static const char *refusal;

static const char *note(const char *what)
{
	size_t used = strlen(done);
	snprintf(done + used, sizeof(done) - used, "%s", what);
	return refusal;
}

static bool paused(void *opaque)
{
	return is_paused;
}

static const char *pause_vm(void *opaque)
{
	is_paused = true;
	return note("pause ");
}

static const char *resume(void *opaque)
{
	is_paused = false;
	return note("resume ");
}

static const char *power_button(void *opaque)
{
	return note("power ");
}

static const char *reset(void *opaque)
{
	return note("reset ");
}

static const char *stop(void *opaque)
{
	return note("stop ");
}

static const char *resize(void *opaque, u64 balloon)
{
	return balloon == 4096 ? note("resize ") : "no";
}

static const char *snapshot(void *opaque, const struct snapshot_wish *wish, char name[128])
{
	memcpy(name, "7", 2);
	if (wish->name)
		note(wish->name);
	if (wish->incremental)
		note(wish->base ? wish->base : "last");
	if (wish->compression)
		note(wish->compression == COMPRESSION_ZSTD ? "zstd" : "none");
	return note("snapshot ");
}

static const char *screenshot(void *opaque, u8 **file, size_t *size)
{
	*size = 3;
	*file = malloc(3);
	memcpy(*file, "\x89\0P", 3);
	return note("screenshot ");
}

static const char *add(void *opaque, const char *kind, const char *option, struct passed_files *files, struct api_device *device)
{
	*device = (struct api_device){ kind, 3, 7, false, option };
	note(kind);
	note(files->count ? " with files " : " alone ");
	return note(option);
}

static const char *remove_device(void *opaque, const char *kind, unsigned index)
{
	char text[32];
	snprintf(text, sizeof(text), "%s %u", kind, index);
	return note(text);
}

static void devices(void *opaque, void (*each)(void *list, const struct api_device *device), void *list)
{
	each(list, &(struct api_device){ "disk", 0, 4, true, "path=x" });
	each(list, &(struct api_device){ "disk", 1, 0, false, "path=y,bus=sata" });
	each(list, &(struct api_device){ "net", 0, 20, false, "user" });
}

static void count(void *opaque, struct counters *c)
{
	c->time = 1500000000;
	c->exit[EXIT_IO].count = 3;
	c->exit[EXIT_IO].nanoseconds = 1000;
	c->interrupts = 7;
	c->cpus = 2;
	c->cpu[1] = (struct counters_cpu){ .exits = 3, .halted = 5, .busy = 9 };
	c->disks = 1;
	c->disk[0] = (struct counters_disk){ 1, 512, 2, 1024, 3 };
	c->nets = 2;
	c->net[1] = (struct counters_net){ 4, 600, 5, 700 };
	counters_add_line(c, "            12  blocks translated");
	counters_add_line(c, "             8  blocks translated");
	counters_add_line(c, "no number");
	counters_add_line(c, " 5 odd \"name\\");
}

static const struct api_vm vm = {
	.info = { .name = "web", .engine = "bt", .kernel = "/a\"b", .serial = "none", .cpus = 2, .memory = 4096 },
	.paused = paused,
	.pause = pause_vm,
	.resume = resume,
	.power_button = power_button,
	.reset = reset,
	.stop = stop,
	.resize = resize,
	.snapshot = snapshot,
	.screenshot = screenshot,
	.add = add,
	.remove = remove_device,
	.devices = devices,
	.count = count,
};

/* ---- asking ---- */

static struct api_response answer;

static void ask(const char *method, const char *path)
{
	struct http_request request = { .method = method };
	free(answer.body);
	snprintf(request.path, sizeof(request.path), "%s", path);
	api_answer(&vm, &request, &answer);
}

static struct json_object *body(void)
{
	assert_non_null(answer.body);
	assert_string_equal(answer.type, "application/json");
	assert_int_equal(answer.size, strlen(answer.body));
	struct json_object *o = json_tokener_parse(answer.body);
	assert_non_null(o);
	return o;
}

static void test_info(void **state)
{
	struct json_object *state_of = NULL, *config = NULL, *kernel = NULL;
	ask("GET", "/api/v1/vm.info");
	assert_int_equal(answer.status, 200);
	struct json_object *o = body();
	assert_true(json_object_object_get_ex(o, "state", &state_of));
	assert_string_equal(json_object_get_string(state_of), "Running");
	assert_true(json_object_object_get_ex(o, "config", &config) && json_object_object_get_ex(config, "kernel", &kernel));
	assert_string_equal(json_object_get_string(kernel), "/a\"b");
	json_object_put(o);
	ask("GET", "/api/v1/vmm.ping");
	assert_int_equal(answer.status, 200);
}

static void test_orders(void **state)
{
	static const char *const paths[] = { "pause", "resume", "power-button", "reboot", "shutdown" };
	char path[64];
	done[0] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		snprintf(path, sizeof(path), "/api/v1/vm.%s", paths[i]);
		ask("PUT", path);
		assert_int_equal(answer.status, 204);
		assert_null(answer.body);
		ask("GET", path);
		assert_int_equal(answer.status, 405);
	}
	assert_string_equal(done, "pause resume power reset stop ");
	refusal = "no";
	ask("PUT", "/api/v1/vm.pause");
	refusal = NULL;
	assert_int_equal(answer.status, 409);
	assert_string_equal(answer.body, "{\"error\":\"no\"}\n");
}

static void ask_about(const char *path, const char *body_text)
{
	struct http_request request = { .method = "PUT", .body = (char *)body_text, .body_size = strlen(body_text) };
	snprintf(request.path, sizeof(request.path), "%s", path);
	free(answer.body);
	api_answer(&vm, &request, &answer);
}

static void ask_with(const char *body_text)
{
	ask_about("/api/v1/vm.resize", body_text);
}

static void test_resize(void **state)
{
	static const char *const wrong[] = { "", "{", "[]", "1", "{\"desired_balloon\":\"4096\"}", "{\"desired_balloon\":-1}", "{\"x\":4096}" };
	done[0] = 0;
	ask_with("{\"desired_balloon\": 4096}");
	assert_int_equal(answer.status, 204);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		ask_with(wrong[i]);
		assert_int_equal(answer.status, 400);
	}
	ask("PUT", "/api/v1/vm.resize");
	assert_int_equal(answer.status, 400);
	assert_string_equal(done, "resize ");
}

static void test_snapshot(void **state)
{
	done[0] = 0;
	ask("PUT", "/api/v1/vm.snapshot");
	assert_int_equal(answer.status, 200);
	assert_non_null(strstr(answer.body, "\"name\":\"7\""));
	refusal = "no";
	ask("PUT", "/api/v1/vm.snapshot");
	assert_int_equal(answer.status, 409);
	refusal = NULL;
	assert_string_equal(done, "snapshot snapshot ");
}

static void test_snapshot_wish(void **state)
{
	static const char path[] = "/api/v1/vm.snapshot";
	static const char *const wrong[] = { "", "{", "[]", "1", "{\"name\":1}", "{\"base\":true}", "{\"incremental\":\"1\"}", "{\"compression\":\"lzma\"}" };
	static const char *const right[][2] = { { "{}", "snapshot " }, { "{\"incremental\":true}", "lastsnapshot " },
						{ "{\"incremental\":false}", "snapshot " }, { "{\"base\":\"1\",\"compression\":\"none\"}", "1nonesnapshot " },
						{ "{\"name\":\"a\",\"compression\":\"zstd\"}", "azstdsnapshot " } };
	done[0] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		ask_about(path, wrong[i]);
		assert_int_equal(answer.status, 400);
	}
	assert_string_equal(done, "");
	for (size_t i = 0; i < ARRAY_SIZE(right); i++) {
		done[0] = 0;
		ask_about(path, right[i][0]);
		assert_int_equal(answer.status, 200);
		assert_string_equal(done, right[i][1]);
	}
}

static void test_screenshot(void **state)
{
	done[0] = 0;
	ask("GET", "/api/v1/vm.screenshot");
	assert_int_equal(answer.status, 200);
	assert_string_equal(answer.type, "image/png");
	assert_int_equal(answer.size, 3);
	assert_memory_equal(answer.body, "\x89\0P", 3);
	ask("PUT", "/api/v1/vm.screenshot");
	assert_int_equal(answer.status, 405);
}

static void test_devices(void **state)
{
	ask("GET", "/api/v1/vm.devices");
	assert_int_equal(answer.status, 200);
	assert_string_equal(answer.body, "[{\"id\":\"disk0\",\"kind\":\"disk\",\"bdf\":\"0000:00:04.0\",\"option\":\"path=x\",\"removable\":true,\"leaving\":true},"
					 "{\"id\":\"disk1\",\"kind\":\"disk\",\"option\":\"path=y,bus=sata\",\"removable\":false,\"leaving\":false},"
					 "{\"id\":\"net0\",\"kind\":\"net\",\"bdf\":\"0000:00:14.0\",\"option\":\"user\",\"removable\":true,\"leaving\":false}]\n");
	ask("GET", "/api/v1/vm.info");
	assert_non_null(strstr(answer.body, "\"disks\":2,\"nets\":1"));
}

static void test_device_orders(void **state)
{
	static const struct {
		const char *path, *body;
		int status;
		const char *done;
	} rows[] = {
		{ "add-disk", "{\"option\":\"path=x\"}", 200, "disk alone path=x" },
		{ "add-net", "{\"option\":\"user\"}", 200, "net alone user" },
		{ "add-disk", "{\"option\":1}", 400, "" },
		{ "add-net", "[]", 400, "" },
		{ "add-disk", "", 400, "" },
		{ "remove-device", "{\"id\":\"disk12\"}", 204, "disk 12" },
		{ "remove-device", "{\"id\":\"net0\"}", 204, "net 0" },
		{ "remove-device", "{\"id\":\"disk\"}", 404, "" },
		{ "remove-device", "{\"id\":\"disk+1\"}", 404, "" },
		{ "remove-device", "{\"id\":\"net99999999999\"}", 404, "" },
		{ "remove-device", "{\"id\":\"net1x\"}", 404, "" },
		{ "remove-device", "{\"id\":3}", 400, "" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char path[64];
		snprintf(path, sizeof(path), "/api/v1/vm.%s", rows[i].path);
		done[0] = 0;
		ask_about(path, rows[i].body);
		assert_int_equal(answer.status, rows[i].status);
		assert_string_equal(done, rows[i].done);
	}
	refusal = "no";
	ask_about("/api/v1/vm.add-disk", rows[0].body);
	assert_int_equal(answer.status, 409);
	refusal = NULL;
}

static void test_unknown(void **state)
{
	static const char *const paths[] = { "", "/", "/api/v1/", "/api/v1/vm.info/", "/api/v2/vm.info", "/api/v1/vm.info?x", "*" };
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		ask("GET", paths[i]);
		assert_int_equal(answer.status, 404);
	}
}

static void test_streams(void **state)
{
	ask("GET", "/api/v1/vm.events");
	assert_int_equal(answer.stream, API_EVENTS);
	ask("PUT", "/api/v1/vm.console"); /* without an upgrade */
	assert_int_equal(answer.status, 426);
	assert_int_equal(answer.stream, API_NO_STREAM);
	char *event = api_event("a\"b", NULL);
	assert_non_null(strstr(event, "\"event\":\"a\\\"b\"}\n"));
	free(event);
}

static void test_counters(void **state)
{
	static struct counters c;
	ask("GET", "/api/v1/vm.counters");
	struct json_object *o = body();
	assert_true(counters_parse(&c, o));
	json_object_put(o);
	assert_int_equal(c.time, 1500000000);
	assert_int_equal(c.exit[EXIT_IO].count, 3);
	assert_int_equal(c.cpus, 2);
	assert_int_equal(c.cpu[1].busy, 9);
	assert_int_equal(c.disks, 1);
	assert_int_equal(c.disk[0].write_bytes, 1024);
	assert_int_equal(c.nets, 2);
	assert_int_equal(c.net[0].rx_bytes, 0);
	assert_int_equal(c.net[1].tx_frames, 4);
	assert_int_equal(c.net[1].rx_bytes, 700);
	assert_int_equal(c.engine_count, 2);
	assert_string_equal(c.engine[0].name, "blocks translated");
	assert_int_equal(c.engine[0].value, 20);
	static const char *const wrong[] = { "{}", "[]", "{\"exits\":{},\"cpus\":{},\"engine\":{}}", "{\"exits\":1,\"cpus\":[],\"engine\":[]}" };
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		o = json_tokener_parse(wrong[i]);
		assert_false(counters_parse(&c, o));
		json_object_put(o);
	}
}

static void test_metrics(void **state)
{
	ask("GET", "/metrics");
	assert_int_equal(answer.status, 200);
	assert_non_null(strstr(answer.type, "openmetrics-text"));
	static const char *const lines[] = {
		"# TYPE nadir_exits counter\n",
		"\nnadir_exits_total{vm=\"web\",reason=\"port I/O\"} 3\n",
		"\nnadir_interrupts_total{vm=\"web\"} 7\n",
		"\nnadir_disk_read_bytes_total{vm=\"web\",disk=\"0\"} 512\n",
		"\nnadir_disk_flushes_total{vm=\"web\",disk=\"0\"} 3\n",
		"\nnadir_net_tx_frames_total{vm=\"web\",net=\"1\"} 4\n",
		"\nnadir_time_seconds{vm=\"web\"} 1.5\n",
		"\nnadir_engine_total{vm=\"web\",what=\"blocks translated\"} 20\n",
		"\nnadir_engine_total{vm=\"web\",what=\"odd \\\"name\\\\\"} 5\n",
	};
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		assert_non_null(strstr(answer.body, lines[i]));
	assert_string_equal(answer.body + answer.size - 6, "# EOF\n");
}

/* ---- HTTP ---- */

static const char request_text[] = "PUT /api/v1/vm.pause HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n";

/* In pieces of one size: two requests, nothing lost between them. */
static void take_pieces(size_t piece)
{
	struct http http;
	unsigned requests = 0;
	http_init(&http);
	for (size_t at = 0; at < strlen(request_text);) {
		size_t used, size = MIN(piece, strlen(request_text) - at);
		enum http_result result = http_take(&http, request_text + at, size, &used);
		assert_true(used <= size);
		at += used;
		if (result == HTTP_INCOMPLETE)
			continue;
		assert_int_equal(result, HTTP_COMPLETE);
		assert_string_equal(http.request.method, requests ? "GET" : "PUT");
		assert_string_equal(http.request.path, requests ? "/" : "/api/v1/vm.pause");
		assert_true(requests || !memcmp(http.request.body, "abc", 4));
		assert_int_equal(http.request.body_size, requests ? 0 : 3);
		assert_true(http.request.keep_alive && !http.request.upgrade);
		requests++;
		http_next(&http);
	}
	assert_int_equal(requests, 2);
	http_release(&http);
}

static void test_pieces(void **state)
{
	for (size_t piece = 1; piece <= sizeof(request_text); piece++)
		take_pieces(piece);
}

static int refused(const char *text, size_t size)
{
	struct http http;
	size_t used;
	http_init(&http);
	enum http_result result = http_take(&http, text, size, &used);
	int error = http.error;
	assert_int_equal(result, error ? HTTP_REFUSED : HTTP_INCOMPLETE);
	if (error)
		assert_int_equal(http_take(&http, "GET", 3, &used), HTTP_REFUSED);
	http_release(&http);
	return error;
}

static void test_refused(void **state)
{
	static char text[200000];
	assert_int_equal(refused("\x16\x03\x01", 3), 400); /* TLS */
	assert_int_equal(refused("HELLO\r\n", 7), 400);
	memset(text, 'a', sizeof(text));
	memcpy(text, "GET /", 5);
	assert_int_equal(refused(text, 1000), 414);
	memcpy(text, "GET / HTTP/1.1\r\nX: ", 19);
	assert_int_equal(refused(text, sizeof(text)), 431);
	static const char large[] = "PUT / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n";
	assert_int_equal(refused(large, strlen(large)), 413);
	memset(text, 'a', sizeof(text));
	static const char chunked[] = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n";
	memcpy(text, chunked, strlen(chunked));
	assert_int_equal(refused(text, sizeof(text)), 413);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_info),	 cmocka_unit_test(test_orders), cmocka_unit_test(test_snapshot), cmocka_unit_test(test_snapshot_wish), cmocka_unit_test(test_screenshot), cmocka_unit_test(test_devices), cmocka_unit_test(test_device_orders),	 cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_streams), cmocka_unit_test(test_counters), cmocka_unit_test(test_metrics),
		cmocka_unit_test(test_pieces),	 cmocka_unit_test(test_refused),	 cmocka_unit_test(test_resize),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	free(answer.body);
	return failed;
}
