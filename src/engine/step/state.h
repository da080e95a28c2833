/* What the step engine keeps for a vCPU, and how its parts work together.
 *
 * The engine decodes guest code into blocks of operations (struct op), cached by guest physical address, and runs one
 * operation after the other. An operation is a C handler, which for innocuous instructions calls a snippet: a few bytes
 * of host code that load the guest registers the instruction reads, run the instruction itself on the real CPU, and
 * store what it wrote.
 *
 *   snippet(hva):  push callee-saved used; load flags; load registers; INSTRUCTION; store registers; store flags; pop;
 * return 0 fault tail:    (restore RSP); pop; return 1                       reached through the host's trap handler
 *
 * Snippets reach the vCPU by GS. They are ordinary functions of the host's ABI, so C calls them without a trampoline.
 *
 * Extended state: the guest's x87/SSE/AVX state lives in vcpu->xsave, and in the real registers while `vector_live`.
 * The core is compiled for general registers only, so it stays live across handlers; whoever calls anything else
 * (Zydis, another layer of the core, which may call the host or memcpy) calls vector_sync first. */
#ifndef NADIR_ENGINE_STEP_STATE_H
#define NADIR_ENGINE_STEP_STATE_H

#include "engine/insn/decode.h"
#include "host/port.h"
#include "mmu/mmu.h"
#include "vcpu/vcpu.h"

struct op;
struct build;

/* How an operation ended. A handler may return the bool of a function that can fault. */
enum op_result {
	OP_FAULT = 0, /* vcpu->fault says which; nothing is committed */
	OP_DONE = 1,  /* rip = next_rip */
	OP_AGAIN = 2, /* progress was made but rip stays (REP): look at pending work, then run it again */
	OP_LEAVE = 3, /* like DONE, then return from run with step->exit */
	OP_ERROR = 4, /* the engine cannot go on: return step->exit, rip stays */
	OP_JUMP = 5,  /* like DONE, but next_rip is not the following instruction: leave the block */
};

typedef int (*op_fn)(struct vcpu *vcpu, const struct op *op);

#define OP_LONG BIT(0)   /* decoded in 64-bit mode: segments but FS and GS are flat */
#define OP_READS BIT(1)  /* the memory operand is read */
#define OP_WRITES BIT(2) /* the memory operand is written */
#define OP_LOCKED BIT(3)
#define OP_REP BIT(4) /* REP or REPE */
#define OP_REPNE BIT(5)
#define OP_NEXT_RF BIT(6) /* the instruction sets RF itself (IRET, and POPF-like ones): it survives the instruction */
#define OP_X87 BIT(7)     /* updates the x87 instruction pointer */
#define OP_X87_MEMORY BIT(8) /* updates the x87 data pointer */
#define OP_REX_W BIT(9)
#define OP_REGISTER BIT(10) /* the rm operand is a register */
#define OP_ALIGNED BIT(11)  /* #GP(0) unless the memory operand is aligned to its size, before any page fault */
#define OP_INT BIT(12)      /* delivers an event itself, or sees to single step itself: no single-step trap after it */
#define OP_WAITS BIT(13)    /* a pending x87 exception is raised before its memory operand is touched */

/* One decoded operation: an instruction, or several innocuous register-only ones fused into one snippet. */
struct op {
	op_fn run;
	const u8 *snippet;
	s64 disp;
	u64 imm;
	u16 base, index;  /* byte offsets in struct vcpu of the address registers (the zero slot if none) */
	u16 segment_base; /* byte offset in struct vcpu of the segment base that counts in 64-bit mode */
	u16 flags;        /* OP_* */
	u16 mem_size;     /* bytes of the memory operand */
	u16 reg;          /* byte offset in struct vcpu of the register operand (a byte register: of that byte) */
	u16 fault_tail;   /* offset from snippet */
	u8 scale;
	u8 segment;       /* enum segment_register of the memory operand */
	u8 address_shift; /* 0, 32 or 48: bits an address loses */
	u8 length;
	u8 size;        /* operand size in bytes */
	u8 number;      /* number of a register operand, or a condition */
	u8 xstate;      /* enum xstate_class or INSN_NO_XSTATE */
	u8 kind;        /* enum insn_kind */
	u8 source_size; /* MOVZX, MOVSX, far pointers */
	u8 rm;          /* number of the register rm operand */
};

struct block {
	struct block *next; /* in its hash chain */
	gpa_t gpa;
	gpa_t gpa2; /* second page, if the only instruction crosses */
	u32 *generation, *generation2;
	u32 seen, seen2;
	u32 key;    /* mode it was decoded for */
	u16 length; /* bytes of code */
	u8 ops;
	bool crosses;
	bool uncached;
	bool sensitive; /* its last operation may change what the loop has looked at: mode, flags, translation */
	u8 *bytes;      /* the code as decoded, to revalidate after a write to its page */
	struct op op[];
};

#define JUMP_CACHE_SIZE 16384
#define BLOCK_HASH_BITS 16
#define BLOCK_HASH_SIZE (1u << BLOCK_HASH_BITS)
#define BLOCK_OPS_MAX 32
#define ARENA_CHUNK (1u << 20)
#define ARENA_CHUNKS 48
#define CODE_SIZE (24u << 20) /* when the engine runs alone */

struct step {
	/* hot */
	const struct op *current; /* whose snippet runs */
	bool vector_live;
	bool shared; /* guest memory is written by who tells nobody: code is compared with it each time */
	u8 trap_vector;
	u32 trap_error;
	u64 rip_mask;
	u64 xstate_mask; /* components saved and restored: xstate_host_mask(), whose CPUID may cost microseconds */
	unsigned pause_count;
	void *translator; /* of the engine that uses this one for single instructions, or NULL */
	struct host_code translated; /* where its code lies */
	struct exit *exit;

	struct block **jump_cache; /* JUMP_CACHE_SIZE, by rip; what is found is verified against the TLB */
	struct block **hash; /* BLOCK_HASH_SIZE */
	u8 *chunk[ARENA_CHUNKS];
	unsigned chunks, chunks_max, chunk_current;
	size_t chunk_used;
	struct host_code code;
	size_t code_used;
	u64 flushes, blocks_built;
	struct insn_decoder decoder;
	struct insn insn;    /* of the build in progress */
	struct build *build; /* the block being built */
	const char *error;
	char error_text[96];
	alignas(64) u8 bounce[1024];
	alignas(64) u8 init_image[XSAVE_AREA_SIZE];
};

/* How the code at RIP is to be read. */
static inline enum insn_mode vcpu_insn_mode(const struct vcpu *vcpu)
{
	unsigned bits = vcpu_code_bits(vcpu);
	if (bits == 64)
		return INSN_MODE_64;
	if (vcpu_real_or_v86(vcpu))
		return bits == 32 ? INSN_MODE_REAL32 : INSN_MODE_REAL16;
	return bits == 32 ? INSN_MODE_32 : INSN_MODE_16;
}

static inline struct step *step_of(struct vcpu *vcpu)
{
	return vcpu->engine_state;
}

/* A slot of struct vcpu that is always zero, for addresses without base or index. */
#define ZERO_SLOT (offsetof(struct vcpu, scratch) + 7 * sizeof(u64))

/* Where the handler of BT and its family leaves the bit offset within the element. */
#define BIT_INDEX_SLOT ((u32)offsetof(struct vcpu, scratch))

/* Non-zero in single step and while alignment checks or data breakpoints are armed: accesses then take the slow path,
 * strings go by elements. */
#define CHECKS(vcpu) ((vcpu)->scratch[6])

static inline u64 *vcpu_u64(struct vcpu *vcpu, unsigned offset)
{
	return (u64 *)((u8 *)vcpu + offset);
}

/* ---- block.c ---- */

/* The block at rip, decoded if need be. `single`: one instruction only, not fused. NULL: fetching faulted, vcpu->fault
 * says how. */
struct block *block_find(struct vcpu *vcpu, bool single);
/* The same for the next of several blocks in one mode (key, see block_key), if the jump cache has it; else NULL. */
u32 block_key(const struct vcpu *vcpu, bool single);
struct block *block_cached(struct vcpu *vcpu, struct step *step, u32 key);
void block_flush_all(struct step *step);
/* Give back what decoded code takes: between two runs. */
void block_rest(struct step *step);
size_t block_build_size(void);
/* Memory for decoded code, freed by block_flush_all; NULL when full. */
void *block_alloc(struct step *step, size_t size);

/* ---- translate.c: from a decoded instruction to an operation ---- */

/* Fill `op` for step->insn. False: no room for code. */
bool op_prepare(struct vcpu *vcpu, struct op *op);
/* Whether step->insn may share a snippet with its neighbours. */
bool op_fusable(const struct insn *insn);
/* Whether a block must end after the operation. */
bool op_ends_block(const struct insn *insn);
/* Whether it may change mode, privilege, interruptibility or translation (it then ends its block). */
bool op_is_sensitive(const struct insn *insn);
/* Whether an x87 instruction records its own address and opcode. */
bool insn_records_x87(const struct insn *insn);

/* ---- choose.c ---- */

/* Operations that raise a fixed fault. */
int op_run_ud(struct vcpu *vcpu, const struct op *op);
int op_run_gp(struct vcpu *vcpu, const struct op *op);
/* A kind without a handler: leaves with EXIT_ERROR, naming it. */
int op_unimplemented(struct vcpu *vcpu, const struct op *op);

/* ---- snippet.c ---- */

/* Emit one snippet that runs `count` instructions one after the other. Only a single one may have a memory operand or
 * fault. Sets op->snippet and op->fault_tail. False: the code area is full. */
bool snippet_emit(struct step *step, const struct insn *insns, unsigned count, struct op *op);
/* The handler of a fault taken in a snippet. */
bool snippet_trap(struct host_trap *trap);
/* Turn the trap that a snippet took into the guest's fault. */
int snippet_fault(struct vcpu *vcpu, struct step *step);

typedef u32 (*snippet_fn)(void *memory);

static inline int snippet_call(struct vcpu *vcpu, struct step *step, const struct op *op, void *memory)
{
	step->current = op;
	if (likely(!((snippet_fn)(uintptr_t)op->snippet)(memory)))
		return OP_DONE;
	return snippet_fault(vcpu, step);
}

/* ---- step.c ---- */

/* The instruction being done is followed by a single-step trap. */
void step_raise_single_step(struct vcpu *vcpu);

/* ---- vector.c ---- */

void vector_save(struct vcpu *vcpu, struct step *step);
/* Make the guest's state live if the class of instructions may run now. False: #UD or #NM. */
bool vector_load(struct vcpu *vcpu, struct step *step, u8 class);

/* vcpu->xsave is the truth afterwards, and the real registers are the host's. */
static inline void vector_sync(struct vcpu *vcpu)
{
	struct step *step = step_of(vcpu);
	if (unlikely(step->vector_live))
		vector_save(vcpu, step);
}

static inline bool vector_ready(struct vcpu *vcpu, struct step *step, u8 class)
{
	return likely(vcpu->vector_ready & (1u << class)) || vector_load(vcpu, step, class);
}

#endif
