/* SPDX-License-Identifier: GPL-2.0-or-later */
/* meter.c - Limits: how fast flows move, how much in all, and how many there are
 *
 * A flow that found its bucket empty is no sooner served than the bucket has
 * enough for a few packets again (worth()): else each packet would pay for a
 * wake-up, and windows would open by a few bytes (RFC 9293 3.8.6.2.2). Those who
 * wait are called for in their order, and share what there is.
 */

#include "table/meter.h"

#include <errno.h>

#include "base/macros.h"
#include "table/ready.h"

#define BURST_MIN  3000	       /* two packets, however slow */
#define WORTH	   (64U << 10) /* bytes that are worth to be woken for */
#define SHARE	   (16U << 10) /* of one of many who wait, at least */
#define WORTH_RATE (NSEC_PER_SEC / (2 * NSEC_PER_MSEC))

static enum meter_dir dir_of(const struct flow *flow, unsigned from)
{
	return flow->f.pif[from] == PIF_HOST ? METER_IN : METER_OUT;
}

static unsigned side_of(const struct flow *flow, enum meter_dir dir)
{
	return dir_of(flow, INISIDE) == dir ? INISIDE : TGTSIDE;
}

/* FOR_EACH_METER() - Those that a flow is under */
#define FOR_EACH_METER(m, ft, flow)                                             \
	for (unsigned m##_i = 0; m##_i < FLOW_METERS; m##_i++)                  \
		for (struct meter *m =                                          \
			     (flow)->f.meter[m##_i] ?                           \
				     &(ft)->meters                              \
					      ->meter[(flow)->f.meter[m##_i]] : \
				     NULL;                                      \
		     m; m = NULL)

/* Buckets */

static void bucket_fill(struct bucket *b, uint64_t now)
{
	uint64_t ns, part, earned;

	if (!b->rate || now <= b->filled)
		return;
	ns = now - b->filled;
	part = ns % NSEC_PER_SEC * b->rate;
	earned = ns / NSEC_PER_SEC * b->rate + part / NSEC_PER_SEC;
	b->has = MIN(b->has + (int64_t)earned, (int64_t)b->most);
	b->at_once = MIN(b->at_once + (int64_t)earned, 2 * (int64_t)b->most);
	/* What is less than a byte is time that has yet to count */
	b->filled = now - part % NSEC_PER_SEC / b->rate;
}

/* bucket_set() - Another rate; what was saved stays, as far as there is room */
static void bucket_set(struct bucket *b, uint64_t rate, uint64_t most,
		       uint64_t now)
{
	bool fresh = !b->rate;

	bucket_fill(b, now);
	b->rate = rate;
	b->most = most;
	b->has = fresh ? (int64_t)most : MIN(b->has, (int64_t)most);
	b->at_once = MIN(fresh ? INT64_MAX : b->at_once, 2 * (int64_t)most);
	if (fresh)
		b->filled = now;
}

/* worth() - How much has to be there for somebody who found nothing */
static uint64_t worth(const struct bucket *b)
{
	return MIN(b->most / 2, MAX((uint64_t)WORTH, b->rate / WORTH_RATE));
}

static bool is_empty(const struct bucket *b)
{
	return b->rate && b->has < (int64_t)worth(b);
}

/* worth_at() - ns when that much is there */
static uint64_t worth_at(const struct bucket *b)
{
	int64_t missing = (int64_t)worth(b) - b->has;

	if (missing <= 0)
		return b->filled;
	/* Rounded up, or it would be looked at a moment too early */
	return b->filled + (uint64_t)missing / b->rate * NSEC_PER_SEC +
	       ((uint64_t)missing % b->rate * NSEC_PER_SEC) / b->rate + 1;
}

/* share() - Bytes for one flow: all, unless others wait */
static uint64_t share(const struct bucket *b, const struct meter_line *line)
{
	uint64_t least = MIN(worth(b), (uint64_t)SHARE);

	return MAX((uint64_t)b->has / (line->count + 1), least);
}

/* Lines */

static void line_add(struct flow_table *ft, uint16_t number, struct flow *flow,
		     unsigned from)
{
	enum meter_dir dir = dir_of(flow, from);
	struct meter_line *line = &ft->meters->meter[number].line[dir];
	uint32_t link = flow_index(ft, flow) + 1;
	struct flow *last;

	flow->rw.waits[from] = number;
	flow->rw.wait_prev[from] = line->tail;
	if (line->tail) {
		last = &ft->flows[line->tail - 1];
		last->rw.wait_next[side_of(last, dir)] = link;
	} else {
		line->head = link;
		line->passed = 0;
	}
	line->tail = link;
	line->count++;
}

static void line_remove(struct flow_table *ft, struct flow *flow, unsigned from)
{
	enum meter_dir dir = dir_of(flow, from);
	uint32_t prev = flow->f.wait_prev[from], next = flow->f.wait_next[from];
	struct meter_line *line;
	struct flow *other;

	if (!flow->f.waits[from])
		return;
	line = &ft->meters->meter[flow->f.waits[from]].line[dir];
	if (prev) {
		other = &ft->flows[prev - 1];
		other->rw.wait_next[side_of(other, dir)] = next;
	} else {
		line->head = next;
	}
	if (next) {
		other = &ft->flows[next - 1];
		other->rw.wait_prev[side_of(other, dir)] = prev;
	} else {
		line->tail = prev;
	}
	line->count--;
	flow->rw.waits[from] = 0;
	flow->rw.wait_next[from] = flow->rw.wait_prev[from] = 0;
}

/* line_wake() - Call for the first @n who wait */
static void line_wake(struct flow_table *ft, struct meter_line *line,
		      enum meter_dir dir, uint64_t n)
{
	line->passed = 0;
	for (; n && line->head; n--) {
		struct flow *flow = &ft->flows[line->head - 1];
		unsigned from = side_of(flow, dir);

		line_remove(ft, flow, from);
		ready_add(ft, flow, from);
	}
}

/* bucket_wake() - Whoever may go on; returns when to look again */
static uint64_t bucket_wake(struct flow_table *ft, struct meter *m,
			    enum meter_dir dir, uint64_t now)
{
	struct meter_line *line = &m->line[dir];
	struct bucket *b = &m->bucket[dir];

	if (!line->count)
		return UINT64_MAX;
	bucket_fill(b, now);
	if (!b->rate)
		line_wake(ft, line, dir, line->count);
	else if (!is_empty(b))
		line_wake(ft, line, dir,
			  (uint64_t)b->has / MIN(worth(b), (uint64_t)SHARE));
	if (!line->count)
		return UINT64_MAX;
	/* Who was called takes it before somebody else is */
	return MAX(worth_at(b), now + worth(b) * NSEC_PER_SEC / b->rate);
}

void meters_wake(struct flow_table *ft, uint64_t now)
{
	struct meters *all = ft->meters;

	if (!all || now < all->next_at)
		return;
	all->next_at = UINT64_MAX;
	for (uint32_t i = 1; i < all->top; i++) {
		for (unsigned dir = 0; dir < METER_DIRS; dir++) {
			uint64_t at = bucket_wake(ft, &all->meter[i],
						  (enum meter_dir)dir, now);

			all->next_at = MIN(all->next_at, at);
		}
	}
}

/* Setting them */

static uint16_t number_of(const struct flow_table *ft, uint32_t rule)
{
	for (uint32_t i = 1; ft->meters && i < ft->meters->top; i++) {
		const struct meter *m = &ft->meters->meter[i];

		if (m->rule == rule && (m->listed || m->counts.flows))
			return (uint16_t)i;
	}
	return 0;
}

/* unused_number() - A place for another one, or 0 */
static uint16_t unused_number(struct meters *all)
{
	for (uint32_t i = 1; i < all->top; i++)
		if (!all->meter[i].listed && !all->meter[i].counts.flows)
			return (uint16_t)i;
	return all->top <= METERS_MAX ? (uint16_t)all->top++ : 0;
}

/* is_spent() - Has it moved all that it may in a direction? */
static bool is_spent(const struct meter *m, enum meter_dir dir)
{
	return m->limits.total[dir] &&
	       m->counts.used[dir] >= m->limits.total[dir];
}

static void limits_set(struct flow_table *ft, struct meter *m,
		       const struct meter_limits *limits, uint64_t now)
{
	bool was_spent = m->spent;

	m->limits = *limits;
	m->spent = is_spent(m, METER_IN) || is_spent(m, METER_OUT);
	for (unsigned dir = 0; dir < METER_DIRS; dir++) {
		uint64_t rate = limits->rate[dir];
		uint64_t most = rate / (NSEC_PER_SEC / METER_BURST);

		bucket_set(&m->bucket[dir], rate,
			   MAX(most, (uint64_t)BURST_MIN), now);
		line_wake(ft, &m->line[dir], (enum meter_dir)dir,
			  m->line[dir].count); /* time is another now */
	}
	bucket_set(&m->opening, limits->new_flows, limits->new_flows, now);
	if (m->spent && !was_spent)
		ft->meters->closing = true;
}

int meters_set(struct flow_table *ft, uint32_t rule,
	       const struct meter_limits *limits, uint64_t now)
{
	struct meter *m;
	uint16_t number;

	if (!ft->meters) {
		ft->meters = ft->meters_room;
		ft->meters->top = 1;
		ft->meters->next_at = UINT64_MAX;
	}
	number = number_of(ft, rule);
	if (!number) {
		number = unused_number(ft->meters);
		if (!number)
			return -ENOSPC;
		ft->meters->meter[number] = (struct meter){ .rule = rule };
	}
	m = &ft->meters->meter[number];
	m->listed = true;
	limits_set(ft, m, limits, now);
	return 0;
}

void meters_clear(struct flow_table *ft, uint32_t rule)
{
	static const struct meter_limits none;
	uint16_t number = number_of(ft, rule);

	if (!number)
		return;
	limits_set(ft, &ft->meters->meter[number], &none, 0);
	ft->meters->meter[number].listed = false;
}

/* The life of a flow */

void meters_find(struct flow_table *ft, struct flow *flow)
{
	if (!ft->meters)
		return;
	flow->rw.meter[FLOW_METER_RULE] =
		flow->f.rule ? number_of(ft, flow->f.rule) : 0;
	flow->rw.meter[FLOW_METER_GUEST] = number_of(ft, METER_GUEST);
}

void meters_enter(struct flow_table *ft, struct flow *flow)
{
	if (!meter_has(flow))
		return;
	FOR_EACH_METER(m, ft, flow)
	{
		m->counts.flows++;
		if (m->spent) {
			ft->meters->closing = true;
			ft->meters->cursor = 0;
		}
	}
}

void meters_leave(struct flow_table *ft, struct flow *flow)
{
	if (!meter_has(flow))
		return;
	for (unsigned from = 0; from < SIDES; from++)
		line_remove(ft, flow, from);
	FOR_EACH_METER(m, ft, flow)
	{
		if (--m->counts.flows)
			continue;
		m->bucket[METER_IN].promised = 0;
		m->bucket[METER_OUT].promised = 0;
	}
	for (unsigned i = 0; i < FLOW_METERS; i++)
		flow->rw.meter[i] = 0;
}

/* admits() - May another flow begin? Counted if not */
static bool admits(struct flow_table *ft, struct meter *m, uint64_t now)
{
	bucket_fill(&m->opening, now);
	if (!m->spent &&
	    (!m->limits.flows || m->counts.flows < m->limits.flows) &&
	    (!m->opening.rate || m->opening.has >= 1))
		return true;
	m->counts.refused++;
	count(ft->cnt, CNT_METER_REFUSED);
	return false;
}

bool meters_admit(struct flow_table *ft, uint32_t rule, uint64_t now)
{
	uint16_t number[FLOW_METERS];

	number[FLOW_METER_RULE] = rule ? number_of(ft, rule) : 0;
	number[FLOW_METER_GUEST] = number_of(ft, METER_GUEST);
	for (unsigned i = 0; i < FLOW_METERS; i++)
		if (number[i] &&
		    !admits(ft, &ft->meters->meter[number[i]], now))
			return false;
	for (unsigned i = 0; i < FLOW_METERS; i++)
		if (number[i])
			ft->meters->meter[number[i]].opening.has--;
	return true;
}

int meters_admit_open(struct flow_table *ft, const struct flow *flow,
		      uint32_t rule, uint64_t now)
{
	uint16_t number = rule ? number_of(ft, rule) : 0;
	struct meter *m = number ? &ft->meters->meter[number] : NULL;

	if (!m || number == flow->f.meter[FLOW_METER_RULE])
		return 0;
	if (!admits(ft, m, now))
		return m->spent ? -EDQUOT : -EUSERS;
	m->opening.has--;
	return 0;
}

bool meters_end(struct flow_table *ft, const struct flow *flow)
{
	bool spent = false;

	FOR_EACH_METER(m, ft, flow)
	{
		spent |= m->spent;
		m->counts.closed += m->spent;
	}
	if (spent)
		count(ft->cnt, CNT_METER_CLOSED);
	return spent;
}

/* Moving bytes */

uint64_t meter_left(const struct flow_table *ft, const struct flow *flow,
		    unsigned from)
{
	enum meter_dir dir = dir_of(flow, from);
	uint64_t left = UINT64_MAX;

	FOR_EACH_METER(m, ft, flow)
	{
		uint64_t total = m->limits.total[dir];

		if (m->spent)
			return 0;
		if (total)
			left = MIN(left, total - m->counts.used[dir]);
	}
	return left;
}

uint32_t meter_allow(struct flow_table *ft, const struct flow *flow,
		     unsigned from, uint32_t want, uint64_t now)
{
	enum meter_dir dir = dir_of(flow, from);
	uint64_t may;

	if (flow->f.waits[from])
		return 0;
	may = meter_left(ft, flow, from) ? want : 0;
	FOR_EACH_METER(m, ft, flow)
	{
		struct bucket *b = &m->bucket[dir];

		bucket_fill(b, now);
		if (is_empty(b))
			return 0;
		if (b->rate)
			may = MIN(may, share(b, &m->line[dir]));
	}
	return (uint32_t)may;
}

uint32_t meter_most(const struct flow_table *ft, const struct flow *flow,
		    unsigned from)
{
	enum meter_dir dir = dir_of(flow, from);
	uint64_t most = UINT32_MAX;

	FOR_EACH_METER(m, ft, flow)
	if (m->bucket[dir].rate)
		most = MIN(most, m->bucket[dir].most);
	return (uint32_t)most;
}

void meter_take(struct flow_table *ft, const struct flow *flow, unsigned from,
		int64_t bytes)
{
	enum meter_dir dir = dir_of(flow, from);

	FOR_EACH_METER(m, ft, flow)
	{
		struct bucket *b = &m->bucket[dir];

		b->promised = MAX(b->promised + bytes, 0);
		if (b->rate)
			b->has = MIN(b->has - bytes, (int64_t)b->most);
	}
}

/* spend() - A total is reached: its flows end, and it is told once */
static void spend(struct flow_table *ft, struct meter *m, enum meter_dir dir,
		  uint64_t now)
{
	if (m->spent)
		return;
	m->spent = true;
	ft->meters->closing = true;
	ft->meters->cursor = 0;
	flow_log(ft->log, now, METER_SPENT, NULL, m->rule, dir == METER_OUT,
		 m->counts.used[dir], 0);
}

void meter_count(struct flow_table *ft, const struct flow *flow, unsigned from,
		 uint64_t bytes, uint64_t now)
{
	enum meter_dir dir = dir_of(flow, from);

	FOR_EACH_METER(m, ft, flow)
	{
		struct bucket *b = &m->bucket[dir];

		bucket_fill(b, now);
		b->promised = MAX(b->promised - (int64_t)bytes, 0);
		b->at_once -= b->rate ? (int64_t)bytes : 0;
		m->counts.used[dir] += bytes;
		if (is_spent(m, dir))
			spend(ft, m, dir, now);
	}
}

/* datagrams_in() - How many whole ones there is room for
 *
 * They may take in advance what no window was promised; windows that nobody
 * uses leave them what is there. One that is longer goes when the bucket is full,
 * or none ever would. Those who wait get a turn after as much as they wait for:
 * else datagrams took all. */
static uint64_t datagrams_in(struct bucket *b, const struct meter_line *line,
			     uint32_t size, uint64_t now)
{
	int64_t room;

	bucket_fill(b, now);
	if (!b->rate)
		return UINT64_MAX;
	if (line->count && line->passed >= worth(b))
		return 0;
	room = MAX(b->at_once - b->promised, b->has);
	if (room >= size)
		return (uint64_t)room / size;
	return b->has >= (int64_t)b->most;
}

uint32_t meter_datagrams(struct flow_table *ft, const struct flow *flow,
			 unsigned from, uint32_t bytes, uint32_t size,
			 uint64_t now)
{
	enum meter_dir dir = dir_of(flow, from);
	uint64_t may = bytes;
	uint64_t lost;

	if (!bytes)
		return 0;
	FOR_EACH_METER(m, ft, flow)
	{
		uint64_t total = m->limits.total[dir];
		uint64_t n =
			datagrams_in(&m->bucket[dir], &m->line[dir], size, now);

		if (n < UINT32_MAX)
			may = MIN(may, n * size);
		if (m->spent)
			may = 0;
		else if (total && may > total - m->counts.used[dir]) {
			may = ROUND_DOWN(total - m->counts.used[dir], size);
			spend(ft, m, dir, now);
		}
	}
	lost = (bytes - may + size - 1) / size;
	if (lost) {
		count_n(ft->cnt, CNT_METER_DROPPED, lost);
		FOR_EACH_METER(m, ft, flow)
		m->counts.dropped[dir] += lost;
	}
	FOR_EACH_METER(m, ft, flow)
	m->line[dir].passed += may;
	meter_move(ft, flow, from, may, now);
	return (uint32_t)may;
}

void meter_wait(struct flow_table *ft, struct flow *flow, unsigned from,
		uint64_t now)
{
	enum meter_dir dir = dir_of(flow, from);

	if (flow->f.waits[from] || !meter_left(ft, flow, from))
		return;
	FOR_EACH_METER(m, ft, flow)
	{
		struct bucket *b = &m->bucket[dir];

		bucket_fill(b, now);
		if (!is_empty(b))
			continue;
		count(ft->cnt, CNT_METER_WAITS);
		line_add(ft, (uint16_t)(m - ft->meters->meter), flow, from);
		ft->meters->next_at = MIN(ft->meters->next_at, worth_at(b));
		return;
	}
	ready_add(ft, flow, from);
}

static void line_check(const struct flow_table *ft, uint32_t number,
		       enum meter_dir dir)
{
	const struct meter *m = &ft->meters->meter[number];
	uint32_t prev = 0, n = 0;

	for (uint32_t link = m->line[dir].head; link; n++) {
		const struct flow *flow = &ft->flows[link - 1];
		unsigned from = side_of(flow, dir);

		assert(link <= ft->top && n < ft->top);
		assert(flow->f.state == FLOW_ACTIVE && !flow->f.closed);
		assert(flow->f.waits[from] == number);
		assert(flow->f.wait_prev[from] == prev);
		prev = link;
		link = flow->f.wait_next[from];
	}
	assert(prev == m->line[dir].tail && n == m->line[dir].count);
}

void meters_check(const struct flow_table *ft)
{
	if (!ft->meters)
		return;
	for (uint32_t i = 1; i < ft->meters->top; i++) {
		line_check(ft, i, METER_IN);
		line_check(ft, i, METER_OUT);
	}
}
