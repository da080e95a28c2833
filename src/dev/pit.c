/* The 8254. Intel 8254 data sheet, "Programming the 8254", "Read Operations", "Mode Definitions". Times inside are
 * ticks of its clock since host time 0. */
#include "dev/pit.h"

#include "host/port.h"
#include "lib/scale.h"

/* Control word. */
#define CONTROL_BCD BIT(0)
#define CONTROL_READ_BACK 3 /* in the channel field */
#define READ_BACK_NO_STATUS BIT(4)
#define READ_BACK_NO_COUNT BIT(5)

#define STATUS_OUT BIT(7)
#define STATUS_NULL_COUNT BIT(6)

/* Port 61H. */
#define SYSTEM_GATE2 BIT(0)
#define SYSTEM_WRITABLE 0x0f
#define SYSTEM_REFRESH BIT(4)
#define SYSTEM_OUT2 BIT(5)
#define REFRESH_PERIOD 15085 /* nanoseconds between toggles */

static u64 tick_of(u64 now)
{
	return scale_floor(now, PIT_HZ, NANOSECONDS_PER_SECOND);
}

static bool periodic(const struct pit_channel *c)
{
	return c->mode == 2 || c->mode == 3;
}

/* Modes 1 and 5 start at a rising gate. */
static bool triggered_by_gate(const struct pit_channel *c)
{
	return c->mode == 1 || c->mode == 5;
}

/* Ticks counted since the load, which takes place one tick after the write or trigger. */
static u64 elapsed(const struct pit_channel *c, u64 tick)
{
	if (c->paused)
		return c->frozen;
	return (s64)(tick - c->start) > 0 ? tick - c->start : 0;
}

static bool output(const struct pit_channel *c, u64 tick)
{
	u64 e = elapsed(c, tick);

	if (!c->running)
		return c->mode != 0;
	switch (c->mode) {
	case 0:
		return e >= c->count;
	case 1:
		return (s64)(tick - c->start) < 0 ? !c->low_before : e >= c->count;
	case 2:
		return c->paused || e % c->count != c->count - 1;
	case 3:
		return c->paused || e % c->count < (c->count + 1) / 2;
	default:
		return e != c->count;
	}
}

/* ---- counts ---- */

static u32 modulus(const struct pit_channel *c)
{
	return c->bcd ? 10000 : 0x10000;
}

static u32 count_decode(const struct pit_channel *c, u16 value)
{
	u32 count = value;

	if (c->bcd)
		count = (value >> 12) * 1000u + (value >> 8 & 15) * 100u + (value >> 4 & 15) * 10u + (value & 15);
	if (!count)
		count = modulus(c);
	return periodic(c) ? MAX(count, 2) : count; /* a count of 1 is illegal there */
}

static u16 count_encode(const struct pit_channel *c, u32 count)
{
	count %= modulus(c);
	if (!c->bcd)
		return (u16)count;
	return (u16)(count / 1000 << 12 | count / 100 % 10 << 8 | count / 10 % 10 << 4 | count % 10);
}

/* The counting element as software reads it. */
static u16 counter(const struct pit_channel *c, u64 tick)
{
	u64 e = elapsed(c, tick);

	if (!c->running)
		return count_encode(c, c->count);
	if (c->mode == 2)
		return count_encode(c, c->count - (u32)(e % c->count));
	if (c->mode == 3) /* by twos, from an even number */
		return count_encode(c, (c->count - (u32)(2 * e % c->count)) & ~1u);
	return count_encode(c, c->count + modulus(c) - (u32)(e % modulus(c)));
}

static void load(struct pit_channel *c, u32 count, u64 tick)
{
	c->count = count;
	c->start = tick;
	c->running = true;
	c->paused = !c->gate && !triggered_by_gate(c);
	c->frozen = 0;
	c->pending = false;
}

/* In the periodic modes a new count is loaded when the current cycle (mode 2) or half-cycle (mode 3) ends. */
static u64 cycle_end(const struct pit_channel *c, u64 tick)
{
	u64 e = elapsed(c, tick), cycle = e - e % c->count, half = (c->count + 1) / 2;

	if (c->mode == 3 && e % c->count < half)
		return c->start + cycle + half;
	return c->start + cycle + c->count;
}

/* Load a count whose time has come. When it is at OUT's falling edge in mode 3, the new cycle is already half over. */
static void channel_sync(struct pit_channel *c, u64 tick)
{
	if (!c->pending || !periodic(c) || c->paused || (s64)(tick - c->pending_at) < 0)
		return;
	bool high_next = output(c, c->pending_at);
	u32 high_half = (c->next_count + 1) / 2;
	load(c, c->next_count, c->pending_at - (high_next ? 0 : high_half));
}

/* The tick after `tick` at which OUT next rises, or HOST_NEVER. */
static u64 rising_edge(const struct pit_channel *c, u64 tick)
{
	u64 e = elapsed(c, tick);

	if (!c->running || c->paused)
		return HOST_NEVER;
	if (c->mode == 0)
		return e < c->count ? c->start + c->count : HOST_NEVER;
	if (c->mode == 4)
		return e <= c->count ? c->start + c->count + 1 : HOST_NEVER;
	if (!periodic(c))
		return HOST_NEVER;
	u64 edge = c->start + e - e % c->count + c->count;
	if (c->pending && c->pending_at < edge)
		edge = c->pending_at + c->next_count / 2;
	return edge;
}

static void count_write(struct pit_channel *c, u16 value, u64 tick)
{
	u32 count = count_decode(c, value);

	if (triggered_by_gate(c) || (periodic(c) && c->running)) {
		c->next_count = count;
		c->pending = true;
		c->pending_at = triggered_by_gate(c) ? HOST_NEVER : cycle_end(c, tick);
	} else {
		load(c, count, tick + 1);
	}
}

/* "Gate Operation". */
static void gate_write(struct pit_channel *c, bool gate, u64 tick)
{
	bool rising = gate && !c->gate, falling = !gate && c->gate;
	bool loaded = c->running || c->pending;

	channel_sync(c, tick);
	if (falling && !triggered_by_gate(c)) {
		c->frozen = elapsed(c, tick);
		c->paused = true;
	}
	c->gate = gate;
	if (!rising)
		return;
	if ((periodic(c) || triggered_by_gate(c)) && loaded) {
		c->low_before = c->mode == 1 && !output(c, tick);
		load(c, c->pending ? c->next_count : c->count, tick + 1);
	} else if (c->paused) {
		c->start = tick - c->frozen;
		c->paused = false;
	}
}

/* ---- the byte-wide interface ---- */

static u8 status(const struct pit_channel *c, u64 tick)
{
	bool null_count = c->pending || !c->running || (s64)(tick - c->start) < 0;

	return (u8)((output(c, tick) ? STATUS_OUT : 0) | (null_count ? STATUS_NULL_COUNT : 0) | c->access << 4 |
		    c->mode << 1 | c->bcd);
}

/* A second latch before the first is read does nothing. */
static void latch_count(struct pit_channel *c, u64 tick)
{
	if (c->latched_bytes)
		return;
	u16 value = counter(c, tick);
	c->latched = c->access == 2 ? value >> 8 : value;
	c->latched_bytes = c->access == 3 ? 2 : 1;
}

static void latch_status(struct pit_channel *c, u64 tick)
{
	if (!c->status_latched)
		c->status = status(c, tick);
	c->status_latched = true;
}

static void read_back(struct pit *pit, u8 value, u64 tick)
{
	for (unsigned i = 0; i < 3; i++) {
		struct pit_channel *c = &pit->channel[i];
		if (!(value & BIT(i + 1)))
			continue;
		channel_sync(c, tick);
		if (!(value & READ_BACK_NO_COUNT))
			latch_count(c, tick);
		if (!(value & READ_BACK_NO_STATUS))
			latch_status(c, tick);
	}
}

static void control_write(struct pit *pit, u8 value, u64 tick)
{
	unsigned number = value >> 6, access = value >> 4 & 3, mode = value >> 1 & 7;

	if (number == CONTROL_READ_BACK) {
		read_back(pit, value, tick);
		return;
	}
	struct pit_channel *c = &pit->channel[number];
	channel_sync(c, tick);
	if (!access) {
		latch_count(c, tick);
		return;
	}
	*c = (struct pit_channel){
		.mode = (u8)(mode > 5 ? mode - 4 : mode),
		.access = (u8)access,
		.bcd = value & CONTROL_BCD,
		.gate = c->gate,
		.count = c->count,
	};
}

static void channel_write(struct pit_channel *c, u8 value, u64 tick)
{
	channel_sync(c, tick);
	if (c->access == 1) {
		count_write(c, value, tick);
	} else if (c->access == 2) {
		count_write(c, (u16)(value << 8), tick);
	} else if (!c->write_high) {
		c->write_low = value;
		c->write_high = true;
		if (c->mode == 0) /* the first byte stops the count and makes OUT low */
			c->running = false;
	} else {
		c->write_high = false;
		count_write(c, (u16)(value << 8 | c->write_low), tick);
	}
}

static u8 channel_read(struct pit_channel *c, u64 tick)
{
	channel_sync(c, tick);
	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	if (c->latched_bytes) {
		u8 value = (u8)c->latched;
		c->latched >>= 8;
		c->latched_bytes--;
		return value;
	}
	bool high = c->access == 2 || (c->access == 3 && c->read_high);
	c->read_high = c->access == 3 && !c->read_high;
	return (u8)(counter(c, tick) >> (high ? 8 : 0));
}

/* ---- the wire ---- */

/* After a change of channel 0, or an edge: see wire and edge anew. */
static void update(struct pit *pit, u64 tick)
{
	const struct pit_channel *c = &pit->channel[0];

	pit->edge = rising_edge(c, tick);
	if (c->mode == 0)
		wire_set(&pit->irq, output(c, tick));
}

u64 pit_deadline(const struct pit *pit)
{
	u64 edge = pit->edge == HOST_NEVER ? HOST_NEVER : scale_ceil(pit->edge, NANOSECONDS_PER_SECOND, PIT_HZ);
	return periodic(&pit->channel[0]) ? MAX(edge, pit->not_before) : edge;
}

void pit_advance(struct pit *pit, u64 now)
{
	struct pit_channel *c = &pit->channel[0];
	u64 tick = tick_of(now);

	if (now < pit_deadline(pit))
		return;
	channel_sync(c, tick);
	wire_set(&pit->irq, false);
	wire_set(&pit->irq, true);
	update(pit, tick);
	pit->not_before = now + PIT_MIN_PERIOD;
}

void pit_reset(struct pit *pit)
{
	for (unsigned i = 0; i < 3; i++)
		pit->channel[i] = (struct pit_channel){ .mode = 3, .access = 3, .gate = i < 2, .count = 0x10000 };
	pit->edge = HOST_NEVER;
	pit->not_before = 0;
	pit->control = 0;
	wire_set(&pit->irq, false);
}

/* ---- ports ---- */

static u64 pit_read(void *device, u64 offset, unsigned size, u64 now)
{
	struct pit *pit = device;
	u64 value = 0;

	for (unsigned i = 0; i < size; i++) {
		u64 port = (offset + i) % PIT_PORT_COUNT;
		u8 byte = port == 3 ? 0xff : channel_read(&pit->channel[port], tick_of(now));
		value |= (u64)byte << (8 * i);
	}
	return value;
}

static void pit_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct pit *pit = device;
	u64 tick = tick_of(now);

	pit_advance(pit, now);
	for (unsigned i = 0; i < size; i++) {
		u64 port = (offset + i) % PIT_PORT_COUNT;
		u8 byte = (u8)(value >> (8 * i));
		if (port == 3)
			control_write(pit, byte, tick);
		else
			channel_write(&pit->channel[port], byte, tick);
	}
	update(pit, tick);
}

const struct region_ops pit_ops = { .read = pit_read, .write = pit_write };

static u64 system_control_read(void *device, u64 offset, unsigned size, u64 now)
{
	struct pit *pit = device;
	u8 value = pit->control;

	channel_sync(&pit->channel[2], tick_of(now));
	if (now / REFRESH_PERIOD & 1)
		value |= SYSTEM_REFRESH;
	if (output(&pit->channel[2], tick_of(now)))
		value |= SYSTEM_OUT2;
	return value;
}

static void system_control_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct pit *pit = device;

	pit->control = value & SYSTEM_WRITABLE;
	gate_write(&pit->channel[2], value & SYSTEM_GATE2, tick_of(now));
}

const struct region_ops system_control_ops = { .read = system_control_read, .write = system_control_write };

/* ---- state ---- */

static const struct state_table channel_state = STATE_TABLE(struct pit_channel, NULL,
	STATE_MAX(struct pit_channel, mode, 5), STATE_MAX(struct pit_channel, access, 3), STATE(struct pit_channel, bcd),
	STATE(struct pit_channel, gate), STATE(struct pit_channel, running), STATE(struct pit_channel, low_before),
	STATE(struct pit_channel, paused), STATE_MAX(struct pit_channel, count, 0x10000), STATE(struct pit_channel, start),
	STATE(struct pit_channel, frozen), STATE(struct pit_channel, pending), STATE_MAX(struct pit_channel, next_count, 0x10000),
	STATE(struct pit_channel, pending_at), STATE(struct pit_channel, write_high), STATE(struct pit_channel, read_high),
	STATE(struct pit_channel, write_low), STATE_MAX(struct pit_channel, latched_bytes, 2), STATE(struct pit_channel, latched),
	STATE(struct pit_channel, status_latched), STATE(struct pit_channel, status));

const struct state_table pit_state = STATE_TABLE(struct pit, NULL,
	STATE_IN(struct pit, channel, channel_state), STATE_IN(struct pit, irq, wire_state), STATE(struct pit, edge),
	STATE(struct pit, not_before), STATE(struct pit, control));
