/* The XSAVE family, FXSAVE and MXCSR on the vCPU's image of its x87, SSE and extended state.
 * Intel SDM volume 1, "Operation of XSAVE", "... of XRSTOR", "... of XSAVEOPT", "... of XSAVEC", "... of XSAVES", "...
 * of XRSTORS"; volume 2, FXSAVE, FXRSTOR, LDMXCSR.
 *
 * An instruction is a list of pieces: where each lies in guest memory, and where in the host's. Saving checks that all
 * can be written before it writes one; restoring reads all into a scratch area, checks, and only then changes the
 * image.
 *
 * A component whose XSTATE_BV bit is clear in the image is in its initial configuration, whatever its bytes say. */
#include "cpu/xstate.h"

#include "arch/xsave.h"
#include "cpu/cpuid.h"
#include "cpu/host_cpuid.h"
#include "lib/string.h"
#include "mmu/mmu.h"

_Static_assert(XSAVE_AREA_SIZE == sizeof(struct xsave_area), "the image is an XSAVE area");

#define SSE_AND_AVX (XCR0_SSE | XCR0_AVX)
#define PIECES_MAX 12

struct piece {
	u32 offset; /* in the guest's area */
	u8 *data;
	u32 size;
};

struct pieces {
	unsigned count;
	struct piece piece[PIECES_MAX];
};

static struct xsave_area *image_of(struct vcpu *vcpu)
{
	return (struct xsave_area *)vcpu->xsave;
}

/* ---- layout ---- */

u64 xstate_host_mask(void)
{
	u64 mask = host_xcr0() & (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512);
	return (mask & XCR0_AVX512) == XCR0_AVX512 ? mask : mask & ~XCR0_AVX512;
}

void xstate_component(unsigned index, u32 *offset, u32 *size)
{
	struct cpuid_regs r = host_cpuid(0xd, index);
	*offset = r.reg[CPUID_EBX];
	*size = r.reg[CPUID_EAX];
}

/* Where an extended component lies in an area with this XCOMP_BV; 0 means the standard format. */
static u32 component_offset(const struct vcpu *vcpu, unsigned index, u64 xcomp_bv)
{
	const struct xstate_layout *layout = vcpu->cpuid->xstate;
	u32 offset = sizeof(struct fxsave_area) + sizeof(struct xsave_header);
	if (!(xcomp_bv & XCOMP_COMPACT))
		return layout[index].offset;
	for (unsigned i = 2; i <= index; i++) {
		if (!(xcomp_bv & BIT(i)))
			continue;
		if (layout[i].align64)
			offset = (offset + 63) & ~63u;
		if (i < index)
			offset += layout[i].size;
	}
	return offset;
}

/* How much of a component an instruction sees: outside 64-bit mode only registers 0 to 7 exist, and nothing of
 * Hi16_ZMM. */
static u32 visible_size(const struct vcpu *vcpu, unsigned index)
{
	static const u8 shift_outside_64bit[XSTATE_COMPONENTS] = { [1] = 1, [2] = 1, [6] = 1, [7] = 31 };
	u32 size = index == 1 ? 256 : vcpu->cpuid->xstate[index].size;
	return vcpu_64bit(vcpu) ? size : size >> shift_outside_64bit[index];
}

static u32 full_size(const struct vcpu *vcpu, unsigned index)
{
	return index == 1 ? 256 : vcpu->cpuid->xstate[index].size;
}

/* Bytes of component 1 or higher in an area in standard format. */
static u8 *component_data(const struct vcpu *vcpu, struct xsave_area *area, unsigned index)
{
	return index == 1 ? area->legacy.xmm[0] : (u8 *)area + vcpu->cpuid->xstate[index].offset;
}

/* ---- initial configurations ---- */

static void init_x87(struct fxsave_area *area)
{
	memset(area, 0, offsetof(struct fxsave_area, mxcsr));
	memset(area->st, 0, sizeof(area->st));
	area->fcw = FCW_INIT;
}

/* Write the initial values of components that are marked so, leaving the marks. */
static void materialize(struct vcpu *vcpu, u64 mask)
{
	struct xsave_area *image = image_of(vcpu);
	u64 clear = mask & ~image->header.xstate_bv;
	if (clear & XCR0_X87)
		init_x87(&image->legacy);
	for (unsigned i = 1; i < XSTATE_COMPONENTS; i++)
		if (clear & BIT(i))
			memset(component_data(vcpu, image, i), 0, full_size(vcpu, i));
}

static bool same_legacy(const struct fxsave_area *a, const struct fxsave_area *b)
{
	for (unsigned i = 0; i < 8; i++)
		if (memcmp(a->st[i], b->st[i], 10))
			return false;
	return !memcmp(a, b, offsetof(struct fxsave_area, mxcsr_mask));
}

bool xstate_same(struct vcpu *a, struct vcpu *b)
{
	u64 mask = a->cpuid->xcr0;
	materialize(a, mask);
	materialize(b, mask);
	if (!same_legacy(&image_of(a)->legacy, &image_of(b)->legacy))
		return false;
	for (unsigned i = 1; i < XSTATE_COMPONENTS; i++)
		if ((mask & BIT(i)) && memcmp(component_data(a, image_of(a), i), component_data(b, image_of(b), i), full_size(a, i)))
			return false;
	return true;
}

/* Put components into their initial configurations, as far as this mode sees them. */
static void init_components(struct vcpu *vcpu, u64 mask)
{
	struct xsave_area *image = image_of(vcpu);
	if (mask & XCR0_X87)
		image->header.xstate_bv &= ~XCR0_X87;
	for (unsigned i = 1; i < XSTATE_COMPONENTS; i++) {
		if (!(mask & image->header.xstate_bv & BIT(i)))
			continue;
		if (visible_size(vcpu, i) == full_size(vcpu, i))
			image->header.xstate_bv &= ~BIT(i);
		else
			memset(component_data(vcpu, image, i), 0, visible_size(vcpu, i));
	}
}

/* What MXCSR may hold: the host's mask, since the host's processor will load it. Intel SDM volume 1, "Guidelines for
 * Writing to the MXCSR Register". */
static u32 host_mxcsr_mask(void)
{
	alignas(16) struct fxsave_area area = { 0 };
	__asm__ volatile("fxsave %0" : "=m"(area));
	return area.mxcsr_mask ? area.mxcsr_mask : 0xffbf;
}

/* Intel SDM volume 1, "Operation of XRSTOR". */
bool xstate_possible(const struct vcpu *vcpu)
{
	const struct xsave_area *image = (const struct xsave_area *)(const void *)vcpu->xsave;
	static const u64 zeros[6];
	return !(image->header.xstate_bv & ~xstate_host_mask()) && !image->header.xcomp_bv &&
	       !memcmp(image->header.reserved, zeros, sizeof(zeros)) && !((image->legacy.mxcsr | image->legacy.mxcsr_mask) & ~host_mxcsr_mask());
}

/* x87 after RESET is not its initial configuration: FCW is 40H, and all registers are valid zeros (tags 5555H).
 * Intel SDM volume 3, "IA-32 and Intel 64 Processor States Following Power-up, Reset, or INIT". INIT changes nothing
 * here. */
void xstate_reset(struct vcpu *vcpu)
{
	struct xsave_area *image = image_of(vcpu);
	memset(image, 0, sizeof(*image));
	image->legacy.fcw = FCW_RESET;
	image->legacy.ftw = 0xff;
	image->legacy.mxcsr = MXCSR_INIT;
	image->legacy.mxcsr_mask = host_mxcsr_mask();
	image->header.xstate_bv = XCR0_X87;
}

/* ---- pieces ---- */

/* Pieces that touch on both sides become one. */
static void add_piece(struct pieces *list, u32 offset, void *data, u32 size)
{
	struct piece *last = list->count ? &list->piece[list->count - 1] : NULL;
	if (!size)
		return;
	if (last && last->offset + last->size == offset && last->data + last->size == data)
		last->size += size;
	else
		list->piece[list->count++] = (struct piece){ offset, data, size };
}

#define LEGACY_PIECE(list, area, first, end) add_piece(list, first, (u8 *)(area) + (first), (end) - (first))

static void add_legacy(const struct vcpu *vcpu, struct pieces *list, struct fxsave_area *area, u64 mask, bool mxcsr)
{
	if (mask & XCR0_X87)
		LEGACY_PIECE(list, area, 0, 24);
	if (mxcsr)
		LEGACY_PIECE(list, area, 24, 32);
	if (mask & XCR0_X87)
		LEGACY_PIECE(list, area, 32, 160);
	if (mask & XCR0_SSE)
		LEGACY_PIECE(list, area, 160, 160 + visible_size(vcpu, 1));
}

static void add_extended(const struct vcpu *vcpu, struct pieces *list, struct xsave_area *area, u64 mask, u64 xcomp_bv)
{
	for (unsigned i = 2; i < XSTATE_COMPONENTS; i++)
		if (mask & BIT(i))
			add_piece(list, component_offset(vcpu, i, xcomp_bv), component_data(vcpu, area, i),
				  visible_size(vcpu, i));
}

/* The caller has checked the address of the first byte only. */
static bool check_canonical(struct vcpu *vcpu, gla_t gla, u32 size)
{
	if (vcpu_64bit(vcpu) && !is_canonical(gla + size - 1, vcpu_linear_bits(vcpu)))
		return vcpu_raise_gp(vcpu, 0);
	return true;
}

static bool write_pieces(struct vcpu *vcpu, gla_t gla, const struct pieces *list)
{
	for (unsigned i = 0; i < list->count; i++) {
		const struct piece *p = &list->piece[i];
		if (!check_canonical(vcpu, gla + p->offset, p->size) ||
		    !mmu_probe_write(vcpu, gla + p->offset, p->size, ACCESS_WRITE))
			return false;
	}
	for (unsigned i = 0; i < list->count; i++) {
		const struct piece *p = &list->piece[i];
		if (!mmu_write(vcpu, gla + p->offset, p->data, p->size, ACCESS_WRITE))
			return false;
	}
	return true;
}

static bool read_pieces(struct vcpu *vcpu, gla_t gla, const struct pieces *list)
{
	for (unsigned i = 0; i < list->count; i++) {
		const struct piece *p = &list->piece[i];
		if (!check_canonical(vcpu, gla + p->offset, p->size) ||
		    !mmu_read(vcpu, gla + p->offset, p->data, p->size, ACCESS_READ))
			return false;
	}
	return true;
}

/* ---- legacy formats ---- */

/* The image's legacy region as the guest asked for it. nadir keeps no FCS and FDS: CPUID says that they are zero. */
static void legacy_to_guest(struct fxsave_area *to, const struct fxsave_area *from, bool rex_w)
{
	*to = *from;
	if (rex_w)
		return;
	to->fip &= 0xffffffff;
	to->fdp &= 0xffffffff;
}

/* What the x87 keeps of the bytes it is given: reserved bits vanish, and the summary of FSW follows the masks.
 * Intel SDM volume 1, "x87 FPU Control Word", "x87 FPU Status Word". */
static void legacy_from_guest(struct fxsave_area *area, bool rex_w)
{
	area->fcw = (area->fcw & 0x1f3f) | 0x40;
	area->fsw &= 0x7f7f;
	if (area->fsw & ~area->fcw & 0x3f)
		area->fsw |= 0x8080;
	area->reserved1 = 0;
	area->fop &= 0x7ff;
	if (!rex_w) {
		area->fip &= 0xffffffff;
		area->fdp &= 0xffffffff;
	}
	for (unsigned i = 0; i < 8; i++)
		memset(area->st[i] + 10, 0, 6);
}

static void load_x87(struct xsave_area *image, const struct fxsave_area *from)
{
	memcpy(&image->legacy, from, offsetof(struct fxsave_area, mxcsr));
	memcpy(image->legacy.st, from->st, sizeof(from->st));
	image->header.xstate_bv |= XCR0_X87;
}

/* Take over component `index` (1 or higher) from an area in standard format. */
static void load_component(struct vcpu *vcpu, struct xsave_area *from, unsigned index)
{
	struct xsave_area *image = image_of(vcpu);
	u32 size = visible_size(vcpu, index);
	if (!size)
		return;
	materialize(vcpu, BIT(index));
	memcpy(component_data(vcpu, image, index), component_data(vcpu, from, index), size);
	image->header.xstate_bv |= BIT(index);
}

/* ---- for a debugger ---- */

u8 *xstate_data(struct vcpu *vcpu, unsigned index)
{
	materialize(vcpu, BIT(index));
	return component_data(vcpu, image_of(vcpu), index);
}

void xstate_use(struct vcpu *vcpu, unsigned index)
{
	image_of(vcpu)->header.xstate_bv |= BIT(index);
}

void xstate_read_x87(struct vcpu *vcpu, struct fxsave_area *area)
{
	materialize(vcpu, XCR0_X87);
	*area = image_of(vcpu)->legacy;
}

void xstate_write_x87(struct vcpu *vcpu, const struct fxsave_area *area)
{
	struct fxsave_area kept = *area;
	legacy_from_guest(&kept, true);
	load_x87(image_of(vcpu), &kept);
}

u32 xstate_mxcsr(const struct vcpu *vcpu)
{
	return ((const struct xsave_area *)vcpu->xsave)->legacy.mxcsr;
}

bool xstate_set_mxcsr(struct vcpu *vcpu, u32 value)
{
	struct xsave_area *image = image_of(vcpu);
	if (value & ~image->legacy.mxcsr_mask)
		return false;
	image->legacy.mxcsr = value;
	return true;
}

/* ---- MXCSR ---- */

static bool mxcsr_valid(struct vcpu *vcpu, u32 mxcsr)
{
	if (mxcsr & ~image_of(vcpu)->legacy.mxcsr_mask)
		return vcpu_raise_gp(vcpu, 0);
	return true;
}

/* ---- XSAVE ---- */

static bool check_xsave(struct vcpu *vcpu, gla_t gla, bool supervisor)
{
	if (!(vcpu->cr4 & CR4_OSXSAVE))
		return vcpu_raise_ud(vcpu);
	if (vcpu->cr0 & CR0_TS)
		return vcpu_raise(vcpu, VEC_NM);
	if (supervisor && vcpu->cpl)
		return vcpu_raise_gp(vcpu, 0);
	if (gla & 63)
		return vcpu_raise_gp(vcpu, 0);
	return true;
}

static bool has_kind(const struct vcpu *vcpu, enum xsave_kind kind)
{
	static const u8 feature[] = {
		[XSAVE_PLAIN] = FEATURE_XSAVE,
		[XSAVE_OPT] = FEATURE_XSAVEOPT,
		[XSAVE_COMPACT] = FEATURE_XSAVEC,
		[XSAVE_SUPERVISOR] = FEATURE_XSAVES,
	};
	return cpuid_has(vcpu->cpuid, feature[kind]);
}

/* XSTATE_BV for the requested components. The compacted format keeps MXCSR within SSE, the standard one beside it. */
static u64 components_in_use(struct vcpu *vcpu, u64 rfbm, bool compact)
{
	struct xsave_area *image = image_of(vcpu);
	u64 in_use = image->header.xstate_bv & rfbm;
	if (compact && image->legacy.mxcsr != MXCSR_INIT)
		in_use |= rfbm & XCR0_SSE;
	return in_use;
}

bool xstate_save(struct vcpu *vcpu, enum xsave_kind kind, gla_t gla, u64 mask, bool rex_w)
{
	bool compact = kind == XSAVE_COMPACT || kind == XSAVE_SUPERVISOR;
	u64 rfbm = mask & (vcpu->xcr0 | (kind == XSAVE_SUPERVISOR ? vcpu->msr.xss : 0));
	struct xsave_header header;
	struct pieces list = { 0 };
	struct fxsave_area legacy;

	if (!has_kind(vcpu, kind))
		return vcpu_raise_ud(vcpu);
	if (!check_xsave(vcpu, gla, kind == XSAVE_SUPERVISOR))
		return false;
	materialize(vcpu, rfbm);
	legacy_to_guest(&legacy, &image_of(vcpu)->legacy, rex_w);
	u64 in_use = components_in_use(vcpu, rfbm, compact);
	u64 stored = kind == XSAVE_PLAIN ? rfbm : in_use;
	header.xstate_bv = in_use;
	header.xcomp_bv = rfbm | XCOMP_COMPACT;
	if (!compact) {
		u64 old;
		if (!check_canonical(vcpu, gla + sizeof(legacy), sizeof(old)) ||
		    !mmu_read(vcpu, gla + sizeof(legacy), &old, sizeof(old), ACCESS_RMW))
			return false;
		header.xstate_bv |= old & ~rfbm;
	}
	add_legacy(vcpu, &list, &legacy, stored, compact ? stored & XCR0_SSE : rfbm & SSE_AND_AVX);
	add_piece(&list, sizeof(legacy), &header, compact ? 16 : 8);
	add_extended(vcpu, &list, image_of(vcpu), stored, compact ? header.xcomp_bv : 0);
	return write_pieces(vcpu, gla, &list);
}

/* ---- XRSTOR ---- */

static bool all_zero(const u64 *words, unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++)
		if (words[i])
			return false;
	return true;
}

static bool header_valid(const struct vcpu *vcpu, const struct xsave_header *h, bool supervisor)
{
	u64 enabled = vcpu->xcr0 | (supervisor ? vcpu->msr.xss : 0);
	if (h->xcomp_bv & XCOMP_COMPACT)
		return cpuid_has(vcpu->cpuid, FEATURE_XSAVEC) && !(h->xcomp_bv & ~(enabled | XCOMP_COMPACT)) &&
		       !(h->xstate_bv & ~h->xcomp_bv) && !(h->xstate_bv & XCOMP_COMPACT) && all_zero(h->reserved, 0, 6);
	return !supervisor && !(h->xstate_bv & ~enabled) && !h->xcomp_bv && !h->reserved[0];
}

static void restore_components(struct vcpu *vcpu, struct xsave_area *from, u64 rfbm, u64 xstate_bv)
{
	if (rfbm & xstate_bv & XCR0_X87)
		load_x87(image_of(vcpu), &from->legacy);
	for (unsigned i = 1; i < XSTATE_COMPONENTS; i++)
		if (rfbm & xstate_bv & BIT(i))
			load_component(vcpu, from, i);
	init_components(vcpu, rfbm & ~xstate_bv);
}

bool xstate_restore(struct vcpu *vcpu, bool supervisor, gla_t gla, u64 mask, bool rex_w)
{
	u64 rfbm = mask & (vcpu->xcr0 | (supervisor ? vcpu->msr.xss : 0));
	struct pieces list = { 0 };
	struct xsave_area area;

	if (supervisor && !cpuid_has(vcpu->cpuid, FEATURE_XSAVES))
		return vcpu_raise_ud(vcpu);
	if (!check_xsave(vcpu, gla, supervisor))
		return false;
	add_piece(&list, sizeof(area.legacy), &area.header, sizeof(area.header));
	if (!read_pieces(vcpu, gla, &list))
		return false;
	if (!header_valid(vcpu, &area.header, supervisor))
		return vcpu_raise_gp(vcpu, 0);

	bool compact = area.header.xcomp_bv & XCOMP_COMPACT;
	u64 present = rfbm & area.header.xstate_bv;
	bool mxcsr = compact ? present & XCR0_SSE : rfbm & SSE_AND_AVX;
	list.count = 0;
	add_legacy(vcpu, &list, &area.legacy, present, mxcsr);
	add_extended(vcpu, &list, &area, present, area.header.xcomp_bv);
	if (!read_pieces(vcpu, gla, &list) || (mxcsr && !mxcsr_valid(vcpu, area.legacy.mxcsr)))
		return false;
	if (mxcsr)
		image_of(vcpu)->legacy.mxcsr = area.legacy.mxcsr;
	else if (compact && (rfbm & XCR0_SSE))
		image_of(vcpu)->legacy.mxcsr = MXCSR_INIT;
	if (present & XCR0_X87)
		legacy_from_guest(&area.legacy, rex_w);
	restore_components(vcpu, &area, rfbm, area.header.xstate_bv);
	return true;
}

/* ---- FXSAVE and FXRSTOR ---- */

static bool check_fxsave(struct vcpu *vcpu, gla_t gla)
{
	if (vcpu->cr0 & CR0_EM)
		return vcpu_raise_ud(vcpu);
	if (vcpu->cr0 & CR0_TS)
		return vcpu_raise(vcpu, VEC_NM);
	if (gla & 15)
		return vcpu_raise_gp(vcpu, 0);
	return true;
}

/* Which components the instruction moves. AMD APM volume 2, "FXSAVE and FXRSTOR Instructions" has the fast form, which
 * leaves out the XMM registers. */
static u64 fxsave_components(const struct vcpu *vcpu)
{
	bool fast = (vcpu->efer & EFER_FFXSR) && vcpu_64bit(vcpu) && !vcpu->cpl;
	bool sse = (vcpu->cr4 & CR4_OSFXSR) && !fast;
	return XCR0_X87 | (sse ? XCR0_SSE : 0);
}

bool xstate_fxsave(struct vcpu *vcpu, gla_t gla, bool rex_w)
{
	struct fxsave_area area;
	struct pieces list = { 0 };
	if (!check_fxsave(vcpu, gla))
		return false;
	materialize(vcpu, XCR0_X87 | XCR0_SSE);
	legacy_to_guest(&area, &image_of(vcpu)->legacy, rex_w);
	add_legacy(vcpu, &list, &area, fxsave_components(vcpu), vcpu->cr4 & CR4_OSFXSR);
	return write_pieces(vcpu, gla, &list);
}

bool xstate_fxrstor(struct vcpu *vcpu, gla_t gla, bool rex_w)
{
	struct xsave_area area;
	struct pieces list = { 0 };
	u64 components = fxsave_components(vcpu);
	bool mxcsr = vcpu->cr4 & CR4_OSFXSR;
	if (!check_fxsave(vcpu, gla))
		return false;
	add_legacy(vcpu, &list, &area.legacy, components, mxcsr);
	if (!read_pieces(vcpu, gla, &list) || (mxcsr && !mxcsr_valid(vcpu, area.legacy.mxcsr)))
		return false;
	legacy_from_guest(&area.legacy, rex_w);
	if (mxcsr)
		image_of(vcpu)->legacy.mxcsr = area.legacy.mxcsr;
	restore_components(vcpu, &area, components, components);
	return true;
}

/* ---- MXCSR and availability ---- */

bool xstate_ldmxcsr(struct vcpu *vcpu, u32 value)
{
	if (!xstate_check(vcpu, XSTATE_SSE) || !mxcsr_valid(vcpu, value))
		return false;
	image_of(vcpu)->legacy.mxcsr = value;
	return true;
}

bool xstate_stmxcsr(struct vcpu *vcpu, u32 *value)
{
	if (!xstate_check(vcpu, XSTATE_SSE))
		return false;
	*value = image_of(vcpu)->legacy.mxcsr;
	return true;
}

/* Intel SDM volume 2, "SIMD Floating-Point Exceptions"; volume 3, CR0's flags EM, MP and TS, and the exception tables
 * of the instruction classes. */
static const struct {
	u64 em;  /* CR0.EM: the vector it raises, or 0 */
	u64 cr4; /* bits that must be set, else #UD */
	u64 xcr0;
} classes[] = {
	[XSTATE_X87] = { VEC_NM, 0, 0 },
	[XSTATE_MMX] = { VEC_UD, 0, 0 },
	[XSTATE_SSE] = { VEC_UD, CR4_OSFXSR, 0 },
	[XSTATE_AVX] = { 0, CR4_OSXSAVE, XCR0_SSE | XCR0_AVX },
	[XSTATE_AVX512] = { 0, CR4_OSXSAVE, XCR0_SSE | XCR0_AVX | XCR0_AVX512 },
	[XSTATE_FWAIT] = { 0, 0, 0 },
};

bool xstate_check(struct vcpu *vcpu, enum xstate_class class)
{
	if ((vcpu->cr0 & CR0_EM) && classes[class].em)
		return vcpu_raise(vcpu, (u8)classes[class].em);
	if ((vcpu->cr4 & classes[class].cr4) != classes[class].cr4 ||
	    (vcpu->xcr0 & classes[class].xcr0) != classes[class].xcr0)
		return vcpu_raise_ud(vcpu);
	/* FWAIT heeds TS only together with MP. */
	if ((vcpu->cr0 & CR0_TS) && (class != XSTATE_FWAIT || (vcpu->cr0 & CR0_MP)))
		return vcpu_raise(vcpu, VEC_NM);
	return true;
}
