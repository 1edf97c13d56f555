/* SPDX-License-Identifier: GPL-2.0-or-later */
/* timer.c - Hierarchical timing wheel (Varghese and Lauck, 1987)
 *
 * Level l has 64 slots of 64^l ticks. A flow is queued on the lowest level
 * that reaches its tick; when the wheel comes to a slot of a higher level, the
 * flows in it are queued again, lower. A bitmap of non-empty slots for each
 * level lets the wheel jump over empty time, so that an idle hour costs as
 * little as an idle millisecond.
 *
 * Invariants (timers_check()):
 *  - a flow is in exactly one list if it wants a deadline (@timer_at not 0),
 *    and in none otherwise; @timer_slot says which
 *  - the list of a slot, or the due list, is doubly linked; a bit of
 *    @occupied is set exactly if the list is not empty
 *  - the wheel comes to a flow's slot no later than its deadline. Not exactly
 *    then: moving a deadline later only writes @timer_at, and the wheel queues
 *    the flow again when it comes to the old slot
 *
 * @timer_slot is 1 + slot, so that the zeros of a free entry mean "nowhere".
 */

#include "table/timer.h"

#include <assert.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/sys.h"

#define SLOT_BITS  6
#define SLOT_MASK  (TIMER_SLOTS - 1)
#define SLOT_DUE   (TIMER_LEVELS * TIMER_SLOTS)		/* the due list */
#define WHEEL_SPAN (1ULL << (SLOT_BITS * TIMER_LEVELS)) /* ticks */

_Static_assert(1 << SLOT_BITS == TIMER_SLOTS, "slots of a level");
_Static_assert(TIMER_SLOTS == 64, "one bitmap word for each level");

void timers_init(struct timers *t, int fd, uint64_t now)
{
	t->fd = fd;
	t->now = now;
	t->tick = now / TIMER_TICK;
	t->armed = 0;
	t->due = TIMER_NONE;
	t->queued = 0;
	for (unsigned level = 0; level < TIMER_LEVELS; level++) {
		t->occupied[level] = 0;
		for (unsigned i = 0; i < TIMER_SLOTS; i++)
			t->slot[level][i] = TIMER_NONE;
	}
}

static uint32_t *list_head(struct timers *t, uint32_t slot)
{
	if (slot == SLOT_DUE)
		return &t->due;
	return &t->slot[slot / TIMER_SLOTS][slot % TIMER_SLOTS];
}

static void list_add(struct timers *t, struct flow *flow, uint32_t slot)
{
	uint32_t *head = list_head(t, slot);
	uint32_t i = (uint32_t)(flow - t->flows);

	flow->rw.timer_slot = slot + 1;
	flow->rw.timer_prev = TIMER_NONE;
	flow->rw.timer_next = *head;
	if (*head != TIMER_NONE)
		t->flows[*head].rw.timer_prev = i;
	*head = i;
	if (slot != SLOT_DUE)
		t->occupied[slot / TIMER_SLOTS] |= 1ULL << slot % TIMER_SLOTS;
	t->queued++;
}

static void list_del(struct timers *t, struct flow *flow)
{
	uint32_t slot = flow->f.timer_slot - 1;
	uint32_t *head = list_head(t, slot);

	if (flow->f.timer_prev == TIMER_NONE)
		*head = flow->f.timer_next;
	else
		t->flows[flow->f.timer_prev].rw.timer_next = flow->f.timer_next;
	if (flow->f.timer_next != TIMER_NONE)
		t->flows[flow->f.timer_next].rw.timer_prev = flow->f.timer_prev;
	if (*head == TIMER_NONE && slot != SLOT_DUE)
		t->occupied[slot / TIMER_SLOTS] &=
			~(1ULL << slot % TIMER_SLOTS);
	flow->rw.timer_slot = 0;
	flow->rw.timer_next = 0;
	flow->rw.timer_prev = 0;
	t->queued--;
}

/* queue() - Put a flow, which is in no list, where its deadline belongs */
static void queue(struct timers *t, struct flow *flow)
{
	uint64_t at = flow->f.timer_at;
	uint64_t tick = at / TIMER_TICK + !!(at % TIMER_TICK);
	unsigned level = 0;
	uint64_t ahead;

	if (at <= t->now || tick <= t->tick) {
		list_add(t, flow, SLOT_DUE);
		return;
	}
	ahead = MIN(tick - t->tick, WHEEL_SPAN - 1);
	tick = t->tick + ahead;
	while (ahead >> (SLOT_BITS * (level + 1)))
		level++;
	list_add(t, flow,
		 level * TIMER_SLOTS +
			 (uint32_t)(tick >> (SLOT_BITS * level) & SLOT_MASK));
}

void timer_set(struct timers *t, struct flow *flow, uint64_t deadline)
{
	uint64_t old = flow->f.timer_at;

	flow->rw.timer_at = deadline;
	/* Later than the wheel comes to it: it will see for itself */
	if (old && deadline >= old && flow->f.timer_slot != SLOT_DUE + 1)
		return;
	if (old)
		list_del(t, flow);
	if (deadline)
		queue(t, flow);
}

/* level_next() - Tick at which the wheel comes to the next slot in use */
static uint64_t level_next(const struct timers *t, unsigned level)
{
	uint64_t here = t->tick >> (SLOT_BITS * level);
	unsigned shift = (here + 1) & SLOT_MASK;
	uint64_t map = t->occupied[level];

	if (!map)
		return UINT64_MAX;
	/* Bit 0: the slot after this one; bit 63: this one, a turn later */
	if (shift)
		map = map >> shift | map << (TIMER_SLOTS - shift);
	return (here + 1 + (unsigned)__builtin_ctzll(map))
	       << (SLOT_BITS * level);
}

static uint64_t wheel_next(const struct timers *t)
{
	uint64_t next = UINT64_MAX;

	for (unsigned level = 0; level < TIMER_LEVELS; level++)
		next = MIN(next, level_next(t, level));
	return next;
}

/* requeue() - Take all flows out of a slot, put each where it belongs now */
static void requeue(struct timers *t, uint32_t slot)
{
	uint32_t *head = list_head(t, slot);

	while (*head != TIMER_NONE) {
		struct flow *flow = &t->flows[*head];

		list_del(t, flow);
		queue(t, flow);
	}
}

/* advance() - Turn the wheel; what became due goes to the due list */
static void advance(struct timers *t, uint64_t now)
{
	uint64_t end = now / TIMER_TICK;

	t->now = now;
	while (t->tick < end) {
		uint64_t next = wheel_next(t);

		if (next > end) {
			t->tick = end;
			return;
		}
		t->tick = next;
		for (unsigned level = TIMER_LEVELS; level-- > 0;) {
			unsigned shift = SLOT_BITS * level;

			/* Else the wheel is within a slot of this level */
			if (!(next & ((1ULL << shift) - 1)))
				requeue(t, level * TIMER_SLOTS +
						   (uint32_t)(next >> shift &
							      SLOT_MASK));
		}
	}
}

struct flow *timer_expire(struct timers *t, uint64_t now)
{
	struct flow *flow;

	if (now > t->now)
		advance(t, now);
	if (t->due == TIMER_NONE)
		return NULL;
	flow = &t->flows[t->due];
	list_del(t, flow);
	flow->rw.timer_at = 0;
	return flow;
}

uint64_t timer_next(const struct timers *t)
{
	uint64_t next;

	if (t->due != TIMER_NONE)
		return t->now;
	next = wheel_next(t);
	return next == UINT64_MAX ? next : next * TIMER_TICK;
}

void timer_arm(struct timers *t, uint64_t latest)
{
	uint64_t next = MIN(timer_next(t), latest);
	struct itimerspec spec = { 0 };

	/* To wake up once for nothing is cheaper than to set it again and
	 * again for what mostly moves later: so it is never moved later */
	if (t->fd < 0 || next == UINT64_MAX || (t->armed && t->armed <= next))
		return;
	next = MAX(next, 1); /* 0 would disarm it */
	spec.it_value.tv_sec = (time_t)(next / NSEC_PER_SEC);
	spec.it_value.tv_nsec = (long)(next % NSEC_PER_SEC);
	if (!sys_timerfd_settime(t->fd, TFD_TIMER_ABSTIME, &spec, NULL))
		t->armed = next;
}

void timer_ack(struct timers *t)
{
	uint64_t times;

	t->armed = 0;
	/* Nothing to read is fine: it was armed anew since the event */
	if (t->fd >= 0 && sys_read(t->fd, &times, sizeof(times)) < 0)
		return;
}

static uint32_t check_list(const struct timers *t, uint32_t slot,
			   uint32_t first, uint32_t top)
{
	uint32_t prev = TIMER_NONE;
	uint32_t n = 0;

	for (uint32_t i = first; i != TIMER_NONE;) {
		const struct flow_common *f = &t->flows[i].f;

		assert(i < top && n < top);
		assert(f->state == FLOW_ACTIVE || f->state == FLOW_TYPED);
		assert(!f->closed && f->timer_at);
		assert(f->timer_slot == slot + 1 && f->timer_prev == prev);
		prev = i;
		i = f->timer_next;
		n++;
	}
	return n;
}

void timers_check(const struct timers *t, uint32_t top)
{
	uint32_t queued = check_list(t, SLOT_DUE, t->due, top);

	for (uint32_t slot = 0; slot < SLOT_DUE; slot++) {
		unsigned level = slot / TIMER_SLOTS, i = slot % TIMER_SLOTS;
		uint32_t first = t->slot[level][i];

		assert((first != TIMER_NONE) == (t->occupied[level] >> i & 1));
		queued += check_list(t, slot, first, top);
	}
	assert(queued == t->queued);
	for (uint32_t i = 0; i < top; i++) {
		const struct flow_common *f = &t->flows[i].f;

		if (f->state != FLOW_FREE)
			assert(!f->timer_at == !f->timer_slot);
	}
}
