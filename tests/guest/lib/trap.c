/* What happens on an exception or interrupt: a registered handler is called in place; otherwise the run ends and its
 * caller gets the state. Anything else is a failure of the guest itself. */
#include "lib/guest.h"

extern const u8 trap_stubs[]; /* one each 16 bytes */
_Noreturn void run_leave(void);
void trap_dispatch(struct state *s);

struct state *run_current;
ulong run_sp, run_stack0;
static handler_fn *handlers[256];

void idt_restore(unsigned vector)
{
	unsigned dpl = vector == VECTOR_END || vector == VEC_BP || vector == VEC_OF ? 3 : 0;
	ulong stub = (ulong)trap_stubs + 16 * vector;
#ifdef __x86_64__
	idt_set(vector, SEL_CODE64, stub, GATE_INT, dpl, handlers[vector] ? 0 : 1);
#else
	if (vector == VEC_DF)
		idt_set(vector, SEL_TSS_DF, 0, GATE_TASK, 0, 0);
	else
		idt_set(vector, SEL_CODE32, stub, GATE_INT, dpl, 0);
#endif
}

void handler_set(unsigned vector, handler_fn *handler)
{
	handlers[vector] = handler;
	idt_restore(vector);
}

static _Noreturn void unexpected(struct state *s)
{
	print("unexpected exception\n");
	state_print(s);
	check(false, "trap.c", 0, "unexpected exception");
	finish();
}

static void dispatch(struct state *s)
{
	s->gs &= 0xffff;
	s->fs &= 0xffff;
	s->es &= 0xffff;
	s->ds &= 0xffff;
	s->cs &= 0xffff;
	s->ss &= 0xffff;
	if (handlers[s->vector]) {
		handlers[s->vector](s);
		return;
	}
	if (!run_current)
		unexpected(s);
	*run_current = *s;
	run_leave();
}

#ifdef __x86_64__

void trap_dispatch(struct state *s)
{
	dispatch(s);
}

#else

_Noreturn void trap_load(void);
_Noreturn void trap_resume(struct state *s);
void df_dispatch(u32 next_ip, ulong error);
extern struct state captured;

void trap_resume(struct state *s)
{
	cli();
	tss.t.stack[0].sp = run_stack0 ? run_stack0 : run_sp;
	tss.t.stack[0].ss = SEL_DATA;
	captured = *s;
	trap_load();
}

void trap_dispatch(struct state *unused)
{
	struct state s = captured;
	(void)unused;
	dispatch(&s);
	trap_resume(&s);
}

/* On the #DF task: take the state out of the interrupted TSS, and make that task the current one again. */
void df_dispatch(u32 next_ip, ulong error)
{
	const struct tss32 *t = &tss.t;
	(void)next_ip;
	captured = (struct state){ .cr2 = read_cr2(),
				   .gs = t->gs,
				   .fs = t->fs,
				   .es = t->es,
				   .ds = t->ds,
				   .di = t->di,
				   .si = t->si,
				   .bp = t->bp,
				   .bx = t->bx,
				   .dx = t->dx,
				   .cx = t->cx,
				   .ax = t->ax,
				   .vector = VEC_DF,
				   .error = error,
				   .ip = t->ip,
				   .cs = t->cs,
				   .flags = t->flags,
				   .sp = t->sp,
				   .ss = t->ss };
	descriptors_init();
	asm volatile("pushf; andl %0, (%%esp); popf" : : "i"(~FLAG_NT) : "memory");
	asm volatile("mov %%cr0, %%eax; and $~8, %%eax; mov %%eax, %%cr0" : : : "eax", "memory");
	trap_dispatch(NULL);
}

#endif

struct state state_at(const void *code, unsigned cpl)
{
	unsigned data = selector_data(cpl);
	return (struct state){ .ip = (ulong)code,
			       .cs = selector_code(cpl),
			       .ss = data,
			       .ds = data,
			       .es = data,
			       .flags = FLAG_FIXED,
			       .sp = (ulong)test_stack_top - 256 };
}

struct state run_code(const void *code, unsigned cpl)
{
	struct state s = state_at(code, cpl);
	run(&s);
	return s;
}
