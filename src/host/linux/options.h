/* The options of `nadir run`: one table drives parsing, --help and the manual page's list (options.c). */
#ifndef NADIR_HOST_LINUX_OPTIONS_H
#define NADIR_HOST_LINUX_OPTIONS_H

#include <stdio.h>

#include "vm/option.h"

struct run_options {
	const char *name;
	const char *api_socket;
	const char *description; /* the file that was given, or NULL */
	char *file; /* its text, changed by reading */
	const char *kernel;
	const char *initrd;
	const char *append;
	const char *firmware;
	const char *pflash;
	struct option_list disk;
	struct option_list cdrom;
	const char *boot;
	struct option_list net;
	struct option_list share;
	const char *vsock;
	const char *vga;
	const char *vnc;
	const char *protocol;
	u64 memory; /* bytes */
	u64 cpus;
	const char *pin;
	u64 weight;
	const char *cpu;
	const char *engine;
	const char *direct;
	const char *serial;
	const char *console;
	struct option_list port;
	const char *balloon;
	const char *debug_console;
	bool debug_exit;
	const char *on_crash;
	const char *gdb;
	bool gdb_wait;
	u64 hang_timeout; /* seconds; 0: never */
	bool no_reboot;
	bool paused;
	bool stats;
	bool json;
	const char *trace;
	const char *log_level;
	const char *log_file;
	bool perf_map;
	const char *sandbox;
	const char *snapshot_dir, *snapshot_compression;
	bool prefault;
	bool help;
	const char *restore; /* the snapshot to go on from; set by the command, not by an option */
};

/* Parse the arguments after `run` (argv[0] is "run"), and the VM description file among them; options given beside it win. 0, or -1 after one
 * sentence on stderr. Until options_release. */
int options_parse(struct run_options *options, int argc, char **argv);
void options_release(struct run_options *options);
/* The text of a VM description file with these options, with absolute paths; the caller frees it. NULL after one sentence on stderr. */
char *options_describe(const struct run_options *options);
/* The value of an option with absolute paths; the caller frees it. NULL: no memory. */
char *options_absolute(const char *name, const char *value);
/* One line of a VM description file. */
void options_write(FILE *out, const char *name, const char *value);
/* A size as options take it, within an option or elsewhere; false if it is none. */
bool options_size(const char *text, u64 *size);
/* The list of options, as --help shows it. */
void options_help(FILE *out);

#endif
