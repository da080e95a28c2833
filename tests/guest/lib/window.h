/* A window of 4 KiB pages at `window`, to be mapped, unmapped and mapped elsewhere at will; the rest of memory stays
 * one to one, and everything is open to user code. window_init() turns paging on in a 32-bit guest. */
#ifndef GUEST_WINDOW_H
#define GUEST_WINDOW_H

#include "lib/guest.h"

#define PAGE 4096ul
#define WINDOW_PAGES 512
#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_U 4ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_G 0x100ull
#define PTE_ALL (PTE_P | PTE_W | PTE_U)

#ifdef __x86_64__
#define window ((u8 *)0x8000000000)
#else
#define window ((u8 *)0x40000000)
#endif

void window_init(void);
/* Map page `index` of the window to this memory with these PTE_* bits (0: absent), and flush it. */
void window_map(unsigned index, const void *memory, u64 bits);
/* The same without flushing it. */
void window_map_quietly(unsigned index, const void *memory, u64 bits);
u64 window_entry(unsigned index);

#endif
