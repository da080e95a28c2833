/* Guest user code in spaces: which address spaces of the guest get one. See direct.h.
 *
 * A journey costs microseconds, so only code that runs long between system calls and faults gains. An address space whose user code is
 * found running long is promoted; one whose journeys turn out to be too short goes back to checked code for a while. */
#include "engine/bt/direct.h"

#include "arch/paging.h"

#define BUSY_ENOUGH 3000 /* microseconds of long bursts that promote */
#define BURST 20 /* microseconds between two entries to user code, on average, that are long */
#define SAMPLE 1000 /* microseconds */
#define KEPT 100000 /* microseconds that a space has before another address space may take its place */
#define FORGOTTEN 100000 /* microseconds after which a space that was not used makes room when another is made */
#define TRAP 1 /* microseconds that the host takes from a trap of code in place to its signal, about */

/* ---- which address spaces get one ---- */

static u64 space_key(const struct vcpu *vcpu)
{
	return vcpu->cr3 & PTE_ADDR;
}

static struct direct_candidate *candidate_of(struct direct *d, u64 cr3)
{
	for (unsigned i = 0; i < DIRECT_CANDIDATES; i++)
		if (d->candidate[i].cr3 == cr3)
			return &d->candidate[i];
	struct direct_candidate *c = &d->candidate[d->candidate_next++ % DIRECT_CANDIDATES];
	*c = (struct direct_candidate){ .cr3 = cr3 };
	return c;
}

void direct_sample(struct vcpu *vcpu, struct direct *d)
{
	u64 tsc = direct_now(), entries = vcpu->mmu->user_entries, cr3 = space_key(vcpu), passed = tsc - d->sampled_at;
	if (cr3 == d->sampled_cr3 && passed < direct_us(SAMPLE)) /* that would look like a short burst */
		return;
	if (cr3 == d->sampled_cr3 && d->sampled_at) {
		struct direct_candidate *c = candidate_of(d, cr3);
		if (passed / (entries - d->sampled_entries + 1) >= direct_us(BURST))
			c->busy += MIN(passed, direct_us(5000));
		else
			c->busy /= 2;
	}
	d->promoting = false;
	for (unsigned i = 0; i < DIRECT_CANDIDATES; i++)
		d->promoting |= d->candidate[i].busy >= direct_us(BUSY_ENOUGH);
	d->sampled_at = tsc;
	d->sampled_entries = entries;
	d->sampled_cr3 = cr3;
}

bool direct_promoted(struct vcpu *vcpu, struct direct *d)
{
	if (vcpu->direct == DIRECT_ALWAYS)
		return d->codes;
	if (d->not_before && direct_now() < d->not_before)
		return false;
	d->not_before = 0;
	for (unsigned i = 0; i < DIRECT_CANDIDATES; i++) {
		const struct direct_candidate *c = &d->candidate[i];
		if (c->cr3 == space_key(vcpu))
			return d->codes && c->busy >= direct_us(BUSY_ENOUGH) && (!c->not_before || direct_now() >= c->not_before);
	}
	return false;
}

bool direct_wanted(struct vcpu *vcpu)
{
	struct direct *d = direct_of(vcpu);
	if (d && vcpu->cpl == 3 && direct_now() - d->sampled_at > direct_us(SAMPLE))
		direct_sample(vcpu, d);
	return d && vcpu->cpl == 3 && !bt_of(vcpu)->lockstep && (d->promoting || vcpu->direct == DIRECT_ALWAYS) && direct_promoted(vcpu, d);
}

static void demote(struct vcpu *vcpu, struct direct *d, struct direct_space *s)
{
	struct direct_candidate *c = candidate_of(d, s->cr3);
	c->failures = (u8)MIN(c->failures + 1, 8);
	c->not_before = direct_now() + direct_us(30000ull << c->failures);
	c->busy = 0;
	s->useful = s->waited = s->wasted = s->total = s->runs = 0;
	d->count[DIRECT_DEMOTED]++;
}

/* ---- life of a space ---- */

void space_destroy(struct direct_space *s)
{
	if (!s)
		return;
	if (s->host)
		host_space_destroy(s->host);
	memory_destroy(s);
	code_destroy(s);
	host_free(s);
}

static struct direct_space *space_create(struct vcpu *vcpu, const struct host_code *code)
{
	struct direct_space *s = host_alloc(sizeof(*s));
	const struct ram *ram = vcpu->ram;
	if (!s)
		return NULL;
	s->code = *code;
	if (!memory_create(vcpu, s))
		s->host = host_space_create(&s->code, ram->memory, ram->memory_size, TABLES_SIZE);
	if (!s->host) {
		space_destroy(s);
		return NULL;
	}
	s->window = (struct direct_window *)(void *)s->host->window->user;
	direct_emit_stubs(s);
	code_flush(vcpu, s);
	s->logged = vcpu->ram->code_logged;
	direct_of(vcpu)->count[DIRECT_SPACES_MADE]++;
	return s;
}

void space_lose(struct vcpu *vcpu, struct direct_space *s)
{
	struct direct *d = direct_of(vcpu);
	for (unsigned i = 0; i < DIRECT_SPACES; i++)
		if (d->space[i] == s)
			d->space[i] = NULL;
	d->count[DIRECT_SPACES_LOST]++;
	demote(vcpu, d, s);
	space_destroy(s);
}

/* Of programs that have ended, most of them. */
static void destroy_forgotten(struct direct *d, u64 now)
{
	for (unsigned i = 0; i < d->codes; i++) {
		if (!d->space[i] || now - d->space[i]->last_used < direct_us(FORGOTTEN))
			continue;
		space_destroy(d->space[i]);
		d->space[i] = NULL;
		host_code_discard(&d->code[i], 0, d->code[i].size);
	}
}

struct direct_space *space_of(struct vcpu *vcpu, struct direct *d)
{
	struct direct_space **oldest = &d->space[0];
	for (unsigned i = 0; i < d->codes; i++) {
		struct direct_space *s = d->space[i];
		if (s && s->cr3 == space_key(vcpu))
			return s;
		if (*oldest && (!s || s->last_used < (*oldest)->last_used))
			oldest = &d->space[i];
	}
	u64 began = direct_now();
	destroy_forgotten(d, began);
	if (*oldest && began - (*oldest)->made < direct_us(KEPT))
		return NULL;
	d->count[DIRECT_PROMOTED]++;
	space_destroy(*oldest);
	*oldest = space_create(vcpu, &d->code[oldest - d->space]);
	if (!*oldest) { /* the host has none to give: not again soon */
		struct direct_candidate *c = candidate_of(d, space_key(vcpu));
		c->busy = 0;
		c->not_before = direct_now() + direct_us(1000000);
		return NULL;
	}
	(*oldest)->cr3 = space_key(vcpu);
	(*oldest)->modes = direct_modes(vcpu);
	(*oldest)->young = true;
	(*oldest)->made = began;
	d->count[DIRECT_TIME_CREATING] += direct_now() - began;
	return *oldest;
}

/* ---- whether they are worth it ---- */

void space_account(struct direct *d, struct direct_space *s, u64 entered)
{
	u64 ran = MIN(s->host->window->ran_to - s->host->window->ran_from, direct_now() - entered);
	u64 useful = ran - MIN(ran, s->in_place ? direct_us(TRAP) : 0);
	s->useful += useful;
	s->runs++;
	s->waited += direct_now() - entered - useful;
	d->count[DIRECT_TIME_WAITING] += direct_now() - entered - useful;
	d->count[DIRECT_TIME_RUNNING] += useful;
}

void space_wasted(struct direct_space *s)
{
	s->wasted = s->total - MIN(s->total, s->useful + s->waited);
}

/* What counts against a space is what recurs: journeys, and what was made for a program that has ended. What is made for code and memory that are
 * new lasts, and checked code would have had to be made for them too. Checked code takes some times as long as code in place, so a journey should take no longer than
 * what it leads to takes some times; a program that begins has its pages looked at one by one and is given more time.
 *
 * Where most of the time was spent waiting, the machine is too busy for two to hand over to each other, and that holds for every space. */
void space_judge(struct vcpu *vcpu, struct direct *d, struct direct_space *s)
{
	bool always = vcpu->direct == DIRECT_ALWAYS;
	if (s->total < direct_us(3000))
		return;
	bool crowded = !always && s->waited / (s->runs + 1) > direct_us(150) && s->waited > s->total / 2;
	if (crowded) {
		d->crowded = (u8)MIN(d->crowded + 1, 6);
		d->not_before = direct_now() + direct_us(50000ull << d->crowded);
	} else if (s->total < direct_us(s->young ? 40000 : 20000)) {
		return;
	}
	if (crowded || (!always && s->useful < (s->waited + s->wasted) / (s->young ? 25 : 4)))
		demote(vcpu, d, s);
	else
		d->crowded = 0;
	s->young = false;
	s->useful = s->waited = s->wasted = s->total = s->runs = 0;
}
