/* `nadir techniques`: two tables (techniques.h), for people or as JSON. */
#include "host/linux/techniques.h"

#include "host/linux/options.h"
#include "host/linux/run.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#define MEMORY_ROWS 11 /* at the end of the kinds */

static struct technique techniques[] = {
	{ .name = "bt", .engine = "bt" },     { .name = "step", .engine = "step" }, { .name = "kvm", .engine = "kvm" },
	{ .name = "vmx", .engine = "vmx" }, { .name = "svm", .engine = "svm" },
};

/* The ways of memory that a process has; the hardware's tables are the bare machine's. */
static struct technique memories[] = {
	{ .name = "TLB in software", .engine = "bt", .direct = "off" }, /* checked inline */
	{ .name = "host's tables", .engine = "bt", .direct = "always" }, /* spaces: user code at its own addresses */
	{ .name = "KVM's", .engine = "kvm" },
	{ .name = "nested", .engine = "svm" },
	{ .name = "shadow", .engine = "svm" },
	{ .name = "vtlb", .engine = "svm" },
};

struct table {
	const char *title, *key;
	struct technique *way;
	unsigned count, first, rows;
};

static unsigned kind_count(void)
{
	unsigned n = 0;
	while (technique_kind(n))
		n++;
	return n;
}

/* ---- in words ---- */

/* The speed of loops is shown as a part of what it is without a machine. */
static void print_cell(u64 native, u64 cycles)
{
	char text[40];
	if (!cycles)
		snprintf(text, sizeof(text), "-");
	else if (native)
		snprintf(text, sizeof(text), "%llu (%.0f%%)", (unsigned long long)cycles, 100.0 * (double)native / (double)cycles);
	else
		snprintf(text, sizeof(text), "%llu", (unsigned long long)cycles);
	printf(" %17s", text);
}

static void print_row(const struct table *t, unsigned row, u64 native)
{
	printf("%-42s", technique_kind(row)->text);
	print_cell(0, native);
	for (unsigned i = 0; i < t->count; i++)
		if (!*t->way[i].why_not)
			print_cell(technique_kind(row)->loop ? native : 0, t->way[i].cycles[row]);
	putchar('\n');
}

static void print_table(const struct table *t, const u64 *native)
{
	printf("%-42s %17s", t->title, "no machine");
	for (unsigned i = 0; i < t->count; i++)
		if (!*t->way[i].why_not)
			printf(" %17s", t->way[i].name);
	putchar('\n');
	for (unsigned row = t->first; row < t->first + t->rows; row++)
		print_row(t, row, native[row]);
	for (unsigned i = 0; i < t->count; i++)
		if (*t->way[i].why_not)
			printf("%s: not available here: %s\n", t->way[i].name, t->way[i].why_not);
}

/* ---- as JSON ---- */

static struct json_object *number(u64 value)
{
	return value ? json_object_new_int64((int64_t)value) : NULL;
}

static struct json_object *way_json(const struct table *t, const struct technique *way)
{
	struct json_object *o = json_object_new_object(), *cycles = json_object_new_object();
	bool measured = !*way->why_not;
	json_object_object_add(o, "name", json_object_new_string(way->name));
	json_object_object_add(o, "engine", json_object_new_string(way->engine));
	json_object_object_add(o, "available", json_object_new_boolean(measured));
	json_object_object_add(o, "why_not", measured ? NULL : json_object_new_string(way->why_not));
	for (unsigned row = t->first; measured && row < t->first + t->rows; row++)
		json_object_object_add(cycles, technique_kind(row)->name, number(way->cycles[row]));
	json_object_object_add(o, "cycles", cycles);
	return o;
}

static void print_json(const struct table *tables, unsigned count, const u64 *native)
{
	struct json_object *root = json_object_new_object(), *natively = json_object_new_object();
	for (unsigned row = 0; technique_kind(row); row++)
		if (native[row])
			json_object_object_add(natively, technique_kind(row)->name, number(native[row]));
	json_object_object_add(root, "native_cycles", natively);
	for (unsigned i = 0; i < count; i++) {
		struct json_object *array = json_object_new_array();
		for (unsigned n = 0; n < tables[i].count; n++)
			json_object_array_add(array, way_json(&tables[i], &tables[i].way[n]));
		json_object_object_add(root, tables[i].key, array);
	}
	printf("%s\n", json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(root);
}

/* ---- the command ---- */

static void measure(const struct table *t)
{
	for (unsigned i = 0; i < t->count; i++)
		technique_measure(&t->way[i]);
}

int command_techniques(int argc, char **argv)
{
	static u64 native[TECHNIQUE_KINDS];
	bool json = argc == 2 && !strcmp(argv[1], "--json");
	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		printf("usage: nadir techniques [--json]\n\n"
		       "Measures, in seconds, what the techniques to run a guest's CPU and to give it memory cost on this machine: cycles, medians.\n");
		return STATUS_OK;
	}
	if (argc > 1 && !json) {
		fprintf(stderr, "nadir: techniques takes no argument but --json\n");
		return STATUS_USAGE;
	}
	unsigned kinds = kind_count();
	const struct table tables[] = {
		{ "Running the CPU, in cycles", "techniques", techniques, ARRAY_SIZE(techniques), 0, kinds - MEMORY_ROWS },
		{ "Memory, in cycles", "memory", memories, ARRAY_SIZE(memories), kinds - MEMORY_ROWS, MEMORY_ROWS },
	};
	technique_measure_native(native);
	for (unsigned i = 0; i < ARRAY_SIZE(tables); i++)
		measure(&tables[i]);
	if (json) {
		print_json(tables, ARRAY_SIZE(tables), native);
		return STATUS_OK;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(tables); i++) {
		print_table(&tables[i], native);
		putchar('\n');
	}
	printf("In parentheses: of the speed without a machine. On the bare machine (make iso) there are AMD-V and VT-x, too.\n");
	return STATUS_OK;
}
