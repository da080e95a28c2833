/* Port I/O and memory-mapped I/O. */
#ifndef GUEST_PORT_H
#define GUEST_PORT_H

#define DEFINE_PORT(type, suffix, letter)                                                                              \
	static inline type in##suffix(u16 port)                                                                        \
	{                                                                                                              \
		type value;                                                                                            \
		asm volatile("in" #suffix " %1, %0" : "=a"(value) : "Nd"(port) : "memory");                            \
		return value;                                                                                          \
	}                                                                                                              \
	static inline void out##suffix(u16 port, type value)                                                           \
	{                                                                                                              \
		asm volatile("out" #suffix " %0, %1" : : "a"(value), "Nd"(port) : "memory");                           \
	}
DEFINE_PORT(u8, b, b)
DEFINE_PORT(u16, w, w)
DEFINE_PORT(u32, l, k)
#undef DEFINE_PORT

static inline u32 mmio_read(ulong address)
{
	u32 value;
	asm volatile("movl %1, %0" : "=r"(value) : "m"(*(volatile u32 *)address) : "memory");
	return value;
}

static inline void mmio_write(ulong address, u32 value)
{
	asm volatile("movl %1, %0" : "=m"(*(volatile u32 *)address) : "r"(value) : "memory");
}

#endif
