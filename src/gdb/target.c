/* The target description: the registers in XML, feature by feature. GDB manual, "Target Description Format", "Predefined Target Types". */
#include "gdb/registers.h"

/* One-bit fields of a register: a name for each bit from 0 on; "": a bit without one is skipped, unless it must be there. */
struct flags {
	const char *id;
	u8 size; /* bytes */
	const char *field[32];
};

static const struct flags eflags = {
	"i386_eflags", 4,
	{ "CF", "", "PF", 0, "AF", 0, "ZF", "SF", "TF", "IF", "DF", "OF", 0, 0, "NT", 0, "RF", "VM", "AC", "VIF", "VIP", "ID" },
};
static const struct flags mxcsr = {
	"i386_mxcsr", 4, { "IE", "DE", "ZE", "OE", "UE", "PE", "DAZ", "IM", "DM", "ZM", "OM", "UM", "PM", 0, 0, "FZ" },
};
static const struct flags system_flags[] = {
	{ "cr0_flags", 8,
	  { "PE", "MP", "EM", "TS", "ET", "NE", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, "WP", 0, "AM", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, "NW", "CD", "PG" } },
	{ "cr4_flags", 8,
	  { "VME", "PVI", "TSD", "DE", "PSE", "PAE", "MCE", "PGE", "PCE", "OSFXSR", "OSXMMEXCPT", "UMIP", "LA57", "VMXE", "SMXE", 0, "FSGSBASE",
	    "PCIDE", "OSXSAVE", 0, "SMEP", "SMAP", "PKE" } },
	{ "efer_flags", 8, { "SCE", 0, 0, 0, 0, 0, 0, 0, "LME", 0, "LMA", "NXE", "SVME", 0, "FFXSR" } },
};

static const char vec128[] =
	"<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
	"<vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
	"<vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
	"<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
	"<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
	"<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>\n";
static const char v2ui128[] = "<vector id=\"v2ui128\" type=\"uint128\" count=\"2\"/>\n";

static void put_flags(struct gdb_text *xml, const struct flags *f)
{
	char line[80];
	host_snprintf(line, sizeof(line), "<flags id=\"%s\" size=\"%u\">", f->id, f->size);
	gdb_put(xml, line);
	for (unsigned i = 0; i < ARRAY_SIZE(f->field); i++) {
		if (!f->field[i])
			continue;
		host_snprintf(line, sizeof(line), "<field name=\"%s\" start=\"%u\" end=\"%u\"/>", f->field[i], i, i);
		gdb_put(xml, line);
	}
	gdb_put(xml, "</flags>\n");
}

/* The types that registers of a feature refer to: each feature has its own. */
static void put_types(struct gdb_text *xml, enum gdb_feature feature)
{
	if (feature == GDB_CORE)
		put_flags(xml, &eflags);
	if (feature == GDB_SSE)
		put_flags(xml, &mxcsr);
	if (feature == GDB_SSE || feature == GDB_AVX512)
		gdb_put(xml, vec128);
	if (feature == GDB_AVX512)
		gdb_put(xml, v2ui128);
	for (unsigned i = 0; feature == GDB_SYSTEM && i < ARRAY_SIZE(system_flags); i++)
		put_flags(xml, &system_flags[i]);
}

static void put_register(struct gdb_text *xml, const struct gdb_register *row, unsigned number)
{
	char line[160];
	host_snprintf(line, sizeof(line), "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%u\"%s%s%s/>\n", row->name, row->size * 8, row->type,
		      number, row->group ? " group=\"" : "", row->group ? row->group : "", row->group ? "\"" : "");
	gdb_put(xml, line);
}

static bool has_feature(const struct gdb_registers *r, enum gdb_feature feature)
{
	for (unsigned i = 0; i < r->count; i++)
		if (r->row[i].feature == feature)
			return true;
	return false;
}

void gdb_describe(const struct gdb_registers *r, struct gdb_text *xml)
{
	static const char *const name[GDB_FEATURES] = {
		[GDB_CORE] = "org.gnu.gdb.i386.core", [GDB_SSE] = "org.gnu.gdb.i386.sse", [GDB_AVX] = "org.gnu.gdb.i386.avx",
		[GDB_AVX512] = "org.gnu.gdb.i386.avx512", [GDB_SEGMENTS] = "org.gnu.gdb.i386.segments", [GDB_SYSTEM] = "org.nadir.system",
	};
	static const char *const architecture[] = { [GDB_X86_64] = "i386:x86-64", [GDB_I386] = "i386", [GDB_I8086] = "i8086" };
	gdb_put(xml, "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target version=\"1.0\">\n<architecture>");
	gdb_put(xml, architecture[r->architecture]);
	gdb_put(xml, "</architecture>\n");
	for (unsigned feature = 0; feature < GDB_FEATURES; feature++) {
		if (!has_feature(r, (enum gdb_feature)feature))
			continue;
		gdb_put(xml, "<feature name=\"");
		gdb_put(xml, name[feature]);
		gdb_put(xml, "\">\n");
		put_types(xml, (enum gdb_feature)feature);
		for (unsigned i = 0; i < r->count; i++)
			if (r->row[i].feature == feature)
				put_register(xml, &r->row[i], i);
		gdb_put(xml, "</feature>\n");
	}
	gdb_put(xml, "</target>\n");
}
