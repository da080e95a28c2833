/* A hostile client of the GDB server: any bytes, to a machine that runs what the client made of it, a few instructions at a time. It may do to the guest
 * what it likes, and nothing else: the state that it leaves must be one that the engine can run. */
#include "gdb/session.h"
#include "engine/step/step.h"
#include "host/linux/trap.h"
#include "input.h"
#include "lib/string.h"
#include "vm/vm.h"

#include "fake_host.h"

#define INSTRUCTIONS 16
#define LOOKS_MAX 64

static const u8 image[] = { 0xb9, 3, 0, 0xff, 0x06, 0, 5, 0x49, 0x75, 0xf9, 0xd9, 0xe8, 0x0f, 0x57, 0xc0, 0xf4, 0xeb, 0xee };

static struct vm *vm;
static struct gdb_session *session;
static struct input input;
static struct engine_ops engine;
static u64 sent;
static unsigned looks;

static void client_send(void *opaque, const void *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		sent += ((const u8 *)data)[i];
}

/* Whatever the client does, the machine comes back to it. */
static void run(struct vcpu *vcpu, struct exit *exit)
{
	for (unsigned i = 0; i < INSTRUCTIONS; i++) {
		if (!step_one(vcpu, exit))
			return;
		CHECK(vcpu->cpl <= 3);
		CHECK(!(vcpu->cr0 & CR0_PG) || (vcpu->cr0 & CR0_PE));
	}
	host_lock(&vm->lock);
	debugger_hold(vm);
	host_unlock(&vm->lock);
	exit->reason = EXIT_INTERRUPTED;
}

/* A packet whose checksum is right: the fuzzer need not guess it. */
static void say_packet(void)
{
	static u8 data[256], frame[GDB_FRAME_MAX];
	u32 size = 0;
	while (size < sizeof(data) && input.left) {
		u8 byte = input_u8(&input);
		if (byte == '\n')
			break;
		data[size++] = byte;
	}
	u32 length = gdb_frame(frame, data, size);
	for (u32 i = 0; i < length && gdb_ready(session); i++)
		gdb_byte(session, frame[i]);
}

static void speak(void *opaque)
{
	gdb_poll(session);
	while (gdb_ready(session) && vm->debugger.holding && input.left) {
		if (*input.bytes == 0xff) { /* raw bytes, as many as follow */
			input_u8(&input);
			for (u8 n = input_u8(&input); n && gdb_ready(session) && input.left; n--)
				gdb_byte(session, input_u8(&input));
		} else {
			say_packet();
		}
	}
	if (gdb_ready(session) && !vm->debugger.holding)
		gdb_byte(session, 3);
	if (!input.left || ++looks > LOOKS_MAX)
		vm_stop(vm);
}

static void ended(void *opaque)
{
}

static void put(void *opaque, u8 byte)
{
}

static bool get(void *opaque, u8 *byte)
{
	return false;
}

static void report(void *opaque, const char *line)
{
}

static void create(void)
{
	struct vm_config config = {
		.memory = 4 << 20, .cpus = 1, .cpu_model = "host", .engine = &engine,
		.boot = { .kernel = image, .kernel_size = sizeof(image), .protocol = BOOT_FLAT },
		.backends = { .serial_put = put, .serial_get = get, .debug_put = put },
		.ended = ended, .report = report,
	};
	char error[200];
	bool user_error;
	engine = engine_step;
	engine.run = run;
	trap_thread_init();
	vm = vm_create(&config, error, sizeof(error), &user_error);
	CHECK(vm);
	session = gdb_create(vm, GDB_X86_64, &(struct gdb_link){ .send = client_send });
	CHECK(session);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	input = (struct input){ bytes, size };
	looks = 0;
	create();
	gdb_connected(session);
	fake_host_set_idle(speak, NULL);
	vm_run_vcpu(vm, 0);
	gdb_disconnected(session);
	gdb_ended(session, 0);
	gdb_destroy(session);
	vm_destroy(vm);
	return 0;
}
