/* VMX instructions, each as a function; between host_hold and host_release, on a CPU in VMX operation. Intel SDM volume 3, "VMX Instruction Reference". */
#ifndef NADIR_ENGINE_VMX_OPS_H
#define NADIR_ENGINE_VMX_OPS_H

#include "arch/vmcs.h"
#include "arch/vmx.h"

/* How an instruction ended: VMfailInvalid (there is no current VMCS) and VMfailValid (the VM-instruction error says why). */
enum vmx_result { VMX_GOOD, VMX_FAIL_INVALID, VMX_FAIL_VALID };

static inline enum vmx_result vmx_result_of(bool carry, bool zero)
{
	return carry ? VMX_FAIL_INVALID : zero ? VMX_FAIL_VALID : VMX_GOOD;
}

#define VMX_POINTER(name, instruction)                                                                                          \
	static inline enum vmx_result name(u64 physical)                                                                        \
	{                                                                                                                       \
		bool carry, zero;                                                                                               \
		__asm__ volatile(instruction " %2" : "=@ccc"(carry), "=@ccz"(zero) : "m"(physical) : "memory");                 \
		return vmx_result_of(carry, zero);                                                                              \
	}
VMX_POINTER(vmxon, "vmxon")
VMX_POINTER(vmclear, "vmclear")
VMX_POINTER(vmptrld, "vmptrld")
#undef VMX_POINTER

static inline u64 vmread(enum vmcs_field field)
{
	u64 value;
	__asm__ volatile("vmread %1, %0" : "=r"(value) : "r"((u64)field) : "cc");
	return value;
}

static inline enum vmx_result vmwrite(enum vmcs_field field, u64 value)
{
	bool carry, zero;
	__asm__ volatile("vmwrite %3, %2" : "=@ccc"(carry), "=@ccz"(zero) : "r"((u64)field), "r"(value) : "memory");
	return vmx_result_of(carry, zero);
}

struct invalidate {
	u64 what, address; /* EPTP, 0; or VPID, linear address */
};

static inline enum vmx_result invept(enum invalidation kind, u64 eptp)
{
	bool carry, zero;
	struct invalidate operand = { eptp, 0 };
	__asm__ volatile("invept %2, %3" : "=@ccc"(carry), "=@ccz"(zero) : "m"(operand), "r"((u64)kind) : "memory");
	return vmx_result_of(carry, zero);
}

static inline enum vmx_result invvpid(enum invalidation kind, u16 vpid)
{
	bool carry, zero;
	struct invalidate operand = { vpid, 0 };
	__asm__ volatile("invvpid %2, %3" : "=@ccc"(carry), "=@ccz"(zero) : "m"(operand), "r"((u64)kind) : "memory");
	return vmx_result_of(carry, zero);
}

#endif
