/* The instruction that the guest left at, where the processor tells too little of it: its bytes and, of the few forms that leave often, what they mean. What is
 * not among these is step's. */
#ifndef NADIR_ENGINE_HW_CODE_H
#define NADIR_ENGINE_HW_CODE_H

#include "mmu/walk.h"
#include "vcpu/vcpu.h"

#define HW_OPCODE_HLT 0xf4
#define HW_OPCODE_0F(byte) (0x0f00 | (byte))
#define HW_OPCODE_GROUP7 HW_OPCODE_0F(0x01) /* LMSW, INVLPG, VMMCALL and others, by the ModRM byte */
#define HW_OPCODE_CLTS HW_OPCODE_0F(0x06)
#define HW_OPCODE_MOV_FROM_CR HW_OPCODE_0F(0x20)
#define HW_OPCODE_MOV_FROM_DR HW_OPCODE_0F(0x21)
#define HW_OPCODE_MOV_TO_CR HW_OPCODE_0F(0x22)
#define HW_OPCODE_MOV_TO_DR HW_OPCODE_0F(0x23)
#define HW_OPCODE_WRMSR HW_OPCODE_0F(0x30)
#define HW_OPCODE_RDMSR HW_OPCODE_0F(0x32)
#define HW_OPCODE_CPUID HW_OPCODE_0F(0xa2)
/* Instructions that are always the same bytes. */
#define HW_CODE_VMMCALL 0x0f01d9
#define HW_CODE_PAUSE 0xf390

struct hw_insn {
	u16 opcode;
	u8 length, rex;
	u8 modrm; /* with the bits of REX apart */
	u8 size; /* of the operand, in bytes */
	u8 source; /* of what MOVZX and MOVSX read; else the same */
	bool sign; /* MOVSX */
	bool mov; /* MOV, MOVZX or MOVSX of general registers */
	bool store; /* to memory, or to the register that rm names */
	bool has_immediate;
	u8 address_size;
	u8 base, index, scale; /* of the memory operand: numbers of registers, GPR_COUNT for none */
	s32 displacement;
	bool relative; /* to the next instruction */
	bool odd_address; /* of 16 bits, with a prefix for the segment, or in the instruction itself: these do not tell it */
	u64 immediate;
};

/* Bytes and what they mean: the first eight and the last eight of fifteen. */
#define HW_KNOWN 16 /* a power of two */
struct hw_known {
	u64 first, last;
	u8 bits; /* of the code segment; 0: there are none */
	struct hw_insn insn;
};

/* Where the guest's code was found last, and the entries of the guest's tables that said so: as long as these are the same, it is there still. */
struct hw_code {
	const u8 *page; /* NULL: nowhere */
	gla_t gla;
	u64 cr3, mode;
	u32 layout; /* ram->layout then */
	struct walk_trace trace;
	const void *entry[WALK_LEVELS_MAX];
	struct hw_known known[HW_KNOWN];
};

/* Of the instruction at RIP, whose code segment is in struct vcpu. False: it is not a form known here, or cannot be read without care. `bytes` are what the
 * processor told of it, or there are none. */
bool hw_decode(struct vcpu *vcpu, struct hw_code *code, const u8 *bytes, unsigned count, struct hw_insn *insn);

/* The linear address of the memory operand. False: it takes more to find out. */
bool hw_insn_address(const struct vcpu *vcpu, const struct hw_insn *insn, gla_t *gla);
/* How many bytes these are (the first is the highest), if they are at RIP; else 0. */
unsigned hw_code_is(struct vcpu *vcpu, struct hw_code *code, u32 bytes);

static inline unsigned hw_insn_reg(const struct hw_insn *i)
{
	return (i->modrm >> 3 & 7) | (i->rex & 4) << 1;
}

static inline unsigned hw_insn_rm(const struct hw_insn *i)
{
	return (i->modrm & 7) | (i->rex & 1) << 3;
}

static inline bool hw_insn_is_memory(const struct hw_insn *i)
{
	return i->modrm < 0xc0;
}

#endif
