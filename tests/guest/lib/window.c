/* The window of 4 KiB pages (window.h). */
#include "lib/window.h"

static ulong table[PAGE / sizeof(ulong)] __attribute__((aligned(4096)));

#ifdef __x86_64__

extern u64 boot_pml4[];

void window_init(void)
{
	static u64 pdpt[512] __attribute__((aligned(4096))), pd[512] __attribute__((aligned(4096)));
	pd[0] = (ulong)table | PTE_ALL;
	pdpt[0] = (ulong)pd | PTE_ALL;
	boot_pml4[(ulong)window >> 39] = (ulong)pdpt | PTE_ALL;
}

#else

void window_init(void)
{
	static u32 directory[1024] __attribute__((aligned(4096)));
	for (u32 i = 0; i < 1024; i++)
		directory[i] = i << 22 | PTE_ALL | 0xe0; /* a 4 MiB page, accessed and dirty */
	directory[(ulong)window >> 22] = (ulong)table | PTE_ALL;
	df_tss.cr3 = (ulong)directory;
	write_cr4(read_cr4() | CR4_PSE);
	write_cr3((ulong)directory);
	write_cr0(read_cr0() | CR0_PG | CR0_WP);
}

#endif

void window_map_quietly(unsigned index, const void *memory, u64 bits)
{
	*(volatile ulong *)&table[index] = bits ? (ulong)memory | bits : 0;
}

void window_map(unsigned index, const void *memory, u64 bits)
{
	window_map_quietly(index, memory, bits);
	invlpg(window + index * PAGE);
}

u64 window_entry(unsigned index)
{
	return *(volatile ulong *)&table[index];
}
