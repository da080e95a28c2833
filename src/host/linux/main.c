/* The command line: `nadir run`, `nadir restore`, `nadir probe`, `nadir techniques`, `nadir switch`, and what commands.h has. */
#define _GNU_SOURCE
#include "cpu/cpuid.h"
#include "host/linux/commands.h"
#include "host/linux/net_switch.h"
#include "host/linux/options.h"
#include "host/linux/probe.h"
#include "host/linux/run.h"
#include "host/linux/snapshot_format.h"
#include "host/linux/techniques.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void help(FILE *out)
{
	fputs("nadir " NADIR_VERSION ": run unmodified operating systems in virtual machines, with or without virtualization hardware\n"
	      "\n"
	      "usage: nadir run --kernel FILE [OPTION...]   boot a virtual machine\n"
	      "       nadir run FILE [OPTION...]            boot the virtual machine that a file describes\n"
	      "       nadir restore FOLDER [OPTION...]      go on with the virtual machine of a snapshot\n"
	      "       nadir switch --path SOCKET            connect the networks of virtual machines\n"
	      "       nadir create-disk FILE SIZE           make an empty disk image\n"
	      "       nadir create-disk FILE --base BASE    make an image that keeps changes to another one\n"
	      "       nadir probe [--json]                  tell what this machine offers to virtual machines\n"
	      "       nadir techniques [--json]             measure what each way to run guests costs on this machine\n"
	      "       nadir list [--json]                   show the running machines that have names\n"
	      "       nadir stop [--force] NAME...          ask them to shut down, or end them\n"
	      "       nadir pause | resume | reset NAME...  hold them still, let them go on, restart them\n"
	      "       nadir balloon NAME SIZE               ask its guest to give memory back\n"
	      "       nadir devices NAME                    show its disks and networks\n"
	      "       nadir add-disk NAME path=FILE[,...]   add a disk while it runs, as by --disk\n"
	      "       nadir add-net NAME user|...           add a network while it runs, as by --net\n"
	      "       nadir remove-device NAME ID           have its guest let go of one\n"
	      "       nadir snapshot [--incremental] NAME   take a snapshot of a machine that has --snapshot-dir\n"
	      "       nadir screenshot NAME FILE.png        write what its display shows to a picture\n"
	      "       nadir console NAME                    put this terminal on a machine's console\n"
	      "       nadir stats [--once | --json] NAME    show what a machine does\n"
	      "       nadir --help | --version\n"
	      "\n"
	      "nadir run --help lists the options.\n",
	      out);
}

static void print_cpu_models(void)
{
	printf("\nCPU models:");
	for (const char *const *name = cpuid_model_names(); *name; name++)
		printf(" %s", *name);
	putchar('\n');
}

static int run_command(int argc, char **argv)
{
	struct run_options options;
	if (options_parse(&options, argc, argv) < 0)
		return STATUS_USAGE;
	if (options.help) {
		printf("usage: nadir run [FILE] [OPTION...]\n\n"
		       "FILE describes the machine: a line KEY = VALUE for each option, without its dashes. Options given beside it win.\n\n");
		options_help(stdout);
		print_cpu_models();
		printf("\nOn a terminal, Ctrl-a x ends the machine and Ctrl-a h helps.\n"
		       "Exit status: 0 the guest powered off; 1 nadir failed; 2 an option or file is wrong; 3 the guest crashed.\n");
		return STATUS_OK;
	}
	int status = run_main(&options);
	options_release(&options);
	return status;
}

/* `restore FOLDER` is `run FOLDER/vm.conf` with the state and the memory in the folder. */
static int restore_command(int argc, char **argv)
{
	struct run_options options;
	char *description = NULL;
	if (argc < 2 || argv[1][0] == '-') {
		fputs("usage: nadir restore FOLDER [OPTION...]\n\n"
		      "Goes on with the machine whose snapshot is in FOLDER. Its options are those it had; options given here win.\n"
		      "nadir run --help lists them.\n", argc < 2 ? stderr : stdout);
		return argc < 2 ? STATUS_USAGE : STATUS_OK;
	}
	const char *folder = argv[1];
	if (asprintf(&description, "%s/" SNAPSHOT_DESCRIPTION, folder) < 0)
		return STATUS_FAILURE;
	argv[1] = description;
	int status = STATUS_USAGE;
	if (options_parse(&options, argc, argv) >= 0) {
		options.restore = folder;
		status = run_main(&options);
		options_release(&options);
	}
	free(description);
	return status;
}

static int probe_command(int argc, char **argv)
{
	bool json = argc == 2 && !strcmp(argv[1], "--json");
	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		printf("usage: nadir probe [--json]\n\nTells what this machine offers to virtual machines, and which engine nadir would choose.\n");
		return STATUS_OK;
	}
	if (argc > 1 && !json) {
		fprintf(stderr, "nadir: probe takes no argument but --json\n");
		return STATUS_USAGE;
	}
	return probe_main(json, stdout);
}

/* If we were started without standard input, output or error, the next file that we open would take its place. */
static void open_standard_files(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			open("/dev/null", O_RDWR);
}

/* What was printed must also have arrived. */
static int check_output(int status)
{
	if (!fflush(stdout) && !ferror(stdout))
		return status;
	fprintf(stderr, "nadir: cannot write the output: %s\n", strerror(errno));
	return status ? status : STATUS_FAILURE;
}

static int run_named(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {
		{ "run", run_command },	    { "restore", restore_command },
		{ "probe", probe_command }, { "techniques", command_techniques }, { "list", command_list },   { "stop", command_stop },
		{ "pause", command_pause }, { "resume", command_resume }, { "reset", command_reset }, { "balloon", command_balloon },
		{ "devices", command_devices }, { "add-disk", command_add_disk }, { "add-net", command_add_net }, { "remove-device", command_remove_device },
		{ "snapshot", command_snapshot }, { "screenshot", command_screenshot },
		{ "console", command_console }, { "stats", command_stats }, { "switch", switch_main },    { "create-disk", command_create_disk },
	};

	if (argc < 2) {
		help(stderr);
		return STATUS_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		help(stdout);
		return STATUS_OK;
	}
	if (!strcmp(argv[1], "--version")) {
		printf("nadir " NADIR_VERSION "\n");
		return STATUS_OK;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	fprintf(stderr, "nadir: there is no command '%s'; see nadir --help\n", argv[1]);
	return STATUS_USAGE;
}

int main(int argc, char **argv)
{
	open_standard_files();
	return check_output(run_named(argc, argv));
}
