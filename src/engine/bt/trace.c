/* Translated code made visible: what was translated to what, and what is executed (vcpu/trace.h). */
#include "engine/bt/work.h"

static void format(const struct insn *insn, const u8 *bytes, u64 rip, const char *indent)
{
	ZydisFormatter formatter;
	char text[96], hex[2 * INSN_LENGTH_MAX + 1] = "";
	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_ATT);
	ZydisFormatterFormatInstruction(&formatter, &insn->z, insn->operand, insn->z.operand_count_visible, text, sizeof(text), rip, NULL);
	for (unsigned i = 0; i < insn->z.length; i++)
		host_snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
	host_log(LOG_DEBUG, "%s%016llx: %-24s %s", indent, (unsigned long long)rip, hex, text);
}

/* An instruction of the block. One that crosses has its last bytes in the page behind. */
static void show_guest(const struct translation_work *w, unsigned i, const char *indent)
{
	u8 bytes[INSN_LENGTH_MAX] = { 0 };
	unsigned room = (unsigned)PAGE_SIZE - w->at[i];
	__builtin_memcpy(bytes, w->bytes + w->at[i], MIN(room, sizeof(bytes)));
	format(&w->insn[i], bytes, modes_rip(w->vcpu, w->at[i]), indent);
}

/* The bytes of a site behind a CALL there, or behind the jump with which one begins. */
static unsigned site_behind(const struct bt_cache *c, const u8 *target, bool *access)
{
	*access = false;
	if (target == c->leave_host || target == c->leave_saved)
		return sizeof(struct site);
	for (unsigned entry = 0; entry < ACCESS_ENTRIES; entry++)
		*access |= c->access[entry][0] == target || c->access[entry][1] == target;
	return *access ? sizeof(struct access_site) - 5 : 0;
}

static const u8 *show_site(const u8 *at, unsigned size)
{
	host_log(LOG_DEBUG, "  %u bytes of a site", size);
	return at + size;
}

/* Code lies among sites, which are data: they are told by the stubs called in front of them. */
static void show_host(const struct translation_work *w)
{
	const struct bt_cache *c = w->cache;
	const u8 *at = bt_code(c, w->block) + w->block->prologue;
	unsigned current = 0, skip = 0;
	bool access = false;
	while (at < w->code_end) {
		struct insn insn;
		while (current < w->count && w->label[current] <= at)
			show_guest(w, current++, "; ");
		if (insn_decode(&step_of(w->vcpu)->decoder, INSN_MODE_64, at, (size_t)(w->code_end - at), &insn) != DECODE_OK) {
			host_log(LOG_DEBUG, "  %016llx: %02x", (unsigned long long)(uintptr_t)bt_rx(c, at), *at);
			at++;
			continue;
		}
		format(&insn, at, (u64)(uintptr_t)bt_rx(c, at), "  ");
		at += insn.z.length;
		if (access) {
			at = show_site(at, skip);
			access = false;
		} else if (insn.z.opcode == 0xe8 && insn.z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT) {
			skip = site_behind(c, bt_rx(c, at) + insn.operand[0].imm.value.s, &access);
			if (skip && !access)
				at = show_site(at, skip);
		}
	}
}

void trace_translated(const struct translation_work *w)
{
	u32 trace = w->vcpu->trace;
	static const u8 bits[INSN_MODE_COUNT] = { [INSN_MODE_64] = 64, [INSN_MODE_32] = 32, [INSN_MODE_16] = 16, [INSN_MODE_REAL32] = 32,
						  [INSN_MODE_REAL16] = 16 };
	host_log(LOG_DEBUG, "%llx: translated, guest physical %llx, %u bits, %u instructions, to %u bytes at %llx", (unsigned long long)w->vcpu->rip,
		 (unsigned long long)w->gpa, bits[w->mode], w->count, w->block->size,
		 (unsigned long long)(uintptr_t)bt_rx(w->cache, bt_code(w->cache, w->block)));
	for (unsigned i = 0; (trace & TRACE_IN_ASM) && i < w->count; i++)
		show_guest(w, i, "  ");
	if (trace & TRACE_OUT_ASM)
		show_host(w);
}
