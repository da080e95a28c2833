/* nadir snapshot. */
#define _GNU_SOURCE
#include "host/linux/client.h"
#include "host/linux/commands.h"
#include "host/linux/run.h"
#include "host/linux/snapshot_wish.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
	"usage: nadir snapshot [--incremental[=BASE]] [--compression none|zstd] [--as SNAPSHOT] NAME\n\n"
	"Takes a snapshot of a virtual machine that was started with --snapshot-dir, and prints its name there.\n\n"
	"  --incremental[=BASE]     only the memory that was written since the snapshot BASE, which must stay in its place:\n"
	"                           one that was taken of the machine since it started, or that it went on from [the last]\n"
	"  --compression none|zstd  whether memory is packed [as --snapshot-compression said when the machine was started]\n"
	"  --as SNAPSHOT            its name [the first number that is free]\n";

static int usage(const char *text)
{
	fprintf(stderr, "nadir: %s\n", text);
	return STATUS_USAGE;
}

static void add(struct json_object *wish, const char *key, const char *text)
{
	json_object_object_add(wish, key, json_object_new_string(text));
}

/* The argument of an option that is at argv[*i], in the same word or the next; NULL: it is another option, or has none. */
static const char *argument(int argc, char **argv, int *i, const char *option)
{
	size_t length = strlen(option);
	if (strncmp(argv[*i], option, length))
		return NULL;
	if (argv[*i][length] == '=')
		return argv[*i] + length + 1;
	return !argv[*i][length] && *i + 1 < argc ? argv[++*i] : NULL;
}

/* The index of what follows the options, or negative. */
static int parse(struct json_object *wish, int argc, char **argv)
{
	int i = 1;
	for (; i < argc && *argv[i] == '-'; i++) {
		static const char incremental[] = "--incremental";
		const char *text;
		enum snapshot_compression compression;
		if (!strcmp(argv[i], incremental))
			json_object_object_add(wish, "incremental", json_object_new_boolean(true));
		else if (!strncmp(argv[i], incremental, sizeof(incremental) - 1) && argv[i][sizeof(incremental) - 1] == '=')
			add(wish, "base", argv[i] + sizeof(incremental));
		else if ((text = argument(argc, argv, &i, "--as")))
			add(wish, "name", text);
		else if ((text = argument(argc, argv, &i, "--compression")) && snapshot_compression_named(text, &compression))
			add(wish, "compression", text);
		else
			return -1;
	}
	return i;
}

static int ask(const char *name, struct json_object *wish)
{
	struct json_object *answer = NULL, *value = NULL;
	if (client_request(name, "PUT", "/api/v1/vm.snapshot", json_object_to_json_string(wish), &answer) < 0)
		return STATUS_FAILURE;
	printf("%s\n", json_object_object_get_ex(answer, "name", &value) ? json_object_get_string(value) : "-");
	json_object_put(answer);
	return STATUS_OK;
}

int command_snapshot(int argc, char **argv)
{
	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs(help, stdout);
		return STATUS_OK;
	}
	struct json_object *wish = json_object_new_object();
	int i = parse(wish, argc, argv), status;
	if (i < 0)
		status = usage("snapshot has the options --incremental, --incremental=BASE, --compression none or zstd, and --as SNAPSHOT");
	else if (i != argc - 1)
		status = usage("snapshot wants the name of one virtual machine, behind its options; nadir list shows those there are");
	else
		status = ask(argv[i], wish);
	json_object_put(wish);
	return status;
}
