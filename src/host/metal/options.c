/* Options of guests (options.h). */
#include "host/metal/options.h"

#include "engine/hw/features.h"
#include "host/metal/cpu.h"
#include "host/port.h"
#include "lib/string.h"
#include "vm/description.h"

#define FIELD(name) offsetof(struct guest_options, name)

static const struct option_row rows[] = {
	{ "name", 0, TYPE_TEXT, FIELD(name), "NAME", NULL, 0, 0, NULL },
	{ "after", 0, TYPE_TEXT, FIELD(after), "GUEST", NULL, 0, 0, NULL },
	{ "kernel", 0, TYPE_TEXT, FIELD(kernel), "MODULE", NULL, 0, 0, NULL },
	{ "initrd", 0, TYPE_TEXT, FIELD(initrd), "MODULE", NULL, 0, 0, NULL },
	{ "append", 0, TYPE_TEXT, FIELD(append), "STRING", NULL, 0, 0, NULL },
	{ "disk", 0, TYPE_LIST, FIELD(disk), "path=MODULE[,KEY=VALUE]", NULL, 0, 0, NULL },
	{ "cdrom", 0, TYPE_LIST, FIELD(cdrom), "MODULE", NULL, 0, 0, NULL },
	{ "net", 0, TYPE_LIST, FIELD(net), "switch[,name=NAME][,mac=MAC]", NULL, 0, 0, NULL },
	{ "protocol", 0, TYPE_CHOICE, FIELD(protocol), OPTION_PROTOCOLS, "auto", 0, 0, NULL },
	{ "memory", 0, TYPE_SIZE, FIELD(memory), "SIZE", "64M", OPTION_MEMORY_MIN, OPTION_MEMORY_MAX, NULL },
	{ "cpus", 0, TYPE_NUMBER, FIELD(cpus), "N", "1", 1, OPTION_CPUS_MAX, NULL },
	{ "cpu", 0, TYPE_TEXT, FIELD(cpu), "MODEL[,+F|,-F]", "host", 0, 0, NULL },
	{ "engine", 0, TYPE_TEXT, FIELD(engine), "ENGINE", "auto", 0, 0, NULL },
	{ "mmu", 0, TYPE_CHOICE, FIELD(mmu), "auto|nested|shadow|vtlb", "auto", 0, 0, NULL },
	{ "without", 0, TYPE_TEXT, FIELD(without), "TECHNIQUES", NULL, 0, 0, NULL },
	{ "debug-exit", 0, TYPE_FLAG, FIELD(debug_exit), NULL, NULL, 0, 0, NULL },
	{ "on-crash", 0, TYPE_CHOICE, FIELD(on_crash), "report|reset", "report", 0, 0, NULL },
	{ "hang-timeout", 0, TYPE_NUMBER, FIELD(hang_timeout), "SECONDS", "30", 0, OPTION_HANG_TIMEOUT_MAX, NULL },
	{ "no-reboot", 0, TYPE_FLAG, FIELD(no_reboot), NULL, NULL, 0, 0, NULL },
	{ "stats", 0, TYPE_FLAG, FIELD(stats), NULL, NULL, 0, 0, NULL },
	{ "weight", 0, TYPE_NUMBER, FIELD(weight), "N", "100", 1, 10000, NULL },
	{ "cap", 0, TYPE_NUMBER, FIELD(cap), "PERCENT", "0", 0, 100 * CPUS_MAX, NULL },
	{ "pin", 0, TYPE_TEXT, FIELD(pin), "CPUS", NULL, 0, 0, NULL },
	{ "log-level", 0, TYPE_CHOICE, FIELD(log_level), "error|warn|info|debug", "warn", 0, 0, NULL },
	{ "end", 0, TYPE_CHOICE, FIELD(end), "halt|reset|poweroff", "halt", 0, 0, NULL },
};

#define fail(...) (host_snprintf(error, error_size, __VA_ARGS__), false)

void options_init(struct guest_options *options)
{
	char expected[160];
	*options = (struct guest_options){ 0 };
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].preset && !option_set(&rows[i], options, rows[i].preset, expected, sizeof(expected)))
			host_panic("the default of %s is not %s", rows[i].name, expected);
}

static const struct option_row *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (string_equal(rows[i].name, name))
			return &rows[i];
	return NULL;
}

static bool take_cpu(const char **text, u64 *cpu)
{
	*cpu = 0;
	const char *start = *text;
	for (; **text >= '0' && **text <= '9' && *cpu < CPUS_MAX; ++*text)
		*cpu = *cpu * 10 + (u64)(**text - '0');
	return *text != start && *cpu < CPUS_MAX;
}

bool options_cpu_list(const char *text, u64 *mask)
{
	u64 first, last;
	*mask = 0;
	for (;;) {
		if (!take_cpu(&text, &first))
			return false;
		last = first;
		if (*text == '-' && (text++, !take_cpu(&text, &last) || last < first))
			return false;
		*mask |= mask_of((unsigned)last + 1) & ~mask_of((unsigned)first);
		if (!*text)
			return true;
		if (*text++ != ',')
			return false;
	}
}

static bool set(struct guest_options *options, const char *where, const char *key, const char *value, char *error, size_t error_size)
{
	char expected[160];
	u64 mask, techniques;
	const struct option_row *row = find(key);
	if (!row)
		return fail("%s: there is no key '%s' on the bare machine", where, key);
	if (row->type != TYPE_FLAG && !value)
		return fail("%s: %s needs a value", where, key);
	if (row->type == TYPE_FLAG && value) {
		bool on = string_equal(value, "on");
		if (!on && !string_equal(value, "off"))
			return fail("%s: %s: '%s' is not on or off", where, key, value);
		*(bool *)((u8 *)options + row->offset) = on;
		return true;
	}
	if (value && row->offset == FIELD(pin) && !options_cpu_list(value, &mask))
		return fail("%s: %s: '%s' is not a list of CPUs, such as 0-1,3", where, key, value);
	if (row->offset == FIELD(without) && !hw_techniques_read(value, &techniques))
		return fail("%s: %s: '%s' is not a list of techniques, such as vpid,tpr-shadow", where, key, value);
	return option_set(row, options, value, expected, sizeof(expected)) ||
	       fail("%s: %s: '%s' is not %s", where, key, value, expected);
}

bool options_read_file(struct guest_options *options, const char *what, char *text, size_t size, char *error, size_t error_size)
{
	struct description description;
	struct description_entry entry;
	const char *why;
	char where[64];
	description_open(&description, text, size);
	for (;;) {
		enum description_result result = description_next(&description, &entry, &why);
		if (result == DESCRIPTION_END)
			return true;
		host_snprintf(where, sizeof(where), "%s:%u", what, description.line);
		if (result == DESCRIPTION_WRONG)
			return fail("%s: %s", where, why);
		if (!set(options, where, entry.key, entry.value, error, error_size))
			return false;
	}
}

/* ---- the command line ---- */

/* Cut the next word off, its quotes removed; NULL: there is none. */
static char *take_word(char **text)
{
	char *from = *text, *to, *word;
	bool quoted = false;
	while (*from == ' ')
		from++;
	if (!*from)
		return NULL;
	for (word = to = from; *from && (quoted || *from != ' '); from++) {
		if (*from == '"')
			quoted = !quoted;
		else if (*from == '\\' && from[1])
			*to++ = *++from;
		else
			*to++ = *from;
	}
	*text = *from ? from + 1 : from;
	*to = 0;
	return word;
}

static bool is_flag(const char *key)
{
	const struct option_row *row = find(key);
	return row && row->type == TYPE_FLAG;
}

/* --KEY VALUE, --KEY=VALUE, or --FLAG. */
bool options_read_line(struct guest_options *options, char *text, char *error, size_t error_size)
{
	char *word;
	while ((word = take_word(&text))) {
		if (word[0] != '-' || word[1] != '-')
			return fail("command line: '%s' is not an option --KEY VALUE", word);
		char *key = word + 2, *value = key;
		while (*value && *value != '=')
			value++;
		if (*value)
			*value++ = 0;
		else
			value = is_flag(key) ? NULL : take_word(&text);
		if (!set(options, "command line", key, value, error, error_size))
			return false;
	}
	return true;
}
