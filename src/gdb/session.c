/* The life of a session, and the packets that move the machine; see session.h. */
#include "gdb/internal.h"

#include "lib/string.h"

#define SIGNAL_INT 2
#define SIGNAL_TRAP 5
#define SIGNAL_SEGV 11

/* ---- sending ---- */

static void send(struct gdb_session *s, const void *data, size_t size)
{
	s->link.send(s->link.opaque, data, size);
}

static void send_packet(struct gdb_session *s, const struct gdb_text *data)
{
	s->frame_used = gdb_frame(s->frame, data->data, data->used);
	send(s, s->frame, s->frame_used);
}

/* What a monitor command said, in pieces that fit. */
static void send_monitor(struct gdb_session *s)
{
	static const u8 letter = 'O';
	u8 data[1025];
	for (u32 done = 0, n; done < s->monitor.used; done += n) {
		struct gdb_text piece = { .data = data, .size = sizeof(data) };
		n = MIN(s->monitor.used - done, 512u);
		gdb_put_raw(&piece, &letter, 1);
		gdb_put_bytes(&piece, s->monitor.data + done, n);
		send_packet(s, &piece);
	}
	s->monitor.used = 0;
}

/* ---- why the machine stopped ---- */

/* The point as it was asked for. */
static void put_point(struct gdb_session *s, const struct debugger_stop *stop)
{
	static const char *const name[] = { "swbreak:", "hwbreak:", "watch:", "rwatch:", "awatch:" };
	for (unsigned i = 0; i < s->points; i++) {
		const struct gdb_point *p = &s->point[i];
		bool execute = stop->kind == DEBUG_EXECUTE;
		if (p->point.gla != stop->gla || p->point.kind != stop->kind || (execute && !s->says_breaks))
			continue;
		gdb_put(&s->reply, name[p->type]);
		if (!execute)
			gdb_put_number(&s->reply, stop->gla);
		gdb_put(&s->reply, ";");
		return;
	}
}

static void put_stop(struct gdb_session *s, u8 signal_if_asked)
{
	const struct debugger_stop *stop = &s->vm->debugger.stop;
	u8 signal = stop->reason == DEBUGGER_ASKED ? signal_if_asked : stop->reason == DEBUGGER_CRASH ? SIGNAL_SEGV : SIGNAL_TRAP;
	debugger_told(s->vm);
	s->cpu = s->step_cpu = stop->cpu;
	gdb_put(&s->reply, "T");
	gdb_put_bytes(&s->reply, &signal, 1);
	if (stop->reason == DEBUGGER_POINT)
		put_point(s, stop);
	gdb_put(&s->reply, "thread:");
	gdb_put_number(&s->reply, stop->cpu + 1);
	gdb_put(&s->reply, ";");
}

/* ---- going on ---- */

static void resume(struct gdb_session *s, const enum debugger_action *action)
{
	debugger_resume(s->vm, action, s->quiet);
	s->owed = s->silent = true;
	s->interrupted = false;
}

/* A step ended within its range, and nobody wants to know. */
static bool steps_on(const struct gdb_session *s)
{
	const struct gdb_range *r = &s->range;
	const struct debugger_stop *stop = &s->vm->debugger.stop;
	u64 rip = s->vm->cpu[r->cpu]->vcpu.rip;
	return r->active && !s->interrupted && !s->waiting && stop->reason == DEBUGGER_STEP && stop->cpu == r->cpu && rip >= r->start && rip < r->end;
}

/* Where c and s of old say that the CPU shall go on from. */
static bool take_rip(struct gdb_session *s, struct gdb_cursor *c)
{
	u8 value[GDB_REGISTER_MAX] = { 0 };
	u64 address;
	if (!gdb_left(c))
		return true;
	if (!gdb_take_number(c, &address) || gdb_left(c))
		return false;
	memcpy(value, &address, sizeof(address));
	return gdb_register_write(s->vm->cpu[s->step_cpu], gdb_rip(&s->registers), value);
}

/* The other CPUs go on, too. */
static void move(struct gdb_session *s, struct gdb_cursor *c, enum debugger_action what)
{
	enum debugger_action action[VM_CPUS_MAX] = { ACTION_HOLD };
	if (!take_rip(s, c)) {
		gdb_error(s, GDB_ERROR_ARGUMENT);
		return;
	}
	for (unsigned i = 0; i < s->vm->config.cpus; i++)
		action[i] = ACTION_RUN;
	action[s->step_cpu] = what;
	s->range.active = false;
	resume(s, action);
}

static void do_continue(struct gdb_session *s, struct gdb_cursor *c)
{
	move(s, c, ACTION_RUN);
}

static void do_step(struct gdb_session *s, struct gdb_cursor *c)
{
	move(s, c, ACTION_STEP);
}

/* A CPU takes no signals: `C sig[;address]`, `S`. */
static bool skip_signal(struct gdb_cursor *c)
{
	u64 signal;
	return gdb_take_number(c, &signal) && (!gdb_left(c) || gdb_take(c, ';'));
}

static void do_continue_signal(struct gdb_session *s, struct gdb_cursor *c)
{
	if (skip_signal(c))
		do_continue(s, c);
	else
		gdb_error(s, GDB_ERROR_ARGUMENT);
}

static void do_step_signal(struct gdb_session *s, struct gdb_cursor *c)
{
	if (skip_signal(c))
		do_step(s, c);
	else
		gdb_error(s, GDB_ERROR_ARGUMENT);
}

/* One `;action[:thread]` of vCont: the first that names a vCPU counts. `r start,end` is a step of one thread, again and again. */
static bool take_action(struct gdb_session *s, struct gdb_cursor *c, enum debugger_action *action)
{
	struct gdb_range *r = &s->range;
	u64 signal;
	unsigned cpu = 0;
	bool any = true;
	if (!gdb_take(c, ';') || !gdb_left(c))
		return false;
	u8 letter = *c->at++;
	if ((letter == 'C' || letter == 'S') && !gdb_take_number(c, &signal))
		return false;
	letter |= 0x20;
	bool range = letter == 'r';
	if (range) {
		if (!gdb_take_number(c, &r->start) || !gdb_take(c, ',') || !gdb_take_number(c, &r->end))
			return false;
		letter = 's';
	}
	if ((letter != 'c' && letter != 's') || (gdb_take(c, ':') && !gdb_take_thread(s, c, &cpu, &any)))
		return false;
	for (unsigned i = 0; i < s->vm->config.cpus; i++)
		if ((any || i == cpu) && action[i] == ACTION_HOLD)
			action[i] = letter == 's' ? ACTION_STEP : ACTION_RUN;
	if (range && !any) {
		r->active = true;
		r->cpu = cpu;
	}
	return true;
}

static void do_vcont(struct gdb_session *s, struct gdb_cursor *c)
{
	enum debugger_action action[VM_CPUS_MAX] = { ACTION_HOLD };
	bool sound = gdb_left(c);
	s->range.active = false;
	while (sound && gdb_left(c))
		sound = take_action(s, c, action);
	if (!sound) {
		gdb_error(s, GDB_ERROR_ARGUMENT);
		return;
	}
	memcpy(s->range.action, action, sizeof(action));
	resume(s, action);
}

/* ---- the other packets about the session and its threads ---- */

static void do_reason(struct gdb_session *s, struct gdb_cursor *c)
{
	put_stop(s, SIGNAL_TRAP);
}

static void do_detach(struct gdb_session *s, struct gdb_cursor *c)
{
	gdb_put(&s->reply, "OK");
	s->points = 0;
	debugger_detach(s->vm);
}

static void do_kill(struct gdb_session *s, struct gdb_cursor *c)
{
	s->after = GDB_AFTER_STOP;
	s->silent = true;
}

static void do_thread(struct gdb_session *s, struct gdb_cursor *c)
{
	bool any, step = gdb_take(c, 'c');
	unsigned cpu;
	bool ok = (step || gdb_take(c, 'g')) && gdb_take_thread(s, c, &cpu, &any);
	if (ok && !any)
		*(step ? &s->step_cpu : &s->cpu) = cpu;
	gdb_ok(s, ok);
}

static void do_alive(struct gdb_session *s, struct gdb_cursor *c)
{
	unsigned cpu;
	bool any;
	gdb_ok(s, gdb_take_thread(s, c, &cpu, &any) && !any);
}

static void do_extended(struct gdb_session *s, struct gdb_cursor *c)
{
	gdb_put(&s->reply, "OK");
}

static void do_v(struct gdb_session *s, struct gdb_cursor *c)
{
	if (gdb_take_word(c, "Cont?"))
		gdb_put(&s->reply, "vCont;c;C;s;S;r");
	else if (gdb_take_word(c, "Cont"))
		do_vcont(s, c);
	else if (gdb_take_word(c, "Kill")) {
		gdb_put(&s->reply, "OK");
		s->after = GDB_AFTER_STOP;
	}
}

static void (*const answers[128])(struct gdb_session *s, struct gdb_cursor *c) = {
	['!'] = do_extended, ['?'] = do_reason, ['C'] = do_continue_signal, ['D'] = do_detach, ['G'] = gdb_write_registers, ['H'] = do_thread,
	['M'] = gdb_write_memory, ['P'] = gdb_write_register, ['Q'] = gdb_set, ['S'] = do_step_signal, ['T'] = do_alive, ['X'] = gdb_write_binary,
	['Z'] = gdb_insert_point, ['c'] = do_continue, ['g'] = gdb_read_registers, ['k'] = do_kill, ['m'] = gdb_read_memory, ['p'] = gdb_read_register,
	['q'] = gdb_query, ['s'] = do_step, ['v'] = do_v, ['z'] = gdb_remove_point,
};

/* ---- the machine has stopped ---- */

static void do_after(struct gdb_session *s)
{
	enum gdb_after after = s->after;
	s->after = GDB_AFTER_NOTHING;
	if (after == GDB_AFTER_RESET)
		vm_reset(s->vm);
	else if (after == GDB_AFTER_POWERDOWN)
		vm_power_button(s->vm);
	else if (after == GDB_AFTER_STOP)
		vm_stop(s->vm);
}

static void answer(struct gdb_session *s)
{
	struct gdb_cursor c = { s->in.data, s->in.data + s->in.used };
	u8 letter = c.at < c.end ? *c.at++ : 0;
	if (letter < ARRAY_SIZE(answers) && answers[letter])
		answers[letter](s, &c);
}

/* The client has gone without a word. */
static void leave(struct gdb_session *s)
{
	s->points = 0;
	s->silent = true;
	if (s->resume)
		debugger_detach(s->vm);
	else
		debugger_clear(s->vm);
}

/* The next thing to do with a machine that has stopped, the lock held; false if there is none. */
static bool act(struct gdb_session *s)
{
	s->reply.used = 0;
	s->silent = false;
	if (s->leaving) {
		s->leaving = false;
		leave(s);
	} else if (s->owed && steps_on(s)) {
		resume(s, s->range.action);
	} else if (s->owed) {
		s->owed = false;
		put_stop(s, SIGNAL_INT);
	} else if (s->waiting) {
		s->waiting = false;
		answer(s);
	} else {
		return false;
	}
	return true;
}

void gdb_poll(struct gdb_session *s)
{
	struct vm *vm = s->vm;
	bool more;
	do {
		host_lock(&vm->lock);
		if (s->waiting || s->leaving)
			debugger_attach(vm);
		more = debugger_stopped(vm) && act(s);
		host_unlock(&vm->lock);
		if (!more)
			break;
		send_monitor(s);
		if (!s->silent)
			send_packet(s, &s->reply);
		do_after(s);
	} while (true);
}

/* ---- the connection ---- */

struct gdb_session *gdb_create(struct vm *vm, enum gdb_architecture architecture, const struct gdb_link *link)
{
	struct gdb_session *s = host_alloc(sizeof(*s));
	if (!s)
		return NULL;
	s->vm = vm;
	s->link = *link;
	s->reply = (struct gdb_text){ .data = s->reply_data, .size = sizeof(s->reply_data) };
	s->monitor = (struct gdb_text){ .data = s->monitor_data, .size = sizeof(s->monitor_data) };
	s->xml = (struct gdb_text){ .data = s->xml_data, .size = sizeof(s->xml_data) };
	gdb_registers_init(&s->registers, architecture, vm->policy);
	gdb_describe(&s->registers, &s->xml);
	return s;
}

void gdb_destroy(struct gdb_session *s)
{
	host_free(s);
}

void gdb_connected(struct gdb_session *s)
{
	s->in = (struct gdb_parser){ 0 };
	s->connected = true;
	s->owed = s->waiting = s->says_breaks = s->physical = false;
	s->quiet = true;
	s->frame_used = 0;
	host_lock(&s->vm->lock);
	debugger_attach(s->vm);
	s->cpu = s->step_cpu = s->vm->debugger.stop.cpu;
	host_unlock(&s->vm->lock);
}

void gdb_disconnected(struct gdb_session *s)
{
	host_lock(&s->vm->lock);
	s->resume = s->owed || !s->vm->debugger.holding;
	host_unlock(&s->vm->lock);
	s->connected = s->owed = s->waiting = false;
	s->leaving = true;
	gdb_poll(s);
}

bool gdb_idle(const struct gdb_session *s)
{
	return !s->leaving;
}

bool gdb_ready(const struct gdb_session *s)
{
	return !s->waiting;
}

static void interrupt(struct gdb_session *s)
{
	host_lock(&s->vm->lock);
	s->interrupted = s->owed;
	if (s->owed)
		debugger_hold(s->vm);
	host_unlock(&s->vm->lock);
}

static void acknowledge(struct gdb_session *s, const char *sign)
{
	if (!s->in.trusting)
		send(s, sign, 1);
}

void gdb_byte(struct gdb_session *s, u8 byte)
{
	switch (gdb_parse(&s->in, byte)) {
	case GDB_TOO_LONG:
		s->in.used = 0; /* an empty packet is one that nobody knows */
		/* fall through */
	case GDB_PACKET:
		acknowledge(s, "+");
		s->waiting = true;
		break;
	case GDB_DAMAGED:
		acknowledge(s, "-");
		return;
	case GDB_INTERRUPT:
		interrupt(s);
		break;
	case GDB_RESEND:
		send(s, s->frame, s->frame_used);
		return;
	default:
		return;
	}
	gdb_poll(s);
}

void gdb_ended(struct gdb_session *s, int status)
{
	u8 number = (u8)status;
	if (!s->connected || !s->owed)
		return;
	s->owed = false;
	s->reply.used = 0;
	gdb_put(&s->reply, "W");
	gdb_put_bytes(&s->reply, &number, 1);
	send_packet(s, &s->reply);
}
