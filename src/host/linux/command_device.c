/* nadir devices, add-disk, add-net and remove-device: disks and networks of a running machine. What a device needs is opened here, and sent along. */
#define _GNU_SOURCE
#include "host/linux/client.h"
#include "host/linux/command.h"
#include "host/linux/commands.h"
#include "host/linux/device_text.h"
#include "host/linux/disk.h"
#include "host/linux/net.h"
#include "host/linux/options.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define REMOVE_TIME 60 /* seconds that a guest has to let go */

/* ---- devices ---- */

static void print_table(struct json_object *list)
{
	printf("%-8s %-8s %-14s %-8s  %s\n", "ID", "KIND", "PCI", "STATE", "OPTION");
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *device = json_object_array_get_idx(list, i), *leaving = NULL;
		bool leaves = json_object_object_get_ex(device, "leaving", &leaving) && json_object_get_boolean(leaving);
		printf("%-8s %-8s %-14s %-8s  %s\n", text_of(device, "id"), text_of(device, "kind"), text_of(device, "bdf"), leaves ? "leaving" : "there",
		       text_of(device, "option"));
	}
}

int command_devices(int argc, char **argv)
{
	struct json_object *list = NULL;
	bool json = argc == 3 && !strcmp(argv[1], "--json");
	if (wants_help(argc, argv, "usage: nadir devices [--json] NAME\n\n"
				   "Shows the disks and networks of a virtual machine, by the IDs that nadir remove-device takes.\n"))
		return STATUS_OK;
	if (argc != 2 + json || *argv[argc - 1] == '-')
		return usage("devices wants the name of one virtual machine, after --json if need be");
	if (client_request(argv[argc - 1], "GET", "/api/v1/vm.devices", NULL, &list) < 0)
		return STATUS_FAILURE;
	if (json)
		printf("%s\n", json_object_to_json_string_ext(list, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	else
		print_table(list);
	json_object_put(list);
	return STATUS_OK;
}

/* ---- add-disk, add-net ---- */

/* The files stay open, and so locked, until the machine has answered. */
static int add(const char *who, const char *path, const char *kind, const char *option, struct passed_files *files)
{
	int text = device_text_make(kind, option); /* the last: for snapshots */
	if (text >= 0 && files->count < PASSED_FILES_MAX)
		files->fd[files->count++] = text;
	struct json_object *body = json_object_new_object(), *answer = NULL;
	json_object_object_add(body, "option", json_object_new_string(option));
	int error = client_request_with(who, "PUT", path, json_object_to_json_string(body), files, &answer);
	if (!error)
		printf("%s\n", text_of(answer, "id"));
	json_object_put(body);
	json_object_put(answer);
	return error ? STATUS_FAILURE : STATUS_OK;
}

/* Whether there is such a machine, before anything is made for it. */
static bool is_there(const char *who)
{
	return client_request(who, "GET", "/api/v1/vmm.ping", NULL, NULL) == 0;
}

int command_add_disk(int argc, char **argv)
{
	struct passed_files files;
	if (wants_help(argc, argv, "usage: nadir add-disk NAME path=FILE[,KEY=VALUE]\n\n"
				   "Adds a virtio disk to a virtual machine that runs, and prints its ID. The keys are those of nadir run's --disk, but for nbd and\n"
				   "bus=sata. Transfers are by threads (aio=threads).\n"))
		return STATUS_OK;
	if (argc != 3 || *argv[1] == '-')
		return usage("add-disk wants the name of one virtual machine and what --disk takes, such as path=FILE");
	if (!is_there(argv[1]))
		return STATUS_FAILURE;
	return disk_prepare(argv[2], &files) < 0 ? STATUS_USAGE : add(argv[1], "/api/v1/vm.add-disk", "disk", argv[2], &files);
}

int command_add_net(int argc, char **argv)
{
	struct passed_files files;
	if (wants_help(argc, argv, "usage: nadir add-net NAME user[,KEY=VALUE]|tap,ifname=NAME|switch,path=SOCKET\n\n"
				   "Adds a virtio network card to a virtual machine that runs, and prints its ID. What can be at its other end is what nadir run's --net takes.\n"))
		return STATUS_OK;
	if (argc != 3 || *argv[1] == '-')
		return usage("add-net wants the name of one virtual machine and what --net takes, such as user");
	if (!is_there(argv[1]))
		return STATUS_FAILURE;
	signal(SIGPIPE, SIG_IGN);
	return net_prepare(argv[2], true, &files) < 0 ? STATUS_USAGE : add(argv[1], "/api/v1/vm.add-net", "net", argv[2], &files);
}

/* ---- remove-device ---- */

struct removal {
	const char *who, *id;
	long seconds; /* 0: do not wait */
};

/* False: the arguments are wrong. */
static bool parse_removal(struct removal *r, int argc, char **argv)
{
	int i = 1;
	*r = (struct removal){ .seconds = REMOVE_TIME };
	for (; i < argc && *argv[i] == '-'; i++) {
		char *end = NULL;
		if (!strcmp(argv[i], "--no-wait"))
			r->seconds = 0;
		else if (strcmp(argv[i], "--timeout") || ++i == argc || (r->seconds = strtol(argv[i], &end, 10)) < 1 || *end || r->seconds > 86400)
			return false;
	}
	if (i + 2 != argc)
		return false;
	r->who = argv[i];
	r->id = argv[i + 1];
	return true;
}

/* One line of the stream of events. Chunks' sizes are lines, too, which are no objects. */
static bool is_removed(const char *line, const char *id)
{
	struct json_object *event = *line == '{' ? json_tokener_parse(line) : NULL;
	bool removed = event && !strcmp(text_of(event, "event"), "device-removed") && !strcmp(text_of(event, "detail"), id);
	json_object_put(event);
	return removed;
}

static bool wait_for_removal(int fd, const struct removal *r)
{
	char line[512];
	size_t used = 0;
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	for (time_t end = now.tv_sec + r->seconds; now.tv_sec < end; clock_gettime(CLOCK_MONOTONIC, &now)) {
		if (poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, (int)MIN(end - now.tv_sec, 3600) * 1000) <= 0)
			continue;
		if (read(fd, line + used, 1) != 1)
			return false;
		if (line[used] != '\n') {
			used += used < sizeof(line) - 1;
			continue;
		}
		line[used] = 0;
		used = 0;
		if (is_removed(line, r->id))
			return true;
	}
	return false;
}

/* Listen first, so that it is not missed. */
static int remove_one(const struct removal *r)
{
	struct json_object *body = json_object_new_object();
	int fd = client_connect(r->who);
	if (fd < 0)
		return STATUS_FAILURE;
	json_object_object_add(body, "id", json_object_new_string(r->id));
	bool told = !client_stream(r->who, fd, "GET", "/api/v1/vm.events", false) &&
		    !client_request(r->who, "PUT", "/api/v1/vm.remove-device", json_object_to_json_string(body), NULL);
	bool gone = told && (!r->seconds || wait_for_removal(fd, r));
	close(fd);
	json_object_put(body);
	if (told && !gone)
		fprintf(stderr, "nadir: the guest of %s was asked for %s, and has not let go of it within %ld s; it still may, and a reset takes it\n", r->who, r->id,
			r->seconds);
	return gone ? STATUS_OK : STATUS_FAILURE;
}

int command_remove_device(int argc, char **argv)
{
	struct removal r;
	if (wants_help(argc, argv, "usage: nadir remove-device [--no-wait | --timeout SECONDS] NAME ID\n\n"
				   "Asks the guest of a virtual machine to let go of a disk or network, and waits until it has, for 60 seconds if not told otherwise.\n"
				   "nadir devices shows the IDs. What the guest keeps until it is restarted goes then.\n"))
		return STATUS_OK;
	if (!parse_removal(&r, argc, argv))
		return usage("remove-device wants the name of one virtual machine and the ID of a device, after --no-wait or --timeout SECONDS if need be");
	return remove_one(&r);
}
