/* nadir list, stop, pause, resume, reset and balloon. */
#define _GNU_SOURCE
#include "host/linux/commands.h"

#include "host/linux/client.h"
#include "host/linux/command.h"
#include "host/linux/options.h"
#include "host/linux/runtime.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STOP_TIME 60 /* seconds that a guest has to shut down */
#define ANSWER_TIME 2 /* seconds that nadir list waits for one machine */

/* ---- list ---- */

static u64 number_of(struct json_object *o, const char *name)
{
	struct json_object *value = NULL;
	return json_object_object_get_ex(o, name, &value) ? json_object_get_uint64(value) : 0;
}

/* What the machine at this socket says of itself; NULL: there is none any more, or it does not answer. A socket that a machine left is removed. */
static struct json_object *info_of(const char *path)
{
	char *body = NULL;
	int fd = runtime_connect(path);
	if (fd < 0) {
		if (fd == -ECONNREFUSED)
			(void)runtime_remove_left(path);
		return NULL;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_sec = ANSWER_TIME }, sizeof(struct timeval));
	int status = client_ask(fd, "GET", "/api/v1/vm.info", NULL, &body);
	struct json_object *info = status == 200 && body ? json_tokener_parse(body) : NULL;
	free(body);
	return info;
}

static void print_row(struct json_object *info)
{
	struct json_object *config = NULL;
	json_object_object_get_ex(info, "config", &config);
	printf("%-20s %8s  %-8s %4llu %8llu MiB  %-8s  %s\n", text_of(info, "name"), text_of(info, "pid"), text_of(info, "state"),
	       (unsigned long long)number_of(config, "cpus"), (unsigned long long)(number_of(config, "memory") >> 20), text_of(config, "engine"),
	       text_of(config, "kernel"));
}

static void print_table(struct json_object *all)
{
	printf("%-20s %8s  %-8s %4s %12s  %-8s  %s\n", "NAME", "PID", "STATE", "CPUS", "MEMORY", "ENGINE", "KERNEL");
	for (size_t i = 0; i < json_object_array_length(all); i++)
		print_row(json_object_array_get_idx(all, i));
}

static int is_socket(const struct dirent *entry)
{
	const char *end = strrchr(entry->d_name, '.');
	return end && !strcmp(end, ".sock");
}

static struct json_object *find_all(void)
{
	char folder[PATH_MAX], path[PATH_MAX + 256];
	struct dirent **entries = NULL;
	struct json_object *all = json_object_new_array();
	int n = runtime_folder(folder, false) < 0 ? 0 : scandir(folder, &entries, is_socket, alphasort);
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
		struct json_object *info = info_of(path);
		if (info)
			json_object_array_add(all, info);
		free(entries[i]);
	}
	free(entries);
	return all;
}

int command_list(int argc, char **argv)
{
	bool json = argc == 2 && !strcmp(argv[1], "--json"), names = argc == 2 && !strcmp(argv[1], "--names");
	if (wants_help(argc, argv, "usage: nadir list [--json | --names]\n\nShows the running virtual machines that have names.\n"))
		return STATUS_OK;
	if (argc > 1 && !json && !names)
		return usage("list takes no argument but --json or --names");
	struct json_object *all = find_all();
	if (json)
		printf("%s\n", json_object_to_json_string_ext(all, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	else if (!names)
		print_table(all);
	for (size_t i = 0; names && i < json_object_array_length(all); i++)
		printf("%s\n", text_of(json_object_array_get_idx(all, i), "name"));
	json_object_put(all);
	return STATUS_OK;
}

/* ---- pause, resume, reset ---- */

static int order(int argc, char **argv, const char *path, const char *help)
{
	int status = STATUS_OK;
	if (wants_help(argc, argv, help))
		return STATUS_OK;
	if (argc < 2 || *argv[1] == '-') {
		fprintf(stderr, "nadir: %s wants the names of virtual machines; nadir list shows those there are\n", argv[0]);
		return STATUS_USAGE;
	}
	for (int i = 1; i < argc; i++)
		if (client_request(argv[i], "PUT", path, NULL, NULL) < 0)
			status = STATUS_FAILURE;
	return status;
}

int command_pause(int argc, char **argv)
{
	return order(argc, argv, "/api/v1/vm.pause",
		     "usage: nadir pause NAME...\n\nHolds virtual machines still, their clocks included, until nadir resume.\n");
}

int command_resume(int argc, char **argv)
{
	return order(argc, argv, "/api/v1/vm.resume", "usage: nadir resume NAME...\n\nLets paused virtual machines go on.\n");
}

int command_reset(int argc, char **argv)
{
	return order(argc, argv, "/api/v1/vm.reboot", "usage: nadir reset NAME...\n\nRestarts virtual machines, as by their reset buttons.\n");
}

/* ---- balloon ---- */

int command_balloon(int argc, char **argv)
{
	char body[64];
	u64 size;
	if (wants_help(argc, argv, "usage: nadir balloon NAME SIZE\n\nAsks the guest of a virtual machine to give SIZE of its memory back; nadir stats --json tells how\n"
				   "much it has given. SIZE has a suffix K, M, G or T.\n"))
		return STATUS_OK;
	if (argc != 3 || *argv[1] == '-' || !options_size(argv[2], &size) || size > INT64_MAX)
		return usage("balloon wants the name of one virtual machine and a size such as 256M");
	snprintf(body, sizeof(body), "{\"desired_balloon\":%llu}", (unsigned long long)size);
	return client_request(argv[1], "PUT", "/api/v1/vm.resize", body, NULL) < 0 ? STATUS_FAILURE : STATUS_OK;
}

/* ---- stop ---- */

struct stop_options {
	bool force;
	long seconds;
	int first; /* name among the arguments */
};

/* False: the arguments are wrong. */
static bool parse_stop(struct stop_options *o, int argc, char **argv)
{
	int i = 1;
	*o = (struct stop_options){ .seconds = STOP_TIME };
	for (; i < argc && *argv[i] == '-'; i++) {
		char *end = NULL;
		if (!strcmp(argv[i], "--force"))
			o->force = true;
		else if (strcmp(argv[i], "--timeout") || ++i == argc || (o->seconds = strtol(argv[i], &end, 10)) < 1 || *end || o->seconds > 86400)
			return false;
	}
	o->first = i;
	return i < argc;
}

/* Until the stream of events ends, with the machine; false: time is up. */
static bool wait_for_end(int fd, long seconds)
{
	struct timespec now;
	char buffer[1024];
	clock_gettime(CLOCK_MONOTONIC, &now);
	time_t end = now.tv_sec + seconds;
	for (; now.tv_sec < end; clock_gettime(CLOCK_MONOTONIC, &now)) {
		int ready = poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, (int)MIN(end - now.tv_sec, 3600) * 1000);
		if (ready > 0 && read(fd, buffer, sizeof(buffer)) <= 0)
			return true;
	}
	return false;
}

/* Listen first, so that the end is not missed. */
static int stop_one(const char *who, const struct stop_options *o)
{
	int fd = client_connect(who);
	if (fd < 0)
		return STATUS_FAILURE;
	bool told = !client_stream(who, fd, "GET", "/api/v1/vm.events", false) &&
		    !client_request(who, "PUT", o->force ? "/api/v1/vm.shutdown" : "/api/v1/vm.power-button", NULL, NULL);
	bool ended = told && wait_for_end(fd, o->seconds);
	close(fd);
	if (told && !ended)
		fprintf(stderr, "nadir: %s did not shut down within %ld s of its power button; nadir stop --force %s ends it at once\n", who, o->seconds,
			who);
	return ended ? STATUS_OK : STATUS_FAILURE;
}

int command_stop(int argc, char **argv)
{
	struct stop_options o;
	int status = STATUS_OK;
	if (wants_help(argc, argv, "usage: nadir stop [--force] [--timeout SECONDS] NAME...\n\n"
				   "Presses the power button of virtual machines, which asks their guests to shut down, and waits until they have, for\n"
				   "60 seconds if not told otherwise. --force ends them at once, as pulling the plug.\n"))
		return STATUS_OK;
	if (!parse_stop(&o, argc, argv))
		return usage("stop wants the names of virtual machines, after --force or --timeout SECONDS if need be");
	for (int i = o.first; i < argc; i++)
		if (stop_one(argv[i], &o) != STATUS_OK)
			status = STATUS_FAILURE;
	return status;
}
