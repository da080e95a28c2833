/* The routes of the control API. Paths and answers are shaped like Cloud Hypervisor's. */
#define _GNU_SOURCE
#include "host/linux/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BASE "/api/v1/"
#define JSON "application/json"

static void set_body(struct api_response *response, int status, const char *type, char *body)
{
	*response = (struct api_response){ .status = body ? status : 503, .type = type, .body = body, .size = body ? strlen(body) : 0 };
}

/* Takes the object over. */
static void set_json(struct api_response *response, int status, struct json_object *json)
{
	char *text = NULL;
	if (asprintf(&text, "%s\n", json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)) < 0)
		text = NULL;
	json_object_put(json);
	set_body(response, status, JSON, text);
}

static void add_text(struct json_object *to, const char *name, const char *text)
{
	if (text)
		json_object_object_add(to, name, json_object_new_string(text));
}

void api_refuse(int status, const char *why, struct api_response *response)
{
	struct json_object *o = json_object_new_object();
	add_text(o, "error", why);
	set_json(response, status, o);
}

char *api_event(const char *event, const char *detail)
{
	struct json_object *o = json_object_new_object();
	struct timespec now;
	char *text = NULL, seconds[32];
	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(seconds, sizeof(seconds), "%lld.%03ld", (long long)now.tv_sec, now.tv_nsec / 1000000);
	json_object_object_add(o, "timestamp", json_object_new_double_s(strtod(seconds, NULL), seconds));
	add_text(o, "event", event);
	add_text(o, "detail", detail);
	if (asprintf(&text, "%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)) < 0)
		text = NULL;
	json_object_put(o);
	return text;
}

/* ---- questions ---- */

static void ping(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	struct json_object *o = json_object_new_object();
	add_text(o, "version", NADIR_VERSION);
	json_object_object_add(o, "pid", json_object_new_int64(getpid()));
	set_json(response, 200, o);
}

static void info(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	struct json_object *o = json_object_new_object(), *config = json_object_new_object();
	add_text(o, "name", vm->info.name);
	json_object_object_add(o, "pid", json_object_new_int64(getpid()));
	add_text(o, "version", NADIR_VERSION);
	add_text(o, "state", vm->paused(vm->opaque) ? "Paused" : "Running");
	add_text(config, "kernel", vm->info.kernel);
	json_object_object_add(config, "cpus", json_object_new_int64(vm->info.cpus));
	json_object_object_add(config, "memory", json_object_new_uint64(vm->info.memory));
	add_text(config, "engine", vm->info.engine);
	add_text(config, "serial", vm->info.serial);
	json_object_object_add(config, "disks", json_object_new_int64(vm->info.disks));
	json_object_object_add(o, "config", config);
	set_json(response, 200, o);
}

/* The memory of a picture is too much for a thread's stack. */
static struct counters *count(const struct api_vm *vm)
{
	struct counters *c = calloc(1, sizeof(*c));
	if (c)
		vm->count(vm->opaque, c);
	return c;
}

static void counters(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	struct counters *c = count(vm);
	if (c)
		set_json(response, 200, counters_json(c));
	else
		api_refuse(503, "out of memory", response);
	free(c);
}

static void metrics(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	struct counters *c = count(vm);
	set_body(response, 200, "application/openmetrics-text; version=1.0.0; charset=utf-8",
		 c ? counters_metrics(c, vm->info.name ? vm->info.name : "") : NULL);
	free(c);
}

static void screenshot(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	u8 *file = NULL;
	size_t size = 0;
	const char *why = vm->screenshot(vm->opaque, &file, &size);
	if (why)
		api_refuse(409, why, response);
	else
		*response = (struct api_response){ .status = 200, .type = "image/png", .body = (char *)file, .size = size };
}

/* ---- orders ---- */

static void done(struct api_response *response, const char *why)
{
	if (why)
		api_refuse(409, why, response);
	else
		*response = (struct api_response){ .status = 204 };
}

static void pause_vm(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	done(response, vm->pause(vm->opaque));
}

static void resume(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	done(response, vm->resume(vm->opaque));
}

static void power_button(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	done(response, vm->power_button(vm->opaque));
}

static void reboot(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	done(response, vm->reset(vm->opaque));
}

static void shutdown_vm(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	done(response, vm->stop(vm->opaque));
}

static void resize(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	struct json_object *o = request->body ? json_tokener_parse(request->body) : NULL, *balloon = NULL;
	bool good = json_object_object_get_ex(o, "desired_balloon", &balloon) && json_object_is_type(balloon, json_type_int) &&
		    json_object_get_int64(balloon) >= 0;
	if (good)
		done(response, vm->resize(vm->opaque, json_object_get_uint64(balloon)));
	else
		api_refuse(400, "the body must be an object with desired_balloon, a number of bytes", response);
	json_object_put(o);
}

/* A text, or NULL if there is none; false: it is something else. */
static bool take_text(struct json_object *o, const char *key, const char **text)
{
	struct json_object *value = NULL;
	if (!json_object_object_get_ex(o, key, &value))
		return true;
	*text = json_object_get_string(value);
	return json_object_is_type(value, json_type_string);
}

static bool take_wish(struct json_object *o, struct snapshot_wish *wish)
{
	struct json_object *value = NULL;
	const char *compression = NULL;
	if (!json_object_is_type(o, json_type_object) || !take_text(o, "name", &wish->name) || !take_text(o, "base", &wish->base) ||
	    !take_text(o, "compression", &compression))
		return false;
	if (json_object_object_get_ex(o, "incremental", &value) && !json_object_is_type(value, json_type_boolean))
		return false;
	wish->incremental = wish->base || json_object_get_boolean(value);
	return !compression || snapshot_compression_named(compression, &wish->compression);
}

static void snapshot(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	char name[128];
	struct snapshot_wish wish = { 0 };
	struct json_object *body = request->body ? json_tokener_parse(request->body) : NULL, *o = json_object_new_object();
	bool good = !request->body || take_wish(body, &wish);
	const char *why = good ? vm->snapshot(vm->opaque, &wish, name) : NULL;
	if (!good) {
		api_refuse(400, "the body must be an object; name and base are texts, incremental true or false, compression \"none\" or \"zstd\"", response);
	} else if (why) {
		api_refuse(409, why, response);
	} else {
		add_text(o, "name", name);
		set_json(response, 200, json_object_get(o));
	}
	json_object_put(body);
	json_object_put(o);
}

/* ---- streams ---- */

static void events(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	*response = (struct api_response){ .status = 200, .type = "application/x-ndjson", .stream = API_EVENTS };
}

static void console(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	if (request->upgrade)
		*response = (struct api_response){ .status = 101, .stream = API_CONSOLE };
	else
		api_refuse(426, "the console is not HTTP: ask for it with Connection: Upgrade and Upgrade: console", response);
}

/* ---- the table ---- */

static const struct {
	const char *method, *path;
	void (*answer)(const struct api_vm *vm, const struct http_request *request, struct api_response *response);
} routes[] = {
	{ "GET", BASE "vmm.ping", ping },
	{ "GET", BASE "vm.info", info },
	{ "GET", BASE "vm.counters", counters },
	{ "GET", BASE "vm.screenshot", screenshot },
	{ "GET", BASE "vm.events", events },
	{ "PUT", BASE "vm.console", console },
	{ "PUT", BASE "vm.pause", pause_vm },
	{ "PUT", BASE "vm.resume", resume },
	{ "PUT", BASE "vm.power-button", power_button },
	{ "PUT", BASE "vm.reboot", reboot },
	{ "PUT", BASE "vm.shutdown", shutdown_vm },
	{ "PUT", BASE "vm.resize", resize },
	{ "PUT", BASE "vm.snapshot", snapshot },
	{ "GET", "/metrics", metrics },
};

void api_answer(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	const char *method = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		if (strcmp(routes[i].path, request->path))
			continue;
		method = routes[i].method;
		if (strcmp(method, request->method))
			continue;
		routes[i].answer(vm, request, response);
		return;
	}
	if (method)
		api_refuse(405, !strcmp(method, "GET") ? "only GET goes there" : "only PUT goes there", response);
	else
		api_refuse(404, "there is nothing at this path; the API is described in docs/api.md", response);
}
