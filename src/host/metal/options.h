/* What a guest of the bare machine is made of: keys of a description file (vm/description.h), or options on nadir.elf's command line, which hold
 * for all guests and win. Their names and values are those of `nadir run`; files are the boot loader's modules, by their names. */
#ifndef NADIR_HOST_METAL_OPTIONS_H
#define NADIR_HOST_METAL_OPTIONS_H

#include "vm/option.h"

struct guest_options {
	const char *name;
	const char *after; /* a guest that has to end before this one begins; NULL: it begins at once */
	const char *kernel, *initrd; /* modules */
	const char *append;
	struct option_list disk, cdrom, net; /* for devices_open */
	const char *protocol;
	u64 memory; /* bytes */
	u64 cpus;
	const char *cpu;
	const char *engine;
	const char *mmu;
	const char *without; /* for hw_techniques_read; NULL: nothing */
	bool debug_exit;
	const char *on_crash;
	u64 hang_timeout; /* seconds; 0: never */
	bool no_reboot;
	bool stats;
	u64 weight;
	u64 cap; /* percent of a CPU that all vCPUs may use together; 0: no limit */
	const char *pin; /* CPUs that they may run on, for options_cpu_list; NULL: any */
	const char *log_level;
	const char *end; /* of the machine, when the last guest has ended */
};

/* CPUs as a list of numbers and ranges, "0-1,3", as a mask. False: it is none. */
bool options_cpu_list(const char *text, u64 *mask);

/* The defaults. */
void options_init(struct guest_options *options);
/* Read a description, or a command line; the text is changed, and must stay. False: there is one sentence in `error`. `what` names the text. */
bool options_read_file(struct guest_options *options, const char *what, char *text, size_t size, char *error, size_t error_size);
bool options_read_line(struct guest_options *options, char *text, char *error, size_t error_size);

#endif
