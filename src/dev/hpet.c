/* The high precision event timer (hpet.h). */
#include "dev/hpet.h"

#include "dev/map.h"
#include "host/port.h"

/* "Register Overview". */
enum { CAPABILITIES = 0x00, CONFIG = 0x10, STATUS = 0x20, COUNTER = 0xf0, TIMERS = 0x100, TIMER_SIZE = 0x20, TIMER_CONFIG = 0x00, TIMER_COMPARATOR = 0x08 };
#define CONFIG_ENABLE BIT(0)
#define CONFIG_LEGACY BIT(1)

#define TIMER_LEVEL BIT(1)
#define TIMER_ENABLE BIT(2)
#define TIMER_PERIODIC BIT(3)
#define TIMER_CAN_REPEAT BIT(4)
#define TIMER_64BIT BIT(5)
#define TIMER_SET_VALUE BIT(6)
#define TIMER_32BIT BIT(8)
#define TIMER_ROUTE_SHIFT 9
#define TIMER_ROUTE (0x1full << TIMER_ROUTE_SHIFT)
#define TIMER_WRITABLE (TIMER_LEVEL | TIMER_ENABLE | TIMER_PERIODIC | TIMER_SET_VALUE | TIMER_32BIT | TIMER_ROUTE)
#define TIMER_FIXED (TIMER_CAN_REPEAT | TIMER_64BIT | ((BIT(HPET_ROUTES) - 1) << HPET_ROUTE_FIRST) << 32)

static u64 tick(u64 now)
{
	return now / HPET_TICK;
}

static bool running(const struct hpet *h)
{
	return h->config & CONFIG_ENABLE;
}

bool hpet_replaces(const struct hpet *hpet)
{
	return hpet->config & CONFIG_LEGACY;
}

static u64 counter(const struct hpet *h, u64 now)
{
	return running(h) ? tick(now) - h->offset : h->value;
}

static u64 mask(const struct hpet_timer *t)
{
	return t->config & TIMER_32BIT ? 0xffffffff : ~0ull;
}

/* ---- outputs ---- */

/* Where a comparator's interrupt goes now; NULL: nowhere. */
static struct wire *output(struct hpet *h, unsigned index)
{
	unsigned route = (unsigned)((h->timer[index].config & TIMER_ROUTE) >> TIMER_ROUTE_SHIFT) - HPET_ROUTE_FIRST;
	if (hpet_replaces(h) && index < HPET_LEGACY)
		return &h->legacy[index];
	return route < HPET_ROUTES ? &h->route[route] : NULL;
}

/* Level-triggered ones hold their wires as long as their status says so. */
static void update_levels(struct hpet *h)
{
	u64 held = 0;
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		const struct wire *w = output(h, i);
		bool active = (h->status & BIT(i)) && (h->timer[i].config & TIMER_ENABLE);
		if (active && w >= h->route && w < h->route + HPET_ROUTES)
			held |= BIT(w - h->route);
	}
	for (unsigned i = 0; i < HPET_ROUTES; i++)
		wire_set(&h->route[i], held & BIT(i));
}

/* Edges are rising ones. The 8259 pair wants its inputs to stay up, as the interval timer's does. */
static void fire(struct hpet *h, unsigned index)
{
	const struct hpet_timer *t = &h->timer[index];
	struct wire *w = output(h, index);
	bool legacy = w == &h->legacy[0] || w == &h->legacy[1];
	if ((t->config & TIMER_LEVEL) && !legacy)
		h->status |= BIT(index);
	else if (w && (t->config & TIMER_ENABLE)) {
		wire_set(w, false);
		wire_set(w, true);
		if (!legacy)
			wire_set(w, false);
	}
	update_levels(h);
}

/* ---- time ---- */

static void arm(struct hpet *h, struct hpet_timer *t, u64 now)
{
	u64 distance = (t->comparator - counter(h, now)) & mask(t);
	t->next = running(h) && distance < HOST_NEVER - tick(now) ? tick(now) + distance : HOST_NEVER;
}

static void arm_all(struct hpet *h, u64 now)
{
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		arm(h, &h->timer[i], now);
}

/* "Non-Periodic Mode", "Periodic Mode": the match after one that was at t->next. */
static void go_on(struct hpet_timer *t, u64 now)
{
	u64 step = t->config & TIMER_PERIODIC ? t->period & mask(t) : t->config & TIMER_32BIT ? BIT(32) : 0;
	u64 steps = step ? (tick(now) - t->next) / step + 1 : 0;
	if (!step || steps > (HOST_NEVER - t->next) / step) {
		t->next = HOST_NEVER;
		return;
	}
	t->next += steps * step;
	if (t->config & TIMER_PERIODIC)
		t->comparator = (t->comparator + steps * step) & mask(t);
}

static u64 due(const struct hpet_timer *t)
{
	return t->next < HOST_NEVER / HPET_TICK ? MAX(t->next * HPET_TICK, t->not_before) : HOST_NEVER;
}

u64 hpet_deadline(const struct hpet *hpet)
{
	u64 first = HOST_NEVER;
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		if (hpet->timer[i].config & TIMER_ENABLE)
			first = MIN(first, due(&hpet->timer[i]));
	return first;
}

void hpet_advance(struct hpet *hpet, u64 now)
{
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		struct hpet_timer *t = &hpet->timer[i];
		if (due(t) > now)
			continue;
		go_on(t, now);
		t->not_before = now + HPET_MIN_PERIOD;
		fire(hpet, i);
	}
}

/* ---- registers ---- */

static void write_config(struct hpet *h, u64 value, u64 now)
{
	u64 current = counter(h, now);
	h->config = value & (CONFIG_ENABLE | CONFIG_LEGACY);
	h->value = current;
	h->offset = tick(now) - current;
	arm_all(h, now);
	for (unsigned i = 0; i < HPET_LEGACY; i++)
		wire_set(&h->legacy[i], false);
	update_levels(h);
}

static void write_counter(struct hpet *h, u64 value, u64 now)
{
	h->value = value;
	h->offset = tick(now) - value;
	arm_all(h, now);
}

static void write_timer_config(struct hpet *h, struct hpet_timer *t, u64 value, u64 now)
{
	bool resized = (t->config ^ value) & TIMER_32BIT;
	t->config = TIMER_FIXED | (value & TIMER_WRITABLE);
	t->comparator &= mask(t);
	t->not_before = 0;
	if (!(t->config & TIMER_LEVEL))
		h->status &= ~BIT(t - h->timer);
	if (resized)
		arm(h, t, now);
	update_levels(h);
}

/* In periodic mode a write is the period; the comparator too if TIMER_SET_VALUE was set before it. */
static void write_comparator(struct hpet *h, struct hpet_timer *t, u64 value, u64 now)
{
	bool periodic = t->config & TIMER_PERIODIC;
	value &= mask(t);
	if (periodic)
		t->period = value;
	if (!periodic || (t->config & TIMER_SET_VALUE))
		t->comparator = value;
	t->config &= ~TIMER_SET_VALUE;
	t->not_before = 0;
	arm(h, t, now);
}

static u64 get(const struct hpet *h, unsigned offset, u64 now)
{
	unsigned index = (offset - TIMERS) / TIMER_SIZE;
	switch (offset) {
	case CAPABILITIES:
		return HPET_CAPABILITIES;
	case CONFIG:
		return h->config;
	case STATUS:
		return h->status;
	case COUNTER:
		return counter(h, now);
	}
	if (offset < TIMERS || index >= HPET_TIMERS)
		return 0;
	offset = (offset - TIMERS) % TIMER_SIZE;
	return offset == TIMER_CONFIG ? h->timer[index].config : offset == TIMER_COMPARATOR ? h->timer[index].comparator : 0;
}

static void set(struct hpet *h, unsigned offset, u64 value, u64 now)
{
	unsigned index = (offset - TIMERS) / TIMER_SIZE;
	switch (offset) {
	case CONFIG:
		return write_config(h, value, now);
	case STATUS:
		h->status &= ~value;
		return update_levels(h);
	case COUNTER:
		return write_counter(h, value, now);
	}
	if (offset < TIMERS || index >= HPET_TIMERS)
		return;
	offset = (offset - TIMERS) % TIMER_SIZE;
	if (offset == TIMER_CONFIG)
		write_timer_config(h, &h->timer[index], value, now);
	else if (offset == TIMER_COMPARATOR)
		write_comparator(h, &h->timer[index], value, now);
}

/* Registers are 64 bits wide, and accessed whole or by halves. */
static u64 read(void *device, u64 offset, unsigned size, u64 now)
{
	struct hpet *h = device;
	hpet_advance(h, now);
	return get(h, (unsigned)offset & ~7u, now) >> (8 * (offset & 7));
}

static void write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct hpet *h = device;
	unsigned at = (unsigned)offset & ~7u;
	if (size < 4 || (offset & 3) || (size == 8 && (offset & 7)))
		return;
	hpet_advance(h, now);
	if (size == 4) {
		unsigned shift = offset & 4 ? 32 : 0;
		u64 rest = at == STATUS ? 0 : get(h, at, now) & ~(0xffffffffull << shift);
		value = rest | (u64)(u32)value << shift;
	}
	set(h, at, value, now);
}

static const struct region_ops ops = { .read = read, .write = write };

void hpet_reset(struct hpet *hpet)
{
	hpet->config = hpet->status = hpet->value = hpet->offset = 0;
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		hpet->timer[i] = (struct hpet_timer){ .config = TIMER_FIXED, .comparator = ~0ull, .next = HOST_NEVER };
	for (unsigned i = 0; i < HPET_LEGACY; i++)
		wire_set(&hpet->legacy[i], false);
	update_levels(hpet);
}

int hpet_attach(struct hpet *hpet, struct bus *memory)
{
	hpet_reset(hpet);
	return bus_add(memory, "HPET", MAP_HPET, HPET_SIZE, &ops, hpet);
}

/* ---- state ---- */

static bool timer_loaded(void *object)
{
	struct hpet_timer *t = object;
	t->config = TIMER_FIXED | (t->config & TIMER_WRITABLE);
	return true;
}

static const struct state_table timer_state = STATE_TABLE(struct hpet_timer, timer_loaded,
	STATE(struct hpet_timer, config), STATE(struct hpet_timer, comparator), STATE(struct hpet_timer, period), STATE(struct hpet_timer, next),
	STATE(struct hpet_timer, not_before));

const struct state_table hpet_state = STATE_TABLE(struct hpet, NULL,
	STATE_IN(struct hpet, legacy, wire_state), STATE_IN(struct hpet, route, wire_state), STATE_MAX(struct hpet, config, 3),
	STATE(struct hpet, status), STATE(struct hpet, value), STATE(struct hpet, offset), STATE_IN(struct hpet, timer, timer_state));
