/* The table of controls (controls.h). Intel SDM volume 3, "VM-Execution Control Fields", "VM-Exit Control Fields", "VM-Entry Control Fields". */
#include "engine/vmx/controls.h"

#include "host/port.h"

#define EPT_NEEDS (EPT_CAP_WALK_4 | EPT_CAP_WB | EPT_CAP_INVEPT | EPT_CAP_INVEPT_ALL)
#define VPID_NEEDS (VPID_CAP_INVVPID | VPID_CAP_ALL)

/* Port I/O and debug registers leave always: devices and break points are nadir's. */
#define ROW(word, use, mask, name, ept_vpid, with_ept) { word, use, mask, name, "its VT-x lacks the control \"" name "\"", ept_vpid, with_ept }

static const struct vmx_control controls[] = {
	ROW(WORD_PIN, USE_REQUIRED, PIN_INTERRUPT, "external-interrupt exiting", 0, false),
	ROW(WORD_PIN, USE_REQUIRED, PIN_NMI, "NMI exiting", 0, false),
	ROW(WORD_PIN, USE_REQUIRED, PIN_VIRTUAL_NMI, "virtual NMIs", 0, false),
	ROW(WORD_PIN, USE_WANTED, PIN_PREEMPTION_TIMER, "VMX-preemption timer", 0, false),
	ROW(WORD_PIN, USE_WANTED, PIN_POSTED, "posted interrupts", 0, false),

	ROW(WORD_PROCESSOR, USE_CHANGES, PROC_INTERRUPT_WINDOW, "interrupt-window exiting", 0, false),
	ROW(WORD_PROCESSOR, USE_REQUIRED, PROC_TSC_OFFSET, "TSC offsetting", 0, false),
	ROW(WORD_PROCESSOR, USE_REQUIRED, PROC_HLT, "HLT exiting", 0, false),
	ROW(WORD_PROCESSOR, USE_SHADOW, PROC_INVLPG, "INVLPG exiting", 0, false),
	ROW(WORD_PROCESSOR, USE_REQUIRED, PROC_MWAIT, "MWAIT exiting", 0, false),
	ROW(WORD_PROCESSOR, USE_REQUIRED, PROC_RDPMC, "RDPMC exiting", 0, false),
	ROW(WORD_PROCESSOR, USE_NONE, PROC_RDTSC, "RDTSC exiting", 0, false),
	ROW(WORD_PROCESSOR, USE_SHADOW, PROC_CR3_LOAD, "CR3-load exiting", 0, false),
	ROW(WORD_PROCESSOR, USE_SHADOW, PROC_CR3_STORE, "CR3-store exiting", 0, false),
	ROW(WORD_PROCESSOR, USE_NO_TPR, PROC_CR8_LOAD, "CR8-load exiting", 0, false),
	ROW(WORD_PROCESSOR, USE_NO_TPR, PROC_CR8_STORE, "CR8-store exiting", 0, false),
	ROW(WORD_PROCESSOR, USE_WANTED, PROC_TPR_SHADOW, "TPR shadow", 0, false),
	ROW(WORD_PROCESSOR, USE_CHANGES, PROC_NMI_WINDOW, "NMI-window exiting", 0, false),
	ROW(WORD_PROCESSOR, USE_REQUIRED, PROC_MOV_DR, "MOV-DR exiting", 0, false),
	ROW(WORD_PROCESSOR, USE_REQUIRED, PROC_IO, "unconditional I/O exiting", 0, false),
	ROW(WORD_PROCESSOR, USE_NONE, PROC_IO_BITMAPS, "I/O bitmaps", 0, false),
	ROW(WORD_PROCESSOR, USE_NONE, PROC_MONITOR_TRAP, "monitor trap flag", 0, false),
	ROW(WORD_PROCESSOR, USE_WANTED, PROC_MSR_BITMAPS, "MSR bitmaps", 0, false),
	ROW(WORD_PROCESSOR, USE_REQUIRED, PROC_MONITOR, "MONITOR exiting", 0, false),
	ROW(WORD_PROCESSOR, USE_NONE, PROC_PAUSE, "PAUSE exiting", 0, false),
	ROW(WORD_PROCESSOR, USE_WANTED, PROC_SECONDARY, "secondary controls", 0, false),

	ROW(WORD_SECONDARY, USE_WANTED, PROC2_EPT, "EPT", EPT_NEEDS, false),
	ROW(WORD_SECONDARY, USE_AT_TIMES, PROC2_APIC_ACCESS, "APIC-access virtualization", 0, true),
	ROW(WORD_SECONDARY, USE_NONE, PROC2_DESCRIPTOR_TABLE, "descriptor-table exiting", 0, false),
	ROW(WORD_SECONDARY, USE_WANTED, PROC2_RDTSCP, "RDTSCP", 0, false),
	ROW(WORD_SECONDARY, USE_AT_TIMES, PROC2_X2APIC, "x2APIC-mode virtualization", 0, false),
	ROW(WORD_SECONDARY, USE_WANTED, PROC2_VPID, "VPID", VPID_NEEDS, false),
	ROW(WORD_SECONDARY, USE_WANTED, PROC2_WBINVD, "WBINVD exiting", 0, false),
	ROW(WORD_SECONDARY, USE_WANTED, PROC2_UNRESTRICTED, "unrestricted guest", 0, true),
	ROW(WORD_SECONDARY, USE_WANTED, PROC2_APIC_REGISTERS, "APIC-register virtualization", 0, false),
	ROW(WORD_SECONDARY, USE_WANTED, PROC2_INTERRUPT_DELIVERY, "virtual-interrupt delivery", 0, false),
	ROW(WORD_SECONDARY, USE_WANTED, PROC2_PAUSE_LOOP, "PAUSE-loop exiting", 0, false),
	ROW(WORD_SECONDARY, USE_NONE, PROC2_RDRAND, "RDRAND exiting", 0, false),
	ROW(WORD_SECONDARY, USE_WANTED, PROC2_INVPCID, "INVPCID", 0, true),
	ROW(WORD_SECONDARY, USE_NONE, PROC2_VMFUNC, "VM functions", 0, false),
	ROW(WORD_SECONDARY, USE_NONE, PROC2_SHADOWING, "VMCS shadowing", 0, false),
	ROW(WORD_SECONDARY, USE_NONE, PROC2_ENCLS, "ENCLS exiting", 0, false),
	ROW(WORD_SECONDARY, USE_NONE, PROC2_RDSEED, "RDSEED exiting", 0, false),
	ROW(WORD_SECONDARY, USE_NONE, PROC2_PML, "page-modification logging", 0, true),
	ROW(WORD_SECONDARY, USE_NONE, PROC2_VE, "EPT-violation #VE", 0, true),
	ROW(WORD_SECONDARY, USE_NONE, PROC2_XSAVES, "XSAVES", 0, false),
	ROW(WORD_SECONDARY, USE_NONE, PROC2_MODE_EXECUTE, "mode-based execute control", 0, true),
	ROW(WORD_SECONDARY, USE_NONE, PROC2_TSC_SCALING, "TSC scaling", 0, false),
	ROW(WORD_SECONDARY, USE_NONE, PROC2_WAITPKG, "user wait and pause", 0, false),

	ROW(WORD_EXIT, USE_REQUIRED, EXIT_SAVE_DEBUG, "save debug controls", 0, false),
	ROW(WORD_EXIT, USE_REQUIRED, EXIT_HOST_64, "host address-space size", 0, false),
	ROW(WORD_EXIT, USE_NONE, EXIT_LOAD_PERF, "load IA32_PERF_GLOBAL_CTRL", 0, false),
	ROW(WORD_EXIT, USE_WANTED, EXIT_ACKNOWLEDGE, "acknowledge interrupt on exit", 0, false),
	ROW(WORD_EXIT, USE_NONE, EXIT_SAVE_PAT, "save IA32_PAT", 0, false),
	ROW(WORD_EXIT, USE_NONE, EXIT_LOAD_PAT, "load IA32_PAT", 0, false),
	ROW(WORD_EXIT, USE_NONE, EXIT_SAVE_EFER, "save IA32_EFER", 0, false),
	ROW(WORD_EXIT, USE_WANTED, EXIT_LOAD_EFER, "load IA32_EFER", 0, false),
	ROW(WORD_EXIT, USE_NONE, EXIT_SAVE_TIMER, "save VMX-preemption timer", 0, false),

	ROW(WORD_ENTRY, USE_REQUIRED, ENTRY_LOAD_DEBUG, "load debug controls", 0, false),
	ROW(WORD_ENTRY, USE_CHANGES, ENTRY_LONG_MODE, "IA-32e mode guest", 0, false),
	ROW(WORD_ENTRY, USE_NONE, ENTRY_SMM, "entry to SMM", 0, false),
	ROW(WORD_ENTRY, USE_NONE, ENTRY_DUAL_MONITOR, "deactivate dual-monitor treatment", 0, false),
	ROW(WORD_ENTRY, USE_NONE, ENTRY_LOAD_PERF, "load IA32_PERF_GLOBAL_CTRL", 0, false),
	ROW(WORD_ENTRY, USE_NONE, ENTRY_LOAD_PAT, "load IA32_PAT", 0, false),
	ROW(WORD_ENTRY, USE_WANTED, ENTRY_LOAD_EFER, "load IA32_EFER", 0, false),
};

unsigned vmx_control_table(const struct vmx_control **rows)
{
	*rows = controls;
	return ARRAY_SIZE(controls);
}

/* ---- capabilities ---- */

/* The "true" MSRs allow more of the pin-based, primary, exit and entry controls to be 0. */
static void read_word(struct vmx_capabilities *c, enum vmx_word word, u64 value)
{
	c->must[word] = (u32)value;
	c->may[word] = (u32)(value >> 32);
}

void vmx_capabilities_read(struct vmx_capabilities *c, u64 (*read)(u32 msr))
{
	*c = (struct vmx_capabilities){ .basic = read(MSR_VMX_BASIC), .misc = read(MSR_VMX_MISC),
					.cr0_fixed = { read(MSR_VMX_CR0_FIXED0), read(MSR_VMX_CR0_FIXED1) },
					.cr4_fixed = { read(MSR_VMX_CR4_FIXED0), read(MSR_VMX_CR4_FIXED1) } };
	bool true_msrs = c->basic & VMX_BASIC_TRUE;
	read_word(c, WORD_PIN, read(true_msrs ? MSR_VMX_TRUE_PIN : MSR_VMX_PIN));
	read_word(c, WORD_PROCESSOR, read(true_msrs ? MSR_VMX_TRUE_PROCESSOR : MSR_VMX_PROCESSOR));
	read_word(c, WORD_EXIT, read(true_msrs ? MSR_VMX_TRUE_EXIT : MSR_VMX_EXIT));
	read_word(c, WORD_ENTRY, read(true_msrs ? MSR_VMX_TRUE_ENTRY : MSR_VMX_ENTRY));
	if (c->may[WORD_PROCESSOR] & PROC_SECONDARY)
		read_word(c, WORD_SECONDARY, read(MSR_VMX_SECONDARY));
	if (c->may[WORD_SECONDARY] & (PROC2_EPT | PROC2_VPID))
		c->ept_vpid = read(MSR_VMX_EPT_VPID);
}

/* ---- the choice ---- */

static bool has(const struct vmx_capabilities *c, const struct vmx_control *row)
{
	return (c->may[row->word] & row->mask) && (c->ept_vpid & row->ept_vpid) == row->ept_vpid;
}

/* Wanted controls that are nothing without others, each behind those that it needs. */
static const struct {
	u8 word, needs;
	u32 mask, needed;
} dependencies[] = {
	{ WORD_SECONDARY, WORD_PROCESSOR, PROC2_APIC_ACCESS | PROC2_X2APIC | PROC2_APIC_REGISTERS | PROC2_INTERRUPT_DELIVERY, PROC_TPR_SHADOW },
	{ WORD_SECONDARY, WORD_PROCESSOR, PROC2_X2APIC, PROC_MSR_BITMAPS },
	{ WORD_PIN, WORD_SECONDARY, PIN_POSTED, PROC2_INTERRUPT_DELIVERY },
	{ WORD_PIN, WORD_EXIT, PIN_POSTED, EXIT_ACKNOWLEDGE },
	{ WORD_EXIT, WORD_PIN, EXIT_ACKNOWLEDGE, PIN_POSTED },
};

static void remove_controls(struct vmx_controls *out, u8 word, u32 mask)
{
	out->word[word] &= ~mask;
	out->changing[word] &= ~mask;
}

static void drop_dependent(struct vmx_controls *out)
{
	for (unsigned i = 0; i < ARRAY_SIZE(dependencies); i++)
		if (!(out->word[dependencies[i].needs] & dependencies[i].needed))
			remove_controls(out, dependencies[i].word, dependencies[i].mask);
}

/* Whether a control is required because of what the processor lacks, or the user does not want. */
static bool is_substitute(const struct vmx_control *row, const struct vmx_controls *out)
{
	return (row->use == USE_SHADOW && !(out->word[WORD_SECONDARY] & PROC2_EPT)) ||
	       (row->use == USE_NO_TPR && !(out->word[WORD_PROCESSOR] & PROC_TPR_SHADOW));
}

/* False: it is missing. */
static bool choose(const struct vmx_capabilities *c, const struct vmx_control *row, const u32 without[WORD_COUNT], struct vmx_controls *out)
{
	bool ept = out->word[WORD_SECONDARY] & PROC2_EPT;
	bool there = has(c, row) && !(without[row->word] & row->mask) && (ept || !row->with_ept);
	if (row->use == USE_NONE)
		return true;
	bool changes = row->use == USE_CHANGES || row->use == USE_AT_TIMES;
	if (there)
		*(changes ? &out->changing[row->word] : &out->word[row->word]) |= row->mask;
	return there || row->use == USE_WANTED || row->use == USE_AT_TIMES;
}

const struct vmx_control *vmx_controls_choose(const struct vmx_capabilities *c, const u32 without[WORD_COUNT], struct vmx_controls *out)
{
	*out = (struct vmx_controls){ 0 };
	for (unsigned word = 0; word < WORD_COUNT; word++)
		out->word[word] = c->must[word];
	for (unsigned i = 0; i < ARRAY_SIZE(controls); i++)
		if (controls[i].use != USE_SHADOW && controls[i].use != USE_NO_TPR && !choose(c, &controls[i], without, out))
			return &controls[i];
	for (unsigned i = 0; i < ARRAY_SIZE(controls); i++)
		if (is_substitute(&controls[i], out) && !choose(c, &controls[i], without, out))
			return &controls[i];
	drop_dependent(out);
	return NULL;
}

/* ---- for a person ---- */

static const char *state_of(const struct vmx_capabilities *c, const struct vmx_controls *v, const struct vmx_control *row)
{
	if (c->must[row->word] & row->mask)
		return "always on";
	if (v->changing[row->word] & row->mask)
		return "on while needed";
	if (v->word[row->word] & row->mask)
		return "on";
	return c->may[row->word] & row->mask ? "off" : "-";
}

/* Of IA32_VMX_EPT_VPID_CAP what is no control. Accessed and dirty bits and execute-only pages are not used: tables have the bits set from the start, and what a guest
 * may execute it may read. */
static void describe_memory(const struct vmx_capabilities *c, void (*line)(void *opaque, const char *text), void *opaque)
{
	static const struct {
		u64 mask;
		const char *name;
		bool used;
	} rows[] = {
		{ EPT_CAP_2M, "pages of 2 MiB in EPT", true },
		{ EPT_CAP_1G, "pages of 1 GiB in EPT", true },
		{ EPT_CAP_EXECUTE_ONLY, "execute-only pages in EPT", false },
		{ EPT_CAP_AD, "accessed and dirty bits in EPT", false },
		{ EPT_CAP_INVEPT_SINGLE, "INVEPT of one EPTP", true },
		{ VPID_CAP_SINGLE, "INVVPID of one VPID", true },
	};
	char text[120];
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		host_snprintf(text, sizeof(text), "%-15s  %-34s %s", "memory", rows[i].name, !(c->ept_vpid & rows[i].mask) ? "-" : rows[i].used ? "on" : "off");
		line(opaque, text);
	}
}

void vmx_describe(const struct vmx_capabilities *c, const struct vmx_controls *v, void (*line)(void *opaque, const char *text), void *opaque)
{
	static const char *const words[WORD_COUNT] = { "pin-based", "processor-based", "secondary", "exit", "entry" };
	char text[120];
	host_snprintf(text, sizeof(text), "VMCS revision %x, %llu bytes", (u32)c->basic & VMX_BASIC_REVISION, (unsigned long long)(c->basic >> 32 & 0x1fff));
	line(opaque, text);
	for (unsigned i = 0; i < ARRAY_SIZE(controls); i++) {
		host_snprintf(text, sizeof(text), "%-15s  %-34s %s", words[controls[i].word], controls[i].name, state_of(c, v, &controls[i]));
		line(opaque, text);
	}
	describe_memory(c, line, opaque);
}
