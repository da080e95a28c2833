/* Control of the fake host's bare CPU. */
#ifndef NADIR_TESTS_FAKE_BARE_H
#define NADIR_TESTS_FAKE_BARE_H

#include "fake_host.h"

/* How large the naturally aligned pieces are that host_physical_run finds in a row: a power of two; a page at first. */
void fake_host_set_run(u64 size);
/* After so many pages more host_pages_create has none; ~0: never. */
void fake_host_limit_pages(unsigned count);
/* Pages that are out. */
unsigned fake_host_pages(void);
/* How often host_barrier_all was called. */
unsigned fake_host_barriers(void);

#endif
