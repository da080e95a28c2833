/* How values are spread: counted by magnitude, four steps to a power of two, so that what a percentile says is within an eighth of the truth. */
#ifndef NADIR_LIB_HISTOGRAM_H
#define NADIR_LIB_HISTOGRAM_H

#include "arch/types.h"

#define HISTOGRAM_OCTAVES 40 /* what is larger counts as the largest of these */
#define HISTOGRAM_BUCKETS (4 * HISTOGRAM_OCTAVES)

/* Zeroed: empty. */
struct histogram {
	u64 count, least, most;
	u64 bucket[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_bucket(u64 value)
{
	if (value < 4)
		return (unsigned)value;
	unsigned top = 63 - (unsigned)__builtin_clzll(value), bucket = (top - 1) * 4 + (unsigned)(value >> (top - 2) & 3);
	return MIN(bucket, HISTOGRAM_BUCKETS - 1u);
}

static inline void histogram_add(struct histogram *h, u64 value)
{
	h->least = h->count ? MIN(h->least, value) : value;
	h->most = MAX(h->most, value);
	h->count++;
	h->bucket[histogram_bucket(value)]++;
}

/* All of `from`, too. */
void histogram_merge(struct histogram *to, const struct histogram *from);
/* The value that so many thousandths of all do not exceed, about; 0: there are none. */
u64 histogram_permille(const struct histogram *h, unsigned permille);

#endif
