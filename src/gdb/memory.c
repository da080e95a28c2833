/* Packets about registers, memory, break and watch points. GDB manual, "Packets". */
#include "gdb/internal.h"

#include "lib/string.h"

/* ---- registers ---- */

void gdb_read_registers(struct gdb_session *s, struct gdb_cursor *c)
{
	u8 value[GDB_REGISTER_MAX];
	for (unsigned i = 0; i < s->registers.count; i++) {
		const struct gdb_register *row = &s->registers.row[i];
		gdb_register_read(gdb_cpu(s), row, value);
		gdb_put_bytes(&s->reply, value, row->size);
	}
}

/* All, or as many as there are. */
void gdb_write_registers(struct gdb_session *s, struct gdb_cursor *c)
{
	u8 value[GDB_REGISTER_MAX] = { 0 };
	bool ok = true;
	for (unsigned i = 0; ok && i < s->registers.count && gdb_left(c); i++) {
		const struct gdb_register *row = &s->registers.row[i];
		ok = gdb_take_bytes(c, value, row->size) && gdb_register_write(gdb_cpu(s), row, value);
	}
	gdb_ok(s, ok && !gdb_left(c));
}

static const struct gdb_register *take_register(struct gdb_session *s, struct gdb_cursor *c)
{
	u64 number;
	return gdb_take_number(c, &number) && number < s->registers.count ? &s->registers.row[number] : NULL;
}

void gdb_read_register(struct gdb_session *s, struct gdb_cursor *c)
{
	u8 value[GDB_REGISTER_MAX];
	const struct gdb_register *row = take_register(s, c);
	if (!row) {
		gdb_error(s, GDB_ERROR_ARGUMENT);
		return;
	}
	gdb_register_read(gdb_cpu(s), row, value);
	gdb_put_bytes(&s->reply, value, row->size);
}

void gdb_write_register(struct gdb_session *s, struct gdb_cursor *c)
{
	u8 value[GDB_REGISTER_MAX] = { 0 };
	const struct gdb_register *row = take_register(s, c);
	gdb_ok(s, row && gdb_take(c, '=') && gdb_take_bytes(c, value, row->size) && !gdb_left(c) && gdb_register_write(gdb_cpu(s), row, value));
}

/* ---- memory ---- */

static bool take_range(struct gdb_cursor *c, u64 *address, u64 *size)
{
	return gdb_take_number(c, address) && gdb_take(c, ',') && gdb_take_number(c, size);
}

/* As much as there is, and fits. */
void gdb_read_memory(struct gdb_session *s, struct gdb_cursor *c)
{
	u8 bytes[1024];
	u64 address, size, n;
	if (!take_range(c, &address, &size) || gdb_left(c)) {
		gdb_error(s, GDB_ERROR_ARGUMENT);
		return;
	}
	size = MIN(size, GDB_PACKET_MAX / 2);
	do {
		n = debugger_read(gdb_cpu(s), address, s->physical, bytes, MIN(size, sizeof(bytes)));
		gdb_put_bytes(&s->reply, bytes, n);
		address += n;
		size -= n;
	} while (n && size);
	if (!n && !s->reply.used && size)
		gdb_error(s, GDB_ERROR_MEMORY);
}

static void write_memory(struct gdb_session *s, u64 address, const u8 *bytes, u64 size)
{
	if (debugger_write(gdb_cpu(s), address, s->physical, bytes, size))
		gdb_put(&s->reply, "OK");
	else
		gdb_error(s, GDB_ERROR_MEMORY);
}

void gdb_write_memory(struct gdb_session *s, struct gdb_cursor *c)
{
	u64 address, size;
	u8 *bytes = s->reply_data; /* free until there is something to say */
	if (take_range(c, &address, &size) && gdb_take(c, ':') && gdb_left(c) == 2 * size && gdb_take_bytes(c, bytes, size))
		write_memory(s, address, bytes, size);
	else
		gdb_error(s, GDB_ERROR_ARGUMENT);
}

void gdb_write_binary(struct gdb_session *s, struct gdb_cursor *c)
{
	u64 address, size;
	if (take_range(c, &address, &size) && gdb_take(c, ':') && gdb_left(c) == size)
		write_memory(s, address, c->at, size);
	else
		gdb_error(s, GDB_ERROR_ARGUMENT);
}

/* ---- points ---- */

/* `type,address,kind`: software break points are hardware ones, so that the guest reads its own code. As in the hardware, who watches reads sees
 * writes, too; GDB knows. */
static bool take_point(struct gdb_cursor *c, struct gdb_point *p, bool *known)
{
	static const u8 kind[] = { DEBUG_EXECUTE, DEBUG_EXECUTE, DEBUG_WRITE, DEBUG_ACCESS, DEBUG_ACCESS };
	u64 type, size;
	if (!gdb_take_number(c, &type) || !gdb_take(c, ',') || !take_range(c, &p->point.gla, &size))
		return false;
	*known = type < ARRAY_SIZE(kind);
	if (!*known)
		return true;
	p->type = (u8)type;
	p->point.kind = (enum debug_kind)kind[type];
	p->point.size = p->point.kind == DEBUG_EXECUTE ? 1 : (u32)MIN(size, ~0u);
	return true;
}

static struct gdb_point *find_point(struct gdb_session *s, const struct gdb_point *p)
{
	for (unsigned i = 0; i < s->points; i++) {
		const struct gdb_point *at = &s->point[i];
		if (at->type == p->type && at->point.gla == p->point.gla && at->point.size == p->point.size)
			return &s->point[i];
	}
	return NULL;
}

/* Conditions and commands that may follow are not for us: they were not offered. */
void gdb_insert_point(struct gdb_session *s, struct gdb_cursor *c)
{
	struct gdb_point p = { 0 };
	bool known;
	if (!take_point(c, &p, &known)) {
		gdb_error(s, GDB_ERROR_ARGUMENT);
		return;
	}
	if (!known)
		return;
	bool there = find_point(s, &p);
	if (!there && (s->points == GDB_POINTS || !debugger_insert(s->vm, &p.point))) {
		gdb_error(s, GDB_ERROR_ROOM);
		return;
	}
	if (!there)
		s->point[s->points++] = p;
	gdb_put(&s->reply, "OK");
}

void gdb_remove_point(struct gdb_session *s, struct gdb_cursor *c)
{
	struct gdb_point p = { 0 };
	bool known;
	if (!take_point(c, &p, &known)) {
		gdb_error(s, GDB_ERROR_ARGUMENT);
		return;
	}
	if (!known)
		return;
	struct gdb_point *found = find_point(s, &p);
	if (found) {
		debugger_remove(s->vm, &found->point);
		*found = s->point[--s->points];
	}
	gdb_put(&s->reply, "OK");
}
