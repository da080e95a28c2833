/* What C and assembly agree on: selectors, vectors, addresses. */
#ifndef GUEST_ASM_H
#define GUEST_ASM_H

/* R "ax" names a register of the guest's own width in assembly text. */
#ifdef __x86_64__
#define NATIVE_BITS "64"
#define R "%r"
#define SUFFIX "q"
#else
#define NATIVE_BITS "32"
#define R "%e"
#define SUFFIX "l"
#endif

/* The GDT. The three user selectors lie as SYSRET wants them. */
#define SEL_CODE32 0x08
#define SEL_DATA 0x10
#define SEL_CODE64 0x18
#define SEL_USER_CODE32 0x20
#define SEL_USER_DATA 0x28
#define SEL_USER_CODE64 0x30
#define SEL_CODE16 0x38
#define SEL_DATA16 0x40
#define SEL_RING1_CODE32 0x48
#define SEL_RING1_DATA 0x50
#define SEL_RING1_CODE64 0x58
#define SEL_RING2_CODE32 0x60
#define SEL_RING2_DATA 0x68
#define SEL_RING2_CODE64 0x70
#define SEL_TSS 0x78 /* two entries in 64-bit mode */
#define SEL_TSS_DF 0x88
#define SEL_CODE16LOW 0x90 /* base LOW_BASE, for real.S */
#define SEL_FREE 0x100     /* from here on the tests' own */
#define GDT_ENTRIES 128

#define VECTOR_END 0x81 /* INT that ends a run */

/* Low memory: real-mode code and the application processors' start. The section .low is linked and copied here. */
#define LOW_BASE 0x10000
#define LOW_SEGMENT 0x1000

#endif
