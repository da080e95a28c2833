/* The general registers that neither VMRUN nor VM entries switch, as assembly text for who enters a guest. Flags stay as they are. */
#ifndef NADIR_ENGINE_HW_GUEST_REGISTERS_H
#define NADIR_ENGINE_HW_GUEST_REGISTERS_H

/* All but RAX and RSP, from where RDI points: vcpu->gpr. RDI itself comes last. */
#define HW_LOAD_GUEST \
	"movq 1*8(%%rdi), %%rcx\n\t" \
	"movq 2*8(%%rdi), %%rdx\n\t" \
	"movq 3*8(%%rdi), %%rbx\n\t" \
	"movq 5*8(%%rdi), %%rbp\n\t" \
	"movq 6*8(%%rdi), %%rsi\n\t" \
	"movq 8*8(%%rdi), %%r8\n\t" \
	"movq 9*8(%%rdi), %%r9\n\t" \
	"movq 10*8(%%rdi), %%r10\n\t" \
	"movq 11*8(%%rdi), %%r11\n\t" \
	"movq 12*8(%%rdi), %%r12\n\t" \
	"movq 13*8(%%rdi), %%r13\n\t" \
	"movq 14*8(%%rdi), %%r14\n\t" \
	"movq 15*8(%%rdi), %%r15\n\t" \
	"movq 7*8(%%rdi), %%rdi\n\t"

/* The same back; the stack's top is where RDI pointed, and so does RDI afterwards. */
#define HW_STORE_GUEST \
	"pushq %%rdi\n\t" \
	"movq 8(%%rsp), %%rdi\n\t" \
	"popq 7*8(%%rdi)\n\t" \
	"movq %%rcx, 1*8(%%rdi)\n\t" \
	"movq %%rdx, 2*8(%%rdi)\n\t" \
	"movq %%rbx, 3*8(%%rdi)\n\t" \
	"movq %%rbp, 5*8(%%rdi)\n\t" \
	"movq %%rsi, 6*8(%%rdi)\n\t" \
	"movq %%r8, 8*8(%%rdi)\n\t" \
	"movq %%r9, 9*8(%%rdi)\n\t" \
	"movq %%r10, 10*8(%%rdi)\n\t" \
	"movq %%r11, 11*8(%%rdi)\n\t" \
	"movq %%r12, 12*8(%%rdi)\n\t" \
	"movq %%r13, 13*8(%%rdi)\n\t" \
	"movq %%r14, 14*8(%%rdi)\n\t" \
	"movq %%r15, 15*8(%%rdi)\n\t"

#endif
