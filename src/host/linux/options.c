/* The options of `nadir run`, one row each. Their names are those that users of QEMU, Cloud Hypervisor and Firecracker would guess. */
#define _GNU_SOURCE
#include "host/linux/options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

enum option_type { TYPE_TEXT, TYPE_FLAG, TYPE_SIZE, TYPE_NUMBER, TYPE_CHOICE, TYPE_LIST };

struct option_row {
	const char *name;
	char letter;
	enum option_type type;
	size_t offset; /* in struct run_options */
	const char *argument; /* its name in the help; for a choice the words, separated by | */
	const char *preset; /* text of the default, parsed like an argument; NULL: none */
	u64 minimum, maximum; /* of sizes and numbers */
	const char *help;
};

#define FIELD(name) offsetof(struct run_options, name)
#define MIB BIT(20)

static const struct option_row rows[] = {
	{ "kernel", 'k', TYPE_TEXT, FIELD(kernel), "FILE", NULL, 0, 0,
	  "guest kernel: a Linux bzImage, or an ELF image with a PVH note or a multiboot header" },
	{ "initrd", 'i', TYPE_TEXT, FIELD(initrd), "FILE", NULL, 0, 0, "initial RAM disk, or the first multiboot module" },
	{ "append", 'a', TYPE_TEXT, FIELD(append), "STRING", "console=ttyS0", 0, 0, "kernel command line" },
	{ "disk", 'd', TYPE_LIST, FIELD(disk), "path=FILE[,readonly=on][,serial=TEXT]", NULL, 0, 0,
	  "a raw disk image or block device as a virtio disk; may be given several times" },
	{ "protocol", 0, TYPE_CHOICE, FIELD(protocol), "auto|linux64|linux32|pvh|multiboot1|multiboot2|firmware|flat", "auto", 0, 0,
	  "boot protocol" },
	{ "memory", 'm', TYPE_SIZE, FIELD(memory), "SIZE", "512M", MIB, BIT(40), "guest memory, with a suffix K, M, G or T" },
	{ "cpus", 'c', TYPE_NUMBER, FIELD(cpus), "N", "1", 1, 64, "number of virtual CPUs" },
	{ "cpu", 0, TYPE_TEXT, FIELD(cpu), "MODEL[,+F|,-F]", "host", 0, 0,
	  "CPU model, cut down to what this machine has, and features added or removed" },
	{ "engine", 'e', TYPE_CHOICE, FIELD(engine), "auto|step|bt|lockstep", "auto", 0, 0, "how guest instructions are executed" },
	{ "direct", 0, TYPE_CHOICE, FIELD(direct), "auto|off|always", "auto", 0, 0,
	  "which guest user code runs unchecked in a process of its own (engine bt): what runs long, none, or all" },
	{ "serial", 's', TYPE_TEXT, FIELD(serial), "stdio|none|file:PATH", "stdio", 0, 0, "where the first serial port goes" },
	{ "debug-console", 0, TYPE_TEXT, FIELD(debug_console), "stdio|file:PATH", NULL, 0, 0, "where bytes written to port 0xe9 go" },
	{ "debug-exit", 0, TYPE_FLAG, FIELD(debug_exit), NULL, NULL, 0, 0,
	  "let the guest end the VM by writing V to port 0xf4: exit status (V << 1) | 1" },
	{ "on-crash", 0, TYPE_CHOICE, FIELD(on_crash), "report|reset|debug", "report", 0, 0,
	  "when the guest crashes or hangs: report the CPU's state and exit with 3, restart it, or stop it and wait" },
	{ "hang-timeout", 0, TYPE_NUMBER, FIELD(hang_timeout), "SECONDS", "30", 0, 86400,
	  "how long a guest may spin with interrupts disabled before it counts as crashed; 0: for ever" },
	{ "no-reboot", 0, TYPE_FLAG, FIELD(no_reboot), NULL, NULL, 0, 0, "end when the guest reboots" },
	{ "stats", 0, TYPE_FLAG, FIELD(stats), NULL, NULL, 0, 0, "print exit statistics to stderr at the end" },
	{ "json", 0, TYPE_FLAG, FIELD(json), NULL, NULL, 0, 0, "print the statistics as JSON; implies --stats" },
	{ "trace", 't', TYPE_TEXT, FIELD(trace), "WHAT[,WHAT]", NULL, 0, 0,
	  "log what happens: exits, io, mmio, msr, irq, int; of translated code in_asm, out_asm, exec" },
	{ "log-level", 0, TYPE_CHOICE, FIELD(log_level), "error|warn|info|debug", "warn", 0, 0, "which diagnostics are shown" },
	{ "perf-map", 0, TYPE_FLAG, FIELD(perf_map), NULL, NULL, 0, 0, "name translated code in /tmp/perf-PID.map for perf" },
	{ "log-file", 0, TYPE_TEXT, FIELD(log_file), "PATH", NULL, 0, 0, "diagnostics go there instead of stderr" },
	{ "sandbox", 0, TYPE_CHOICE, FIELD(sandbox), "on|off", "on", 0, 0, "confine nadir by seccomp once it is set up" },
	{ "help", 'h', TYPE_FLAG, FIELD(help), NULL, NULL, 0, 0, "show this help" },
};

static int complain(const struct option_row *row, const char *text, const char *expected)
{
	fprintf(stderr, "nadir: --%s: '%s' is not %s\n", row->name, text, expected);
	return -1;
}

/* The binary unit that `text` names: nothing, B, K, KB, KiB, and so on up to T, in either case. Its shift, or -1. */
static int unit_shift(const char *text)
{
	static const char prefixes[] = "KMGT";
	const char *p = *text ? strchr(prefixes, toupper((unsigned char)*text)) : NULL;
	text += p != NULL;
	bool ends = !*text || !strcasecmp(text, "B") || (p && !strcasecmp(text, "iB"));
	return !ends ? -1 : p ? 10 * (int)(p - prefixes + 1) : 0;
}

/* A decimal number or 0x and a hexadecimal one, with an optional unit for sizes. */
static int parse_number(const struct option_row *row, const char *text, u64 *value)
{
	char expected[96];
	bool is_size = row->type == TYPE_SIZE;
	snprintf(expected, sizeof(expected), is_size ? "a size from %lluM to %lluM, such as 512M or 2G" : "a number from %llu to %llu",
		 (unsigned long long)(is_size ? row->minimum / MIB : row->minimum),
		 (unsigned long long)(is_size ? row->maximum / MIB : row->maximum));
	char *end;
	errno = 0;
	u64 n = strtoull(text, &end, text[0] == '0' && (text[1] | 0x20) == 'x' ? 16 : 10);
	int shift = is_size ? unit_shift(end) : *end ? -1 : 0;
	if (!isdigit((unsigned char)*text) || errno || shift < 0 || n > (~0ull >> shift))
		return complain(row, text, expected);
	if (n << shift < row->minimum || n << shift > row->maximum)
		return complain(row, text, expected);
	*value = n << shift;
	return 0;
}

static bool is_choice(const char *choices, const char *text)
{
	size_t length = strlen(text);
	for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
		if (!strncmp(c, text, length) && (c[length] == '|' || !c[length]))
			return length && !strchr(text, '|');
	return false;
}

static int append(const struct option_row *row, struct option_list *list, const char *text)
{
	if (list->count == OPTION_LIST_MAX) {
		fprintf(stderr, "nadir: --%s can be given %d times at most\n", row->name, OPTION_LIST_MAX);
		return -1;
	}
	list->item[list->count++] = text;
	return 0;
}

static int set(struct run_options *options, const struct option_row *row, const char *text)
{
	void *field = (char *)options + row->offset;
	switch (row->type) {
	case TYPE_FLAG:
		*(bool *)field = true;
		return 0;
	case TYPE_SIZE:
	case TYPE_NUMBER:
		return parse_number(row, text, field);
	case TYPE_LIST:
		return append(row, field, text);
	case TYPE_CHOICE:
		if (!is_choice(row->argument, text)) {
			char expected[160];
			snprintf(expected, sizeof(expected), "one of %s", row->argument);
			return complain(row, text, expected);
		}
		/* fall through */
	case TYPE_TEXT:
		*(const char **)field = text;
		return 0;
	}
	return -1;
}

static const struct option_row *row_of_letter(int letter)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].letter == letter)
			return &rows[i];
	return NULL;
}

static bool is_flag(const char *name, size_t length)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].type == TYPE_FLAG && strlen(rows[i].name) == length && !strncmp(rows[i].name, name, length))
			return true;
	return false;
}

/* getopt's tables, made from the rows. */
static void make_getopt(struct option *longs, char *shorts)
{
	*shorts++ = ':';
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		bool argument = rows[i].type != TYPE_FLAG;
		longs[i] = (struct option){ rows[i].name, argument, NULL, 0 };
		if (!rows[i].letter)
			continue;
		*shorts++ = rows[i].letter;
		if (argument)
			*shorts++ = ':';
	}
	longs[ARRAY_SIZE(rows)] = (struct option){ 0 };
	*shorts = 0;
}

/* What getopt stumbled over: a long option, which it has moved past, or a letter, alone or in a group. */
static void complain_option(bool needs_argument, const char *word)
{
	const char letter[] = { '-', (char)optopt, 0 };
	const char *what = optopt ? letter : word;
	const char *value = optopt ? NULL : strchr(word, '=');
	if (needs_argument)
		fprintf(stderr, "nadir: option %s needs an argument; see nadir run --help\n", what);
	else if (value && is_flag(word + 2, (size_t)(value - word - 2)))
		fprintf(stderr, "nadir: option %.*s takes no argument; see nadir run --help\n", (int)(value - word), word);
	else
		fprintf(stderr, "nadir: there is no option %s; see nadir run --help\n", what);
}

int options_parse(struct run_options *options, int argc, char **argv)
{
	struct option longs[ARRAY_SIZE(rows) + 1];
	char shorts[2 * ARRAY_SIZE(rows) + 2];
	make_getopt(longs, shorts);
	*options = (struct run_options){ 0 };
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].preset && set(options, &rows[i], rows[i].preset) < 0)
			return -1;
	optind = 0; /* start anew, whatever an earlier parse left */
	opterr = 0;
	for (;;) {
		int index = -1;
		int c = getopt_long(argc, argv, shorts, longs, &index);
		if (c == -1)
			break;
		if (c == '?' || c == ':') {
			complain_option(c == ':', argv[optind - 1]);
			return -1;
		}
		const struct option_row *row = index >= 0 ? &rows[index] : row_of_letter(c);
		if (set(options, row, optarg) < 0)
			return -1;
	}
	if (optind < argc) {
		fprintf(stderr, "nadir: unexpected argument '%s'; files are given by options such as --kernel\n", argv[optind]);
		return -1;
	}
	return 0;
}

void options_help(FILE *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct option_row *r = &rows[i];
		fprintf(out, "  %c%c%c --%s%s%s\n", r->letter ? '-' : ' ', r->letter ? r->letter : ' ', r->letter ? ',' : ' ', r->name,
			r->argument ? " " : "", r->argument ? r->argument : "");
		fprintf(out, "        %s", r->help);
		if (r->preset)
			fprintf(out, " [%s]", r->preset);
		fputc('\n', out);
	}
}
