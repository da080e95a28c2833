/* Saving and loading a VM: the list of its parts, in one order for both. What is state of a part, its own table says.
 *
 * What is derived is not there: the TLB, translated code, page flags, armed timers, the local APICs' view of who is addressed. Absolute times are guest
 * time (vm/pause.c), which goes on from where it stopped, so that no deadline is converted. */
#include "vm/state.h"

#include "cpu/state.h"
#include "host/port.h"
#include "lib/string.h"

#define ROM_MAX (64ull << 20)

static const struct state_table config_state = STATE_TABLE(struct vm_config, NULL,
	STATE_SAME(struct vm_config, memory), STATE_SAME(struct vm_config, cpus));

const struct state_table vm_time_state = STATE_TABLE(struct vm_time, NULL,
	STATE_NONE(struct vm_time, lost), STATE(struct vm_time, stopped), STATE(struct vm_time, stopped_now),
	STATE(struct vm_time, stopped_tsc), STATE(struct vm_time, stopped_wallclock));

const struct state_table pvclock_state = STATE_TABLE(struct pvclock, NULL,
	STATE(struct pvclock, host_tsc), STATE(struct pvclock, origin), STATE(struct pvclock, wallclock), STATE(struct pvclock, mul),
	STATE(struct pvclock, shift));

const struct state_table vm_cpu_state = STATE_TABLE(struct vm_cpu, NULL,
	STATE_NONE(struct vm_cpu, vcpu), STATE_NONE(struct vm_cpu, lapic), STATE_NONE(struct vm_cpu, posted),
	STATE_NONE(struct vm_cpu, vm), STATE_NONE(struct vm_cpu, timer), STATE_NONE(struct vm_cpu, timer_armed),
	STATE_MAX(struct vm_cpu, requests, REQUEST_INIT | REQUEST_SIPI | REQUEST_CRASH | REQUEST_FLUSH), STATE(struct vm_cpu, sipi_vector),
	STATE(struct vm_cpu, pic_intr), STATE(struct vm_cpu, pic_rises), STATE(struct vm_cpu, extint), STATE(struct vm_cpu, unhalted),
	STATE(struct vm_cpu, pv_eoi), STATE_NONE(struct vm_cpu, steal_asked), STATE_NONE(struct vm_cpu, steal_waited), STATE(struct vm_cpu, lint0),
	STATE(struct vm_cpu, lint0_rises), STATE_NONE(struct vm_cpu, wake), STATE_NONE(struct vm_cpu, asleep), STATE_NONE(struct vm_cpu, held), STATE_NONE(struct vm_cpu, stats),
	STATE_NONE(struct vm_cpu, ringing),
	STATE_NONE(struct vm_cpu, progress), STATE_NONE(struct vm_cpu, rest), STATE_NONE(struct vm_cpu, look_out), STATE_NONE(struct vm_cpu, watch));

/* ---- parts ---- */

/* What waits for the next instruction boundary. PENDING_INTERRUPT follows from the local APIC, the rest is between threads. */
static void cpu_events(struct state *s, struct vcpu *vcpu)
{
	u32 events = vcpu_pending(vcpu) & (PENDING_NMI | PENDING_TRAP);
	state_bytes(s, "vCPU events", vcpu->index, &events, sizeof(events));
	if (s->loading && state_good(s))
		vcpu_set_pending(vcpu, events & (PENDING_NMI | PENDING_TRAP));
}

static void cpus(struct state *s, struct vm *vm)
{
	for (unsigned i = 0; i < vm->config.cpus; i++) {
		struct vm_cpu *cpu = vm->cpu[i];
		if (s->loading)
			cpu->vcpu.engine->state_changed(&cpu->vcpu); /* first: it forgets what is loaded next */
		cpu_state(s, &cpu->vcpu);
		cpu_events(s, &cpu->vcpu);
		state_section(s, "CPU", i, &vm_cpu_state, cpu);
		state_section(s, "local APIC", i, &lapic_state, &cpu->lapic);
		state_section(s, "posted interrupts", i, &posted_state, &cpu->posted);
	}
}

/* A slot of memory that is neither part of the guest's RAM nor a device's. */
struct rom {
	u64 base, size;
};
static const struct state_table rom_state = STATE_TABLE(struct rom, NULL,
	STATE(struct rom, base), STATE(struct rom, size));

static bool is_rom(const struct ram_slot *slot)
{
	return slot->readonly;
}

/* The slot of a ROM that is loaded. One that is not there yet is made by the loader of its protocol otherwise (boot/firmware.c). */
static struct ram_slot *rom_slot(struct vm *vm, const struct rom *rom)
{
	struct ram_slot *slot = ram_find(&vm->ram, rom->base);
	if (slot)
		return slot->base == rom->base && slot->size == rom->size && is_rom(slot) ? slot : NULL;
	if (vm->entry.rom || !rom->size || rom->size > ROM_MAX || (rom->size & ~PAGE_MASK))
		return NULL;
	vm->entry.rom = host_ram_create(rom->size);
	vm->entry.rom_size = rom->size;
	if (!vm->entry.rom || ram_add(&vm->ram, rom->base, rom->size, vm->entry.rom, true) < 0)
		return NULL;
	return ram_find(&vm->ram, rom->base);
}

static void one_rom(struct state *s, struct vm *vm, unsigned index, struct ram_slot *slot)
{
	struct rom rom = { 0 };
	if (slot)
		rom = (struct rom){ slot->base, slot->size };
	state_section(s, "ROM", index, &rom_state, &rom);
	if (!slot && state_good(s))
		slot = rom_slot(vm, &rom);
	state_check(s, slot, "place");
	if (slot && state_good(s))
		state_bytes(s, "ROM contents", index, slot->hva, (u32)slot->size);
}

static void roms(struct state *s, struct vm *vm)
{
	u32 count = 0;
	for (unsigned i = 0; i < vm->ram.slots; i++)
		count += is_rom(&vm->ram.slot[i]);
	state_bytes(s, "ROMs", 0, &count, sizeof(count));
	state_check(s, count <= RAM_SLOTS_MAX, "count");
	for (unsigned i = 0, slot = 0; i < count && state_good(s); i++) {
		while (!s->loading && !is_rom(&vm->ram.slot[slot]))
			slot++;
		one_rom(s, vm, i, s->loading ? NULL : &vm->ram.slot[slot++]);
	}
}

/* Everything but the CPU model. */
static void parts(struct state *s, struct vm *vm)
{
	state_section(s, "machine", 0, &config_state, &vm->config);
	state_section(s, "time", 0, &vm_time_state, &vm->time);
	state_section(s, "clock", 0, &pvclock_state, &vm->clock);
	state_bytes(s, "TSC offset", 0, &vm->tsc_offset, sizeof(vm->tsc_offset));
	cpus(s, vm);
	roms(s, vm);
	board_state(s, &vm->board);
}

/* ---- saving ---- */

static void save(struct state *s, struct vm *vm)
{
	host_lock(&vm->lock);
	cpuid_state(s, vm->policy);
	parts(s, vm);
	host_unlock(&vm->lock);
}

size_t vm_state_size(struct vm *vm)
{
	struct state s = { 0 };
	save(&s, vm);
	return s.at;
}

/* ---- what went wrong, in a sentence ---- */

static void explain(const struct state *s, char *error, size_t size)
{
	const char *field = s->field ? s->field : "contents";
	switch (s->problem) {
	case STATE_GOOD:
		break;
	case STATE_ENDS:
		host_snprintf(error, size, "the snapshot is damaged: its state ends within %s %u", s->section, s->index);
		break;
	case STATE_DIFFERS:
		host_snprintf(error, size, "the snapshot is of another version of nadir or of a machine with other devices: %s %u, %s", s->section,
			      s->index, field);
		break;
	case STATE_NOT_SAME:
		host_snprintf(error, size, "the snapshot is of another machine: %s %u differs in %s", s->section, s->index, field);
		break;
	case STATE_IMPOSSIBLE:
		host_snprintf(error, size, "the snapshot is damaged: %s %u has impossible %s", s->section, s->index, field);
		break;
	case STATE_LACKING:
		host_snprintf(error, size, "the snapshot cannot be restored on this machine: its CPU has not %s", field);
		break;
	}
}

bool vm_save(struct vm *vm, u8 *data, size_t size, char *error, size_t error_size)
{
	struct state s = { .data = data, .size = size };
	save(&s, vm);
	if (s.problem == STATE_LACKING)
		host_snprintf(error, error_size, "the device %s cannot be saved", s.field);
	else if (!state_good(&s) || s.at != size)
		host_snprintf(error, error_size, "the machine changed while it was saved");
	return state_good(&s) && s.at == size;
}

/* ---- loading ---- */

bool vm_load_model(struct vm *vm, struct state *s, char *error, size_t error_size)
{
	cpuid_state(s, vm->policy);
	explain(s, error, error_size);
	return state_good(s);
}

bool vm_load(struct vm *vm, struct state *s, char *error, size_t error_size)
{
	parts(s, vm);
	state_check(s, vm->time.stopped, "time");
	state_end(s);
	explain(s, error, error_size);
	vm_hold(vm);
	return state_good(s);
}
