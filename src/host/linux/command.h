/* What the commands for running VMs have in common. */
#ifndef NADIR_HOST_LINUX_COMMAND_H
#define NADIR_HOST_LINUX_COMMAND_H

#include "host/linux/run.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

/* Whether help is all that is asked for; then `text` is printed. */
static inline bool wants_help(int argc, char **argv, const char *text)
{
	bool wants = argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
	if (wants)
		fputs(text, stdout);
	return wants;
}

/* One sentence on stderr; the exit status that goes with it. */
static inline int usage(const char *text)
{
	fprintf(stderr, "nadir: %s\n", text);
	return STATUS_USAGE;
}

/* A value of an answer as text, the answer's own; "-": there is none. */
static inline const char *text_of(struct json_object *answer, const char *name)
{
	struct json_object *value = NULL;
	return json_object_object_get_ex(answer, name, &value) && value ? json_object_get_string(value) : "-";
}

#endif
