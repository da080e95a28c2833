/* The port to KVM for unit tests (fake_kvm.h). */
#include "fake_kvm.h"

#include <errno.h>
#include <string.h>

#define FILE_KVM 100
#define FILE_VM 101
#define FILE_VCPU 102

static struct fake_kvm *fake;

void fake_kvm_set(struct fake_kvm *kvm)
{
	fake = kvm;
	if (kvm)
		kvm->interrupt = -1;
}

u64 *fake_kvm_msr(struct fake_kvm *kvm, u32 index)
{
	for (unsigned i = 0; i < FAKE_KVM_MSRS; i++) {
		if (!kvm->msr[i].index)
			kvm->msr[i].index = index;
		if (kvm->msr[i].index == index)
			return &kvm->msr[i].value;
	}
	return NULL;
}

/* ---- requests that do more than copy ---- */

static int check_extension(u64 argument)
{
	return argument == fake->lacking ? 0 : 1;
}

static int supported_cpuid(u64 argument)
{
	struct kvm_cpuid2 *list = (void *)argument;
	static const u32 leaves[] = { 1, 7, 0x80000001 };
	list->nent = 3;
	for (unsigned i = 0; i < 3; i++)
		list->entries[i] = (struct kvm_cpuid_entry2){ .function = leaves[i], .eax = ~0u, .ebx = ~0u, .ecx = ~0u, .edx = ~0u };
	return 0;
}

static int set_cpuid(u64 argument)
{
	fake->cpuid_entries = ((const struct kvm_cpuid2 *)argument)->nent;
	return 0;
}

static int set_memory(u64 argument)
{
	const struct kvm_userspace_memory_region *region = (const void *)argument;
	if (region->slot >= FAKE_KVM_SLOTS)
		return -EINVAL;
	fake->slot[region->slot] = *region;
	return 0;
}

static int get_dirty_log(u64 argument)
{
	const struct kvm_dirty_log *log = (const void *)argument;
	if (log->slot >= FAKE_KVM_SLOTS || !(fake->slot[log->slot].flags & KVM_MEM_LOG_DIRTY_PAGES))
		return -ENOENT;
	memset(log->dirty_bitmap, 0, ((fake->slot[log->slot].memory_size >> 12) + 63) / 64 * 8);
	memcpy(log->dirty_bitmap, &fake->dirty[log->slot], sizeof(u64));
	fake->dirty[log->slot] = 0;
	return 0;
}

static int get_msrs(u64 argument)
{
	struct kvm_msrs *list = (void *)argument;
	for (unsigned i = 0; i < list->nmsrs; i++)
		list->entries[i].data = *fake_kvm_msr(fake, list->entries[i].index);
	return (int)list->nmsrs;
}

static int set_msrs(u64 argument)
{
	const struct kvm_msrs *list = (const void *)argument;
	for (unsigned i = 0; i < list->nmsrs; i++)
		*fake_kvm_msr(fake, list->entries[i].index) = list->entries[i].data;
	return (int)list->nmsrs;
}

static int get_xcrs(u64 argument)
{
	*(struct kvm_xcrs *)argument = (struct kvm_xcrs){ .nr_xcrs = 1, .xcrs[0].value = fake->xcr0 };
	return 0;
}

static int set_xcrs(u64 argument)
{
	fake->xcr0 = ((const struct kvm_xcrs *)argument)->xcrs[0].value;
	return 0;
}

static int set_attribute(u64 argument)
{
	memcpy(&fake->tsc_offset, (const void *)((const struct kvm_device_attr *)argument)->addr, sizeof(u64));
	return 0;
}

static int interrupt(u64 argument)
{
	fake->interrupt = (int)((const struct kvm_interrupt *)argument)->irq;
	return 0;
}

static int nmi(u64 argument)
{
	fake->nmis++;
	return 0;
}

static int nothing(u64 argument)
{
	return 0;
}

static int version(u64 argument)
{
	return KVM_API_VERSION;
}

static int create_vm(u64 argument)
{
	fake->files++;
	return FILE_VM;
}

static int create_vcpu(u64 argument)
{
	fake->files++;
	return FILE_VCPU;
}

static int mapping_size(u64 argument)
{
	return sizeof(fake->shared);
}

/* ---- the table ---- */

#define GET(request, field) { request, -1, offsetof(struct fake_kvm, field), sizeof(((struct fake_kvm *)0)->field), false, NULL }
#define SET(request, field) { request, -1, offsetof(struct fake_kvm, field), sizeof(((struct fake_kvm *)0)->field), true, NULL }

static const struct row {
	u64 request;
	int file; /* -1: the vCPU's */
	size_t offset, size; /* what it copies */
	bool set;
	int (*carry_out)(u64 argument);
} rows[] = {
	{ KVM_GET_API_VERSION, FILE_KVM, .carry_out = version },
	{ KVM_CREATE_VM, FILE_KVM, .carry_out = create_vm },
	{ KVM_GET_VCPU_MMAP_SIZE, FILE_KVM, .carry_out = mapping_size },
	{ KVM_GET_SUPPORTED_CPUID, FILE_KVM, .carry_out = supported_cpuid },
	{ KVM_CREATE_VCPU, FILE_VM, .carry_out = create_vcpu },
	{ KVM_ENABLE_CAP, FILE_VM, .carry_out = nothing },
	{ KVM_SET_TSS_ADDR, FILE_VM, .carry_out = nothing },
	{ KVM_SET_IDENTITY_MAP_ADDR, FILE_VM, .carry_out = nothing },
	{ KVM_X86_SET_MSR_FILTER, FILE_VM, .carry_out = nothing },
	{ KVM_SET_USER_MEMORY_REGION, FILE_VM, .carry_out = set_memory },
	{ KVM_GET_DIRTY_LOG, FILE_VM, .carry_out = get_dirty_log },
	{ KVM_SET_CPUID2, FILE_VCPU, .carry_out = set_cpuid },
	{ KVM_GET_MSRS, FILE_VCPU, .carry_out = get_msrs },
	{ KVM_SET_MSRS, FILE_VCPU, .carry_out = set_msrs },
	{ KVM_GET_XCRS, FILE_VCPU, .carry_out = get_xcrs },
	{ KVM_SET_XCRS, FILE_VCPU, .carry_out = set_xcrs },
	{ KVM_SET_DEVICE_ATTR, FILE_VCPU, .carry_out = set_attribute },
	{ KVM_INTERRUPT, FILE_VCPU, .carry_out = interrupt },
	{ KVM_NMI, FILE_VCPU, .carry_out = nmi },
	GET(KVM_GET_REGS, regs),
	SET(KVM_SET_REGS, regs),
	GET(KVM_GET_SREGS2, sregs),
	SET(KVM_SET_SREGS2, sregs),
	GET(KVM_GET_XSAVE, xsave),
	SET(KVM_SET_XSAVE, xsave),
	GET(KVM_GET_DEBUGREGS, debug),
	SET(KVM_SET_DEBUGREGS, debug),
	GET(KVM_GET_VCPU_EVENTS, events),
	SET(KVM_SET_VCPU_EVENTS, events),
	SET(KVM_SET_GUEST_DEBUG, guest_debug),
};

static int carry_out(const struct row *row, u64 argument)
{
	if (row->carry_out)
		return row->carry_out(argument);
	u8 *here = (u8 *)fake + row->offset;
	memcpy(row->set ? here : (u8 *)argument, row->set ? (u8 *)argument : here, row->size);
	return 0;
}

int host_kvm_call(int file, u64 request, u64 argument)
{
	if (request == KVM_CHECK_EXTENSION)
		return check_extension(argument);
	fake->count[request & 0xff]++;
	if (request == fake->refuse)
		return -EINVAL;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].request == request && file == (rows[i].file < 0 ? FILE_VCPU : rows[i].file))
			return carry_out(&rows[i], argument);
	return -ENOTTY;
}

/* ---- the rest of the port ---- */

int host_kvm_open(void)
{
	return fake ? FILE_KVM : -ENOENT;
}

const char *host_kvm_obstacle(void)
{
	return "the fake host has no KVM";
}

const char *host_kvm_trial(void)
{
	return NULL;
}

void host_kvm_close(int file)
{
	fake->files--;
}

int host_kvm_map(struct host_kvm_vcpu *vcpu, int file, u64 size, u64 immediate_exit)
{
	*vcpu = (struct host_kvm_vcpu){ .file = file, .run = &fake->shared, .size = size, .immediate_exit = fake->shared.page + immediate_exit };
	return 0;
}

void host_kvm_unmap(struct host_kvm_vcpu *vcpu)
{
	fake->files--;
}

/* As KVM does, it says with each exit what the registers are. */
int host_kvm_run(struct host_kvm_vcpu *vcpu)
{
	struct kvm_run *run = &fake->shared.run;
	int result = run->immediate_exit ? -EINTR : fake->guest(fake);
	run->s.regs.regs = fake->regs;
	run->if_flag = !!(fake->regs.rflags & 0x200);
	return result;
}

void host_kvm_stop(struct host_kvm_vcpu *vcpu)
{
	*vcpu->immediate_exit = 1;
}
