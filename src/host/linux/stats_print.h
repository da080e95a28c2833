/* Exit statistics for a person and for a program (stats_print.c). */
#ifndef NADIR_HOST_LINUX_STATS_PRINT_H
#define NADIR_HOST_LINUX_STATS_PRINT_H

#include <stdio.h>

#include "vm/stats.h"

/* Both sort the sites of `stats`. `newline` ends each line. */
void stats_print_table(FILE *out, struct stats *stats, const char *newline);
void stats_print_json(FILE *out, struct stats *stats);

#endif
