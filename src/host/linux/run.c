/* `nadir run`: from options to a running machine, and from its end to an exit status.
 *
 * Order: start the server of spaces, open files and consoles, make the VM (which loads the guest), make the threads, confine the process, start. The main thread is
 * the event loop; each vCPU has a thread. */
#define _GNU_SOURCE
#include "host/linux/run.h"

#include "host/linux/balloon_option.h"
#include "host/linux/boot_option.h"
#include "host/linux/console.h"
#include "host/linux/control.h"
#include "host/linux/diagnostics.h"
#include "host/linux/disks.h"
#include "host/linux/display.h"
#include "host/linux/event.h"
#include "host/linux/file.h"
#include "host/linux/gdb.h"
#include "host/linux/image_nbd.h"
#include "host/linux/log.h"
#include "host/linux/machine_api.h"
#include "host/linux/net.h"
#include "host/linux/plug.h"
#include "host/linux/restore.h"
#include "host/linux/run_delay.h"
#include "host/linux/runtime.h"
#include "host/linux/rom.h"
#include "host/linux/run_engine.h"
#include "host/linux/sandbox.h"
#include "host/linux/scheduling.h"
#include "host/linux/share.h"
#include "host/linux/snapshot.h"
#include "host/linux/snapshot_option.h"
#include "host/linux/space.h"
#include "host/linux/stats_print.h"
#include "host/linux/terminal.h"
#include "host/linux/thread.h"
#include "host/linux/trap.h"
#include "host/linux/variables.h"
#include "host/linux/vsock.h"
#include "engine/engine.h"
#include "host/port.h"
#include "vm/report.h"
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct machine {
	const struct run_options *options;
	struct file kernel, initrd;
	struct roms rom;
	struct pflash_backend variables;
	struct console *serial, *debug;
	struct machine_port {
		struct machine *machine;
		unsigned index;
		struct console *console;
		char name[CONSOLE_NAME_MAX + 1];
	} port[CONSOLE_PORTS_MAX]; /* of the virtio console */
	unsigned ports; /* 0: there is none */
	struct block_backend backend[DISKS_MAX];
	unsigned disks;
	struct net_backend net[NETS_MAX];
	unsigned nets; /* rows of it */
	struct fs_backend share[SHARES_MAX];
	struct vsock_backend vsock;
	struct display display;
	u64 balloon; /* bytes asked of the guest at first */
	struct snapshot snapshot; /* what the machine went on from; chunks of memory may still be there only */
	char *description; /* of the machine, for its snapshots */
	struct vm *vm;
	struct api_vm api;
	pthread_t thread[VM_CPUS_MAX];
	struct vcpu_start {
		struct machine *machine;
		unsigned index;
	} start[VM_CPUS_MAX];
	pthread_barrier_t ready; /* vCPU threads wait here until the process is confined */
};

/* The one machine of the process, for signals and panics. */
static struct machine machine;

/* ---- what the machine tells us ---- */

static void machine_ended(void *opaque)
{
	event_stop();
}

static void print_line(void *opaque, const char *line)
{
	fprintf(stderr, "nadir: %s%s\n", line, terminal_is_raw() ? "\r" : "");
}

/* The guest's last words come before the report. */
static void report_line(void *opaque, const char *line)
{
	console_flush(machine.serial);
	print_line(opaque, line);
}

static void quit(void *opaque)
{
	console_hurry();
	vm_stop(machine.vm);
}

static void show_stats(void *opaque)
{
	struct stats *sum = calloc(1, sizeof(*sum));
	if (!sum)
		return;
	vm_stats(machine.vm, sum);
	stats_print_table(stderr, sum, terminal_is_raw() ? "\r\n" : "\n");
	free(sum);
}

static void port_input(void *opaque)
{
	const struct machine_port *port = opaque;
	if (port->machine->vm)
		vm_console_input(port->machine->vm, port->index);
}

static void serial_input(void *opaque)
{
	vm_serial_input(machine.vm);
}

static void disk_completed(unsigned disk)
{
	vm_disk_completed(machine.vm, disk);
}

static bool net_ready(void *opaque, unsigned index)
{
	return vm_net_ready(machine.vm, index);
}

static void share_completed(void *opaque, unsigned index)
{
	vm_share_completed(machine.vm, index);
}

static void vsock_ready(void *opaque)
{
	vm_vsock_ready(machine.vm);
}

static void debug_stopped(void *opaque)
{
	gdb_stopped();
}

static void loop_woken(void *opaque)
{
	snapshot_woken(machine.vm);
	console_resume_input(machine.serial);
	for (unsigned i = 0; i < machine.ports; i++)
		console_resume_input(machine.port[i].console);
}

static void panic_dump(void)
{
	for (unsigned i = 0; machine.vm && i < machine.vm->config.cpus; i++)
		report_vcpu(&machine.vm->cpu[i]->vcpu, print_line, NULL);
}

/* ---- signals ---- */

static volatile sig_atomic_t ended_by_signal;

static void on_end_signal(int number)
{
	int saved = errno;
	ended_by_signal = number;
	console_hurry();
	event_stop();
	errno = saved;
}

/* The default action comes when this returns. */
static void on_abort(int number)
{
	terminal_restore();
	raise(number);
}

static void on_unclaimed_fault(int number, const struct host_trap *trap)
{
	terminal_restore();
	host_log(LOG_ERROR, "bug: %s at %llx, address %llx", sigabbrev_np(number), (unsigned long long)trap->pc,
		 (unsigned long long)trap->address);
}

static void catch_signals(void)
{
	static const int end_signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	struct sigaction end = { .sa_handler = on_end_signal, .sa_flags = SA_ONSTACK };
	struct sigaction end_hard = { .sa_handler = on_abort, .sa_flags = SA_ONSTACK | (int)SA_RESETHAND };
	for (size_t i = 0; i < ARRAY_SIZE(end_signals); i++)
		sigaction(end_signals[i], &end, NULL);
	sigaction(SIGABRT, &end_hard, NULL);
	signal(SIGPIPE, SIG_IGN);
	trap_thread_init();
	trap_set_unclaimed(on_unclaimed_fault);
}

/* ---- set-up ---- */

static bool confined(const struct run_options *o)
{
	return strcmp(o->sandbox, "off");
}

static int open_nets(struct machine *m)
{
	int rows = nets_open(&m->options->net, confined(m->options), m->net);
	m->nets = (unsigned)MAX(rows, 0);
	return rows < 0 ? -1 : 0;
}

static int open_shares(struct machine *m)
{
	const struct option_list *share = &m->options->share;
	if (share->count > SHARES_MAX) {
		fprintf(stderr, "nadir: --share can be given %d times at most\n", SHARES_MAX);
		return -1;
	}
	for (unsigned i = 0; i < share->count; i++)
		if (share_open(i, share->item[i], &m->share[i]) < 0)
			return -1;
	return 0;
}

static int open_port(struct machine *m, const char *option, const char *where, const char *name)
{
	struct machine_port *port = &m->port[m->ports];
	*port = (struct machine_port){ .machine = m, .index = m->ports, .console = console_open(option, where) };
	snprintf(port->name, sizeof(port->name), "%s", name);
	m->ports += port->console != NULL;
	return port->console ? 0 : -1;
}

/* name=NAME,to=WHERE */
static int open_named_port(struct machine *m, const char *text)
{
	const char *name = text + 5, *comma = strchr(text, ',');
	size_t length = comma ? (size_t)(comma - name) : 0;
	char copy[CONSOLE_NAME_MAX + 1];
	if (strncmp(text, "name=", 5) || !comma || strncmp(comma, ",to=", 4) || comma == name || length > CONSOLE_NAME_MAX) {
		fprintf(stderr, "nadir: --port: '%s' is not name=NAME,to=WHERE, with a name of 32 characters at most\n", text);
		return -1;
	}
	snprintf(copy, sizeof(copy), "%.*s", (int)length, name);
	return open_port(m, "port", comma + 4, copy);
}

static int open_ports(struct machine *m)
{
	const struct run_options *o = m->options;
	bool on = strcmp(o->console, "off");
	if (!on && !o->port.count)
		return 0;
	if (o->port.count >= CONSOLE_PORTS_MAX) {
		fprintf(stderr, "nadir: --port can be given %d times at most\n", (int)CONSOLE_PORTS_MAX - 1);
		return -1;
	}
	if (!strcmp(o->console, "stdio") && !strcmp(o->serial, "stdio")) {
		fprintf(stderr, "nadir: --console: the serial port is on stdio already; add --serial none\n");
		return -1;
	}
	int result = open_port(m, "console", on ? o->console : "none", "");
	for (unsigned i = 0; !result && i < o->port.count; i++)
		result = open_named_port(m, o->port.item[i]);
	return result;
}

/* The control socket: at its own place, or at that of the machine's name. */
static int open_control(const struct run_options *o)
{
	char folder[PATH_MAX], path[SOCKET_PATH_SIZE];
	if (o->name && !runtime_name_ok(o->name)) {
		fprintf(stderr, "nadir: --name: '%s' is not a name: letters, digits, '.', '_' and '-', at most 64, the first a letter or digit\n", o->name);
		return -1;
	}
	if (o->api_socket)
		return control_listen("api-socket", o->api_socket);
	if (!o->name)
		return 0;
	return runtime_folder(folder, true) < 0 || runtime_socket(o->name, path) < 0 ? -1 : control_listen("name", path);
}

static int open_firmware(struct machine *m)
{
	const struct run_options *o = m->options;
	const char *path = rom_load(o->firmware, o->kernel, o->net.count && boot_option_network(o->boot), &m->rom);
	return path ? variables_open(o->pflash, path, &m->variables) : -1;
}

/* What the guest boots from. */
static int open_guest(struct machine *m)
{
	const struct run_options *o = m->options;
	if ((o->kernel && file_load(&m->kernel, "kernel", o->kernel, o->memory) < 0) || (o->firmware && open_firmware(m) < 0))
		return -1;
	return o->initrd ? file_load(&m->initrd, "initrd", o->initrd, o->memory) : 0;
}

static int open_files(struct machine *m)
{
	const struct run_options *o = m->options;
	if (!o->kernel && !o->firmware && !o->restore) {
		fprintf(stderr, "nadir: no guest given; name a kernel with --kernel FILE, --firmware and --disk, or a file that describes the machine (see nadir run --help)\n");
		return -1;
	}
	if (o->pflash && !o->firmware) {
		fprintf(stderr, "nadir: --pflash holds the variables of UEFI firmware, and there is none; name it with --firmware\n");
		return -1;
	}
	if (o->gdb_wait && !o->gdb) {
		fprintf(stderr, "nadir: --gdb-wait: --gdb says where GDB shall come to\n");
		return -1;
	}
	if (o->gdb && gdb_listen(o->gdb) < 0)
		return -1;
	if (diagnostics_open(o) < 0 || display_open(&m->display, o) < 0 || restore_open(&m->snapshot, o) < 0)
		return -1;
	if ((!o->restore || restore_boots(o)) && open_guest(m) < 0)
		return -1;
	int disks = disks_open(o, m->backend);
	if (disks < 0 || open_nets(m) < 0 || open_shares(m) < 0 || (o->vsock && vsock_open(o->vsock, confined(o), &m->vsock) < 0))
		return -1;
	m->disks = (unsigned)disks;
	m->serial = console_open("serial", o->serial);
	m->debug = console_open("debug-console", o->debug_console ? o->debug_console : "none");
	return m->serial && m->debug && !open_ports(m) ? open_control(o) : -1;
}

static int make_config(struct machine *m, struct vm_config *config)
{
	const struct run_options *o = m->options;
	*config = (struct vm_config){
		.memory = o->memory & PAGE_MASK,
		.cpus = (unsigned)o->cpus,
		.cpu_model = o->cpu,
		.boot = { .kernel = m->kernel.data, .kernel_size = m->kernel.size, .initrd = m->initrd.data, .initrd_size = m->initrd.size,
			  .cmdline = o->append, .copied = file_settle_part },
		.backends = { .serial_put = console_put, .serial_get = console_get, .serial = m->serial, .debug_put = console_put,
			      .debug = m->debug, .debug_exit = o->debug_exit, .disk = m->backend, .disks = m->disks,
			      .net = m->net, .nets = m->nets, .share = m->share, .shares = o->share.count, .vsock = m->vsock, .flash = m->variables },
		.on_crash = !strcmp(o->on_crash, "reset") ? CRASH_RESET : !strcmp(o->on_crash, "debug") ? CRASH_DEBUG : CRASH_REPORT,
		.hang_timeout = o->hang_timeout,
		.no_reboot = o->no_reboot || (!m->kernel.data && !m->rom.firmware.data),
		.state = m->snapshot.state,
		.state_size = m->snapshot.state_size,
		.stats_by_site = o->stats || o->json,
		.ended = machine_ended,
		.event = machine_event,
		.ejected = plug_ejected,
		.report = report_line,
		.debug_stopped = debug_stopped,
	};
	if (run_engine(o, config) < 0)
		return -1;
	boot_protocol_find(o->protocol, &config->boot.protocol);
	if (boot_option(o->boot, config->boot.order) < 0)
		return -1;
	rom_configure(&m->rom, &config->boot);
	if (o->firmware) {
		config->boot.protocol = BOOT_FIRMWARE;
	} else if (config->boot.protocol == BOOT_FIRMWARE) { /* the kernel is the ROM */
		config->boot.firmware = m->kernel.data;
		config->boot.firmware_size = m->kernel.size;
		config->boot.kernel_size = 0;
	}
	display_configure(&m->display, config);
	config->backends.consoles = m->ports;
	for (unsigned i = 0; i < m->ports; i++)
		config->backends.console[i] = (struct console_cable){ console_put, console_get, m->port[i].console, m->port[i].name };
	return balloon_parse(o->balloon, &config->backends.balloon, &config->backends.reporting, &m->balloon);
}

static void *vcpu_thread(void *opaque)
{
	struct vcpu_start *start = opaque;
	trap_thread_init();
	run_delay_thread_init();
	if (confined(start->machine->options) && sandbox_lock_files() < 0)
		host_panic("the kernel has Landlock, but a thread cannot be confined by it");
	pthread_barrier_wait(&start->machine->ready); /* before confinement, */
	pthread_barrier_wait(&start->machine->ready); /* and behind it */
	sandbox_thread_confine(SANDBOX_VCPU);
	vm_run_vcpu(start->machine->vm, start->index);
	return NULL;
}

static int start_nets(struct machine *m)
{
	int error = nets_start(net_ready, m, control_wanted());
	if (error)
		fprintf(stderr, "nadir: cannot start the thread of the networks: %s\n", strerror(error));
	return error ? -1 : 0;
}

static int run_shares(struct machine *m)
{
	int error = shares_run(share_completed, m);
	if (error)
		fprintf(stderr, "nadir: cannot start the threads of the shared folders: %s\n", strerror(error));
	return error ? -1 : 0;
}

static int start_vsock(struct machine *m)
{
	int error = vsock_start(vsock_ready, m);
	if (error)
		fprintf(stderr, "nadir: cannot start the thread of the guest's sockets: %s\n", strerror(error));
	return error ? -1 : 0;
}

static int start_control(struct machine *m)
{
	int error = control_wanted() ? plug_start() : 0;
	if (control_wanted())
		machine_api_init(&m->api, m->vm, m->options, m->thread);
	bool serial = strcmp(m->options->serial, "none") || !m->ports;
	error = error ? error : control_start(&m->api, serial ? m->serial : m->port[0].console);
	if (error)
		fprintf(stderr, "nadir: cannot start the thread of the control socket: %s\n", strerror(error));
	return error ? -1 : 0;
}

static int start_vcpus(struct machine *m)
{
	unsigned cpus = m->vm->config.cpus;
	run_delay_init();
	if (control_wanted())
		machine_api_open();
	if (confined(m->options))
		sandbox_leave_namespaces();
	pthread_barrier_init(&m->ready, NULL, cpus + 1);
	for (unsigned i = 0; i < cpus; i++) {
		m->start[i] = (struct vcpu_start){ m, i };
		int error = sandbox_thread_create(&m->thread[i], SANDBOX_VCPU, vcpu_thread, &m->start[i]);
		if (error) {
			fprintf(stderr, "nadir: cannot start a thread for vCPU %u: %s\n", i, strerror(error));
			return -1;
		}
	}
	pthread_barrier_wait(&m->ready);
	run_delay_forget();
	return 0;
}

/* Those of vCPUs open a file first; all others have what they need, and inherit that there is no more. */
static int start_threads(struct machine *m)
{
	if (confined(m->options))
		sandbox_threads_hold();
	if (start_vcpus(m) < 0)
		return -1;
	int error = confined(m->options) ? sandbox_lock_files() : 0;
	if (error) {
		fprintf(stderr, "nadir: cannot keep the threads from files: %s\n", strerror(-error));
		return -1;
	}
	error = gdb_start(m->vm, m->options->gdb_wait);
	if (error) {
		fprintf(stderr, "nadir: cannot start the thread of the debugger: %s\n", strerror(error));
		return -1;
	}
	return display_start(m->vm) < 0 || disks_start(disk_completed) < 0 || start_nets(m) < 0 || run_shares(m) < 0 || start_vsock(m) < 0 ? -1 : start_control(m);
}

static int confine(const struct machine *m)
{
	if (!confined(m->options))
		return 0;
	const int *sockets;
	unsigned count = nbd_sockets(&sockets);
	sandbox_allow_sockets(sockets, count);
	if (m->vm->config.engine == &engine_kvm)
		sandbox_allow_kvm(host_kvm_open());
	int error = sandbox_enter(space_socket());
	if (error)
		fprintf(stderr, "nadir: cannot confine the process (%s); --sandbox off runs without\n", strerror(-error));
	return error;
}

/* ---- the end ---- */

static int exit_status(const struct machine *m)
{
	switch (vm_ended(m->vm)) {
	case VM_DEBUG_EXIT:
		return m->vm->exit_status;
	case VM_CRASHED:
		return STATUS_CRASH;
	case VM_FAILED:
		return STATUS_FAILURE;
	default:
		return STATUS_OK;
	}
}

static void report_engine(struct vm *vm)
{
	for (unsigned i = 0; i < vm->config.cpus; i++)
		if (vm->config.engine->report)
			vm->config.engine->report(&vm->cpu[i]->vcpu, report_line, NULL);
}

static void print_final_stats(struct machine *m)
{
	struct stats *sum = m->options->stats || m->options->json ? calloc(1, sizeof(*sum)) : NULL;
	if (!sum)
		return;
	vm_stats(m->vm, sum);
	if (m->options->json)
		stats_print_json(stderr, sum);
	else {
		stats_print_table(stderr, sum, "\n");
		report_engine(m->vm);
	}
	free(sum);
}

static int start_consoles(struct machine *m)
{
	const struct console_keys keys = { .quit = quit, .stats = show_stats, .input = serial_input };
	int error = console_start_input(m->serial, &keys);
	sandbox_allow_accept(console_listening(m->serial), SANDBOX_MAIN);
	for (unsigned i = 0; !error && i < m->ports; i++) {
		const struct console_keys port = { .quit = quit, .stats = show_stats, .input = port_input, .opaque = &m->port[i] };
		error = console_start_input(m->port[i].console, &port);
		sandbox_allow_accept(console_listening(m->port[i].console), SANDBOX_MAIN);
	}
	if (error)
		fprintf(stderr, "nadir: the consoles cannot be read: %s\n", strerror(errno));
	return error;
}

static int run_machine(struct machine *m)
{
	if (start_threads(m) < 0 || start_consoles(m) < 0 || confine(m) < 0) {
		sandbox_threads_release(NULL); /* those that there are have to end */
		return STATUS_FAILURE;
	}
	if (m->options->restore)
		vm_release(m->vm);
	pthread_barrier_wait(&m->ready);
	event_run(loop_woken, m);
	vm_stop(m->vm);
	for (unsigned i = 0; i < m->vm->config.cpus; i++)
		pthread_join(m->thread[i], NULL);
	plug_stop();
	int status = ended_by_signal ? 128 + ended_by_signal : exit_status(m);
	gdb_finish(status);
	nets_stop();
	display_stop();
	shares_stop();
	vsock_stop();
	disks_stop();
	console_flush(m->serial);
	console_flush(m->debug);
	for (unsigned i = 0; i < m->ports; i++)
		console_flush(m->port[i].console);
	control_event("ended", machine_end_name(vm_ended(m->vm)));
	control_stop();
	terminal_restore();
	print_final_stats(m);
	return status;
}

int run_main(const struct run_options *options)
{
	struct machine *m = &machine;
	struct vm_config config;
	char error[256];
	bool user_error = false;
	m->options = options;
	restore_prepare(options);
	if (scheduling_start(options) < 0)
		return STATUS_USAGE;
	thread_prepare();
	space_start();
	if (event_init() < 0) {
		fprintf(stderr, "nadir: cannot set up the event loop: %s\n", strerror(errno));
		return STATUS_FAILURE;
	}
	if (open_files(m) < 0 || make_config(m, &config) < 0)
		return STATUS_USAGE;
	m->vm = vm_create(&config, error, sizeof(error), &user_error);
	if (!m->vm) {
		fprintf(stderr, "nadir: %s\n", error);
		return user_error ? STATUS_USAGE : STATUS_FAILURE;
	}
	file_settle(&m->kernel);
	file_settle(&m->initrd);
	file_settle(&m->rom.firmware);
	file_settle(&m->display.rom);
	if (!options->restore)
		vm_resize_balloon(m->vm, m->balloon);
	plug_init(m->vm, confined(options));
	log_set_panic_dump(panic_dump);
	catch_signals();
	if (options->restore && restore_memory(m->vm, &m->snapshot, options->prefault) < 0)
		return STATUS_USAGE;
	if (snapshot_option_start(options, m->vm, &m->snapshot, &m->description) < 0)
		return STATUS_USAGE;
	if (shares_start(m->vm->memory, m->vm->config.memory, confined(options)) < 0)
		return STATUS_FAILURE;
	if (options->paused)
		vm_pause(m->vm, true);
	int status = run_machine(m);
	restore_forget(&m->snapshot);
	vm_destroy(m->vm);
	nets_close();
	shares_close();
	vsock_close();
	disks_close();
	console_close(m->serial);
	console_close(m->debug);
	for (unsigned i = 0; i < m->ports; i++)
		console_close(m->port[i].console);
	file_release(&m->kernel);
	file_release(&m->initrd);
	rom_release(&m->rom);
	variables_close(&m->variables);
	display_close(&m->display);
	free(m->description);
	return status;
}
