/* The state of a snapshot: a machine's own, with bytes changed and moved about, or anything at all. Whatever it is, it is refused with a sentence,
 * or becomes a machine that can be saved again. */
#include "input.h"
#include "vm/state.h"

#include <stdlib.h>
#include <string.h>

static int create(struct vcpu *vcpu)
{
	return 0;
}

static void ignore(struct vcpu *vcpu)
{
}

static const struct engine_ops no_engine = { .name = "none", .vcpu_create = create, .vcpu_destroy = ignore, .state_changed = ignore };

static void put(void *opaque, u8 byte)
{
}

static bool get(void *opaque, u8 *byte)
{
	return false;
}

static void ended(void *opaque)
{
}

static const u8 image[] = { 0xf4, 0xeb, 0xfd };

static struct vm *make(const u8 *state, size_t size)
{
	char error[256] = "";
	bool user_error = false;
	const struct vm_config config = {
		.memory = 4u << 20,
		.cpus = 2,
		.cpu_model = "host",
		.engine = &no_engine,
		.boot = { .kernel = image, .kernel_size = sizeof(image), .protocol = BOOT_FLAT },
		.backends = { .serial_put = put, .serial_get = get, .debug_put = put },
		.ended = ended,
		.state = state,
		.state_size = size,
	};
	struct vm *vm = vm_create(&config, error, sizeof(error), &user_error);
	CHECK(vm || error[0]);
	return vm;
}

static u8 *save(struct vm *vm, size_t *size)
{
	char error[256];
	*size = vm_state_size(vm);
	u8 *state = malloc(*size);
	CHECK(vm_save(vm, state, *size, error, sizeof(error)));
	return state;
}

/* Pieces of the input go over the saved state: a place, a length, bytes. */
static void change(u8 *state, size_t size, struct input *in)
{
	while (in->left > 3) {
		size_t at = (size_t)(input_u32(in) % size), n = MIN(input_u8(in) % 16u + 1, size - at);
		for (size_t i = 0; i < n && in->left; i++)
			state[at + i] = input_u8(in);
	}
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	static u8 *good;
	static size_t good_size;
	if (!good) {
		struct vm *vm = make(NULL, 0);
		vm_time_stop(vm);
		good = save(vm, &good_size);
		vm_destroy(vm);
	}
	struct input in = { bytes, size };
	bool raw = input_u8(&in) & 1;
	size_t n = raw ? in.left : good_size;
	u8 *state = malloc(n + 1);
	memcpy(state, raw ? in.bytes : good, n);
	if (!raw)
		change(state, n, &in);
	struct vm *vm = n ? make(state, n) : NULL;
	if (vm) {
		size_t again;
		free(save(vm, &again));
		vm_release(vm);
		vm_destroy(vm);
	}
	free(state);
	return 0;
}
