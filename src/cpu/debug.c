/* Debug registers: access rules and breakpoint matching.
 * Intel SDM volume 3, "Debug Registers", "Breakpoint Field Recognition", "General-Detect Exception Condition". */
#include "cpu/control.h"

#include "mmu/mmu.h"

#define DR6_WRITABLE 0xe00full
#define DR7_WRITABLE 0xffff23ffull

/* DR4 and DR5 are DR6 and DR7 unless CR4.DE says that they do not exist. The #DB of a general detect is a fault; DR7.GD
 * is cleared when it is delivered. */
static bool may_access_dr(struct vcpu *vcpu, unsigned *number)
{
	if (*number > 7)
		return vcpu_raise_ud(vcpu);
	if (*number == 4 || *number == 5) {
		if (vcpu->cr4 & CR4_DE)
			return vcpu_raise_ud(vcpu);
		*number += 2;
	}
	if (vcpu->cpl)
		return vcpu_raise_gp(vcpu, 0);
	if (vcpu->dr7 & DR7_GD) {
		vcpu->fault = (struct guest_fault){ .vector = VEC_DB, .payload = DR6_BD };
		return false;
	}
	return true;
}

bool control_read_dr(struct vcpu *vcpu, unsigned number, u64 *value)
{
	if (!may_access_dr(vcpu, &number))
		return false;
	*value = number == 6 ? vcpu->dr6 : number == 7 ? vcpu->dr7 : vcpu->dr[number];
	return true;
}

bool control_write_dr(struct vcpu *vcpu, unsigned number, u64 value)
{
	if (!may_access_dr(vcpu, &number))
		return false;
	if (number >= 4 && value >> 32)
		return vcpu_raise_gp(vcpu, 0);
	if (number == 6) {
		vcpu->dr6 = (value & DR6_WRITABLE) | DR6_FIXED1;
		return true;
	}
	if (number < 4)
		vcpu->dr[number] = value;
	else
		vcpu->dr7 = (value & DR7_WRITABLE) | DR7_FIXED1;
	debug_update(vcpu);
	return true;
}

/* What DR7 says of one breakpoint. */
struct breakpoint {
	bool enabled;
	u8 type; /* R/Wn, as enum debug_kind */
	u8 size;
};

static struct breakpoint breakpoint_of(u64 dr7, unsigned n)
{
	static const u8 size_of_len[4] = { 1, 2, 8, 4 };
	unsigned field = dr7 >> (16 + 4 * n) & 0xf;
	return (struct breakpoint){ .enabled = dr7 >> (2 * n) & 3, .type = field & 3, .size = size_of_len[field >> 2] };
}

/* An access of `kind` triggers a breakpoint of `type`: a write those for writes and for any data access. */
static bool type_matches(const struct vcpu *vcpu, unsigned type, enum debug_kind kind)
{
	if (type == DEBUG_IO)
		return kind == DEBUG_IO && (vcpu->cr4 & CR4_DE);
	return type == (unsigned)kind || (type == DEBUG_ACCESS && kind == DEBUG_WRITE);
}

static bool range_matches(const struct breakpoint *b, u64 address, enum debug_kind kind, gla_t gla, unsigned size)
{
	if (kind == DEBUG_EXECUTE)
		return b->size == 1 && address == gla;
	u64 start = address & ~(u64)(b->size - 1);
	/* As distances, so that ranges may wrap around. */
	return gla - start < b->size || start - gla < size;
}

u64 control_debug_match(const struct vcpu *vcpu, enum debug_kind kind, gla_t gla, unsigned size)
{
	u64 hits = 0;
	for (unsigned n = 0; n < 4; n++) {
		struct breakpoint b = breakpoint_of(vcpu->dr7, n);
		if (b.enabled && type_matches(vcpu, b.type, kind) && range_matches(&b, vcpu->dr[n], kind, gla, size))
			hits |= DR6_B(n);
	}
	return hits;
}

/* ---- a debugger's points ---- */

static struct debug_point *find_point(struct debug_points *d, const struct debug_point *point)
{
	for (unsigned i = 0; i < d->points; i++)
		if (d->point[i].gla == point->gla && d->point[i].size == point->size && d->point[i].kind == point->kind)
			return &d->point[i];
	return NULL;
}

bool debug_insert(struct vcpu *vcpu, const struct debug_point *point)
{
	struct debug_points *d = &vcpu->debug;
	bool size_fits = point->kind == DEBUG_EXECUTE ? point->size == 1 : point->size && point->size <= PAGE_SIZE;
	if (d->points == DEBUGGER_POINTS || point->kind == DEBUG_IO || !size_fits)
		return false;
	d->point[d->points++] = *point;
	debug_update(vcpu);
	return true;
}

bool debug_remove(struct vcpu *vcpu, const struct debug_point *point)
{
	struct debug_points *d = &vcpu->debug;
	struct debug_point *found = find_point(d, point);
	if (!found)
		return false;
	*found = d->point[--d->points];
	debug_update(vcpu);
	return true;
}

void debug_clear(struct vcpu *vcpu)
{
	struct debug_points *d = &vcpu->debug;
	d->points = 0;
	d->step = d->passing = false;
	vcpu_clear_pending(vcpu, PENDING_DEBUG);
	debug_update(vcpu);
}

void debug_pass(struct vcpu *vcpu, gla_t gla)
{
	if (vcpu_pending(vcpu) & PENDING_DEBUG) /* `hit` is taken */
		return;
	vcpu->debug.passing = true;
	vcpu->debug.hit = (struct debug_point){ .gla = gla };
}

/* A step that is over, or a point that is no more, does not count; a break point is simply met again. */
void debug_put_back(struct vcpu *vcpu, const struct debug_point *hit)
{
	struct debug_points *d = &vcpu->debug;
	d->passing = false;
	if (!hit->size || hit->kind == DEBUG_EXECUTE || !find_point(d, hit))
		return;
	d->hit = *hit;
	vcpu_set_pending(vcpu, PENDING_DEBUG);
}

void debug_prepare(struct vcpu *vcpu, bool step, bool quiet)
{
	struct debug_points *d = &vcpu->debug;
	if ((vcpu_pending(vcpu) & PENDING_DEBUG) && (!d->hit.size || !find_point(d, &d->hit)))
		vcpu_clear_pending(vcpu, PENDING_DEBUG);
	d->step = step;
	d->quiet = quiet;
}

static bool point_matches(const struct vcpu *vcpu, const struct debug_point *p, enum debug_kind kind, gla_t gla, unsigned size)
{
	return type_matches(vcpu, p->kind, kind) && (gla - p->gla < p->size || p->gla - gla < size);
}

bool debug_hits(const struct vcpu *vcpu, enum debug_kind kind, gla_t gla, unsigned size)
{
	const struct debug_points *d = &vcpu->debug;
	bool hit = control_debug_match(vcpu, kind, gla, size);
	for (unsigned i = 0; !hit && i < d->points; i++)
		hit = point_matches(vcpu, &d->point[i], kind, gla, size);
	return hit;
}

void debug_watch(struct vcpu *vcpu, enum debug_kind kind, gla_t gla, unsigned size)
{
	struct debug_points *d = &vcpu->debug;
	for (unsigned i = 0; i < d->points; i++) {
		const struct debug_point *p = &d->point[i];
		if (!point_matches(vcpu, p, kind, gla, size))
			continue;
		d->hit = *p;
		vcpu_set_pending(vcpu, PENDING_DEBUG);
	}
}

bool debug_stop(struct vcpu *vcpu, gla_t gla)
{
	struct debug_points *d = &vcpu->debug;
	const struct debug_point *found = find_point(d, &(struct debug_point){ .gla = gla, .size = 1, .kind = DEBUG_EXECUTE });
	bool passed = d->passing && d->hit.gla == gla;
	gpa_t gpa;
	/* Code that is not there yet is not met yet: its page fault comes first, and the debugger can see what it stands at. */
	d->passing = found && !passed && mmu_debug_translate(vcpu, gla, &gpa);
	if (d->passing)
		d->hit = *found;
	return d->passing;
}

/* ---- what engines and the mmu are told ---- */

/* No memcmp: the guest's vector registers may be live. */
static bool add_break(struct debug_points *d, gla_t gla)
{
	gla_t *at = &d->break_at[d->breaks++];
	bool changed = *at != gla;
	*at = gla;
	return changed;
}

static void add_watch(struct vcpu *vcpu, gla_t gla, bool reads)
{
	struct debug_points *d = &vcpu->debug;
	unsigned i = d->watches++;
	d->watch[i].page = gla & PAGE_MASK;
	d->watch[i].reads = reads;
	mmu_watch_page(vcpu, gla & PAGE_MASK, reads);
}

void debug_update(struct vcpu *vcpu)
{
	struct debug_points *d = &vcpu->debug;
	unsigned breaks = d->breaks;
	bool changed = false;
	d->breaks = d->watches = 0;
	for (unsigned n = 0; n < 4; n++) {
		struct breakpoint b = breakpoint_of(vcpu->dr7, n);
		if (b.enabled && b.type == DEBUG_EXECUTE && b.size == 1)
			changed |= add_break(d, vcpu->dr[n]);
		else if (b.enabled && (b.type == DEBUG_WRITE || b.type == DEBUG_ACCESS))
			add_watch(vcpu, vcpu->dr[n], b.type == DEBUG_ACCESS);
	}
	for (unsigned i = 0; i < d->points; i++) {
		const struct debug_point *p = &d->point[i];
		gla_t last = p->gla + p->size - 1;
		if (p->kind == DEBUG_EXECUTE) {
			changed |= add_break(d, p->gla);
			continue;
		}
		add_watch(vcpu, p->gla, p->kind == DEBUG_ACCESS);
		if ((last ^ p->gla) & PAGE_MASK)
			add_watch(vcpu, last, p->kind == DEBUG_ACCESS);
	}
	if (changed || d->breaks != breaks)
		mmu_forget_exec(vcpu);
}
