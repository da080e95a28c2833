/* The guest's descriptor tables. */
#include "lib/guest.h"

u64 gdt[GDT_ENTRIES] __attribute__((aligned(16)));
struct idt_entry idt[256] __attribute__((aligned(16)));
struct tss tss __attribute__((aligned(128)));

static u8 exception_stack[16384] __attribute__((aligned(16)));

u64 descriptor(u32 base, u32 limit, unsigned access, unsigned flags)
{
	u64 value = (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40;
	return value | (u64)((limit >> 16) & 15) << 48 | (u64)flags << 52 | (u64)(base >> 24) << 56;
}

void gdt_set(unsigned selector, u64 value)
{
	*(volatile u64 *)&gdt[selector >> 3] = value;
}

void gdt_set_system(unsigned selector, ulong base, u32 limit, unsigned access)
{
	gdt_set(selector, descriptor(base, limit, access, 0));
#ifdef __x86_64__
	gdt_set(selector + 8, base >> 32);
#endif
}

u64 gate_low(unsigned selector, ulong offset, enum gate_type type, unsigned dpl, unsigned count)
{
	u64 attributes = ACCESS_P | ACCESS_DPL(dpl) | type;
	return (offset & 0xffff) | (u64)selector << 16 | (u64)count << 32 | attributes << 40 |
	       (u64)((u32)offset >> 16) << 48;
}

void gdt_set_gate(unsigned selector, unsigned target, ulong offset, enum gate_type type, unsigned dpl, unsigned count)
{
	gdt_set(selector, gate_low(target, offset, type, dpl, count));
#ifdef __x86_64__
	gdt_set(selector + 8, offset >> 32);
#endif
}

void idt_set(unsigned vector, unsigned selector, ulong offset, enum gate_type type, unsigned dpl, unsigned ist)
{
	idt[vector].low = gate_low(selector, offset, type, dpl, ist);
#ifdef __x86_64__
	idt[vector].high = offset >> 32;
#endif
}

void load_gdt(void)
{
	struct table_register r = { sizeof(gdt) - 1, (ulong)gdt };
	asm volatile("lgdt %0" : : "m"(r) : "memory");
}

void load_idt(void)
{
	struct table_register r = { sizeof(idt) - 1, (ulong)idt };
	asm volatile("lidt %0" : : "m"(r) : "memory");
}

static void gdt_fill(void)
{
	static const u16 code32[] = { SEL_CODE32, SEL_RING1_CODE32, SEL_RING2_CODE32, SEL_USER_CODE32 };
	static const u16 code64[] = { SEL_CODE64, SEL_RING1_CODE64, SEL_RING2_CODE64, SEL_USER_CODE64 };
	static const u16 data[] = { SEL_DATA, SEL_RING1_DATA, SEL_RING2_DATA, SEL_USER_DATA };
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		gdt_set(code32[cpl], descriptor(0, 0xfffff, ACCESS_CODE | ACCESS_DPL(cpl), DESC_G | DESC_DB));
		gdt_set(code64[cpl], descriptor(0, 0xfffff, ACCESS_CODE | ACCESS_DPL(cpl), DESC_G | DESC_L));
		gdt_set(data[cpl], descriptor(0, 0xfffff, ACCESS_DATA | ACCESS_DPL(cpl), DESC_G | DESC_DB));
	}
	gdt_set(SEL_CODE16, descriptor(0, 0xffff, ACCESS_CODE, 0));
	gdt_set(SEL_DATA16, descriptor(0, 0xffff, ACCESS_DATA, 0));
}

#ifdef __x86_64__

static void tss_fill(void)
{
	for (unsigned i = 0; i < 7; i++)
		tss.ist[i] = (ulong)exception_stack + sizeof(exception_stack);
	tss.rsp[0] = tss.ist[0];
	gdt_set_system(SEL_TSS, (ulong)&tss, sizeof(tss) - 1, ACCESS_TSS);
}

#else

struct tss32 df_tss;
void df_task(void);

static void tss_fill(void)
{
	df_tss = (struct tss32){ .cr3 = read_cr3(),
				 .ip = (ulong)df_task,
				 .flags = FLAG_FIXED,
				 .sp = (ulong)exception_stack + sizeof(exception_stack),
				 .cs = SEL_CODE32,
				 .ss = SEL_DATA,
				 .ds = SEL_DATA,
				 .es = SEL_DATA,
				 .iomap = sizeof(df_tss) };
	gdt_set_system(SEL_TSS_DF, (ulong)&df_tss, sizeof(df_tss) - 1, ACCESS_TSS);
	gdt_set_system(SEL_TSS, (ulong)&tss, sizeof(tss) - 1, ACCESS_TSS);
}

#endif

void descriptors_init(void)
{
	gdt_fill();
	tss_fill();
#ifdef __x86_64__
	tss.iomap = offsetof(struct tss, io_bitmap);
#else
	tss.t.iomap = offsetof(struct tss, io_bitmap);
#endif
	memset(tss.io_bitmap, 0xff, sizeof(tss.io_bitmap));
	load_gdt();
	write_tr(SEL_TSS);
	for (unsigned vector = 0; vector < 256; vector++)
		idt_restore(vector);
	load_idt();
}

unsigned selector_code32(unsigned cpl)
{
	static const u16 selectors[] = { SEL_CODE32, SEL_RING1_CODE32, SEL_RING2_CODE32, SEL_USER_CODE32 };
	return selectors[cpl] | cpl;
}

unsigned selector_code(unsigned cpl)
{
#ifdef __x86_64__
	static const u16 selectors[] = { SEL_CODE64, SEL_RING1_CODE64, SEL_RING2_CODE64, SEL_USER_CODE64 };
	return selectors[cpl] | cpl;
#else
	return selector_code32(cpl);
#endif
}

unsigned selector_data(unsigned cpl)
{
	static const u16 selectors[] = { SEL_DATA, SEL_RING1_DATA, SEL_RING2_DATA, SEL_USER_DATA };
	return selectors[cpl] | cpl;
}
