/* Names of what VT-x calls by numbers (names.h). */
#include "engine/vmx/names.h"

static const struct vmcs_field_row fields[] = {
#define GUEST_ROW(name, encoding, text) { encoding, VMCS_GUEST, text },
#define HOST_ROW(name, encoding, text) { encoding, VMCS_HOST, text },
#define EXECUTION_ROW(name, encoding, text) { encoding, VMCS_EXECUTION, text },
#define EXIT_ROW(name, encoding, text) { encoding, VMCS_EXIT, text },
#define ENTRY_ROW(name, encoding, text) { encoding, VMCS_ENTRY, text },
#define INFORMATION_ROW(name, encoding, text) { encoding, VMCS_INFORMATION, text },
	VMCS_GUEST_FIELDS(GUEST_ROW) VMCS_HOST_FIELDS(HOST_ROW) VMCS_EXECUTION_FIELDS(EXECUTION_ROW) VMCS_EXIT_FIELDS(EXIT_ROW)
		VMCS_ENTRY_FIELDS(ENTRY_ROW) VMCS_INFORMATION_FIELDS(INFORMATION_ROW)
};

unsigned vmcs_fields(const struct vmcs_field_row **rows)
{
	*rows = fields;
	return ARRAY_SIZE(fields);
}

const char *vmcs_field_name(u32 field)
{
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
		if (fields[i].field == field)
			return fields[i].name;
	return "unknown field";
}

const char *vmcs_group_name(enum vmcs_group group)
{
	static const char *const names[VMCS_GROUPS] = { "guest state", "host state", "execution control", "exit control", "entry control", "exit information" };
	return names[group];
}

const char *vmx_exit_name(u32 reason)
{
	static const char *const names[VMX_EXIT_COUNT] = {
#define X(name, number, text) [number] = text,
		VMX_EXITS(X)
#undef X
	};
	u32 basic = EXIT_REASON_BASIC(reason);
	return basic < VMX_EXIT_COUNT && names[basic] ? names[basic] : "unknown exit reason";
}

const char *vmx_error_name(u32 error)
{
	static const char *const names[] = {
#define X(number, text) [number] = text,
		VMX_ERRORS(X)
#undef X
	};
	return error < ARRAY_SIZE(names) && names[error] ? names[error] : "unknown VM-instruction error";
}
