/* The registers as GDB numbers them; see registers.h. */
#include "gdb/registers.h"

#include "arch/xsave.h"
#include "cpu/control.h"
#include "cpu/segment.h"
#include "cpu/xstate.h"
#include "lib/string.h"
#include "mmu/mmu.h"

enum kind {
	KIND_GPR, KIND_RIP, KIND_RFLAGS, KIND_SELECTOR, KIND_BASE, KIND_ST, KIND_X87, KIND_STATE, KIND_MXCSR, KIND_CR, KIND_EFER, KIND_KERNEL_GS,
	KIND_WORD, /* a field of struct vcpu, to be looked at only; of the register's size */
};

/* Where a piece of extended state is, in units of 8 bytes within a component of the XSAVE area. */
#define IN_STATE(component, offset) ((u16)((component) << 12 | (offset) / 8))
#define STATE_SSE 1
#define STATE_AVX 2
#define STATE_OPMASK 5
#define STATE_ZMM_HIGH 6
#define STATE_ZMM_16 7

enum x87_register { X87_FCTRL, X87_FSTAT, X87_FTAG, X87_FISEG, X87_FIOFF, X87_FOSEG, X87_FOOFF, X87_FOP };

/* ---- the table ---- */

#define WORD(name_, size_, field) { .name = name_, .size = size_, .kind = KIND_WORD, .index = offsetof(struct vcpu, field), .type = "int" #size_, .group = "system" }

static const struct gdb_register general[GPR_COUNT + 1] = {
	{ .name = "rax", .index = RAX }, { .name = "rbx", .index = RBX }, { .name = "rcx", .index = RCX }, { .name = "rdx", .index = RDX },
	{ .name = "rsi", .index = RSI }, { .name = "rdi", .index = RDI }, { .name = "rbp", .index = RBP, .type = "data_ptr" },
	{ .name = "rsp", .index = RSP, .type = "data_ptr" }, { .name = "r8", .index = R8 }, { .name = "r9", .index = R9 },
	{ .name = "r10", .index = R10 }, { .name = "r11", .index = R11 }, { .name = "r12", .index = R12 }, { .name = "r13", .index = R13 },
	{ .name = "r14", .index = R14 }, { .name = "r15", .index = R15 }, { .name = "rip", .kind = KIND_RIP, .type = "code_ptr" },
};
static const struct gdb_register general32[9] = {
	{ .name = "eax", .index = RAX }, { .name = "ecx", .index = RCX }, { .name = "edx", .index = RDX }, { .name = "ebx", .index = RBX },
	{ .name = "esp", .index = RSP, .type = "data_ptr" }, { .name = "ebp", .index = RBP, .type = "data_ptr" }, { .name = "esi", .index = RSI },
	{ .name = "edi", .index = RDI }, { .name = "eip", .kind = KIND_RIP, .type = "code_ptr" },
};
static const struct gdb_register flags_and_selectors[] = {
	{ .name = "eflags", .kind = KIND_RFLAGS, .type = "i386_eflags" },
	{ .name = "cs", .kind = KIND_SELECTOR, .index = SEG_CS }, { .name = "ss", .kind = KIND_SELECTOR, .index = SEG_SS },
	{ .name = "ds", .kind = KIND_SELECTOR, .index = SEG_DS }, { .name = "es", .kind = KIND_SELECTOR, .index = SEG_ES },
	{ .name = "fs", .kind = KIND_SELECTOR, .index = SEG_FS }, { .name = "gs", .kind = KIND_SELECTOR, .index = SEG_GS },
};
static const struct gdb_register x87_control[] = {
	{ .name = "fctrl", .index = X87_FCTRL }, { .name = "fstat", .index = X87_FSTAT }, { .name = "ftag", .index = X87_FTAG },
	{ .name = "fiseg", .index = X87_FISEG }, { .name = "fioff", .index = X87_FIOFF }, { .name = "foseg", .index = X87_FOSEG },
	{ .name = "fooff", .index = X87_FOOFF }, { .name = "fop", .index = X87_FOP },
};
static const struct gdb_register segment_bases[] = {
	{ .name = "fs_base", .kind = KIND_BASE, .index = SEG_FS }, { .name = "gs_base", .kind = KIND_BASE, .index = SEG_GS },
};
/* Named as QEMU names them, as far as it has them. */
static const struct gdb_register system[] = {
	{ .name = "k_gs_base", .size = 8, .kind = KIND_KERNEL_GS, .type = "int64" },
	{ .name = "cr0", .size = 8, .kind = KIND_CR, .index = 0, .type = "cr0_flags" },
	{ .name = "cr2", .size = 8, .kind = KIND_CR, .index = 2, .type = "int64" },
	{ .name = "cr3", .size = 8, .kind = KIND_CR, .index = 3, .type = "int64" },
	{ .name = "cr4", .size = 8, .kind = KIND_CR, .index = 4, .type = "cr4_flags" },
	{ .name = "cr8", .size = 8, .kind = KIND_CR, .index = 8, .type = "int64" },
	{ .name = "efer", .size = 8, .kind = KIND_EFER, .type = "efer_flags" },
	WORD("xcr0", 8, xcr0), WORD("cs_base", 8, seg[SEG_CS].base), WORD("ss_base", 8, seg[SEG_SS].base), WORD("ds_base", 8, seg[SEG_DS].base),
	WORD("es_base", 8, seg[SEG_ES].base), WORD("cs_limit", 4, seg[SEG_CS].limit), WORD("cs_attr", 4, seg[SEG_CS].attr),
	WORD("gdt_base", 8, gdtr.base), WORD("gdt_limit", 2, gdtr.limit), WORD("idt_base", 8, idtr.base), WORD("idt_limit", 2, idtr.limit),
	WORD("ldtr", 2, ldtr.selector), WORD("ldtr_base", 8, ldtr.base), WORD("tr", 2, tr.selector), WORD("tr_base", 8, tr.base), WORD("cpl", 1, cpl),
	WORD("dr0", 8, dr[0]), WORD("dr1", 8, dr[1]), WORD("dr2", 8, dr[2]), WORD("dr3", 8, dr[3]), WORD("dr6", 8, dr6), WORD("dr7", 8, dr7),
};

static struct gdb_register *add(struct gdb_registers *r, enum gdb_feature feature, const struct gdb_register *row)
{
	r->row[r->count] = *row;
	r->row[r->count].feature = (u8)feature;
	return &r->row[r->count++];
}

/* Rows of one size, where they do not say another, and of integers, where they do not say a type. */
static void add_rows(struct gdb_registers *r, enum gdb_feature feature, unsigned size, const struct gdb_register *rows, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct gdb_register *row = add(r, feature, &rows[i]);
		row->size = row->size ? row->size : (u8)size;
		row->type = row->type ? row->type : size == 8 ? "int64" : "int32";
		if (row->kind == KIND_WORD)
			row->type = row->size == 8 ? "int64" : row->size == 4 ? "int32" : row->size == 2 ? "int16" : "int8";
	}
}

/* A bank of registers with numbers: `stride` bytes apart in a component, from `offset` on. */
struct bank {
	const char *format, *type;
	u8 feature, size, kind, component;
	u8 first, count, count32;
	u16 offset, stride;
};

static const struct bank st_bank = { "st%u", "i387_ext", GDB_CORE, 10, KIND_ST, 0, 0, 8, 8, 0, 0 };
static const struct bank banks[] = {
	{ "xmm%u", "vec128", GDB_SSE, 16, KIND_STATE, STATE_SSE, 0, 16, 8, 0, 16 },
	{ "ymm%uh", "uint128", GDB_AVX, 16, KIND_STATE, STATE_AVX, 0, 16, 8, 0, 16 },
	{ "xmm%u", "vec128", GDB_AVX512, 16, KIND_STATE, STATE_ZMM_16, 16, 16, 0, 0, 64 },
	{ "ymm%uh", "uint128", GDB_AVX512, 16, KIND_STATE, STATE_ZMM_16, 16, 16, 0, 16, 64 },
	{ "k%u", "uint64", GDB_AVX512, 8, KIND_STATE, STATE_OPMASK, 0, 8, 8, 0, 8 },
	{ "zmm%uh", "v2ui128", GDB_AVX512, 32, KIND_STATE, STATE_ZMM_HIGH, 0, 16, 8, 0, 32 },
	{ "zmm%uh", "v2ui128", GDB_AVX512, 32, KIND_STATE, STATE_ZMM_16, 16, 16, 0, 32, 64 },
};

static void add_bank(struct gdb_registers *r, const struct bank *b)
{
	unsigned count = r->architecture == GDB_X86_64 ? b->count : b->count32;
	for (unsigned i = 0; i < count; i++) {
		u16 index = b->kind == KIND_ST ? (u16)i : IN_STATE(b->component, b->offset + i * b->stride);
		struct gdb_register *row =
			add(r, (enum gdb_feature)b->feature, &(struct gdb_register){ .size = b->size, .kind = b->kind, .index = index, .type = b->type });
		host_snprintf(row->name, sizeof(row->name), b->format, b->first + i);
	}
}

static void add_kind(struct gdb_registers *r, unsigned first, enum kind kind)
{
	for (; first < r->count; first++)
		r->row[first].kind = (u8)kind;
}

void gdb_registers_init(struct gdb_registers *r, enum gdb_architecture architecture, const struct cpuid_policy *policy)
{
	bool wide = architecture == GDB_X86_64;
	unsigned word = wide ? 8 : 4;
	r->architecture = architecture;
	r->count = 0;
	add_rows(r, GDB_CORE, word, wide ? general : general32, wide ? ARRAY_SIZE(general) : ARRAY_SIZE(general32));
	add_rows(r, GDB_CORE, 4, flags_and_selectors, ARRAY_SIZE(flags_and_selectors));
	add_bank(r, &st_bank);
	add_rows(r, GDB_CORE, 4, x87_control, ARRAY_SIZE(x87_control));
	add_kind(r, r->count - ARRAY_SIZE(x87_control), KIND_X87);
	for (unsigned i = r->count - ARRAY_SIZE(x87_control); i < r->count; i++)
		r->row[i].group = "float";
	for (unsigned i = 0; i < ARRAY_SIZE(banks); i++) {
		const struct bank *b = &banks[i];
		if (!b->component || ((policy->xcr0 | XCR0_SSE) & BIT(b->component)))
			add_bank(r, b);
		if (b->feature == GDB_SSE)
			add(r, GDB_SSE, &(struct gdb_register){ .name = "mxcsr", .size = 4, .kind = KIND_MXCSR, .type = "i386_mxcsr", .group = "vector" });
	}
	/* GDB 13's i386 knows no registers of that feature, and stumbles over them. */
	add_rows(r, wide ? GDB_SEGMENTS : GDB_SYSTEM, word, segment_bases, ARRAY_SIZE(segment_bases));
	add_rows(r, GDB_SYSTEM, 8, system, ARRAY_SIZE(system));
}

/* ---- x87 ---- */

/* The full tag of a register: 0 a number, 1 zero, 2 something special, 3 empty. Intel SDM volume 2, FXSAVE. */
static unsigned full_tag(const struct fxsave_area *x, unsigned physical)
{
	unsigned top = x->fsw >> 11 & 7;
	const u8 *st = x->st[(physical - top) & 7];
	u64 fraction;
	memcpy(&fraction, st, 8);
	unsigned exponent = (st[8] | st[9] << 8) & 0x7fff;
	if (!(x->ftw >> physical & 1))
		return 3;
	if (exponent == 0x7fff)
		return 2;
	if (!exponent)
		return fraction ? 2 : 1;
	return fraction >> 63 ? 0 : 2;
}

static u32 x87_get(const struct fxsave_area *x, enum x87_register which)
{
	u32 tags = 0;
	switch (which) {
	case X87_FCTRL:
		return x->fcw;
	case X87_FSTAT:
		return x->fsw;
	case X87_FTAG:
		for (unsigned i = 0; i < 8; i++)
			tags |= full_tag(x, i) << (2 * i);
		return tags;
	case X87_FISEG:
		return (u32)(x->fip >> 32);
	case X87_FIOFF:
		return (u32)x->fip;
	case X87_FOSEG:
		return (u32)(x->fdp >> 32);
	case X87_FOOFF:
		return (u32)x->fdp;
	default:
		return x->fop;
	}
}

static void set_half(u64 *word, unsigned shift, u32 value)
{
	*word = (*word & ~(0xffffffffull << shift)) | (u64)value << shift;
}

static void x87_set(struct fxsave_area *x, enum x87_register which, u32 value)
{
	switch (which) {
	case X87_FCTRL:
		x->fcw = (u16)value;
		break;
	case X87_FSTAT:
		x->fsw = (u16)value;
		break;
	case X87_FTAG:
		x->ftw = 0;
		for (unsigned i = 0; i < 8; i++)
			x->ftw |= (u8)(((value >> (2 * i) & 3) != 3) << i);
		break;
	case X87_FISEG:
	case X87_FIOFF:
		set_half(&x->fip, which == X87_FISEG ? 32 : 0, value);
		break;
	case X87_FOSEG:
	case X87_FOOFF:
		set_half(&x->fdp, which == X87_FOSEG ? 32 : 0, value);
		break;
	default:
		x->fop = (u16)value;
	}
}

/* ---- reading ---- */

static u64 control_register(struct vm_cpu *cpu, unsigned number)
{
	const struct vcpu *v = &cpu->vcpu;
	switch (number) {
	case 0:
		return v->cr0;
	case 2:
		return v->cr2;
	case 3:
		return v->cr3;
	case 4:
		return v->cr4;
	default:
		return lapic_cr8(&cpu->lapic);
	}
}

static u64 read_word(struct vm_cpu *cpu, const struct gdb_register *row)
{
	struct vcpu *v = &cpu->vcpu;
	switch (row->kind) {
	case KIND_GPR:
		return v->gpr[row->index];
	case KIND_RIP:
		return v->rip;
	case KIND_RFLAGS:
		return v->rflags;
	case KIND_SELECTOR:
		return v->seg[row->index].selector;
	case KIND_BASE:
		return v->seg[row->index].base;
	case KIND_CR:
		return control_register(cpu, row->index);
	case KIND_EFER:
		return v->efer;
	case KIND_KERNEL_GS:
		return v->msr.kernel_gs_base;
	default:
		return xstate_mxcsr(v);
	}
}

void gdb_register_read(struct vm_cpu *cpu, const struct gdb_register *row, u8 value[GDB_REGISTER_MAX])
{
	struct vcpu *v = &cpu->vcpu;
	struct fxsave_area x87;
	u64 word;
	switch (row->kind) {
	case KIND_STATE:
		memcpy(value, xstate_data(v, row->index >> 12) + (row->index & 0xfff) * 8, row->size);
		return;
	case KIND_WORD:
		memcpy(value, (const u8 *)v + row->index, row->size);
		return;
	case KIND_ST:
	case KIND_X87:
		xstate_read_x87(v, &x87);
		if (row->kind == KIND_ST) {
			memcpy(value, x87.st[row->index], row->size);
			return;
		}
		word = x87_get(&x87, (enum x87_register)row->index);
		break;
	default:
		word = read_word(cpu, row);
	}
	memcpy(value, &word, MIN(row->size, sizeof(word)));
}

/* ---- writing ---- */

/* What a debugger may change of RFLAGS; V86 mode needs segments to go with it. */
#define RFLAGS_WRITABLE                                                                                                                    \
	(RFLAGS_STATUS | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT | RFLAGS_RF | RFLAGS_AC | RFLAGS_VIF | RFLAGS_VIP | RFLAGS_ID)

static bool write_rflags(struct vcpu *v, u64 value)
{
	if ((value ^ v->rflags) & 0xffffffff & ~RFLAGS_WRITABLE)
		return false;
	v->rflags = (v->rflags & ~RFLAGS_WRITABLE) | (value & RFLAGS_WRITABLE);
	mmu_update_view(v);
	return true;
}

/* A halted CPU that is sent somewhere goes there, and so does one that crashed. */
static bool write_rip(struct vcpu *v, u64 value)
{
	if (!is_canonical(value, vcpu_linear_bits(v)) || (!vcpu_64bit(v) && value >> 32))
		return false;
	v->rip = value;
	if (v->activity == ACTIVITY_HLT || v->activity == ACTIVITY_SHUTDOWN)
		v->activity = ACTIVITY_ACTIVE;
	v->shadow = 0;
	return true;
}

/* In protected mode a selector goes with a descriptor, which to fetch may fault. */
static bool write_selector(struct vcpu *v, enum segment_register seg, u64 value)
{
	if (!vcpu_real_or_v86(v) || value >> 16)
		return false;
	segment_set_real(v, seg, (u16)value);
	return true;
}

static bool write_base(struct vcpu *v, u64 *base, u64 value)
{
	if (!is_canonical(value, v->linear_bits))
		return false;
	*base = value;
	return true;
}

/* As a MOV at CPL 0 would do it. What would leave user code behind in another mode is refused. */
static bool write_control(struct vm_cpu *cpu, const struct gdb_register *row, u64 value)
{
	struct vcpu *v = &cpu->vcpu;
	struct guest_fault fault = v->fault;
	u8 cpl = v->cpl;
	if (row->kind == KIND_CR && row->index == 8) {
		if (value > 15)
			return false;
		lapic_set_cr8(&cpu->lapic, value);
		vm_lapic_changed(cpu, vm_now(cpu->vm));
		return true;
	}
	if (row->kind == KIND_CR && row->index == 0 && ((value ^ v->cr0) & (CR0_PE | CR0_PG)) && (cpl || vcpu_v86(v)))
		return false;
	v->cpl = 0;
	bool ok = row->kind == KIND_CR ? control_write_cr(v, row->index, value) : control_write_efer(v, value);
	cpu_set_cpl(v, cpl);
	v->fault = fault;
	return ok;
}

static bool write_word(struct vm_cpu *cpu, const struct gdb_register *row, u64 value)
{
	struct vcpu *v = &cpu->vcpu;
	switch (row->kind) {
	case KIND_GPR:
		v->gpr[row->index] = value;
		return true;
	case KIND_RIP:
		return write_rip(v, value);
	case KIND_RFLAGS:
		return write_rflags(v, value);
	case KIND_SELECTOR:
		return write_selector(v, (enum segment_register)row->index, value);
	case KIND_BASE:
		return write_base(v, &v->seg[row->index].base, value);
	case KIND_KERNEL_GS:
		return write_base(v, &v->msr.kernel_gs_base, value);
	case KIND_CR:
	case KIND_EFER:
		return write_control(cpu, row, value);
	case KIND_MXCSR:
		return xstate_set_mxcsr(v, (u32)value);
	default:
		return false;
	}
}

/* The engine may have copies of what was written here. */
static void changed(struct vcpu *v)
{
	u8 shadow = v->shadow;
	v->engine->state_changed(v);
	v->shadow = shadow;
}

static void write_x87(struct vcpu *v, const struct gdb_register *row, const u8 *value)
{
	struct fxsave_area x87;
	u32 word;
	memcpy(&word, value, sizeof(word));
	xstate_read_x87(v, &x87);
	if (row->kind == KIND_ST)
		memcpy(x87.st[row->index], value, row->size);
	else
		x87_set(&x87, (enum x87_register)row->index, word);
	xstate_write_x87(v, &x87);
}

bool gdb_register_write(struct vm_cpu *cpu, const struct gdb_register *row, const u8 value[GDB_REGISTER_MAX])
{
	struct vcpu *v = &cpu->vcpu;
	u8 old[GDB_REGISTER_MAX];
	u64 word = 0;
	gdb_register_read(cpu, row, old);
	if (!memcmp(old, value, row->size))
		return true;
	switch (row->kind) {
	case KIND_STATE:
		memcpy(xstate_data(v, row->index >> 12) + (row->index & 0xfff) * 8, value, row->size);
		xstate_use(v, row->index >> 12);
		break;
	case KIND_ST:
	case KIND_X87:
		write_x87(v, row, value);
		break;
	case KIND_WORD:
		return false;
	default:
		memcpy(&word, value, row->size);
		if (!write_word(cpu, row, word))
			return false;
		if (row->kind != KIND_CR && row->kind != KIND_EFER)
			return true;
	}
	changed(v);
	return true;
}
