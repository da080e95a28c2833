/* The VM description file: what a VM is made of, as text, for every host. Its keys are the options of `nadir run`.
 *
 *     # a comment
 *     kernel = /boot/vmlinuz
 *     append = "console=ttyS0 root=/dev/vda"     # quotes keep blanks and # in a value; \" and \\ stand for " and \ within them
 *     memory = 1G
 *     disk = path=root.img
 *     disk = path=data.img,readonly=on
 *     no-reboot                                  # a key alone switches something on
 *
 * A line is blank, a comment, or one key with or without a value; # begins a comment at the start of a line and after a blank. What keys there
 * are, and what their values mean, is the host's affair. The text is untrusted. */
#ifndef NADIR_VM_DESCRIPTION_H
#define NADIR_VM_DESCRIPTION_H

#include "arch/types.h"

struct description {
	char *next, *end;
	unsigned line; /* of what was read last, from 1 */
};

struct description_entry {
	const char *key;
	const char *value; /* NULL: a key alone */
};

enum description_result { DESCRIPTION_ENTRY, DESCRIPTION_END, DESCRIPTION_WRONG };

/* Begin at the first line. The text is changed by reading, and must stay as long as keys and values are used; text[size] must be writable, too. */
void description_open(struct description *d, char *text, size_t size);
/* The next line that says something. With DESCRIPTION_WRONG, *why is what is wrong with d->line, in half a sentence that goes on from
 * "FILE:LINE: ". */
enum description_result description_next(struct description *d, struct description_entry *entry, const char **why);

#endif
