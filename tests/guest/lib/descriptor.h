/* Descriptor tables: the GDT, IDT, LDT and TSS of the guest, and functions that fill entries.
 * Intel SDM volume 3, "Segment Descriptors", "IDT Descriptors", "Task-State Segment". */
#ifndef GUEST_DESCRIPTOR_H
#define GUEST_DESCRIPTOR_H

/* Access byte. */
#define ACCESS_P 0x80u
#define ACCESS_DPL(n) ((unsigned)(n) << 5)
#define ACCESS_DATA 0x93u /* present, writable, accessed, DPL 0 */
#define ACCESS_DATA_DOWN 0x95u /* present, read-only, expand-down, accessed, DPL 0 */
#define ACCESS_CODE 0x9bu /* present, readable, accessed, DPL 0 */
#define ACCESS_LDT 0x82u
#define ACCESS_TSS16 0x81u
#define ACCESS_TSS 0x89u
/* The high nibble of byte 6. */
#define DESC_G 8u
#define DESC_DB 4u
#define DESC_L 2u

enum gate_type {
	GATE_CALL16 = 4,
	GATE_TASK = 5,
	GATE_INT16 = 6,
	GATE_TRAP16 = 7,
	GATE_CALL = 12,
	GATE_INT = 14,
	GATE_TRAP = 15,
};

struct __attribute__((packed)) table_register {
	u16 limit;
	ulong base;
};

#ifdef __x86_64__
struct __attribute__((packed)) tss {
	u32 reserved0;
	u64 rsp[3];
	u64 reserved1;
	u64 ist[7];
	u64 reserved2;
	u16 reserved3;
	u16 iomap;
	u8 io_bitmap[8193];
};
struct idt_entry {
	u64 low, high;
};
#else
struct __attribute__((packed)) tss32 {
	u32 link;
	struct __attribute__((packed)) {
		u32 sp, ss;
	} stack[3];
	u32 cr3, ip, flags, ax, cx, dx, bx, sp, bp, si, di;
	u32 es, cs, ss, ds, fs, gs;
	u32 ldt;
	u16 trap, iomap;
};
struct __attribute__((packed)) tss16 {
	u16 link;
	struct __attribute__((packed)) {
		u16 sp, ss;
	} stack[3];
	u16 ip, flags, ax, cx, dx, bx, sp, bp, si, di;
	u16 es, cs, ss, ds, ldt;
};
struct __attribute__((packed)) tss {
	struct tss32 t;
	u8 redirection[32]; /* VME: just below the I/O bitmap */
	u8 io_bitmap[8193];
};
extern struct tss32 df_tss; /* task of the #DF gate */
struct idt_entry {
	u64 low;
};
#endif

extern u64 gdt[GDT_ENTRIES];
extern struct idt_entry idt[256];
extern struct tss tss;

/* A descriptor's eight bytes. `flags`: DESC_*. The limit is in bytes or pages as DESC_G says. */
u64 descriptor(u32 base, u32 limit, unsigned access, unsigned flags);
void gdt_set(unsigned selector, u64 value);
/* A system descriptor (LDT, TSS) at `selector`: two entries in 64-bit mode. */
void gdt_set_system(unsigned selector, ulong base, u32 limit, unsigned access);
/* A gate's eight bytes (lower half in 64-bit mode). `count`: parameters of a call gate, or IST of a 64-bit gate. */
u64 gate_low(unsigned selector, ulong offset, enum gate_type type, unsigned dpl, unsigned count);
void gdt_set_gate(unsigned selector, unsigned target, ulong offset, enum gate_type type, unsigned dpl, unsigned count);
void idt_set(unsigned vector, unsigned selector, ulong offset, enum gate_type type, unsigned dpl, unsigned ist);
/* Put the framework's own gate back. */
void idt_restore(unsigned vector);
void descriptors_init(void);
void load_gdt(void);
void load_idt(void);

/* Flat selectors of this CPL with its RPL; code of the guest's own width. */
unsigned selector_code(unsigned cpl);
unsigned selector_code32(unsigned cpl);
unsigned selector_data(unsigned cpl);

static inline void write_tr(u16 selector)
{
	asm volatile("ltr %0" : : "r"(selector) : "memory");
}

static inline void write_ldt(u16 selector)
{
	asm volatile("lldt %0" : : "r"(selector) : "memory");
}

#endif
