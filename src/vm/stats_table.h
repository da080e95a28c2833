/* Exit statistics as text for a person. */
#ifndef NADIR_VM_STATS_TABLE_H
#define NADIR_VM_STATS_TABLE_H

#include "vm/stats.h"

/* The table, line by line. Orders the sites: nothing can be counted after that. */
void stats_table(struct stats *stats, void (*line)(void *opaque, const char *text), void *opaque);

#endif
