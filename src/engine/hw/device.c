/* Accesses to memory-mapped registers by MOV, MOVZX and MOVSX, and stores to watched tables by MOV. The processor has looked at segments and tables and says where the
 * access went; what is left is which register, and how many bytes. All else is step's. */
#include "engine/hw/hw.h"

/* AH to BH are bytes of the first four registers, where no REX prefix says otherwise. */
static bool is_high(const struct hw_insn *i, unsigned size)
{
	unsigned number = hw_insn_reg(i);
	return size == 1 && !i->rex && number >= 4;
}

static u64 stored(const struct vcpu *v, const struct hw_insn *i)
{
	u64 value = i->has_immediate			  ? i->immediate
		    : i->opcode == 0xa2 || i->opcode == 0xa3 ? v->gpr[RAX]
		    : is_high(i, i->size)		  ? v->gpr[hw_insn_reg(i) & 3] >> 8
							  : v->gpr[hw_insn_reg(i)];
	return value & size_mask(i->size);
}

static void load(struct vcpu *v, const struct hw_insn *i, u64 value)
{
	unsigned number = i->opcode == 0xa0 || i->opcode == 0xa1 ? RAX : hw_insn_reg(i), shift = 0, unused = 64 - 8 * i->source;
	value = i->sign ? (u64)((s64)(value << unused) >> unused) : value & size_mask(i->source);
	u64 *gpr = &v->gpr[number], mask = i->size == 4 ? ~0ull : size_mask(i->size);
	if (is_high(i, i->size)) {
		gpr = &v->gpr[number & 3];
		shift = 8;
	}
	*gpr = (*gpr & ~(mask << shift)) | (value & size_mask(i->size)) << shift;
}

/* C6 and C7 with something else in ModRM are no MOV. */
static bool is_mov(const struct hw_insn *i, bool write)
{
	return i->mov && i->store == write && hw_insn_is_memory(i) && !(i->has_immediate && (i->modrm & 0x38));
}

/* An access of which the first byte of a page faults may have begun in the page before. */
static bool in_one_page(const struct vcpu *v, const struct hw_insn *i, gpa_t gpa)
{
	unsigned offset = gpa & ~PAGE_MASK;
	gla_t gla;
	return offset + i->source <= PAGE_SIZE && (offset || i->source == 1 || (hw_insn_address(v, i, &gla) && !(gla & ~PAGE_MASK)));
}

static bool read_mov(struct vcpu *v, gpa_t gpa, bool write, struct hw_insn *i)
{
	return !(v->rflags & RFLAGS_AC) && hw_read_insn(v, i) && is_mov(i, write) && in_one_page(v, i, gpa);
}

enum hw_next hw_device(struct vcpu *v, struct exit *exit, gpa_t gpa, u32 error)
{
	struct hw_insn i;
	bool write = error & PF_WR;
	if ((error & PF_ID) || !read_mov(v, gpa, write, &i))
		return hw_step(v, exit);
	struct exit e; /* not zeroed as a whole: that takes longer than the rest */
	e.reason = EXIT_MMIO;
	e.mmio.gpa = gpa;
	e.mmio.size = i.source;
	e.mmio.write = write;
	e.mmio.value = write ? stored(v, &i) : 0;
	v->ops->exit(v, &e);
	if (!write)
		load(v, &i, e.mmio.value);
	return hw_done(v);
}

/* Others may look: what the processor stores at once is stored at once. */
static void store(u8 *to, u64 value, unsigned size)
{
	switch (size) {
	case 1:
		__builtin_memcpy(to, &value, 1);
		break;
	case 2:
		__builtin_memcpy(to, &value, 2);
		break;
	case 4:
		__builtin_memcpy(to, &value, 4);
		break;
	default:
		__builtin_memcpy(to, &value, 8);
	}
}

enum hw_next hw_store_watched(struct vcpu *v, struct exit *exit, gpa_t gpa)
{
	struct hw_insn i;
	struct ram_slot *slot = ram_find(v->ram, gpa);
	if (!slot || !read_mov(v, gpa, true, &i))
		return hw_step(v, exit);
	u64 page = (gpa - slot->base) >> PAGE_SHIFT;
	store(slot->hva + (gpa - slot->base), stored(v, &i), i.size);
	mmu_stored(v, &slot->flags[page], &slot->generation[page]);
	hw_of(v)->memory->stored = i.size;
	return hw_done(v);
}
