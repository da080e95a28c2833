/* What engine/vmx knows of VT-x without a processor that has it: the choice of controls, names, and the checker of VMCSs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arch/regs.h"
#include "arch/segment.h"
#include "engine/vmx/check.h"
#include "engine/vmx/names.h"

/* ---- capabilities ---- */

static u64 msrs[0x20]; /* from MSR_VMX_BASIC on */

static u64 read_msr(u32 msr)
{
	assert_true(msr >= MSR_VMX_BASIC && msr < MSR_VMX_BASIC + ARRAY_SIZE(msrs));
	return msrs[msr - MSR_VMX_BASIC];
}

static void set_word(u32 msr, u32 must, u32 may)
{
	msrs[msr - MSR_VMX_BASIC] = must | (u64)may << 32;
}

/* A processor that has all, and one of before EPT: no secondary controls, and no "true" MSRs. */
static struct vmx_capabilities modern(void)
{
	struct vmx_capabilities c;
	memset(msrs, 0, sizeof(msrs));
	msrs[0] = VMX_BASIC_TRUE | 4096ull << 32 | 0x12;
	msrs[MSR_VMX_MISC - MSR_VMX_BASIC] = 4ull << 16 | 7u << 6;
	msrs[MSR_VMX_CR0_FIXED0 - MSR_VMX_BASIC] = CR0_PE | CR0_NE | CR0_PG;
	msrs[MSR_VMX_CR0_FIXED1 - MSR_VMX_BASIC] = 0xffffffff;
	msrs[MSR_VMX_CR4_FIXED0 - MSR_VMX_BASIC] = CR4_VMXE;
	msrs[MSR_VMX_CR4_FIXED1 - MSR_VMX_BASIC] = 0x3767ff;
	msrs[MSR_VMX_EPT_VPID - MSR_VMX_BASIC] = 0xf0106334141;
	set_word(MSR_VMX_TRUE_PIN, 0x16, 0xff);
	set_word(MSR_VMX_TRUE_PROCESSOR, 0x4006172, 0xfff9fffe);
	set_word(MSR_VMX_TRUE_EXIT, 0x36dfb, 0x1ffffff);
	set_word(MSR_VMX_TRUE_ENTRY, 0x11fb, 0x3ffff);
	set_word(MSR_VMX_SECONDARY, 0, 0x7ffffff);
	vmx_capabilities_read(&c, read_msr);
	return c;
}

static struct vmx_capabilities old(void)
{
	struct vmx_capabilities c;
	modern();
	msrs[0] &= ~VMX_BASIC_TRUE;
	set_word(MSR_VMX_PIN, 0x16, 0x3f);
	set_word(MSR_VMX_PROCESSOR, 0x401e172, 0x77f9fffe);
	set_word(MSR_VMX_EXIT, 0x36dff, 0x3ffff);
	set_word(MSR_VMX_ENTRY, 0x11ff, 0x3fff);
	vmx_capabilities_read(&c, read_msr);
	return c;
}

static const u32 nothing[WORD_COUNT];

static void test_choice_with_everything(void **state)
{
	struct vmx_capabilities c = modern();
	struct vmx_controls v;
	assert_null(vmx_controls_choose(&c, nothing, &v));
	assert_true(v.word[WORD_SECONDARY] & PROC2_EPT);
	assert_true(v.word[WORD_SECONDARY] & PROC2_UNRESTRICTED);
	assert_true(v.word[WORD_SECONDARY] & PROC2_VPID);
	assert_true(v.word[WORD_PIN] & PIN_PREEMPTION_TIMER);
	assert_false(v.word[WORD_PROCESSOR] & (PROC_CR3_LOAD | PROC_INVLPG | PROC_INTERRUPT_WINDOW));
	assert_int_equal(v.changing[WORD_PROCESSOR], PROC_INTERRUPT_WINDOW | PROC_NMI_WINDOW);
	assert_int_equal(v.changing[WORD_ENTRY], ENTRY_LONG_MODE);
	assert_int_equal(v.changing[WORD_SECONDARY], PROC2_APIC_ACCESS | PROC2_X2APIC);
	assert_true(v.word[WORD_PROCESSOR] & PROC_TPR_SHADOW);
	assert_false(v.word[WORD_PROCESSOR] & (PROC_CR8_LOAD | PROC_CR8_STORE));
	for (unsigned word = 0; word < WORD_COUNT; word++) {
		assert_int_equal(c.must[word] & ~v.word[word], 0);
		assert_int_equal(v.word[word] & ~c.may[word], 0);
	}
}

static void test_choice_without_ept(void **state)
{
	struct vmx_capabilities c = old();
	struct vmx_controls v;
	assert_null(vmx_controls_choose(&c, nothing, &v));
	assert_int_equal(v.word[WORD_SECONDARY], 0);
	assert_true(v.word[WORD_PROCESSOR] & PROC_CR3_LOAD);
	assert_true(v.word[WORD_PROCESSOR] & PROC_INVLPG);
	/* The same by will: what needs EPT goes with it. */
	u32 without[WORD_COUNT] = { [WORD_SECONDARY] = PROC2_EPT };
	c = modern();
	assert_null(vmx_controls_choose(&c, without, &v));
	assert_false(v.word[WORD_SECONDARY] & (PROC2_EPT | PROC2_UNRESTRICTED | PROC2_INVPCID));
	assert_true(v.word[WORD_SECONDARY] & PROC2_VPID);
	assert_true(v.word[WORD_PROCESSOR] & PROC_CR3_LOAD);
}

/* An EPT that lacks what nadir needs of it is none. */
static void test_choice_by_ept_capabilities(void **state)
{
	struct vmx_capabilities c = modern();
	struct vmx_controls v;
	c.ept_vpid &= ~EPT_CAP_INVEPT_ALL;
	assert_null(vmx_controls_choose(&c, nothing, &v));
	assert_false(v.word[WORD_SECONDARY] & PROC2_EPT);
	assert_true(v.word[WORD_PROCESSOR] & PROC_CR3_LOAD);
}

/* Without a TPR shadow nothing of the local APIC is virtualized, and CR8 leaves; what depends on others goes with them. */
static void test_choice_of_apic_virtualization(void **state)
{
	static const struct {
		u32 without[WORD_COUNT], secondary, changing, pin, exit;
	} rows[] = {
		{ { 0 }, PROC2_APIC_REGISTERS | PROC2_INTERRUPT_DELIVERY, PROC2_APIC_ACCESS | PROC2_X2APIC, PIN_POSTED, EXIT_ACKNOWLEDGE },
		{ { [WORD_PROCESSOR] = PROC_TPR_SHADOW }, 0, 0, 0, 0 },
		{ { [WORD_PROCESSOR] = PROC_MSR_BITMAPS }, PROC2_APIC_REGISTERS | PROC2_INTERRUPT_DELIVERY, PROC2_APIC_ACCESS, PIN_POSTED, EXIT_ACKNOWLEDGE },
		{ { [WORD_SECONDARY] = PROC2_EPT }, PROC2_APIC_REGISTERS | PROC2_INTERRUPT_DELIVERY, PROC2_X2APIC, PIN_POSTED, EXIT_ACKNOWLEDGE },
		{ { [WORD_SECONDARY] = PROC2_INTERRUPT_DELIVERY }, PROC2_APIC_REGISTERS, PROC2_APIC_ACCESS | PROC2_X2APIC, 0, 0 },
		{ { [WORD_EXIT] = EXIT_ACKNOWLEDGE }, PROC2_APIC_REGISTERS | PROC2_INTERRUPT_DELIVERY, PROC2_APIC_ACCESS | PROC2_X2APIC, 0, 0 },
		{ { [WORD_PIN] = PIN_POSTED }, PROC2_APIC_REGISTERS | PROC2_INTERRUPT_DELIVERY, PROC2_APIC_ACCESS | PROC2_X2APIC, 0, 0 },
	};
	struct vmx_capabilities c = modern();
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct vmx_controls v;
		assert_null(vmx_controls_choose(&c, rows[i].without, &v));
		assert_int_equal(v.word[WORD_SECONDARY] & (PROC2_APIC_REGISTERS | PROC2_INTERRUPT_DELIVERY), rows[i].secondary);
		assert_int_equal(v.changing[WORD_SECONDARY], rows[i].changing);
		assert_int_equal(v.word[WORD_PIN] & PIN_POSTED, rows[i].pin);
		assert_int_equal(v.word[WORD_EXIT] & EXIT_ACKNOWLEDGE, rows[i].exit);
		bool shadow = v.word[WORD_PROCESSOR] & PROC_TPR_SHADOW;
		assert_int_equal(v.word[WORD_PROCESSOR] & (PROC_CR8_LOAD | PROC_CR8_STORE), shadow ? 0 : PROC_CR8_LOAD | PROC_CR8_STORE);
	}
}

/* Whatever is required and missing is named; what is only wanted is not missed. */
static void test_choice_names_what_is_missing(void **state)
{
	const struct vmx_control *rows;
	unsigned count = vmx_control_table(&rows);
	for (unsigned i = 0; i < count; i++) {
		struct vmx_capabilities c = modern();
		struct vmx_controls v;
		c.may[rows[i].word] &= ~rows[i].mask;
		c.must[rows[i].word] &= ~rows[i].mask;
		const struct vmx_control *missing = vmx_controls_choose(&c, nothing, &v);
		if (rows[i].use == USE_REQUIRED || rows[i].use == USE_CHANGES)
			assert_ptr_equal(missing, &rows[i]);
		else
			assert_null(missing);
		assert_non_null(strstr(rows[i].missing, rows[i].name));
	}
}

static unsigned lines;
static char text_of_lines[8192];

static void take_line(void *opaque, const char *text)
{
	lines++;
	size_t used = strlen(text_of_lines);
	snprintf(text_of_lines + used, sizeof(text_of_lines) - used, "%s\n", text);
}

static void test_description(void **state)
{
	const struct vmx_control *rows;
	struct vmx_capabilities c = modern();
	struct vmx_controls v;
	lines = 0;
	text_of_lines[0] = 0;
	vmx_controls_choose(&c, nothing, &v);
	vmx_describe(&c, &v, take_line, NULL);
	assert_true(lines > vmx_control_table(&rows) + 1);
	assert_non_null(strstr(text_of_lines, "VMCS revision 12, 4096 bytes"));
	assert_non_null(strstr(text_of_lines, "interrupt-window exiting           on while needed"));
	assert_non_null(strstr(text_of_lines, "VM functions                       off"));
	assert_non_null(strstr(text_of_lines, "pages of 2 MiB in EPT              on"));
	assert_non_null(strstr(text_of_lines, "accessed and dirty bits in EPT     off"));
}

/* ---- names ---- */

static void test_fields(void **state)
{
	const struct vmcs_field_row *rows;
	unsigned count = vmcs_fields(&rows);
	static const u8 type[VMCS_GROUPS] = { VMCS_TYPE_GUEST, VMCS_TYPE_HOST, VMCS_TYPE_CONTROL, VMCS_TYPE_CONTROL, VMCS_TYPE_CONTROL,
					      VMCS_TYPE_INFORMATION };
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(vmcs_field_type(rows[i].field), type[rows[i].group]);
		assert_string_equal(vmcs_field_name(rows[i].field), rows[i].name);
		assert_false(rows[i].field & 1); /* full access */
		for (unsigned k = 0; k < i; k++)
			assert_int_not_equal(rows[i].field, rows[k].field);
	}
	assert_int_equal(VMCS_SEGMENT(VMCS_GUEST_ES, VMCS_SEG_TR), VMCS_GUEST_TR);
	assert_int_equal(VMCS_SEGMENT(VMCS_GUEST_ES_BASE, VMCS_SEG_LDTR), VMCS_GUEST_LDTR_BASE);
	assert_int_equal(vmcs_field_bits(VMCS_GUEST_CR0), 64);
	assert_int_equal(vmcs_field_bits(VMCS_PIN_CONTROLS), 32);
	assert_int_equal(vmcs_field_bits(VMCS_VPID), 16);
	assert_string_equal(vmcs_field_name(0x7ffe), "unknown field");
	assert_string_equal(vmcs_group_name(VMCS_INFORMATION), "exit information");
}

static void test_names(void **state)
{
	assert_string_equal(vmx_exit_name(VMX_EPT_VIOLATION), "EPT violation");
	assert_string_equal(vmx_exit_name(VMX_GUEST_STATE | EXIT_REASON_FAILED_ENTRY), "VM-entry failure: guest state");
	assert_string_equal(vmx_exit_name(35), "unknown exit reason");
	assert_string_equal(vmx_exit_name(0xffff), "unknown exit reason");
	assert_string_equal(vmx_error_name(7), "VM entry with invalid control fields");
	assert_string_equal(vmx_error_name(14), "unknown VM-instruction error");
	assert_string_equal(vmx_error_name(1000), "unknown VM-instruction error");
}

/* ---- the checker ---- */

static u64 vmcs[0x8000]; /* by field */
static struct vmx_capabilities capabilities;

static u64 read_vmcs(void *opaque, u32 field)
{
	return vmcs[field];
}

static const struct vmx_check check = { .capabilities = &capabilities, .physical_bits = 40, .linear_bits = 48, .read = read_vmcs };

static void set_segment(unsigned n, u16 selector, u64 base, u32 limit, u32 rights)
{
	vmcs[VMCS_SEGMENT(VMCS_GUEST_ES, n)] = selector;
	vmcs[VMCS_SEGMENT(VMCS_GUEST_ES_BASE, n)] = base;
	vmcs[VMCS_SEGMENT(VMCS_GUEST_ES_LIMIT, n)] = limit;
	vmcs[VMCS_SEGMENT(VMCS_GUEST_ES_RIGHTS, n)] = rights;
}

static void set_host(void)
{
	vmcs[VMCS_HOST_CR0] = CR0_PE | CR0_PG | CR0_NE;
	vmcs[VMCS_HOST_CR4] = CR4_VMXE | CR4_PAE;
	vmcs[VMCS_HOST_EFER] = EFER_LME | EFER_LMA | EFER_NXE;
	vmcs[VMCS_HOST_PAT] = 0x0007040600070406;
	vmcs[VMCS_HOST_CS] = 8;
	vmcs[VMCS_HOST_TR] = 0x20;
}

/* A guest in 64-bit mode at CPL 0 with EPT. */
static void set_long(void)
{
	struct vmx_controls v;
	memset(vmcs, 0, sizeof(vmcs));
	capabilities = modern();
	vmx_controls_choose(&capabilities, nothing, &v);
	vmcs[VMCS_PIN_CONTROLS] = v.word[WORD_PIN];
	vmcs[VMCS_PROCESSOR_CONTROLS] = v.word[WORD_PROCESSOR];
	vmcs[VMCS_SECONDARY_CONTROLS] = v.word[WORD_SECONDARY];
	vmcs[VMCS_EXIT_CONTROLS] = v.word[WORD_EXIT];
	vmcs[VMCS_ENTRY_CONTROLS] = v.word[WORD_ENTRY] | ENTRY_LONG_MODE;
	vmcs[VMCS_VPID] = 1;
	vmcs[VMCS_EPTP] = 0x5000 | EPTP_WB | EPTP_WALK_4;
	vmcs[VMCS_VIRTUAL_APIC] = 0x6000;
	vmcs[VMCS_POSTED_DESCRIPTOR] = 0x7040;
	set_host();
	for (unsigned i = 0; i < SEG_COUNT; i++)
		set_segment(i, 0x10, 0, 0xffffffff, 0xc093);
	set_segment(SEG_CS, 8, 0, 0xffffffff, 0xa09b);
	set_segment(VMCS_SEG_LDTR, 0, 0, 0, SEG_ATTR_UNUSABLE);
	set_segment(VMCS_SEG_TR, 0x18, 0xffff800000000000, 0x67, 0x8b);
	vmcs[VMCS_GUEST_CR0] = CR0_PE | CR0_PG | CR0_NE;
	vmcs[VMCS_GUEST_CR4] = CR4_PAE | CR4_VMXE;
	vmcs[VMCS_GUEST_EFER] = EFER_LME | EFER_LMA;
	vmcs[VMCS_GUEST_PAT] = 0x0007040600070406;
	vmcs[VMCS_GUEST_RFLAGS] = RFLAGS_FIXED1;
	vmcs[VMCS_GUEST_VMCS_LINK] = ~0ull;
}

static void set_v86(void)
{
	set_long();
	vmcs[VMCS_ENTRY_CONTROLS] &= ~ENTRY_LONG_MODE;
	vmcs[VMCS_GUEST_EFER] = 0;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		set_segment(i, 0x123, 0x1230, 0xffff, 0xf3);
	vmcs[VMCS_GUEST_RFLAGS] |= RFLAGS_VM;
}

/* Real mode, as an unrestricted guest. */
static void set_real(void)
{
	set_v86();
	for (unsigned i = 0; i < SEG_COUNT; i++)
		set_segment(i, 0x123, 0x1230, 0xffff, 0x93);
	vmcs[VMCS_GUEST_RFLAGS] = RFLAGS_FIXED1;
	vmcs[VMCS_GUEST_CR0] = CR0_NE;
}

/* Everything that has an address in use; a TPR shadow and an NMI window alone; and a PAE guest on a processor without unrestricted guests. */
static void set_features(void)
{
	set_long();
	vmcs[VMCS_PROCESSOR_CONTROLS] |= PROC_IO_BITMAPS | PROC_MSR_BITMAPS | PROC_TPR_SHADOW;
	vmcs[VMCS_SECONDARY_CONTROLS] |= PROC2_APIC_ACCESS | PROC2_INTERRUPT_DELIVERY | PROC2_PML | PROC2_APIC_REGISTERS;
	vmcs[VMCS_PIN_CONTROLS] |= PIN_POSTED;
	vmcs[VMCS_EXIT_CONTROLS] |= EXIT_ACKNOWLEDGE | EXIT_LOAD_PAT;
	vmcs[VMCS_ENTRY_CONTROLS] |= ENTRY_LOAD_PAT;
	vmcs[VMCS_EXIT_MSR_STORES] = vmcs[VMCS_EXIT_MSR_LOADS] = vmcs[VMCS_ENTRY_MSR_LOADS] = 1;
}

static void set_tpr(void)
{
	set_long();
	vmcs[VMCS_SECONDARY_CONTROLS] &= ~(u64)PROC2_INTERRUPT_DELIVERY;
	vmcs[VMCS_PIN_CONTROLS] &= ~(u64)PIN_POSTED;
}

static void set_window(void)
{
	set_long();
	vmcs[VMCS_PROCESSOR_CONTROLS] |= PROC_NMI_WINDOW;
}

static void set_pae(void)
{
	set_long();
	vmcs[VMCS_SECONDARY_CONTROLS] &= ~PROC2_UNRESTRICTED;
	vmcs[VMCS_ENTRY_CONTROLS] &= ~ENTRY_LONG_MODE;
	vmcs[VMCS_GUEST_EFER] = 0;
	set_segment(SEG_CS, 8, 0, 0xffffffff, 0xc09b);
	set_segment(VMCS_SEG_LDTR, 0x28, 0, 0xf, 0x82);
}

static void set_event(void)
{
	set_long();
	vmcs[VMCS_ENTRY_EVENT] = EVENT_VALID | EVENT_HAS_ERROR | TYPE_EXCEPTION << 8 | 13;
}

static void set_interrupt(void)
{
	set_long();
	vmcs[VMCS_GUEST_RFLAGS] |= RFLAGS_IF;
	vmcs[VMCS_ENTRY_EVENT] = EVENT_VALID | TYPE_EXTERNAL << 8 | 0x30;
}

static void set_nmi(void)
{
	set_long();
	vmcs[VMCS_ENTRY_EVENT] = EVENT_VALID | TYPE_NMI << 8 | 2;
}

static void set_software(void)
{
	set_long();
	vmcs[VMCS_ENTRY_EVENT] = EVENT_VALID | TYPE_SOFTWARE << 8 | 0x80;
	vmcs[VMCS_ENTRY_LENGTH] = 2;
}

static void set_stepped(void)
{
	set_long();
	vmcs[VMCS_PIN_CONTROLS] &= ~PIN_PREEMPTION_TIMER;
	vmcs[VMCS_GUEST_RFLAGS] |= RFLAGS_TF | RFLAGS_IF;
	vmcs[VMCS_GUEST_INTERRUPTIBILITY] = INTERRUPTIBILITY_STI;
	vmcs[VMCS_GUEST_PENDING_DEBUG] = PENDING_DEBUG_BS;
}

static void (*const configurations[])(void) = { set_long, set_v86, set_real, set_features, set_pae, set_event, set_interrupt, set_nmi, set_software,
						set_stepped, set_tpr, set_window };

static void show(void *opaque, const char *text)
{
	print_message("%s\n", text);
}

static void test_good_states_pass(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(configurations); i++) {
		configurations[i]();
		for (unsigned stage = 0; stage < STAGE_COUNT; stage++)
			assert_int_equal(vmx_check(&check, stage, show, NULL), 0);
	}
}

static char broken[8192];

static void note(void *opaque, const char *text)
{
	size_t used = strlen(broken);
	snprintf(broken + used, sizeof(broken) - used, "%s\n", text);
}

static const u64 wrong_values[] = { 0, ~0ull, 1, 2, 3, 0x10, 0x15, 0x93, 0xf3, 0xff, 0x7f, 0xa0fb, 0x80a09b, 0xe09b, 0x408b, 0x83, 0x8001, 0x0f1b, BIT(63),
				    BIT(40), BIT(39), BIT(32), BIT(20), 0xfffff, 0x12345678, EVENT_VALID | 1u << 8, EVENT_VALID | 13 | 3u << 8,
				    EVENT_VALID | 40 | 3u << 8, CR0_PG | CR0_NE, CR0_PE | CR0_NE, CR4_VMXE, CR4_VMXE | CR4_PAE | CR4_PCIDE,
				    RFLAGS_FIXED1 | RFLAGS_VM, RFLAGS_FIXED1, 0x0008000000000000, 0x10f3, 0xc0fb };

/* Wrong bits of controls: what depends on them. */
static const struct {
	u32 field;
	u32 flip;
} control_flips[] = {
	{ VMCS_PIN_CONTROLS, PIN_NMI }, { VMCS_PIN_CONTROLS, PIN_INTERRUPT }, { VMCS_PIN_CONTROLS, PIN_POSTED },
	{ VMCS_PIN_CONTROLS, PIN_NMI | PIN_VIRTUAL_NMI }, { VMCS_PROCESSOR_CONTROLS, PROC_NMI_WINDOW },
	{ VMCS_PIN_CONTROLS, PIN_VIRTUAL_NMI }, { VMCS_SECONDARY_CONTROLS, PROC2_EPT }, { VMCS_SECONDARY_CONTROLS, PROC2_X2APIC },
	{ VMCS_SECONDARY_CONTROLS, PROC2_INTERRUPT_DELIVERY }, { VMCS_SECONDARY_CONTROLS, 1u << 31 }, { VMCS_EXIT_CONTROLS, EXIT_HOST_64 },
	{ VMCS_EXIT_CONTROLS, EXIT_SAVE_TIMER }, { VMCS_ENTRY_CONTROLS, ENTRY_LONG_MODE }, { VMCS_ENTRY_CONTROLS, 2 },
};

static bool broke[STAGE_COUNT + 1][128];

static void try_rules(unsigned table, const struct vmx_rule *rules, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		broke[table][i] |= !rules[i].good(&check, rules[i].field, vmcs[rules[i].field]);
}

static void try_all(void)
{
	for (unsigned stage = 0; stage < STAGE_COUNT; stage++) {
		const struct vmx_rule *rules;
		unsigned count = vmx_rules(stage, &rules);
		try_rules(stage, rules, count);
	}
	try_rules(STAGE_COUNT, vmx_rules_segments, vmx_rules_segments_count);
}

static void assert_all_broke(unsigned table, const struct vmx_rule *rules, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (!broke[table][i])
			print_message("never broken: %s must %s\n", vmcs_field_name(rules[i].field), rules[i].rule);
		assert_true(broke[table][i]);
	}
}

/* There is no rule that nothing breaks. */
static void test_every_rule_can_break(void **state)
{
	const struct vmcs_field_row *rows;
	unsigned fields = vmcs_fields(&rows);
	for (unsigned i = 0; i < ARRAY_SIZE(configurations); i++) {
		configurations[i]();
		for (unsigned f = 0; f < fields; f++) {
			u64 good = vmcs[rows[f].field];
			for (unsigned n = 0; n < ARRAY_SIZE(wrong_values); n++) {
				vmcs[rows[f].field] = wrong_values[n] & mask_of(vmcs_field_bits(rows[f].field));
				try_all();
			}
			vmcs[rows[f].field] = good;
		}
		for (unsigned f = 0; f < ARRAY_SIZE(control_flips); f++) {
			vmcs[control_flips[f].field] ^= control_flips[f].flip;
			try_all();
			vmcs[control_flips[f].field] ^= control_flips[f].flip;
		}
	}
	for (unsigned stage = 0; stage < STAGE_COUNT; stage++) {
		const struct vmx_rule *rules;
		unsigned count = vmx_rules(stage, &rules);
		assert_all_broke(stage, rules, count);
	}
	assert_all_broke(STAGE_COUNT, vmx_rules_segments, vmx_rules_segments_count);
}

static const struct {
	void (*set)(void);
	u32 field;
	u64 value;
	unsigned stage;
	unsigned count;
	const char *text;
} mistakes[] = {
	{ set_long, VMCS_GUEST_CS_RIGHTS, 0xe09b, STAGE_GUEST, 1, "guest CS access rights is e09b, but must not have both L and D in IA-32e mode" },
	{ set_long, VMCS_GUEST_TR_RIGHTS, 0x89, STAGE_GUEST, 1, "guest TR access rights is 89, but must be a busy TSS" },
	{ set_long, VMCS_GUEST_RFLAGS, RFLAGS_FIXED1 | RFLAGS_VM, STAGE_GUEST, 19, "guest RFLAGS is 20002, but must have VM in protected mode only" },
	{ set_long, VMCS_GUEST_CR4, CR4_VMXE, STAGE_GUEST, 1, "guest CR4 is 2000, but must have PAE in IA-32e mode" },
	{ set_long, VMCS_GUEST_EFER, 0, STAGE_GUEST, 1, "guest IA32_EFER is 0, but must have LMA as the control IA-32e mode guest says" },
	{ set_pae, VMCS_GUEST_SS, 0x13, STAGE_GUEST, 2, "guest SS selector is 13, but must have the RPL of CS" },
	{ set_pae, VMCS_GUEST_PDPTE2, 0x1007, STAGE_GUEST, 1, "guest PDPTE2 is 1007" },
	{ set_v86, VMCS_GUEST_DS_BASE, 0x1240, STAGE_GUEST, 1, "guest DS base is 1240, but must be 16 times the selector" },
	{ set_interrupt, VMCS_GUEST_RFLAGS, RFLAGS_FIXED1, STAGE_GUEST, 1, "guest RFLAGS is 2, but must have IF when an external interrupt is injected" },
	{ set_long, VMCS_HOST_CR4, CR4_VMXE, STAGE_HOST, 1, "host CR4 is 2000, but must have PAE in a 64-bit host" },
	{ set_long, VMCS_HOST_TR, 0, STAGE_HOST, 1, "host TR selector is 0" },
	{ set_long, VMCS_VPID, 0, STAGE_CONTROLS, 1, "virtual-processor identifier is 0, but must not be 0" },
	{ set_event, VMCS_ENTRY_EVENT, EVENT_VALID | TYPE_EXCEPTION << 8 | 14, STAGE_CONTROLS, 1, "must have an error code if the exception has" },
	{ set_real, VMCS_ENTRY_EVENT, EVENT_VALID | EVENT_HAS_ERROR | TYPE_EXCEPTION << 8 | 13, STAGE_CONTROLS, 1, "must have an error code if" },
};

static void test_mistakes_are_named(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(mistakes); i++) {
		mistakes[i].set();
		vmcs[mistakes[i].field] = mistakes[i].value;
		broken[0] = 0;
		unsigned count = vmx_check(&check, mistakes[i].stage, note, NULL);
		if (count != mistakes[i].count || !strstr(broken, mistakes[i].text))
			print_message("%u: %s", i, broken);
		assert_int_equal(count, mistakes[i].count);
		assert_non_null(strstr(broken, mistakes[i].text));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_choice_with_everything),
		cmocka_unit_test(test_choice_without_ept),
		cmocka_unit_test(test_choice_of_apic_virtualization),
		cmocka_unit_test(test_choice_by_ept_capabilities),
		cmocka_unit_test(test_choice_names_what_is_missing),
		cmocka_unit_test(test_description),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_good_states_pass),
		cmocka_unit_test(test_every_rule_can_break),
		cmocka_unit_test(test_mistakes_are_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
