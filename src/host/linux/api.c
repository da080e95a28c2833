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

/* ---- devices ---- */

void api_device_id(const char *kind, unsigned index, char id[API_ID_SIZE])
{
	snprintf(id, API_ID_SIZE, "%s%u", kind, index);
}

static struct json_object *device_json(const struct api_device *device)
{
	struct json_object *o = json_object_new_object();
	char id[API_ID_SIZE], place[16];
	api_device_id(device->kind, device->index, id);
	snprintf(place, sizeof(place), "0000:00:%02x.0", device->slot);
	add_text(o, "id", id);
	add_text(o, "kind", device->kind);
	add_text(o, "bdf", device->slot ? place : NULL);
	add_text(o, "option", device->option);
	json_object_object_add(o, "removable", json_object_new_boolean(device->slot != 0));
	json_object_object_add(o, "leaving", json_object_new_boolean(device->leaving));
	return o;
}

static void append_device(void *list, const struct api_device *device)
{
	json_object_array_add(list, device_json(device));
}

static struct json_object *list_devices(const struct api_vm *vm)
{
	struct json_object *list = json_object_new_array();
	vm->devices(vm->opaque, append_device, list);
	return list;
}

static int count_kind(struct json_object *list, const char *kind)
{
	int n = 0;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *value = NULL;
		n += json_object_object_get_ex(json_object_array_get_idx(list, i), "kind", &value) && !strcmp(json_object_get_string(value), kind);
	}
	return n;
}

static void devices(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	set_json(response, 200, list_devices(vm));
}

static void info(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	struct json_object *o = json_object_new_object(), *config = json_object_new_object(), *devices = list_devices(vm);
	add_text(o, "name", vm->info.name);
	json_object_object_add(o, "pid", json_object_new_int64(getpid()));
	add_text(o, "version", NADIR_VERSION);
	add_text(o, "state", vm->paused(vm->opaque) ? "Paused" : "Running");
	add_text(config, "kernel", vm->info.kernel);
	json_object_object_add(config, "cpus", json_object_new_int64(vm->info.cpus));
	json_object_object_add(config, "memory", json_object_new_uint64(vm->info.memory));
	add_text(config, "engine", vm->info.engine);
	add_text(config, "serial", vm->info.serial);
	json_object_object_add(config, "disks", json_object_new_int64(count_kind(devices, "disk")));
	json_object_object_add(config, "nets", json_object_new_int64(count_kind(devices, "net")));
	json_object_put(devices);
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

/* The text that the body has for this key; it is the object's. NULL: there is none. */
static const char *text_of(struct json_object *body, const char *key)
{
	const char *text = NULL;
	return json_object_is_type(body, json_type_object) && take_text(body, key, &text) ? text : NULL;
}

static void add_device(const struct api_vm *vm, const struct http_request *request, const char *kind, struct api_response *response)
{
	struct json_object *body = request->body ? json_tokener_parse(request->body) : NULL;
	struct passed_files none = { 0 };
	struct api_device device = { 0 };
	const char *option = text_of(body, "option");
	const char *why = option ? vm->add(vm->opaque, kind, option, request->files ? request->files : &none, &device) : NULL;
	if (!option)
		api_refuse(400, "the body must be an object with option, a text as --disk or --net takes it", response);
	else if (why)
		api_refuse(409, why, response);
	else
		set_json(response, 200, device_json(&device));
	json_object_put(body);
}

static void add_disk(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	add_device(vm, request, "disk", response);
}

static void add_net(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	add_device(vm, request, "net", response);
}

/* "disk12" */
static bool parse_id(const char *id, const char **kind, unsigned *index)
{
	static const char *const kinds[] = { "disk", "net" };
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t n = strlen(kinds[i]);
		char *end;
		if (strncmp(id, kinds[i], n) || id[n] < '0' || id[n] > '9' || strlen(id + n) > 3)
			continue;
		*kind = kinds[i];
		*index = (unsigned)strtoul(id + n, &end, 10);
		return !*end;
	}
	return false;
}

static void remove_device(const struct api_vm *vm, const struct http_request *request, struct api_response *response)
{
	struct json_object *body = request->body ? json_tokener_parse(request->body) : NULL;
	const char *id = text_of(body, "id"), *kind = NULL;
	unsigned index = 0;
	if (!id)
		api_refuse(400, "the body must be an object with id, the text by which vm.devices calls a device", response);
	else if (!parse_id(id, &kind, &index))
		api_refuse(404, "there is no such device; nadir devices shows those there are", response);
	else
		done(response, vm->remove(vm->opaque, kind, index));
	json_object_put(body);
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
	{ "GET", BASE "vm.devices", devices },
	{ "GET", BASE "vm.screenshot", screenshot },
	{ "GET", BASE "vm.events", events },
	{ "PUT", BASE "vm.console", console },
	{ "PUT", BASE "vm.pause", pause_vm },
	{ "PUT", BASE "vm.resume", resume },
	{ "PUT", BASE "vm.boot", resume },
	{ "PUT", BASE "vm.power-button", power_button },
	{ "PUT", BASE "vm.reboot", reboot },
	{ "PUT", BASE "vm.shutdown", shutdown_vm },
	{ "PUT", BASE "vm.resize", resize },
	{ "PUT", BASE "vm.snapshot", snapshot },
	{ "PUT", BASE "vm.add-disk", add_disk },
	{ "PUT", BASE "vm.add-net", add_net },
	{ "PUT", BASE "vm.remove-device", remove_device },
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
