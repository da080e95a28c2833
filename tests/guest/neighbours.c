/* Accesses through one base register, side by side: fields of a structure, pushes and pops, wherever the pages' boundary lies among them, with
 * each page there, read-only or absent. What was done before a fault must be done, and nothing behind it. A translator may check neighbours
 * together. */
#include "lib/window.h"

static u8 pages[2][PAGE] __attribute__((aligned(4096))); /* the second one in front of the first */

/* One instruction of a sequence: what it accesses. */
struct step {
	const u8 *ip;
	int disp;
	unsigned size;
	bool write;
};

/* Among them: stores, then a load and a store, which may be the first ones in their page. */
CODE(fields, "f0: mov 24(" R "bx), %eax\n"
	     "f1: mov %eax, 16(" R "bx)\n"
	     "f2: addl $3, 8(" R "bx)\n"
	     "f3: mov 12(" R "bx), %ecx\n"
	     "f4: mov 44(" R "bx), %esi\n"
	     "f5: mov %ecx, 46(" R "bx)\n"
	     "f6: mov %cx, 30(" R "bx)\n"
	     "f7: mov (" R "bx), %edx\n"
	     "f8: mov %esi, 2(" R "bx)\n"
	     "f9: mov %dl, 63(" R "bx)");
LABEL(f0);
LABEL(f1);
LABEL(f2);
LABEL(f3);
LABEL(f4);
LABEL(f5);
LABEL(f6);
LABEL(f7);
LABEL(f8);
LABEL(f9);
static const struct step field_steps[] = {
	{ f0, 24, 4, false }, { f1, 16, 4, true }, { f2, 8, 4, true },  { f3, 12, 4, false }, { f4, 44, 4, false },
	{ f5, 46, 4, true },  { f6, 30, 2, true }, { f7, 0, 4, false }, { f8, 2, 4, true },   { f9, 63, 1, true },
};

static void fields_model(u8 *memory, unsigned done, struct state *s)
{
	ulong *registers[] = { &s->ax, &s->ax, NULL, &s->cx, &s->si, &s->cx, &s->cx, &s->dx, &s->si, &s->dx };
	u32 word = 0;
	for (unsigned i = 0; i < done; i++) {
		const struct step *step = &field_steps[i];
		void *at = memory + step->disp;
		if (!registers[i]) {
			memcpy(&word, at, 4);
			word += 3;
			memcpy(at, &word, 4);
		} else if (step->write) {
			memcpy(at, registers[i], step->size);
		} else {
			memcpy(&word, at, 4);
			*registers[i] = word;
		}
	}
}

#define W ((int)sizeof(ulong))
CODE(stack, "s0: push " R "ax\n"
	    "s1: push " R "cx\n"
	    "s2: push " R "dx\n"
	    "sub $16, " R "sp\n"
	    "s3: mov " R "di, 8(" R "sp)\n"
	    "s4: mov 16(" R "sp), " R "si\n"
	    "add $16, " R "sp\n"
	    "s5: pop " R "dx\n"
	    "s6: pop " R "bx\n"
	    "s7: pop " R "bp");
LABEL(s0);
LABEL(s1);
LABEL(s2);
LABEL(s3);
LABEL(s4);
LABEL(s5);
LABEL(s6);
LABEL(s7);
static const struct step stack_steps[] = {
	{ s0, -W, sizeof(ulong), true },	      { s1, -2 * W, sizeof(ulong), true },  { s2, -3 * W, sizeof(ulong), true },
	{ s3, -3 * W - 8, sizeof(ulong), true },  { s4, -3 * W, sizeof(ulong), false }, { s5, -3 * W, sizeof(ulong), false },
	{ s6, -2 * W, sizeof(ulong), false },     { s7, -W, sizeof(ulong), false },
};

static void stack_model(u8 *memory, unsigned done, struct state *s)
{
	static const int sp[] = { 0, -W, -2 * W, -3 * W - 16, -3 * W - 16, -3 * W, -2 * W, -W, 0 };
	ulong *registers[] = { &s->ax, &s->cx, &s->dx, &s->di, &s->si, &s->dx, &s->bx, &s->bp };
	for (unsigned i = 0; i < done; i++) {
		void *at = memory + stack_steps[i].disp;
		if (stack_steps[i].write)
			memcpy(at, registers[i], sizeof(ulong));
		else
			memcpy(registers[i], at, sizeof(ulong));
	}
	s->sp += (ulong)(long)sp[done];
}

/* A push of memory is two accesses. */
CODE(copies, "c0: push " R "ax\n"
	     "c1: push (" R "sp)\n"
	     "c2: push 24(" R "sp)");
LABEL(c0);
LABEL(c1);
LABEL(c2);
static const struct step copy_steps[] = {
	{ c0, -W, sizeof(ulong), true },	  { c1, -W, sizeof(ulong), false },    { c1, -2 * W, sizeof(ulong), true },
	{ c2, 24 - 2 * W, sizeof(ulong), false }, { c2, -3 * W, sizeof(ulong), true },
};

static void copies_model(u8 *memory, unsigned done, struct state *s)
{
	static const int sp[] = { 0, -W, -W, -2 * W, -2 * W, -3 * W };
	if (done >= 1)
		memcpy(memory - W, &s->ax, sizeof(ulong));
	if (done >= 3)
		memcpy(memory - 2 * W, &s->ax, sizeof(ulong));
	if (done == 5)
		memcpy(memory - 3 * W, memory + 24 - 2 * W, sizeof(ulong));
	s->sp += (ulong)(long)sp[done];
}

static const struct sequence {
	const u8 *code, *end;
	const struct step *steps;
	unsigned count;
	bool stack;
	void (*model)(u8 *memory, unsigned done, struct state *s);
} sequences[] = {
	{ fields, fields_end, field_steps, ARRAY_SIZE(field_steps), false, fields_model },
	{ stack, stack_end, stack_steps, ARRAY_SIZE(stack_steps), true, stack_model },
	{ copies, copies_end, copy_steps, ARRAY_SIZE(copy_steps), true, copies_model },
};

enum right { ALL, READ, NONE };

/* How many steps are done before one faults; *bad is the first address that does. */
static unsigned steps_done(const struct sequence *q, ulong base, const enum right *rights, ulong *bad)
{
	for (unsigned i = 0; i < q->count; i++) {
		for (unsigned byte = 0; byte < q->steps[i].size; byte++) {
			*bad = base + (ulong)(long)q->steps[i].disp + byte;
			enum right right = rights[*bad - (ulong)window >= PAGE];
			if (right == NONE || (right == READ && q->steps[i].write))
				return i;
		}
	}
	return q->count;
}

static bool same_registers(const struct state *a, const struct state *b)
{
	return a->ax == b->ax && a->bx == b->bx && a->cx == b->cx && a->dx == b->dx && a->si == b->si && a->di == b->di && a->bp == b->bp &&
	       a->sp == b->sp;
}

static void try(const struct sequence *q, ulong base, const enum right *rights)
{
	static u8 model[2 * PAGE];
	u64 seed = base + 1;
	struct state s = state_at(q->code, 3), want;
	ulong bad = 0;
	unsigned done = steps_done(q, base, rights, &bad);
	for (unsigned i = PAGE - 256; i < PAGE + 256; i++)
		model[i] = pages[1 - i / PAGE][i % PAGE] = (u8)random64(&seed);
	s.ax = (ulong)random64(&seed) % PAGE; /* as small as an offset in a page */
	s.cx = (ulong)random64(&seed);
	s.dx = (ulong)random64(&seed);
	s.di = (ulong)random64(&seed);
	if (q->stack)
		s.sp = base;
	else
		s.bx = base;
	want = s;
	q->model(model + (base - (ulong)window), done, &want);
	run(&s);
	if (done == q->count) {
		check_ended(&s, (ulong)q->end, __FILE_NAME__, __LINE__, "ends");
	} else {
		CHECK_EQ(s.vector, 14);
		CHECK_EQ(s.ip, (ulong)q->steps[done].ip);
		CHECK_EQ(s.cr2, bad);
	}
	CHECK(same_registers(&s, &want));
	CHECK(!memcmp(model + PAGE - 256, pages[1] + PAGE - 256, 256) && !memcmp(model + PAGE, pages[0], 256));
}

void guest_main(void)
{
	static const u64 bits[] = { PTE_ALL, PTE_ALL & ~PTE_W, 0 };
	window_init();
	for (unsigned round = 0; round < 9; round++) {
		enum right rights[2] = { (enum right)(round % 3), (enum right)(round / 3) };
		for (unsigned i = 0; i < ARRAY_SIZE(sequences); i++) {
			for (ulong base = PAGE - 72; base < PAGE + 72; base++) {
				/* Each time nothing is known of the pages yet. */
				window_map(0, pages[1], bits[rights[0]]);
				window_map(1, pages[0], bits[rights[1]]);
				try(&sequences[i], (ulong)window + base, rights);
				try(&sequences[i], (ulong)window + base, rights);
			}
		}
	}
	finish();
}
