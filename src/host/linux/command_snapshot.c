/* nadir snapshot. */
#define _GNU_SOURCE
#include "host/linux/client.h"
#include "host/linux/command.h"
#include "host/linux/commands.h"
#include "host/linux/snapshot_wish.h"

#include <getopt.h>
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

static void add(struct json_object *wish, const char *key, const char *text)
{
	json_object_object_add(wish, key, json_object_new_string(text));
}

/* The index of what follows the options, or negative. */
static int parse(struct json_object *wish, int argc, char **argv)
{
	static const struct option options[] = {
		{ "incremental", optional_argument, NULL, 'i' },
		{ "compression", required_argument, NULL, 'c' },
		{ "as", required_argument, NULL, 'a' },
		{ NULL, 0, NULL, 0 },
	};
	enum snapshot_compression compression;
	int option;
	opterr = 0;
	while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1)
		if (option == 'i' && !optarg)
			json_object_object_add(wish, "incremental", json_object_new_boolean(true));
		else if (option == 'i')
			add(wish, "base", optarg);
		else if (option == 'a')
			add(wish, "name", optarg);
		else if (option == 'c' && optarg && snapshot_compression_named(optarg, &compression))
			add(wish, "compression", optarg);
		else
			return -1;
	return optind;
}

static int ask(const char *name, struct json_object *wish)
{
	struct json_object *answer = NULL;
	if (client_request(name, "PUT", "/api/v1/vm.snapshot", json_object_to_json_string(wish), &answer) < 0)
		return STATUS_FAILURE;
	printf("%s\n", text_of(answer, "name"));
	json_object_put(answer);
	return STATUS_OK;
}

int command_snapshot(int argc, char **argv)
{
	if (wants_help(argc, argv, help))
		return STATUS_OK;
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
