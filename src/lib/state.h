/* The state of structs as bytes, and back: what a snapshot is made of (docs/snapshot-format.md).
 *
 * Whoever owns a struct describes it once, in a table beside its code, one row for each member: what is state, what must be the same on
 * both sides, and what is none (wiring, and what is derived). The same table saves and loads. A test (tests/unit/state.c) asks of each table
 * that its rows cover every byte of the struct but padding, so that a member cannot be forgotten.
 *
 * The bytes are sections, one for each object, in an order that both sides know. A section has a name and an index, and holds its fields in
 * the table's order, each with its name and size. So a reader sees at once what does not fit, and says what it is.
 *
 * Loading takes any bytes whatsoever: it stays within them and within the objects, and checks what tables say of values. After the first
 * thing that is wrong the rest is left alone, and `state_error` says what it was; the objects loaded before have changed then. */
#ifndef NADIR_LIB_STATE_H
#define NADIR_LIB_STATE_H

#include "arch/types.h"

enum state_kind {
	STATE_KIND_NONE,
	STATE_KIND_VALUE, /* bytes as they are */
	STATE_KIND_FLAGS, /* each byte is 0 or 1 */
	STATE_KIND_SAME, /* written; what is read must be what is there already */
	STATE_KIND_TABLE, /* a struct with a table of its own, or an array of such */
};

struct state_table;

struct state_field {
	const char *name;
	u32 offset, size; /* of the member */
	enum state_kind kind;
	u64 max; /* of a number of at most 8 bytes, all of them unsigned; 0: any */
	const struct state_table *table;
};

struct state_table {
	u32 size; /* of the struct */
	unsigned fields;
	const struct state_field *field;
	/* The object was loaded: check it, and derive what is derived. False: it is impossible. May be NULL. */
	bool (*loaded)(void *object);
};

#define STATE_MEMBER(type, member) .name = #member, .offset = offsetof(type, member), .size = sizeof(__typeof__(((type *)0)->member))
#define STATE_IS(type, member, other) __builtin_types_compatible_p(__typeof__(((type *)0)->member), other)
#define STATE_IS_FLAGS(type, member) (STATE_IS(type, member, bool) || STATE_IS(type, member, bool[sizeof(((type *)0)->member)]))

/* Rows. A number, a flag, or an array of either. */
#define STATE(type, member) { STATE_MEMBER(type, member), .kind = STATE_IS_FLAGS(type, member) ? STATE_KIND_FLAGS : STATE_KIND_VALUE }
/* A number that is an index, a count or an enumeration: at most `maximum`. */
#define STATE_MAX(type, member, maximum) { STATE_MEMBER(type, member), .kind = STATE_KIND_VALUE, .max = (maximum) }
#define STATE_SAME(type, member) { STATE_MEMBER(type, member), .kind = STATE_KIND_SAME }
#define STATE_IN(type, member, inner) { STATE_MEMBER(type, member), .kind = STATE_KIND_TABLE, .table = &(inner) }
#define STATE_NONE(type, member) { STATE_MEMBER(type, member), .kind = STATE_KIND_NONE }

/* The initializer of a table: `check` is its `loaded`. */
#define STATE_TABLE(type, check, ...)                                                                                    \
	{ .size = sizeof(type), .fields = sizeof((const struct state_field[]){ __VA_ARGS__ }) / sizeof(struct state_field), \
	  .field = (const struct state_field[]){ __VA_ARGS__ }, .loaded = (check) }

enum state_problem {
	STATE_GOOD,
	STATE_ENDS, /* the bytes end too early */
	STATE_DIFFERS, /* another section or field, or one of another size, is in this place */
	STATE_NOT_SAME, /* what must be the same is not */
	STATE_IMPOSSIBLE, /* a value is out of range */
	STATE_LACKING, /* this host lacks what `field` names */
};

struct state {
	bool loading;
	u8 *data; /* NULL while saving: only counts */
	size_t size; /* bytes at data */
	size_t at; /* bytes done */
	enum state_problem problem;
	const char *section, *field; /* where the problem is; field may be NULL */
	unsigned index;
};

/* The whole object as the next section. */
void state_section(struct state *s, const char *name, unsigned index, const struct state_table *table, void *object);
/* Bytes that no struct has as the next section, of a size both sides know. */
void state_bytes(struct state *s, const char *name, unsigned index, void *data, u32 size);
/* Loading: the size and place of the next section if it is this one, which is passed over; false: it is not, or something was wrong before. */
bool state_take(struct state *s, const char *name, unsigned index, const u8 **data, u32 *size);
/* What the caller found out about the section loaded last; does nothing if `good`, or if something was wrong before. */
void state_check(struct state *s, bool good, const char *field);
void state_fail(struct state *s, enum state_problem problem, const char *field);
/* Loading: nothing must be left. */
void state_end(struct state *s);

static inline bool state_good(const struct state *s)
{
	return s->problem == STATE_GOOD;
}

#endif
