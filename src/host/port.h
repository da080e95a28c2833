/* The host port: everything the core asks of the place it runs in. Each host (host/linux, host/metal, and the fake host of
 * the unit tests) implements exactly this; the variant is chosen at link time. Nothing else outside the core may be called
 * from it, but for memcpy, memmove, memset and memcmp, and Zydis.
 *
 * All functions may be called from any thread unless stated otherwise. */
#ifndef NADIR_HOST_PORT_H
#define NADIR_HOST_PORT_H

#include "arch/types.h"

/* ---- memory ---- */

/* Zeroed memory aligned to 64 bytes, or NULL. Owned by the caller until host_free. */
void *host_alloc(size_t size);
void host_free(void *p);

/* Guest RAM: one shared object of `size` bytes (a multiple of the page size), zeroed, filled lazily. NULL on failure. */
void *host_ram_create(u64 size);
void host_ram_destroy(void *hva, u64 size);
/* Give whole pages back to the host; they read as zero afterwards. */
void host_ram_discard(void *hva, u64 size);
/* A second mapping of two pages of guest RAM, side by side, for an access that crosses from the first into the second. NULL if the host
 * cannot. It lasts until host_unmap_pair. */
u8 *host_map_pair(u8 *first, u8 *second);
void host_unmap_pair(u8 *pair);

/* Memory for generated code, mapped twice: written through rw, executed through rx, never both through one mapping.
 * Returns 0, or a negative value on failure. */
struct host_code {
	u8 *rw;
	u8 *rx;
	size_t size;
};
int host_code_create(struct host_code *code, size_t size);
void host_code_destroy(struct host_code *code);

/* ---- locks ---- */

struct host_lock {
	u64 opaque[8];
};
void host_lock_init(struct host_lock *lock);
void host_lock(struct host_lock *lock);
void host_unlock(struct host_lock *lock);

/* ---- time ---- */

#define HOST_NEVER (~0ull)

/* Monotonic nanoseconds. */
u64 host_now(void);
/* Nanoseconds since 1970-01-01 00:00 UTC. */
u64 host_wallclock(void);
/* Frequency of the time-stamp counter in Hz, measured or told by the hardware once at start. */
u64 host_tsc_hz(void);

/* A timer calls `fire(opaque)` on the host's event thread at or soon after its deadline (host_now() scale), once per arming.
 * The callback must not block. Arming replaces an earlier deadline; HOST_NEVER disarms. Destroy waits for a running callback. */
struct host_timer;
struct host_timer *host_timer_create(void (*fire)(void *opaque), void *opaque);
void host_timer_arm(struct host_timer *timer, u64 deadline);
void host_timer_destroy(struct host_timer *timer);

/* ---- vCPU threads ---- */

/* Where a vCPU thread sleeps. wait returns when *word != expected, when woken, at the deadline, or spuriously. */
void host_wait(u32 *word, u32 expected, u64 deadline);
void host_wake(u32 *word);
/* Give the CPU to somebody else for a moment (PAUSE loops). */
void host_yield(void);

/* A full memory barrier on every thread of this program that runs guest code: what they stored before this call is visible when it
 * returns, and what they load afterwards is not older than the call. */
void host_barrier_all(void);

/* Make GS-relative addresses of the calling thread relative to `base`, for generated code. */
void host_set_gs_base(void *base);

/* A fault taken by generated code: the host stopped at `pc` with a hardware exception. The handler, called on the faulting
 * thread in a context where only the fields here may be used, returns true after changing pc to continue there, false if the
 * fault is not its own (the host then treats it as a bug of this program). */
struct host_trap {
	u64 pc;
	u32 vector; /* x86 exception vector */
	u32 error_code;
	u64 address; /* CR2 for page faults */
	u64 rflags;
};
typedef bool (*host_trap_handler)(struct host_trap *trap);
void host_set_trap_handler(host_trap_handler handler);

/* ---- diagnostics ---- */

enum host_log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
void host_log(enum host_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A bug of this program: say what, dump, stop the VM. Never caused by guest input. */
_Noreturn void host_panic(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int host_snprintf(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Cryptographically good random bytes. */
void host_random(void *buf, size_t size);

#endif
