/* Histograms (histogram.h). */
#include "lib/histogram.h"

void histogram_merge(struct histogram *to, const struct histogram *from)
{
	if (!from->count)
		return;
	to->least = to->count ? MIN(to->least, from->least) : from->least;
	to->most = MAX(to->most, from->most);
	to->count += from->count;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		to->bucket[i] += from->bucket[i];
}

/* The middle of a bucket. */
static u64 value_of(unsigned bucket)
{
	if (bucket < 4)
		return bucket;
	unsigned shift = bucket / 4 - 1;
	return ((u64)(4 + bucket % 4) << shift) + (BIT(shift) >> 1);
}

u64 histogram_permille(const struct histogram *h, unsigned permille)
{
	u64 rest = (h->count / 1000) * permille + (h->count % 1000 * permille + 999) / 1000;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS && h->count; i++) {
		if (h->bucket[i] >= rest)
			return MAX(MIN(value_of(i), h->most), h->least);
		rest -= h->bucket[i];
	}
	return h->most;
}
