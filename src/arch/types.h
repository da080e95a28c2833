/* The integer and address types every other file speaks in.
 *
 * Addresses are typed by the space they live in, so that a signature says which translation has happened:
 *   gva  guest effective ("virtual") address: an offset within a segment
 *   gla  guest linear address: after segmentation, before paging
 *   gpa  guest physical address: after paging
 *   hva  host virtual address: an ordinary pointer of this program
 */
#ifndef NADIR_ARCH_TYPES_H
#define NADIR_ARCH_TYPES_H

#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

typedef u64 gva_t;
typedef u64 gla_t;
typedef u64 gpa_t;

#ifndef static_assert /* C23 has it as a keyword, <assert.h> as a macro */
#define static_assert _Static_assert
#endif

#define BIT(n) (1ull << (n))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096ull
#define PAGE_MASK (~(PAGE_SIZE - 1))

/* The low `bits` bits of a value set; `bits` may be 64. */
static inline u64 mask_of(unsigned bits)
{
	return bits >= 64 ? ~0ull : BIT(bits) - 1;
}

/* The mask of an operand of `size` bytes (1, 2, 4 or 8). */
static inline u64 size_mask(unsigned size)
{
	return mask_of(size * 8);
}

static inline bool is_canonical(u64 addr, unsigned linear_bits)
{
	return (u64)((s64)(addr << (64 - linear_bits)) >> (64 - linear_bits)) == addr;
}

#endif
