/* Making a virtual machine: memory, board, CPUs, and the guest loaded into them. */
#include "vm/vm.h"

#include "cpu/control.h"
#include "dev/map.h"
#include "host/port.h"
#include "lib/string.h"
#include "mmu/mmu.h"
#include "vm/state.h"
#include "vm/watchdog.h"

static const struct vcpu_ops vcpu_ops = {
	.exit = vm_exit,
	.interrupt_acknowledge = vm_interrupt_acknowledge,
	.interrupt_refresh = vm_interrupt_refresh,
};

/* ---- wiring between board, local APICs and vCPUs ---- */

static void board_message(void *opaque, const struct interrupt *interrupt)
{
	vm_interrupt(opaque, interrupt, NULL);
}

/* The 8259 pair's INTR goes to LINT0 of the first CPU. */
static void pic_intr_changed(void *opaque, unsigned pin, bool level)
{
	struct vm *vm = opaque;
	struct vm_cpu *cpu = vm->cpu[0];
	if (!cpu)
		return;
	__atomic_store_n(&cpu->pic_intr, level, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&cpu->pic_rises, level, __ATOMIC_SEQ_CST);
	if (level) /* an NMI is due whatever IF says: the vCPU must come and look */
		vm_kick(cpu, PENDING_INTERRUPT | (lapic_lint0_nmi(&cpu->lapic) ? PENDING_KICK : 0));
}

static void lapic_send(void *opaque, const struct interrupt *interrupt)
{
	struct vm_cpu *cpu = opaque;
	vm_interrupt(cpu->vm, interrupt, cpu);
}

static void lapic_eoi(void *opaque, u8 vector)
{
	struct vm_cpu *cpu = opaque;
	host_lock(&cpu->vm->lock);
	ioapic_eoi(&cpu->vm->board.ioapic, vector);
	host_unlock(&cpu->vm->lock);
}

static const struct lapic_ops lapic_ops = { .send = lapic_send, .eoi = lapic_eoi };

static void lapic_timer_due(void *opaque)
{
	vm_kick(opaque, PENDING_INTERRUPT);
}

static void board_timer_due(void *opaque)
{
	struct vm *vm = opaque;
	host_lock(&vm->lock);
	vm->board_armed = HOST_NEVER;
	if (!vm->time.stopped) {
		u64 now = vm_now(vm);
		board_advance(&vm->board, now);
		vm_board_changed(vm, now);
	}
	host_unlock(&vm->lock);
}

/* As for the local APIC's timer, the host timer is only brought forward. */
void vm_board_changed(struct vm *vm, u64 now)
{
	u64 deadline = board_deadline(&vm->board);
	if (deadline >= vm->board_armed)
		return;
	vm->board_armed = deadline;
	host_timer_arm(vm->board_timer, vm_host_deadline(vm, deadline));
}

void vm_serial_input(struct vm *vm)
{
	host_lock(&vm->lock);
	if (!vm->time.stopped) {
		u64 now = vm_now(vm);
		board_serial_input(&vm->board, now);
		vm_board_changed(vm, now);
	}
	host_unlock(&vm->lock);
}

void vm_console_input(struct vm *vm, unsigned port)
{
	host_lock(&vm->lock);
	if (!vm->time.stopped) {
		board_console_input(&vm->board, port);
		vm_board_changed(vm, vm_now(vm));
	}
	host_unlock(&vm->lock);
}

void vm_disk_completed(struct vm *vm, unsigned disk)
{
	host_lock(&vm->lock);
	board_disk_completed(&vm->board, disk);
	vm_board_changed(vm, vm_now(vm));
	if (vm->time.stopped)
		vm_settled(vm);
	host_unlock(&vm->lock);
}

void vm_share_completed(struct vm *vm, unsigned share)
{
	host_lock(&vm->lock);
	virtio_fs_completed(vm->board.share[share]);
	vm_board_changed(vm, vm_now(vm));
	if (vm->time.stopped)
		vm_settled(vm);
	host_unlock(&vm->lock);
}

void vm_vsock_ready(struct vm *vm)
{
	host_lock(&vm->lock);
	if (!vm->time.stopped) {
		virtio_vsock_ready(&vm->board.vsock);
		vm_board_changed(vm, vm_now(vm));
	}
	host_unlock(&vm->lock);
}

bool vm_net_ready(struct vm *vm, unsigned net)
{
	host_lock(&vm->lock);
	bool more = !vm->time.stopped && board_net_ready(&vm->board, net);
	if (!vm->time.stopped)
		vm_board_changed(vm, vm_now(vm));
	host_unlock(&vm->lock);
	return more;
}

bool vm_display(struct vm *vm, struct vga_regs *regs)
{
	host_lock(&vm->lock);
	*regs = vm->board.vga.regs;
	host_unlock(&vm->lock);
	return vm->config.backends.vga;
}

void vm_power_button(struct vm *vm)
{
	host_lock(&vm->lock);
	pm_power_button(&vm->board.pm);
	host_unlock(&vm->lock);
}

void vm_resize_balloon(struct vm *vm, u64 size)
{
	host_lock(&vm->lock);
	if (vm->config.backends.balloon)
		virtio_balloon_resize(&vm->board.balloon, size);
	host_unlock(&vm->lock);
}

struct vm_balloon vm_balloon(struct vm *vm)
{
	host_lock(&vm->lock);
	const struct virtio_balloon *b = &vm->board.balloon;
	struct vm_balloon balloon = { (u64)b->config.pages << PAGE_SHIFT, (u64)b->config.actual << PAGE_SHIFT, b->reported };
	host_unlock(&vm->lock);
	return balloon;
}

void vm_stats(const struct vm *vm, struct stats *sum)
{
	memset(sum, 0, sizeof(*sum));
	sum->by_site = vm->config.stats_by_site;
	for (unsigned i = 0; i < vm->config.cpus; i++)
		stats_add(sum, &vm->cpu[i]->stats);
}

/* ---- creation ---- */

/* Without the window of a VGA, if there is one. The larger part comes first, as slots are looked through in turn. */
static int add_low_memory(struct vm *vm, u64 size)
{
	if (!vm->config.backends.vga)
		return ram_add(&vm->ram, 0, size, vm->memory, false);
	if (ram_add(&vm->ram, MAP_PAM, size - MAP_PAM, vm->memory + MAP_PAM, false) < 0)
		return -1;
	return ram_add(&vm->ram, 0, MAP_LEGACY_HOLE, vm->memory, false);
}

/* Guest memory below the PCI hole and above 4 GiB (dev/map.h). */
static int add_memory(struct vm *vm)
{
	u64 low = MIN(vm->config.memory, MAP_LOW_RAM_END);
	vm->memory = host_ram_create(vm->config.memory);
	vm->ram.memory = vm->memory;
	vm->ram.memory_size = vm->config.memory;
	if (!vm->memory || add_low_memory(vm, low) < 0)
		return -1;
	if (low == vm->config.memory)
		return 0;
	return ram_add(&vm->ram, MAP_HIGH_RAM, vm->config.memory - low, vm->memory + low, false);
}

static int create_cpu(struct vm *vm, unsigned index)
{
	struct vm_cpu *cpu = host_alloc(sizeof(*cpu));
	if (!cpu)
		return -1;
	vm->cpu[index] = cpu;
	cpu->vm = vm;
	cpu->timer_armed = HOST_NEVER;
	cpu->stats.by_site = vm->config.stats_by_site;
	struct vcpu *v = &cpu->vcpu;
	v->index = index;
	v->ops = &vcpu_ops;
	v->engine = vm->config.engine;
	v->trace = vm->config.trace;
	/* What code in spaces does is not followed. */
	v->direct = v->trace & (TRACE_EXEC | TRACE_TRANSLATED) ? DIRECT_OFF : vm->config.direct;
	v->mmu_mode = (u8)vm->config.mmu_mode;
	v->without = vm->config.without;
	v->ram = &vm->ram;
	v->vm = vm;
	cpuid_apply(v, vm->policy);
	v->lapic = &cpu->lapic;
	v->posted = &cpu->posted;
	lapic_init(&cpu->lapic, index, !index, &lapic_ops, cpu);
	cpu->lapic.has_x2apic = cpuid_has(vm->policy, FEATURE_X2APIC);
	cpu->lapic.has_tsc_deadline = cpuid_has(vm->policy, FEATURE_TSC_DEADLINE);
	cpu->lapic.physical_bits = v->physical_bits;
	cpu->timer = host_timer_create(lapic_timer_due, cpu);
	if (!cpu->timer || mmu_create(v) < 0 || v->engine->vcpu_create(v) < 0)
		return -1;
	v->tsc_offset = vm->tsc_offset;
	lapic_set_tsc(&cpu->lapic, __builtin_ia32_rdtsc() + v->tsc_offset, vm_now(vm), host_tsc_hz());
	vm_reset_cpu(cpu, false);
	return 0;
}

/* Everything but the guest; false if the host lacks something. */
static bool create_machine(struct vm *vm)
{
	vm->board_timer = host_timer_create(board_timer_due, vm);
	vm->board_armed = HOST_NEVER;
	pvclock_init(&vm->clock, host_tsc_hz());
	vm->tsc_offset = 0; /* the guest's counter is the host's as long as nothing changes it, so that RDTSC may be run as it is (engine/bt/sensitive.h) */
	if (!vm->board_timer || add_memory(vm) < 0)
		return false;
	vm->board.ejected = vm_ejected;
	vm->config.backends.flash_base = MAP_HIGH_RAM - vm->config.boot.firmware_size - vm->config.backends.flash.size;
	if (board_create(&vm->board, &vm->config.backends, &vm->ram, vm->config.cpus, vm_now(vm), board_message,
			 pic_intr_changed, vm) < 0)
		return false;
	for (unsigned i = 0; i < vm->config.cpus; i++)
		if (create_cpu(vm, i) < 0)
			return false;
	return true;
}

/* Whether the guest's CPUs can address all of its memory, which goes on above the PCI hole. */
static bool check_memory(const struct vm *vm, char *error, size_t error_size)
{
	u64 hole = MAP_HIGH_RAM - MAP_LOW_RAM_END, limit = BIT(vm->policy->physical_bits) - hole;
	if (vm->config.memory <= limit)
		return true;
	host_snprintf(error, error_size,
		      "memory: the guest's CPUs address %u bits, which is %llu MiB of memory at most",
		      vm->policy->physical_bits, (unsigned long long)(limit >> 20));
	return false;
}

static bool load_guest(struct vm *vm, struct state *saved, char *error, size_t error_size)
{
	vm->config.state = NULL; /* the caller's, for now only */
	if (saved)
		return vm_load(vm, saved, error, error_size);
	if (!boot_load(&vm->ram, &vm->config.boot, &vm->entry, error, error_size))
		return false;
	boot_set_cpu(&vm->cpu[0]->vcpu, &vm->entry);
	host_log(LOG_INFO, "guest loaded by %s, entry at %llx", vm->entry.name, (unsigned long long)vm->entry.rip);
	return true;
}

/* Firmware finds the machine described in a device. */
static bool describe_machine(struct vm *vm, char *error, size_t error_size)
{
	const struct vm_config *config = &vm->config;
	const struct boot_devices devices = { config->backends.disk, config->backends.disks, config->backends.net, config->backends.nets };
	vm->config.boot.physical_bits = vm->policy->physical_bits;
	vm->config.backends.firmware = vm->config.boot.protocol == BOOT_FIRMWARE;
	return !vm->config.backends.firmware ||
	       firmware_files_create(&vm->firmware, &vm->board.fw_cfg, &vm->board.mch, &config->boot, &devices, error, error_size);
}

static bool check_cpus(const struct vm_config *config, char *error, size_t size)
{
	if (config->cpus == 1 || !config->engine->one_cpu)
		return true;
	host_snprintf(error, size, "option --cpus: the engine %s runs one CPU", config->engine->name);
	return false;
}

/* UEFI firmware maps all that the CPUs can address, by tables whose size and making cost a multiple of the rest of its work where they address
 * much: 256 MiB of tables for 46 bits. So there are only as many bits as QEMU shows unless told otherwise, or as memory needs. */
#define FIRMWARE_PHYSICAL_BITS 40

static void limit_addresses(struct vm *vm)
{
	if (vm->config.boot.protocol == BOOT_FIRMWARE && vm->config.memory < BIT(FIRMWARE_PHYSICAL_BITS - 1))
		vm->policy->physical_bits = MIN(vm->policy->physical_bits, FIRMWARE_PHYSICAL_BITS);
}

/* The engine may have fewer features for guests than the host. A saved guest has found what it has. */
static bool limit_features(struct vm *vm, struct state *saved, char *error, size_t error_size)
{
	struct cpuid_policy available = { 0 };
	const struct engine_ops *engine = vm->config.engine;
	if (engine->limit) {
		engine->limit(&available, vm->config.mmu_mode);
		cpuid_policy_limit(vm->policy, &available);
	}
	if (saved && !vm_load_model(vm, saved, error, error_size))
		return false;
	const char *beyond = engine->limit ? cpuid_beyond(vm->policy, &available) : NULL;
	if (beyond)
		host_snprintf(error, error_size, "option --engine: the saved guest has the CPU feature %s, which the engine %s cannot give: choose another", beyond,
			      engine->name);
	return !beyond;
}

static bool make_policy(struct vm *vm, struct state *saved, char *error, size_t error_size)
{
	vm->policy = cpuid_policy_create(vm->config.cpu_model, vm->config.cpus, host_tsc_hz(), error, error_size);
	if (vm->policy)
		limit_addresses(vm);
	return vm->policy && limit_features(vm, saved, error, error_size);
}

struct vm *vm_create(const struct vm_config *config, char *error, size_t error_size, bool *user_error)
{
	*user_error = false;
	struct vm *vm = host_alloc(sizeof(*vm));
	if (!vm) {
		host_snprintf(error, error_size, "out of memory");
		return NULL;
	}
	vm->config = *config;
	vm->config.boot.ram_size = config->memory;
	vm->config.boot.cpus = config->cpus;
	vm->config.boot.vga = config->backends.vga;
	vm->config.boot.vga_rom = config->backends.vga_rom;
	vm->config.boot.vga_rom_size = config->backends.vga_rom_size;
	host_lock_init(&vm->lock);
	struct state state = { .loading = true, .data = (u8 *)config->state, .size = config->state_size };
	struct state *saved = config->state ? &state : NULL;
	if (!make_policy(vm, saved, error, error_size) || !check_memory(vm, error, error_size) || !check_cpus(config, error, error_size) ||
	    !describe_machine(vm, error, error_size)) {
		*user_error = true;
	} else if (!create_machine(vm)) {
		host_snprintf(error, error_size,
			      "the host lacks the memory or the resources for a guest of %llu MiB and %u CPUs",
			      (unsigned long long)(config->memory >> 20), config->cpus);
	} else if (!load_guest(vm, saved, error, error_size)) {
		*user_error = true;
	} else if (watchdog_start(vm) < 0) {
		host_snprintf(error, error_size, "out of memory");
	} else {
		return vm;
	}
	vm_destroy(vm);
	return NULL;
}

static void destroy_cpu(struct vm_cpu *cpu)
{
	if (!cpu)
		return;
	host_timer_destroy(cpu->timer);
	if (cpu->vcpu.engine_state)
		cpu->vcpu.engine->vcpu_destroy(&cpu->vcpu);
	if (cpu->vcpu.mmu)
		mmu_destroy(&cpu->vcpu);
	host_free(cpu);
}

void vm_destroy(struct vm *vm)
{
	watchdog_stop(vm);
	host_timer_destroy(vm->board_timer);
	for (unsigned i = 0; i < vm->config.cpus; i++)
		destroy_cpu(vm->cpu[i]);
	board_destroy(&vm->board);
	firmware_files_destroy(&vm->firmware);
	ram_release(&vm->ram);
	if (vm->entry.rom)
		host_ram_destroy(vm->entry.rom, vm->entry.rom_size);
	if (vm->memory)
		host_ram_destroy(vm->memory, vm->config.memory);
	host_free(vm->policy);
	host_free(vm);
}
