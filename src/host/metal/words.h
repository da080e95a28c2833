/* Options that are made of words, "WORD,KEY=VALUE,KEY=VALUE", as those of disks and networks are. */
#ifndef NADIR_HOST_METAL_WORDS_H
#define NADIR_HOST_METAL_WORDS_H

#include "arch/types.h"

/* A key, and where its value goes: a const char *, or a bool that is on or off. */
struct word_key {
	const char *name;
	bool is_switch;
	size_t offset;
};

/* Set fields of `to` by the words of `text`, which is changed and must stay. False: there is a sentence in `error`; `what` begins it. */
bool words_read(char *text, const struct word_key *keys, size_t count, void *to, const char *what, char *error, size_t error_size);

#endif
