/* Locks that spin, with interrupts off while they are held: for what interrupt handlers use, too. */
#ifndef NADIR_HOST_METAL_SPINLOCK_H
#define NADIR_HOST_METAL_SPINLOCK_H

#include "host/metal/asm.h"

struct spinlock {
	u32 held;
};

/* Returns what spin_unlock wants. */
static inline u64 spin_lock(struct spinlock *lock)
{
	u64 flags = irq_save();
	while (__atomic_exchange_n(&lock->held, 1, __ATOMIC_ACQUIRE))
		while (__atomic_load_n(&lock->held, __ATOMIC_RELAXED))
			cpu_relax();
	return flags;
}

static inline void spin_unlock(struct spinlock *lock, u64 flags)
{
	__atomic_store_n(&lock->held, 0, __ATOMIC_RELEASE);
	irq_restore(flags);
}

#endif
