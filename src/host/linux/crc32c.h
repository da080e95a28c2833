/* CRC-32C, the checksum of snapshots (crc32c.c): reflected polynomial 82F63B78H, initial value and final inversion as in RFC 3720, "CRC Polynomial". */
#ifndef NADIR_HOST_LINUX_CRC32C_H
#define NADIR_HOST_LINUX_CRC32C_H

#include "arch/types.h"

u32 crc32c(const void *data, size_t size);

#endif
