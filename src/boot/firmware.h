/* Images that start in real mode: a flat one, as a BIOS starts a boot sector, and firmware, which the CPU itself starts
 * (A6). Intel SDM volume 3, "First Instruction Executed". */
#ifndef NADIR_BOOT_FIRMWARE_H
#define NADIR_BOOT_FIRMWARE_H

#include "boot/loader.h"

bool flat_load(struct boot_job *job);
bool firmware_load(struct boot_job *job);

#endif
