/* The files behind the host port's memory, for those who map it again in another process. */
#ifndef NADIR_HOST_LINUX_MEMORY_H
#define NADIR_HOST_LINUX_MEMORY_H

#include "host/port.h"

/* The file of what host_ram_create gave, or of the executable mapping of host_code_create; -1: it has none. Owned by the memory. */
int memory_file(const void *p);

#endif
