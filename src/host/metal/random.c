/* The host port's random bytes: the key stream of ChaCha20 (RFC 8439, "The ChaCha20 Block Function"), whose key comes from RDSEED or RDRAND
 * and from the jitter of the time-stamp counter, and is replaced by part of each block, so that what was given out cannot be computed
 * from what is kept. */
#include "cpu/host_cpuid.h"
#include "host/metal/spinlock.h"
#include "host/port.h"
#include "lib/string.h"

static struct {
	struct spinlock lock;
	bool seeded;
	u32 key[8];
	u64 count;
} random;

static u32 rotate(u32 value, unsigned by)
{
	return value << by | value >> (32 - by);
}

static void quarter(u32 *x, unsigned a, unsigned b, unsigned c, unsigned d)
{
	x[a] += x[b], x[d] = rotate(x[d] ^ x[a], 16);
	x[c] += x[d], x[b] = rotate(x[b] ^ x[c], 12);
	x[a] += x[b], x[d] = rotate(x[d] ^ x[a], 8);
	x[c] += x[d], x[b] = rotate(x[b] ^ x[c], 7);
}

static void block(u32 out[16])
{
	u32 in[16] = { 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574 };
	memcpy(in + 4, random.key, sizeof(random.key));
	in[12] = (u32)random.count;
	in[13] = (u32)(random.count++ >> 32);
	memcpy(out, in, sizeof(in));
	for (unsigned round = 0; round < 10; round++) {
		for (unsigned i = 0; i < 4; i++)
			quarter(out, i, 4 + i, 8 + i, 12 + i);
		for (unsigned i = 0; i < 4; i++)
			quarter(out, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4);
	}
	for (unsigned i = 0; i < 16; i++)
		out[i] += in[i];
}

static bool hardware_random(u64 *value)
{
	bool good = false;
	if (!(host_cpuid(1, 0).reg[CPUID_ECX] & BIT(30)))
		return false;
	for (unsigned i = 0; i < 10 && !good; i++)
		__asm__ volatile("rdrand %0; setc %1" : "=r"(*value), "=qm"(good)::"cc");
	return good;
}

/* Each turn mixes one word in. Without RDRAND what counts is how long a walk over memory and CPUID take, to the tick, many times. */
static void seed(void)
{
	u32 mixed[16];
	u64 value;
	bool hardware = hardware_random(&value);
	for (unsigned i = 0; i < (hardware ? 16 : 2048); i++) {
		if (!hardware_random(&value))
			value = host_cpuid(0, 0).reg[CPUID_EAX];
		value += rdtsc();
		random.key[i % 8] ^= (u32)value;
		random.key[(i + 1) % 8] += (u32)(value >> 32);
		block(mixed);
		memcpy(random.key, mixed, sizeof(random.key));
	}
	random.seeded = true;
}

void host_random(void *buf, size_t size)
{
	u32 words[16];
	u64 flags = spin_lock(&random.lock);
	if (!random.seeded)
		seed();
	for (u8 *p = buf; size;) {
		size_t n = MIN(size, sizeof(words) - sizeof(random.key));
		block(words);
		memcpy(random.key, words, sizeof(random.key));
		memcpy(p, words + 8, n);
		p += n;
		size -= n;
	}
	spin_unlock(&random.lock, flags);
}
