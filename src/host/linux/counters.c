/* The forms of what a VM counts. */
#define _GNU_SOURCE
#include "host/linux/counters.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void counters_add_line(struct counters *counters, const char *line)
{
	char *end;
	u64 value = strtoull(line, &end, 10);
	const char *name = end + strspn(end, " ");
	if (end == line || !*name)
		return;
	for (unsigned i = 0; i < counters->engine_count; i++) {
		if (strncmp(counters->engine[i].name, name, sizeof(counters->engine[i].name) - 1))
			continue;
		counters->engine[i].value += value;
		return;
	}
	if (counters->engine_count == COUNTERS_ENGINE_MAX)
		return;
	struct counters_engine *e = &counters->engine[counters->engine_count++];
	snprintf(e->name, sizeof(e->name), "%s", name);
	e->value = value;
}

/* ---- JSON ---- */

static void add(struct json_object *to, const char *name, u64 value)
{
	json_object_object_add(to, name, json_object_new_uint64(value));
}

static struct json_object *json_cpu(const struct counters_cpu *cpu)
{
	struct json_object *o = json_object_new_object();
	add(o, "exits", cpu->exits);
	add(o, "interrupts", cpu->interrupts);
	add(o, "halted_nanoseconds", cpu->halted);
	add(o, "busy_nanoseconds", cpu->busy);
	return o;
}

/* What is counted of each device of a kind: u64s of a struct, by their names here. */
struct device_row {
	const char *name, *help;
	size_t offset;
};

static const struct device_row disk_rows[] = {
	{ "reads", "Requests to read.", offsetof(struct counters_disk, reads) },
	{ "read_bytes", "Bytes read.", offsetof(struct counters_disk, read_bytes) },
	{ "writes", "Requests to write.", offsetof(struct counters_disk, writes) },
	{ "write_bytes", "Bytes written.", offsetof(struct counters_disk, write_bytes) },
	{ "flushes", "Requests to make writes durable.", offsetof(struct counters_disk, flushes) },
};

static const struct device_row net_rows[] = {
	{ "tx_frames", "Frames that the guest sent.", offsetof(struct counters_net, tx_frames) },
	{ "tx_bytes", "Bytes of the frames that the guest sent.", offsetof(struct counters_net, tx_bytes) },
	{ "rx_frames", "Frames that the guest was given.", offsetof(struct counters_net, rx_frames) },
	{ "rx_bytes", "Bytes of the frames that the guest was given.", offsetof(struct counters_net, rx_bytes) },
};

static const struct kind {
	const char *name;
	const struct device_row *row;
	unsigned rows, most;
	size_t count, first, size; /* where struct counters has how many there are, and them */
} kinds[] = {
	{ "disk", disk_rows, ARRAY_SIZE(disk_rows), COUNTERS_DISKS_MAX, offsetof(struct counters, disks), offsetof(struct counters, disk),
	  sizeof(struct counters_disk) },
	{ "net", net_rows, ARRAY_SIZE(net_rows), COUNTERS_NETS_MAX, offsetof(struct counters, nets), offsetof(struct counters, net),
	  sizeof(struct counters_net) },
};

static unsigned count_of(const struct counters *c, const struct kind *k)
{
	unsigned count;
	memcpy(&count, (const u8 *)c + k->count, sizeof(count));
	return count;
}

static size_t place_of(const struct kind *k, unsigned device, unsigned row)
{
	return k->first + device * k->size + k->row[row].offset;
}

static u64 value_of(const struct counters *c, const struct kind *k, unsigned device, unsigned row)
{
	u64 value;
	memcpy(&value, (const u8 *)c + place_of(k, device, row), sizeof(value));
	return value;
}

/* A list "disks" or "nets". */
static void json_devices(struct json_object *root, const struct counters *c, const struct kind *k)
{
	char name[16];
	struct json_object *list = json_object_new_array();
	for (unsigned i = 0; i < count_of(c, k); i++) {
		struct json_object *o = json_object_new_object();
		for (unsigned row = 0; row < k->rows; row++)
			add(o, k->row[row].name, value_of(c, k, i, row));
		json_object_array_add(list, o);
	}
	snprintf(name, sizeof(name), "%ss", k->name);
	json_object_object_add(root, name, list);
}

struct json_object *counters_json(const struct counters *c)
{
	struct json_object *root = json_object_new_object(), *exits = json_object_new_object(), *cpus = json_object_new_array(),
			   *engine = json_object_new_object();
	add(root, "time_nanoseconds", c->time);
	add(root, "resident_bytes", c->resident);
	add(root, "balloon_wanted_bytes", c->balloon_wanted);
	add(root, "balloon_actual_bytes", c->balloon_actual);
	add(root, "reported_bytes", c->reported);
	add(root, "interrupts", c->interrupts);
	for (unsigned i = 0; i < EXIT_REASON_COUNT; i++) {
		if (!c->exit[i].count)
			continue;
		struct json_object *o = json_object_new_object();
		add(o, "count", c->exit[i].count);
		add(o, "nanoseconds", c->exit[i].nanoseconds);
		json_object_object_add(exits, exit_reason_name((enum exit_reason)i), o);
	}
	for (unsigned i = 0; i < c->cpus; i++)
		json_object_array_add(cpus, json_cpu(&c->cpu[i]));
	for (unsigned i = 0; i < c->engine_count; i++)
		add(engine, c->engine[i].name, c->engine[i].value);
	json_object_object_add(root, "exits", exits);
	json_object_object_add(root, "cpus", cpus);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		json_devices(root, c, &kinds[i]);
	json_object_object_add(root, "engine", engine);
	return root;
}

static u64 get(struct json_object *from, const char *name)
{
	struct json_object *value = NULL;
	return json_object_object_get_ex(from, name, &value) ? json_object_get_uint64(value) : 0;
}

static void parse_cpus(struct counters *c, struct json_object *cpus)
{
	c->cpus = (unsigned)MIN(json_object_array_length(cpus), COUNTERS_CPUS_MAX);
	for (unsigned i = 0; i < c->cpus; i++) {
		struct json_object *cpu = json_object_array_get_idx(cpus, i);
		c->cpu[i] = (struct counters_cpu){ get(cpu, "exits"), get(cpu, "interrupts"), get(cpu, "halted_nanoseconds"),
						   get(cpu, "busy_nanoseconds") };
	}
}

/* A machine of an older version counts none. */
static void parse_devices(struct counters *c, const struct kind *k, struct json_object *json)
{
	char name[16];
	struct json_object *list = NULL;
	snprintf(name, sizeof(name), "%ss", k->name);
	if (!json_object_object_get_ex(json, name, &list) || !json_object_is_type(list, json_type_array))
		return;
	unsigned count = (unsigned)MIN(json_object_array_length(list), k->most);
	memcpy((u8 *)c + k->count, &count, sizeof(count));
	for (unsigned i = 0; i < count; i++)
		for (unsigned row = 0; row < k->rows; row++) {
			u64 value = get(json_object_array_get_idx(list, i), k->row[row].name);
			memcpy((u8 *)c + place_of(k, i, row), &value, sizeof(value));
		}
}

bool counters_parse(struct counters *c, struct json_object *json)
{
	struct json_object *exits = NULL, *cpus = NULL, *engine = NULL, *one;
	*c = (struct counters){ 0 };
	if (!json_object_object_get_ex(json, "exits", &exits) || !json_object_object_get_ex(json, "cpus", &cpus) ||
	    !json_object_object_get_ex(json, "engine", &engine) || !json_object_is_type(exits, json_type_object) ||
	    !json_object_is_type(cpus, json_type_array) || !json_object_is_type(engine, json_type_object))
		return false;
	c->time = get(json, "time_nanoseconds");
	c->resident = get(json, "resident_bytes");
	c->balloon_wanted = get(json, "balloon_wanted_bytes");
	c->balloon_actual = get(json, "balloon_actual_bytes");
	c->reported = get(json, "reported_bytes");
	c->interrupts = get(json, "interrupts");
	for (unsigned i = 0; i < EXIT_REASON_COUNT; i++)
		if (json_object_object_get_ex(exits, exit_reason_name((enum exit_reason)i), &one))
			c->exit[i] = (struct counters_exit){ get(one, "count"), get(one, "nanoseconds") };
	parse_cpus(c, cpus);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		parse_devices(c, &kinds[i], json);
	json_object_object_foreach(engine, name, value) {
		if (c->engine_count == COUNTERS_ENGINE_MAX)
			break;
		struct counters_engine *e = &c->engine[c->engine_count++];
		snprintf(e->name, sizeof(e->name), "%s", name);
		e->value = json_object_get_uint64(value);
	}
	return true;
}

/* ---- OpenMetrics ---- */

static void family(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# TYPE nadir_%s %s\n# HELP nadir_%s %s\n", name, type, name, help);
}

/* Labels may hold any text but these three, escaped. */
static void label(FILE *out, const char *name, const char *value)
{
	fprintf(out, "%s=\"", name);
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			fputc('\\', out);
		if (*value == '\n')
			fputs("\\n", out);
		else
			fputc(*value, out);
	}
	fputc('"', out);
}

/* One sample; the second label's name and value may be NULL. */
static void sample(FILE *out, const char *name, const char *vm, const char *label_name, const char *label_value, double value)
{
	fprintf(out, "nadir_%s{", name);
	label(out, "vm", vm);
	if (label_name && label_value) {
		fputc(',', out);
		label(out, label_name, label_value);
	}
	fprintf(out, "} %.17g\n", value);
}

static void metrics_exits(FILE *out, const struct counters *c, const char *vm)
{
	family(out, "exits", "counter", "Exits of guest code that the VMM answered.");
	for (unsigned i = 0; i < EXIT_REASON_COUNT; i++)
		if (c->exit[i].count)
			sample(out, "exits_total", vm, "reason", exit_reason_name((enum exit_reason)i), (double)c->exit[i].count);
	family(out, "exit_seconds", "counter", "Time spent answering exits.");
	for (unsigned i = 0; i < EXIT_REASON_COUNT; i++)
		if (c->exit[i].count)
			sample(out, "exit_seconds_total", vm, "reason", exit_reason_name((enum exit_reason)i), (double)c->exit[i].nanoseconds / 1e9);
}

static void metrics_cpus(FILE *out, const struct counters *c, const char *vm)
{
	char number[16];
	family(out, "halted_seconds", "counter", "Time that a virtual CPU slept in HLT.");
	for (unsigned i = 0; i < c->cpus; i++) {
		snprintf(number, sizeof(number), "%u", i);
		sample(out, "halted_seconds_total", vm, "cpu", number, (double)c->cpu[i].halted / 1e9);
	}
	family(out, "busy_seconds", "counter", "Time of a host CPU that a virtual CPU used.");
	for (unsigned i = 0; i < c->cpus; i++) {
		snprintf(number, sizeof(number), "%u", i);
		sample(out, "busy_seconds_total", vm, "cpu", number, (double)c->cpu[i].busy / 1e9);
	}
}

static void metrics_devices(FILE *out, const struct counters *c, const struct kind *k, const char *vm)
{
	char number[16], name[32];
	for (unsigned row = 0; row < k->rows; row++) {
		snprintf(name, sizeof(name), "%s_%s", k->name, k->row[row].name);
		family(out, name, "counter", k->row[row].help);
		snprintf(name, sizeof(name), "%s_%s_total", k->name, k->row[row].name);
		for (unsigned i = 0; i < count_of(c, k); i++) {
			snprintf(number, sizeof(number), "%u", i);
			sample(out, name, vm, k->name, number, (double)value_of(c, k, i, row));
		}
	}
}

char *counters_metrics(const struct counters *c, const char *vm)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	if (!out)
		return NULL;
	metrics_exits(out, c, vm);
	family(out, "interrupts", "counter", "External interrupts delivered to virtual CPUs.");
	sample(out, "interrupts_total", vm, NULL, NULL, (double)c->interrupts);
	metrics_cpus(out, c, vm);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		metrics_devices(out, c, &kinds[i], vm);
	family(out, "time_seconds", "gauge", "Guest time since the virtual machine was made.");
	sample(out, "time_seconds", vm, NULL, NULL, (double)c->time / 1e9);
	family(out, "resident_bytes", "gauge", "Memory that the process has, guest memory included.");
	sample(out, "resident_bytes", vm, NULL, NULL, (double)c->resident);
	family(out, "balloon_bytes", "gauge", "Memory that the guest has given to the balloon.");
	sample(out, "balloon_bytes", vm, NULL, NULL, (double)c->balloon_actual);
	family(out, "reported_bytes", "counter", "Memory that the guest has reported as free.");
	sample(out, "reported_bytes_total", vm, NULL, NULL, (double)c->reported);
	family(out, "engine", "counter", "What the engine counts.");
	for (unsigned i = 0; i < c->engine_count; i++)
		sample(out, "engine_total", vm, "what", c->engine[i].name, (double)c->engine[i].value);
	fputs("# EOF\n", out);
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}
