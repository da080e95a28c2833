/* Banks of machine-check registers (machine_check.h). */
#include "host/metal/machine_check.h"

#include "cpu/host_cpuid.h"
#include "host/metal/asm.h"
#include "host/metal/log.h"

#define MSR_MCG_CAP 0x179
#define MSR_MCG_STATUS 0x17a
#define MSR_MCG_CTL 0x17b
#define MSR_BANK 0x400 /* of each: CTL, STATUS, ADDR, MISC */
enum { CTL, STATUS, ADDR, MISC, BANK_MSRS };

#define MCG_CTL_P BIT(8)
#define STATUS_VALID BIT(63)
#define STATUS_MISCV BIT(59)
#define STATUS_ADDRV BIT(58)

static unsigned banks; /* of every CPU; constant after the first machine_check_init */

extern const u8 machine_check_read[], machine_check_behind[];

static bool lacks_banks(struct host_trap *trap)
{
	if (trap->pc != (u64)(uintptr_t)machine_check_read)
		return false;
	trap->pc = (u64)(uintptr_t)machine_check_behind;
	return true;
}

/* 0 where CPUID promises what is not there, as with Bochs. */
static __attribute__((noinline)) u64 read_capabilities(void)
{
	u32 low = 0, high = 0;
	host_set_trap_handler(lacks_banks);
	__asm__ volatile(".globl machine_check_read, machine_check_behind\n"
			 "machine_check_read:\trdmsr\n"
			 "machine_check_behind:"
			 : "+a"(low), "+d"(high)
			 : "c"(MSR_MCG_CAP));
	host_set_trap_handler(NULL);
	return low | (u64)high << 32;
}

static u64 read_bank(unsigned bank, unsigned which)
{
	return rdmsr(MSR_BANK + bank * BANK_MSRS + which);
}

/* What is in a bank since before the boot has been the firmware's. */
void machine_check_init(void)
{
	u32 features = host_cpuid(1, 0).reg[CPUID_EDX];
	u64 capabilities = (features & BIT(7)) && (features & BIT(14)) ? read_capabilities() : 0; /* MCE, MCA */
	banks = capabilities & 0xff;
	if (banks && (capabilities & MCG_CTL_P))
		wrmsr(MSR_MCG_CTL, ~0ull);
	for (unsigned bank = 0; bank < banks; bank++) {
		wrmsr(MSR_BANK + bank * BANK_MSRS + CTL, ~0ull);
		wrmsr(MSR_BANK + bank * BANK_MSRS + STATUS, 0);
	}
}

void machine_check_report(void)
{
	if (banks)
		log_line("  machine check: status %llx", (unsigned long long)rdmsr(MSR_MCG_STATUS));
	for (unsigned bank = 0; bank < banks; bank++) {
		u64 status = read_bank(bank, STATUS);
		if (status & STATUS_VALID)
			log_line("  bank %u: status %016llx address %llx misc %llx", bank, (unsigned long long)status,
				 (unsigned long long)(status & STATUS_ADDRV ? read_bank(bank, ADDR) : 0),
				 (unsigned long long)(status & STATUS_MISCV ? read_bank(bank, MISC) : 0));
	}
}
