/* Loading an image that the fuzzer wrote into a small guest, and what must hold afterwards whatever is in it.
 *
 * The input: one byte of choices, two of padding that is appended, then the image. Most random images stop at the first
 * magic number, so one of the choices is to put it, and what protects it, in place (`repair`); another is to begin with
 * `lead` zeroes, so that short inputs reach a header that is not at the front. */
#ifndef NADIR_TESTS_FUZZ_IMAGE_H
#define NADIR_TESTS_FUZZ_IMAGE_H

#include "boot/boot.h"
#include "host/port.h"
#include "input.h"
#include "lib/string.h"

#define IMAGE_RAM (4u << 20)
#define IMAGE_PADDING_MAX 0x4000

static inline void image_check(const struct boot_entry *e, bool loaded, const char *error)
{
	u64 kernel_end = e->kernel_base + e->kernel_size, initrd_end = e->initrd_base + e->initrd_size;

	CHECK(loaded == !error[0]);
	if (!loaded)
		return;
	CHECK(e->kernel_size <= IMAGE_RAM && kernel_end <= IMAGE_RAM);
	CHECK(e->initrd_size <= IMAGE_RAM && initrd_end <= IMAGE_RAM);
	CHECK(!e->initrd_size || e->initrd_base >= kernel_end || initrd_end <= e->kernel_base);
	CHECK(e->rip - e->kernel_base < e->kernel_size);
}

static inline void image_load(const u8 *file, size_t size, u8 choices, enum boot_protocol protocol)
{
	static u8 initrd[5000];
	struct ram ram = { 0 };
	struct boot_entry entry = { 0 };
	char error[256] = "";
	struct boot_source source = {
		.kernel = file,
		.kernel_size = size,
		.initrd = choices & 4 ? initrd : NULL,
		.initrd_size = choices & 4 ? sizeof(initrd) : 0,
		.cmdline = choices & 8 ? "console=ttyS0" : NULL,
		.protocol = protocol,
		.cpus = 1,
		.ram_size = IMAGE_RAM,
	};
	u8 *memory = host_ram_create(IMAGE_RAM);

	CHECK(memory && ram_add(&ram, 0, IMAGE_RAM, memory, false) == 0);
	image_check(&entry, boot_load(&ram, &source, &entry, error, sizeof(error)), error);
	ram_release(&ram);
	host_ram_destroy(memory, IMAGE_RAM);
}

/* As the protocol that is asked for, or as whatever the image looks like. `repair` may be given any size. */
static inline void image_run(const u8 *bytes, size_t size, void (*repair)(u8 *file, size_t size),
			     enum boot_protocol protocol, size_t lead)
{
	struct input in = { bytes, size };
	u8 choices = input_u8(&in);
	size_t padding = input_take(&in, 2) % IMAGE_PADDING_MAX, front = choices & 16 ? lead : 0;
	size_t total = front + in.left + padding;
	/* Exactly as long as the file, so that the sanitizer sees a read past its end. */
	u8 *file = __builtin_malloc(total ? total : 1);

	memset(file, 0, front);
	memcpy(file + front, in.bytes, in.left);
	memset(file + front + in.left, 0x90, padding);
	if (choices & 1)
		repair(file, total);
	image_load(file, total, choices, choices & 2 ? protocol : BOOT_AUTO);
	__builtin_free(file);
}

#endif
