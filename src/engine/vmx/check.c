/* Going through the rules, and those that several tables share (check.h). */
#include "engine/vmx/check.h"

#include "engine/vmx/names.h"
#include "host/port.h"

bool check_canonical(const struct vmx_check *c, u32 field, u64 value)
{
	return is_canonical(value, c->linear_bits);
}

bool check_page(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & ~PAGE_MASK) && !(value & ~mask_of(c->physical_bits));
}

bool check_cr3(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & ~mask_of(c->physical_bits));
}

bool check_cr4(const struct vmx_check *c, u32 field, u64 value)
{
	const u64 *fixed = c->capabilities->cr4_fixed;
	return !(fixed[0] & ~value) && !(value & ~fixed[1]);
}

/* Intel SDM volume 3, "IA32_PAT MSR": types 0, 1, 4 to 7. */
bool check_pat_value(u64 value)
{
	for (unsigned i = 0; i < 8; i++) {
		u8 type = (u8)(value >> 8 * i);
		if (type > 7 || type == 2 || type == 3)
			return false;
	}
	return true;
}

unsigned vmx_rules(enum vmx_stage stage, const struct vmx_rule **rules)
{
	*rules = stage == STAGE_CONTROLS ? vmx_rules_controls : stage == STAGE_HOST ? vmx_rules_host : vmx_rules_guest;
	return stage == STAGE_CONTROLS ? vmx_rules_controls_count : stage == STAGE_HOST ? vmx_rules_host_count : vmx_rules_guest_count;
}

static unsigned go_through(const struct vmx_check *c, const struct vmx_rule *rules, unsigned count, void (*wrong)(void *opaque, const char *text),
			   void *opaque)
{
	unsigned broken = 0;
	for (const struct vmx_rule *r = rules; r < rules + count; r++) {
		u64 value = c->read(c->opaque, r->field);
		if (r->good(c, r->field, value))
			continue;
		char text[200];
		host_snprintf(text, sizeof(text), "%s is %llx, but must %s", vmcs_field_name(r->field), (unsigned long long)value, r->rule);
		wrong(opaque, text);
		broken++;
	}
	return broken;
}

unsigned vmx_check(const struct vmx_check *c, enum vmx_stage stage, void (*wrong)(void *opaque, const char *text), void *opaque)
{
	const struct vmx_rule *rules;
	unsigned count = vmx_rules(stage, &rules), broken = go_through(c, rules, count, wrong, opaque);
	if (stage == STAGE_GUEST)
		broken += go_through(c, vmx_rules_segments, vmx_rules_segments_count, wrong, opaque);
	return broken;
}
