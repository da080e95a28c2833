/* Saving and loading by tables (state.h). A section is: u8 length of its name, the name, u16 index, u32 size, then its fields. A field is: u8
 * length of its name, the name, u32 size, then its bytes, or the fields of each element in turn. */
#include "lib/state.h"

#include "lib/bytes.h"
#include "lib/string.h"

void state_fail(struct state *s, enum state_problem problem, const char *field)
{
	if (s->problem)
		return;
	s->problem = problem;
	s->field = field;
}

/* ---- saving: without a buffer only `at` moves ---- */

static void put(struct state *s, const void *data, size_t size)
{
	if (s->data && size <= s->size - s->at)
		memcpy(s->data + s->at, data, size);
	else if (s->data)
		state_fail(s, STATE_ENDS, NULL);
	if (!s->problem)
		s->at += size;
}

static void put_name(struct state *s, const char *name)
{
	u8 length = (u8)string_length(name);
	put(s, &length, 1);
	put(s, name, length);
}

/* Room for a size that is known later, at the place returned. */
static size_t put_size(struct state *s)
{
	size_t at = s->at;
	put(s, &(u32){ 0 }, sizeof(u32));
	return at;
}

static void set_size(struct state *s, size_t at)
{
	u32 size = (u32)(s->at - at - sizeof(u32));
	if (s->data && !s->problem)
		memcpy(s->data + at, &size, sizeof(size));
}

static void save_fields(struct state *s, const struct state_table *table, const u8 *object)
{
	for (unsigned i = 0; i < table->fields; i++) {
		const struct state_field *f = &table->field[i];
		if (f->kind == STATE_KIND_NONE)
			continue;
		put_name(s, f->name);
		size_t at = put_size(s);
		if (f->kind != STATE_KIND_TABLE)
			put(s, object + f->offset, f->size);
		for (u32 n = 0; f->kind == STATE_KIND_TABLE && n < f->size; n += f->table->size)
			save_fields(s, f->table, object + f->offset + n);
		set_size(s, at);
	}
}

/* ---- loading ---- */

static const u8 *take(struct state *s, size_t size)
{
	const u8 *data = s->data + s->at;
	if (s->problem || size > s->size - s->at) {
		state_fail(s, STATE_ENDS, NULL);
		return NULL;
	}
	s->at += size;
	return data;
}

static bool take_name(struct state *s, const char *name)
{
	size_t length = string_length(name);
	const u8 *got = take(s, 1);
	if (!got || *got != length)
		return false;
	got = take(s, length);
	return got && !memcmp(got, name, length);
}

static u32 take_size(struct state *s)
{
	const u8 *size = take(s, sizeof(u32));
	return size ? get_u32(size) : 0;
}

static bool in_range(const struct state_field *f, const u8 *data)
{
	u64 value = 0;
	if (f->max)
		memcpy(&value, data, MIN(f->size, sizeof(value)));
	for (u32 i = 0; f->kind == STATE_KIND_FLAGS && i < f->size; i++)
		if (data[i] > 1)
			return false;
	return value <= f->max;
}

static void load_value(struct state *s, const struct state_field *f, u8 *object)
{
	const u8 *data = take(s, f->size);
	if (!data)
		return;
	if (f->kind == STATE_KIND_SAME) {
		if (memcmp(object + f->offset, data, f->size))
			state_fail(s, STATE_NOT_SAME, f->name);
	} else if (!in_range(f, data)) {
		state_fail(s, STATE_IMPOSSIBLE, f->name);
	} else {
		memcpy(object + f->offset, data, f->size);
	}
}

static void load_fields(struct state *s, const struct state_table *table, u8 *object);

static void load_field(struct state *s, const struct state_field *f, u8 *object)
{
	if (!take_name(s, f->name)) {
		state_fail(s, STATE_DIFFERS, f->name);
		return;
	}
	u32 size = take_size(s);
	size_t end = s->at + size;
	if (f->kind != STATE_KIND_TABLE && size == f->size)
		load_value(s, f, object);
	for (u32 n = 0; f->kind == STATE_KIND_TABLE && n < f->size && !s->problem; n += f->table->size)
		load_fields(s, f->table, object + f->offset + n);
	if (s->at != end)
		state_fail(s, STATE_DIFFERS, f->name);
}

static void load_fields(struct state *s, const struct state_table *table, u8 *object)
{
	for (unsigned i = 0; i < table->fields && !s->problem; i++)
		if (table->field[i].kind != STATE_KIND_NONE)
			load_field(s, &table->field[i], object);
	if (!s->problem && table->loaded && !table->loaded(object))
		state_fail(s, STATE_IMPOSSIBLE, NULL);
}

/* ---- sections ---- */

/* The head of a section; the place of its size while saving, its size while loading. */
static size_t section(struct state *s, const char *name, unsigned index)
{
	if (s->problem)
		return 0;
	s->section = name;
	s->index = index;
	s->field = NULL;
	u16 number = (u16)index;
	if (!s->loading) {
		put_name(s, name);
		put(s, &number, sizeof(number));
		return put_size(s);
	}
	const u8 *got = take_name(s, name) ? take(s, sizeof(number)) : NULL;
	if (!got || memcmp(got, &number, sizeof(number)))
		state_fail(s, STATE_DIFFERS, NULL);
	u32 size = take_size(s);
	if (size > s->size - s->at)
		state_fail(s, STATE_ENDS, NULL);
	return size;
}

void state_section(struct state *s, const char *name, unsigned index, const struct state_table *table, void *object)
{
	size_t where = section(s, name, index), end = s->at + where;
	if (s->problem)
		return;
	if (s->loading) {
		load_fields(s, table, object);
		state_check(s, s->problem || s->at == end, NULL);
	} else {
		save_fields(s, table, object);
		set_size(s, where);
	}
}

void state_bytes(struct state *s, const char *name, unsigned index, void *data, u32 size)
{
	size_t where = section(s, name, index);
	if (s->problem)
		return;
	if (!s->loading) {
		put(s, data, size);
		set_size(s, where);
		return;
	}
	const u8 *got = where == size ? take(s, size) : NULL;
	if (got)
		memcpy(data, got, size);
	else
		state_fail(s, STATE_DIFFERS, NULL);
}

bool state_take(struct state *s, const char *name, unsigned index, const u8 **data, u32 *size)
{
	*size = (u32)section(s, name, index);
	*data = take(s, *size);
	return *data;
}

void state_check(struct state *s, bool good, const char *field)
{
	if (!good)
		state_fail(s, STATE_IMPOSSIBLE, field);
}

void state_end(struct state *s)
{
	if (s->problem || s->at == s->size)
		return;
	s->section = "end";
	s->index = 0;
	state_fail(s, STATE_DIFFERS, NULL);
}
