/* What translated code depends on beside its bytes: the mode, the size of the stack, which segments need no checks, and where CS lies.
 *
 * The first three are part of a block's key. The place of CS is not, since code reaches it by code_base, but the jump cache, which knows code by
 * RIP alone, must tell CS bases and limits apart: each combination of key, base and limit gets a number (vcpu->code_number), and the last ones
 * are remembered, so that going back and forth between two costs a look into a small table.
 * Intel SDM volume 3, "Segmentation"; "Limit Checking", "Type Checking". */
#include "engine/bt/state.h"

#include "cpu/descriptor.h"

/* Bytes from the start of a segment that may be accessed without looking further; 0: the rules are step's. */
static u64 segment_end(const struct vcpu *vcpu, const struct segment *s, bool write)
{
	bool data = (s->attr & (SEG_ATTR_S | SEG_ATTR_CODE)) == SEG_ATTR_S;
	if ((s->attr & SEG_ATTR_UNUSABLE) || (data && (s->attr & SEG_ATTR_EXPAND_DOWN)))
		return 0;
	bool allowed = vcpu_real_or_v86(vcpu) || (write ? attr_is_writable_data(s->attr) : attr_is_readable(s->attr));
	return allowed ? (u64)s->limit + 1 : 0;
}

static void find_ends(struct vcpu *vcpu)
{
	for (unsigned i = 0; i < SEG_COUNT; i++) {
		vcpu->segment_end[i][0] = segment_end(vcpu, &vcpu->seg[i], false);
		vcpu->segment_end[i][1] = segment_end(vcpu, &vcpu->seg[i], true);
	}
}

static bool is_flat(const struct vcpu *vcpu, unsigned segment, bool write)
{
	return !vcpu->seg[segment].base && vcpu->segment_end[segment][write] == BIT(32);
}

static u16 key_of(const struct vcpu *vcpu)
{
	bool flat = is_flat(vcpu, SEG_DS, true) && is_flat(vcpu, SEG_ES, true) && is_flat(vcpu, SEG_SS, true);
	return (u16)(vcpu_insn_mode(vcpu) | (vcpu_stack_size(vcpu) == 4 ? KEY_STACK32 : 0) | (flat ? KEY_FLAT : 0) |
		     (is_flat(vcpu, SEG_CS, false) ? KEY_FLAT_CS : 0));
}

#define NUMBER_MAX 0x7fff /* so that no tag is that of a 64-bit RIP in the upper half of the address space */

static u16 number_of(struct vcpu *vcpu, u16 key)
{
	struct bt *bt = bt_of(vcpu);
	const struct segment *cs = &vcpu->seg[SEG_CS];
	for (unsigned i = 0; i < BT_PLACES; i++) {
		const struct code_place *p = &bt->place[i];
		if (p->number && p->key == key && p->base == (u32)cs->base && p->limit == cs->limit)
			return p->number;
	}
	if (bt->numbers == NUMBER_MAX) {
		cache_clear_jumps(vcpu);
		__builtin_memset(bt->place, 0, sizeof(bt->place));
		bt->numbers = 0;
	}
	struct code_place *p = &bt->place[bt->numbers++ % BT_PLACES];
	*p = (struct code_place){ .base = (u32)cs->base, .limit = cs->limit, .key = key, .number = bt->numbers };
	return p->number;
}

void modes_look(struct vcpu *vcpu)
{
	struct bt *bt = bt_of(vcpu);
	u16 old = vcpu->code_number;
	if (vcpu_64bit(vcpu)) {
		bt->key = INSN_MODE_64;
		vcpu->code_number = 0;
	} else {
		find_ends(vcpu);
		bt->key = key_of(vcpu);
		vcpu->code_number = number_of(vcpu, bt->key);
	}
	if (!old != !vcpu->code_number)
		mmu_update_salt(vcpu);
}

static bool breaks_same(const struct code_breaks *a, const struct code_breaks *b)
{
	bool same = a->count == b->count;
	for (unsigned i = 0; same && i < a->count; i++)
		same = a->offset[i] == b->offset[i];
	return same;
}

/* When there are no numbers left, what was translated with one is dropped with the rest. */
u16 modes_key_of_breaks(struct vcpu *vcpu, gla_t gla)
{
	struct bt_cache *c = bt_of(vcpu)->cache;
	const struct debug_points *d = &vcpu->debug;
	struct code_breaks now = { 0 };
	unsigned n = 1;
	if (likely(!d->breaks) || !debug_breaks_in(d, gla & PAGE_MASK))
		return 0;
	for (unsigned i = 0; i < d->breaks; i++)
		if ((d->break_at[i] & PAGE_MASK) == (gla & PAGE_MASK))
			now.offset[now.count++] = (u16)(d->break_at[i] & ~PAGE_MASK);
	while (n <= c->breaks_used && !breaks_same(&c->breaks[n], &now))
		n++;
	if (n == BT_BREAKS) {
		vector_sync(vcpu);
		cache_drop_all(c);
		__builtin_memset(c->wanted, 0, BT_WANTED_SIZE * sizeof(*c->wanted));
		c->breaks_used = 0;
		n = 1;
	}
	if (n > c->breaks_used) {
		c->breaks_used = n;
		c->breaks[n] = now;
	}
	return (u16)(n << KEY_BREAKS_SHIFT);
}

/* Whether a direct jump from the page of RIP, or its end, may lead to where addresses are not canonical. */
static bool at_edge(const struct vcpu *vcpu)
{
	const u64 reach = BIT(31) + 2 * PAGE_SIZE;
	unsigned bits = vcpu_linear_bits(vcpu);
	return !is_canonical(vcpu->rip + reach, bits) || !is_canonical(vcpu->rip - reach, bits);
}

bool modes_fetch(struct vcpu *vcpu, gla_t *gla, u16 *key)
{
	const struct segment *cs = &vcpu->seg[SEG_CS];
	modes_look(vcpu);
	*key = bt_of(vcpu)->key;
	*gla = vcpu->rip;
	vcpu->code_base = vcpu->rip & PAGE_MASK;
	if (modes_beyond(vcpu))
		return vcpu_raise_gp(vcpu, 0);
	if (vcpu->code_number) {
		*gla = (u32)(cs->base + vcpu->rip);
		vcpu->code_base = (u32)(vcpu->rip - (*gla & ~PAGE_MASK));
		bool wraps = vcpu_code_bits(vcpu) == 16 && vcpu->code_base + PAGE_SIZE > 0x10000;
		if (vcpu->code_base > vcpu->rip || wraps)
			*key |= KEY_APART;
	} else if (unlikely(at_edge(vcpu))) {
		*key |= KEY_EDGE;
	}
	return true;
}

bool modes_limited(const struct vcpu *vcpu, gla_t gla)
{
	return vcpu->code_number && vcpu->rip + (~gla & ~PAGE_MASK) > vcpu->seg[SEG_CS].limit;
}
