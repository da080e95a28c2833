/* The options of `nadir run`, one row each. Their names are those that users of QEMU, Cloud Hypervisor and Firecracker would guess. They are
 * given on the command line, or in a VM description file (vm/description.h), or both: then those of the command line come after. */
#define _GNU_SOURCE
#include "host/linux/options.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vm/description.h"

#define FIELD(name) offsetof(struct run_options, name)
#define FILE_MAX BIT(20)

static const struct option_row rows[] = {
	{ "kernel", 'k', TYPE_TEXT, FIELD(kernel), "FILE", NULL, 0, 0,
	  "guest kernel: a Linux bzImage, or an ELF image with a PVH note or a multiboot header" },
	{ "initrd", 'i', TYPE_TEXT, FIELD(initrd), "FILE", NULL, 0, 0, "initial RAM disk, or the first multiboot module" },
	{ "append", 'a', TYPE_TEXT, FIELD(append), "STRING", "console=ttyS0", 0, 0, "kernel command line" },
	{ "firmware", 'f', TYPE_TEXT, FIELD(firmware), "seabios|ovmf|PATH", NULL, 0, 0,
	  "start firmware from the reset vector: one of Debian's packages, or a ROM image; it boots --kernel, if given, else a disk" },
	{ "pflash", 0, TYPE_TEXT, FIELD(pflash), "FILE", NULL, 0, 0,
	  "where UEFI firmware keeps its variables; made from the firmware's template if it does not exist" },
	{ "disk", 'd', TYPE_LIST, FIELD(disk), "path=FILE[,KEY=VALUE]", NULL, 0, 0,
	  "a disk image or block device as a virtio disk (or bus=sata); may be given several times; other keys are nbd, format, base, overlay, snapshot, readonly, serial, slot, direct, aio, media" },
	{ "cdrom", 0, TYPE_LIST, FIELD(cdrom), "FILE", NULL, 0, 0, "an ISO image, or the like, in a CD-ROM drive at SATA; may be given several times" },
	{ "boot", 0, TYPE_TEXT, FIELD(boot), "cdrom|disk|network[,...]", NULL, 0, 0,
	  "what firmware tries first, in this order, before the others; unless told it tries disks, then CD-ROMs" },
	{ "net", 'n', TYPE_LIST, FIELD(net), "user[,hostfwd=RULE][,tftp=FOLDER,bootfile=NAME]|tap,ifname=NAME|switch,path=SOCKET", NULL, 0, 0,
	  "a virtio network card, and what is at its other end; may be given several times" },
	{ "share", 0, TYPE_LIST, FIELD(share), "path=FOLDER[,KEY=VALUE]", NULL, 0, 0,
	  "a folder that the guest may mount by virtio-fs; may be given twice; other keys are tag, readonly, cache" },
	{ "vsock", 0, TYPE_TEXT, FIELD(vsock), "cid=N,path=SOCKET", NULL, 0, 0,
	  "sockets between programs in the guest and here (virtio-vsock): the guest's number, and the Unix socket that leads to it" },
	{ "vga", 0, TYPE_CHOICE, FIELD(vga), "none|std", "none", 0, 0, "the display: none, or a VGA with a linear frame buffer; nadir screenshot shows it" },
	{ "vnc", 0, TYPE_TEXT, FIELD(vnc), ":DISPLAY|ADDRESS:PORT|unix:PATH[,password-file=FILE]", NULL, 0, 0,
	  "where VNC clients see the display and use its keyboard and mouse; implies --vga std" },
	{ "name", 0, TYPE_TEXT, FIELD(name), "NAME", NULL, 0, 0,
	  "what the machine is called by nadir list, stop, console and so on" },
	{ "api-socket", 0, TYPE_TEXT, FIELD(api_socket), "PATH", NULL, 0, 0, "where its control socket is, if not at its name's place" },
	{ "protocol", 0, TYPE_CHOICE, FIELD(protocol), OPTION_PROTOCOLS, "auto", 0, 0,
	  "boot protocol" },
	{ "memory", 'm', TYPE_SIZE, FIELD(memory), "SIZE", "512M", OPTION_MEMORY_MIN, OPTION_MEMORY_MAX, "guest memory, with a suffix K, M, G or T" },
	{ "cpus", 'c', TYPE_NUMBER, FIELD(cpus), "N", "1", 1, OPTION_CPUS_MAX, "number of virtual CPUs" },
	{ "pin", 0, TYPE_TEXT, FIELD(pin), "CPUS", NULL, 0, 0, "the CPUs of this machine that may run the guest, such as 0,2-3" },
	{ "weight", 0, TYPE_NUMBER, FIELD(weight), "N", "100", 1, 10000,
	  "the machine's share of CPUs that others want, too, relative to their weights; more than 100 needs a privilege" },
	{ "cpu", 0, TYPE_TEXT, FIELD(cpu), "MODEL[,+F|,-F]", "host", 0, 0,
	  "CPU model, cut down to what this machine has, and features added or removed" },
	{ "engine", 'e', TYPE_CHOICE, FIELD(engine), "auto|kvm|bt|step|lockstep", "auto", 0, 0, "how guest instructions are executed" },
	{ "direct", 0, TYPE_CHOICE, FIELD(direct), "auto|off|always", "auto", 0, 0,
	  "which guest user code runs by itself in a process of its own (engine bt): what runs long, none, or all" },
	{ "serial", 's', TYPE_TEXT, FIELD(serial), "stdio|none|pty|unix:PATH|file:PATH[,size=SIZE][,keep=N]", "stdio", 0, 0, "where the first serial port goes" },
	{ "console", 0, TYPE_TEXT, FIELD(console), "off|stdio|none|pty|unix:PATH|file:PATH[,size=SIZE][,keep=N]", "off", 0, 0,
	  "where the virtio console goes, if there is to be one" },
	{ "port", 0, TYPE_LIST, FIELD(port), "name=NAME,to=WHERE", NULL, 0, 0,
	  "a named port of the virtio console, and where it goes; may be given several times" },
	{ "balloon", 0, TYPE_TEXT, FIELD(balloon), "off|size=SIZE[,reporting=on|off]", "size=0", 0, 0,
	  "how much of its memory the guest is asked to give back, and whether it gives back what is free unasked" },
	{ "debug-console", 0, TYPE_TEXT, FIELD(debug_console), "stdio|pty|file:PATH", NULL, 0, 0, "where bytes written to ports 0xe9 and 0x402 (firmware's log) go" },
	{ "debug-exit", 0, TYPE_FLAG, FIELD(debug_exit), NULL, NULL, 0, 0,
	  "let the guest end the VM by writing V to port 0xf4: exit status (V << 1) | 1" },
	{ "on-crash", 0, TYPE_CHOICE, FIELD(on_crash), "report|reset|debug", "report", 0, 0,
	  "when the guest crashes or hangs: report the CPU's state and exit with 3, restart it, or stop it and wait" },
	{ "gdb", 0, TYPE_TEXT, FIELD(gdb), "tcp:HOST:PORT|PORT|unix:PATH[,arch=ARCH]", NULL, 0, 0,
	  "let GDB debug the guest (target remote); a port alone is one of this machine" },
	{ "gdb-wait", 0, TYPE_FLAG, FIELD(gdb_wait), NULL, NULL, 0, 0, "stop in front of the first instruction until GDB comes" },
	{ "hang-timeout", 0, TYPE_NUMBER, FIELD(hang_timeout), "SECONDS", "30", 0, OPTION_HANG_TIMEOUT_MAX,
	  "how long a guest may spin with interrupts disabled before it counts as crashed; 0: for ever" },
	{ "no-reboot", 0, TYPE_FLAG, FIELD(no_reboot), NULL, NULL, 0, 0, "end when the guest reboots" },
	{ "paused", 0, TYPE_FLAG, FIELD(paused), NULL, NULL, 0, 0, "begin with the guest standing still, until nadir resume" },
	{ "stats", 0, TYPE_FLAG, FIELD(stats), NULL, NULL, 0, 0, "print exit statistics to stderr at the end" },
	{ "json", 0, TYPE_FLAG, FIELD(json), NULL, NULL, 0, 0, "print the statistics as JSON; implies --stats" },
	{ "trace", 't', TYPE_TEXT, FIELD(trace), "WHAT[,WHAT]", NULL, 0, 0,
	  "log what happens: exits, io, mmio, msr, irq, int; of translated code in_asm, out_asm, exec" },
	{ "log-level", 0, TYPE_CHOICE, FIELD(log_level), "error|warn|info|debug", "warn", 0, 0, "which diagnostics are shown" },
	{ "perf-map", 0, TYPE_FLAG, FIELD(perf_map), NULL, NULL, 0, 0, "name translated code in /tmp/perf-PID.map for perf; all code is translated then" },
	{ "log-file", 0, TYPE_TEXT, FIELD(log_file), "PATH", NULL, 0, 0, "diagnostics go there instead of stderr" },
	{ "sandbox", 0, TYPE_CHOICE, FIELD(sandbox), "on|off", "on", 0, 0, "confine nadir once it is set up" },
	{ "snapshot-dir", 0, TYPE_TEXT, FIELD(snapshot_dir), "PATH", NULL, 0, 0,
	  "the folder where snapshots of the machine go; SIGUSR2 takes one" },
	{ "snapshot-compression", 0, TYPE_CHOICE, FIELD(snapshot_compression), "none|zstd", "none", 0, 0,
	  "whether snapshots are packed: smaller, and slower to take and to read" },
	{ "prefault", 0, TYPE_FLAG, FIELD(prefault), NULL, NULL, 0, 0,
	  "with nadir restore: read and check the whole memory before the guest goes on, not as it is used" },
	{ "help", 'h', TYPE_FLAG, FIELD(help), NULL, NULL, 0, 0, "show this help" },
};

/* Where an option was given: in a line of a file, or (file: NULL) on the command line. */
struct source {
	const char *file;
	unsigned line;
};

static int complain(struct source from, const struct option_row *row, const char *text, const char *expected)
{
	if (from.file)
		fprintf(stderr, "nadir: %s:%u: %s: '%s' is not %s\n", from.file, from.line, row->name, text, expected);
	else
		fprintf(stderr, "nadir: --%s: '%s' is not %s\n", row->name, text, expected);
	return -1;
}

bool options_size(const char *text, u64 *size)
{
	return option_number(text, true, size);
}

static int set(struct run_options *options, struct source from, const struct option_row *row, const char *text)
{
	char expected[160];
	const struct option_list *list = (const struct option_list *)(const void *)((const char *)options + row->offset);
	if (row->type == TYPE_LIST && list->count == OPTION_LIST_MAX) {
		fprintf(stderr, "nadir: --%s can be given %d times at most\n", row->name, OPTION_LIST_MAX);
		return -1;
	}
	return option_set(row, options, text, expected, sizeof(expected)) ? 0 : complain(from, row, text, expected);
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

/* ---- the description file ---- */

/* Read into memory of one byte more. NULL after one sentence on stderr. */
static char *read_file(const char *path, size_t *size)
{
	struct stat st;
	char *text = NULL;
	const char *why = NULL;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		why = strerror(errno);
	else if (!S_ISREG(st.st_mode) || st.st_size > (off_t)FILE_MAX)
		why = "it is not a file of 1 MiB at most";
	else if (!(text = malloc((size_t)st.st_size + 1)))
		why = "out of memory";
	ssize_t n = text ? read(fd, text, (size_t)st.st_size) : 0;
	if (n < 0)
		why = strerror(errno);
	if (why) {
		fprintf(stderr, "nadir: '%s' cannot be read as the description of a VM: %s\n", path, why);
		free(text);
		text = NULL;
	}
	if (fd >= 0)
		close(fd);
	*size = (size_t)n;
	return text;
}

static const struct option_row *row_of_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (!strcmp(rows[i].name, name))
			return &rows[i];
	return NULL;
}

static int set_entry(struct run_options *options, struct source from, const struct description_entry *entry)
{
	const struct option_row *row = row_of_name(entry->key);
	if (!row || row->offset == FIELD(help)) {
		fprintf(stderr, "nadir: %s:%u: there is no key '%s'; the keys are the options that nadir run --help lists\n", from.file, from.line,
			entry->key);
		return -1;
	}
	if (row->type != TYPE_FLAG && !entry->value) {
		fprintf(stderr, "nadir: %s:%u: %s needs a value; write %s = %s\n", from.file, from.line, row->name, row->name, row->argument);
		return -1;
	}
	if (row->type != TYPE_FLAG)
		return set(options, from, row, entry->value);
	bool on = !entry->value || !strcmp(entry->value, "on");
	if (!on && strcmp(entry->value, "off"))
		return complain(from, row, entry->value, "on or off");
	*(bool *)((char *)options + row->offset) = on;
	return 0;
}

static int parse_file(struct run_options *options, const char *path)
{
	struct description description;
	struct description_entry entry;
	const char *why;
	size_t size;
	options->file = read_file(path, &size);
	if (!options->file)
		return -1;
	description_open(&description, options->file, size);
	for (;;) {
		enum description_result result = description_next(&description, &entry, &why);
		if (result == DESCRIPTION_END)
			return 0;
		if (result == DESCRIPTION_WRONG) {
			fprintf(stderr, "nadir: %s:%u: %s\n", path, description.line, why);
			return -1;
		}
		if (set_entry(options, (struct source){ path, description.line }, &entry) < 0)
			return -1;
	}
}

/* ---- the command line ---- */

/* What getopt found, until the file has been read. */
struct given {
	const struct option_row *row;
	const char *text;
};

/* How many, or -1 after one sentence on stderr. */
static int collect(struct given *given, int argc, char **argv)
{
	struct option longs[ARRAY_SIZE(rows) + 1];
	char shorts[2 * ARRAY_SIZE(rows) + 2];
	int count = 0;
	make_getopt(longs, shorts);
	optind = 0; /* start anew, whatever an earlier parse left */
	opterr = 0;
	for (;;) {
		int index = -1;
		int c = getopt_long(argc, argv, shorts, longs, &index);
		if (c == -1)
			return count;
		if (c == '?' || c == ':') {
			complain_option(c == ':', argv[optind - 1]);
			return -1;
		}
		given[count++] = (struct given){ index >= 0 ? &rows[index] : row_of_letter(c), optarg };
	}
}

static int set_all(struct run_options *options, const struct given *given, int count)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].preset && set(options, (struct source){ 0 }, &rows[i], rows[i].preset) < 0)
			return -1;
	if (options->description && parse_file(options, options->description) < 0)
		return -1;
	for (int i = 0; i < count; i++)
		if (set(options, (struct source){ 0 }, given[i].row, given[i].text) < 0)
			return -1;
	return 0;
}

int options_parse(struct run_options *options, int argc, char **argv)
{
	*options = (struct run_options){ 0 };
	size_t letters = 0; /* -abc is three options */
	for (int i = 1; i < argc; i++)
		letters += strlen(argv[i]) + 1;
	struct given *given = calloc(letters + 1, sizeof(*given));
	int count = given ? collect(given, argc, argv) : -1, result = -1;
	if (count >= 0 && optind < argc - 1)
		fprintf(stderr, "nadir: unexpected argument '%s'; one file describes a VM, and others are given by options such as --kernel\n",
			argv[optind + 1]);
	else if (count >= 0) {
		options->description = optind < argc ? argv[optind] : NULL;
		result = set_all(options, given, count);
	}
	free(given);
	if (result < 0)
		options_release(options);
	return result;
}

void options_release(struct run_options *options)
{
	free(options->file);
	options->file = NULL;
}

/* ---- describing ---- */

/* Whether the path of a file begins at `p` in the value: where the whole value is one, or behind one of these words. */
static bool is_path(const struct option_row *row, const char *value, const char *p)
{
	static const char *const before[] = { "path=", "base=", "overlay=", "tftp=", "file:", "unix:" };
	if (p == value)
		return !strcmp(row->argument, "FILE") || !strcmp(row->argument, "PATH");
	for (size_t i = 0; i < ARRAY_SIZE(before); i++) {
		size_t n = strlen(before[i]);
		if ((size_t)(p - value) >= n && !strncmp(p - n, before[i], n) && (p - n == value || p[-(ptrdiff_t)n - 1] == ','))
			return true;
	}
	return false;
}

char *options_absolute(const char *name, const char *value)
{
	const struct option_row *row = row_of_name(name);
	char folder[4096], *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	if (!out)
		return NULL;
	for (const char *p = value; *p; p++) {
		if (*p != '/' && is_path(row, value, p) && getcwd(folder, sizeof(folder)))
			fprintf(out, "%s/", folder);
		fputc(*p, out);
	}
	fclose(out);
	return text;
}

void options_write(FILE *out, const char *name, const char *value)
{
	fprintf(out, "%s = \"", name);
	for (const char *p = value; *p; p++)
		fprintf(out, *p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
	fputs("\"\n", out);
}

static void describe_text(FILE *out, const struct option_row *row, const char *value)
{
	char *text = options_absolute(row->name, value);
	if (text)
		options_write(out, row->name, text);
	free(text);
}

static void describe_row(FILE *out, const struct option_row *row, const struct run_options *options)
{
	const void *field = (const char *)options + row->offset;
	const struct option_list *list = field;
	switch (row->type) {
	case TYPE_FLAG:
		if (*(const bool *)field)
			fprintf(out, "%s\n", row->name);
		break;
	case TYPE_SIZE:
	case TYPE_NUMBER:
		fprintf(out, "%s = %llu\n", row->name, (unsigned long long)*(const u64 *)field);
		break;
	case TYPE_LIST:
		for (unsigned i = 0; i < list->count; i++)
			describe_text(out, row, list->item[i]);
		break;
	case TYPE_CHOICE:
	case TYPE_TEXT:
		if (*(const char *const *)field)
			describe_text(out, row, *(const char *const *)field);
		break;
	}
}

char *options_describe(const struct run_options *options)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	if (!out) {
		fprintf(stderr, "nadir: out of memory\n");
		return NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].offset != FIELD(help) && rows[i].offset != FIELD(prefault))
			describe_row(out, &rows[i], options);
	fclose(out);
	return text;
}

/* ---- help ---- */

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
