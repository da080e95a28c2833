/* Options of a machine, for every host: rows of a table say what there is, and this sets a field by a row and a text. Which rows there are is
 * the host's affair. The texts come from its user, by command lines and description files (vm/description.h). */
#ifndef NADIR_VM_OPTION_H
#define NADIR_VM_OPTION_H

#include "arch/types.h"

#define OPTION_LIST_MAX 16

/* An option that may be given several times. */
struct option_list {
	const char *item[OPTION_LIST_MAX];
	unsigned count;
};

/* What the field of an option is: const char *, bool, u64, u64, const char *, struct option_list. */
enum option_type { TYPE_TEXT, TYPE_FLAG, TYPE_SIZE, TYPE_NUMBER, TYPE_CHOICE, TYPE_LIST };

struct option_row {
	const char *name;
	char letter;
	enum option_type type;
	size_t offset; /* in the host's struct of options */
	const char *argument; /* its name in the help; for a choice the words, separated by | */
	const char *preset; /* text of the default, parsed like an argument; NULL: none */
	u64 minimum, maximum; /* of sizes and numbers */
	const char *help;
};

/* Words and limits that are the same on every host. */
#define OPTION_PROTOCOLS "auto|linux64|linux32|pvh|multiboot1|multiboot2|firmware|flat"
#define OPTION_MEMORY_MIN BIT(20)
#define OPTION_MEMORY_MAX BIT(40)
#define OPTION_CPUS_MAX 64
#define OPTION_HANG_TIMEOUT_MAX 86400

/* Set the field of `options`; a flag is switched on, whatever `text` is. The text stays the caller's, and is kept. False: nothing is set, and
 * `expected` (of `size` bytes) is what the text should have been: "'TEXT' is not EXPECTED". */
bool option_set(const struct option_row *row, void *options, const char *text, char *expected, size_t size);

/* A number, decimal or with 0x; with a unit, if there may be one. */
bool option_number(const char *text, bool unit, u64 *value);
/* The binary unit that `text` names: nothing, B, K, KB, KiB, and so on up to T, in either case. Its shift, or -1. */
int option_unit_shift(const char *text);

#endif
