/* SPDX-License-Identifier: GPL-2.0-or-later */
/* turn.c - One bounded run of the datapath: rounds, until it is to end
 *
 * A turn fetches what epoll has and runs a round (round.c), again and again,
 * and reads the clock once in between. It ends when nothing happens, when its
 * slice of time or its work is used up, or when Python is wanted.
 */

#include "core/turn.h"

#include <sys/epoll.h>

#include "base/macros.h"
#include "base/sys.h"
#include "core/gate.h"
#include "core/handlers.h"
#include "core/limits.h"
#include "core/round.h"
#include "link/tap_faults.h"

#define DEAD_BATCH 4 /* sockets closed before looking for events */

/* Credit of spinning: found an event, gave up, woke from sleep. A round of
 * sleeps that no spin would have shortened brings one spin in four at most. */
#define SPIN_HIT	4
#define SPIN_MISS	4
#define SPIN_WAKE	1
#define SPIN_CREDIT_MAX 32

/* A turn that is longer is timed closely if the one before it was, too: for short
 * ones the question costs too much */
#define TURN_LONG (500 * NSEC_PER_USEC)

#define BULK_PERIOD (500 * NSEC_PER_USEC) /* over which the rate is taken */
#define BULK_RATE   (50ULL << 20)	  /* bytes a second */

/* python_is_wanted() - Is there something that Python must see? */
static bool python_is_wanted(const struct datapath *dp)
{
	const struct stage *s = &dp->ctx.stage;

	return dp->gone || dp->punts.count || dp->ctx.inspected.n_news ||
	       s->untold_head != s->untold_tail;
}

/* fetch_gated() - Put what is behind the gate in the place of its event */
static int fetch_gated(const struct epoll_set *es, struct epoll_event *ev,
		       int n)
{
	for (int i = 0; i < n; i++) {
		union epoll_ref ref = { .u64 = ev[i].data.u64 };
		int more;

		if (ref.type != EPOLL_GATE)
			continue;
		ev[i] = ev[--n];
		more = sys_epoll_pwait(es->fd[EPOLL_GATED], ev + n,
				       EVENTS_MAX - n, 0, NULL);
		return more > 0 ? n + more : n;
	}
	return n;
}

/* fetch() - Ask epoll, without waiting, once everything it told is handled:
 * edges are gone once they are told
 * Return: is there anything to do? */
static bool fetch(struct datapath *dp)
{
	const struct epoll_set *es = &dp->ctx.epoll;
	struct events *e = &dp->events;
	int n;

	if (e->next < e->n)
		return true;
	n = sys_epoll_pwait(es->fd[EPOLL_MAIN], e->ev, EVENTS_MAX, 0, NULL);
	if (n > 0 && es->fd[EPOLL_GATED] >= 0)
		n = fetch_gated(es, e->ev, n);
	e->next = 0;
	e->n = n > 0 ? (unsigned)n : 0;
	return round_is_wanted(dp);
}

/* python_can_wait() - Others have something to do, which comes first for as
 * long as Python is going to take, and longer in a flood of what Python is asked
 * for: so open flows keep their share, and Python gets more at a time */
static bool python_can_wait(struct datapath *dp)
{
	const struct ctx *c = &dp->ctx;
	uint64_t first = admit_is_flooded(&c->admit, c->now) ?
				 WORK_PYTHON_FLOODED :
				 WORK_PYTHON;

	return !dp->gone && c->budget.turn < first && fetch(dp);
}

/* idle() - Nothing happens: close what waits for it, unless something does
 * Return: is there anything to do? */
static bool idle(struct datapath *dp)
{
	while (dp->ctx.n_dead) {
		ctx_close_dead(&dp->ctx, DEAD_BATCH);
		if (fetch(dp))
			return true;
	}
	return false;
}

static void spin_earn(struct datapath *dp, uint32_t credit)
{
	dp->spin_credit = MIN(dp->spin_credit + credit, SPIN_CREDIT_MAX);
}

/* is_bulk() - Do bytes flow so fast that latency does not matter?
 *
 * Then sleeping is better: more comes at once, and at less CPU for each byte.
 */
static bool is_bulk(struct datapath *dp)
{
	const struct ctx *c = &dp->ctx;
	uint64_t moved = c->cnt.n[CNT_TAP_RX_BYTES] +
			 c->cnt.n[CNT_TAP_TX_BYTES] +
			 c->cnt.n[CNT_SPLICE_BYTES];
	uint64_t elapsed = c->now - dp->bulk_since;

	if (elapsed >= BULK_PERIOD) {
		dp->bulk = (moved - dp->bulk_moved) * NSEC_PER_SEC / elapsed >=
			   BULK_RATE;
		dp->bulk_since = c->now;
		dp->bulk_moved = moved;
	}
	return dp->bulk;
}

/* spin_may() - Is it worth to poll instead of sleeping now? */
static bool spin_may(struct datapath *dp, const struct turn_limits *limits)
{
	return !time_is_virtual(&dp->ctx) && dp->spin_credit >= SPIN_MISS &&
	       dp->ctx.now - dp->last_event < limits->spin && !is_bulk(dp);
}

/* spin() - Poll for a while after the last event
 * Return: is there anything to do? false: in vain, or not worth trying */
static bool spin(struct datapath *dp, const struct turn_limits *limits)
{
	struct ctx *c = &dp->ctx;

	if (!spin_may(dp, limits))
		return false;
	while (c->now - dp->last_event < limits->spin) {
		bool found = fetch(dp);

		c->now = clock_now();
		if (found || tap_poll(&c->tap)) {
			count(&c->cnt, CNT_SPINS_HIT);
			spin_earn(dp, SPIN_HIT);
			return true;
		}
	}
	count(&c->cnt, CNT_SPINS_MISS);
	dp->spin_credit -= SPIN_MISS;
	return false;
}

/* look() - Find something to do, longer if it is worth it
 * Return: false: nothing, go to sleep */
static bool look(struct datapath *dp, const struct turn_limits *limits)
{
	struct tap *t = &dp->ctx.tap;

	if (fetch(dp) || tap_poll(t) || idle(dp))
		return true;
	if (tap_faults_settle(t) || spin(dp, limits))
		return true;
	tap_settle(t);
	return t->more;
}

/* is_used_up() - Has this turn taken what a turn may take? */
static bool is_used_up(const struct ctx *c, uint64_t end)
{
	return c->now > end || c->budget.turn >= WORK_TURN;
}

/* turn_loop() - Rounds until idle, until Python is wanted, or out of slice */
static void turn_loop(struct datapath *dp, const struct turn_limits *limits)
{
	struct ctx *c = &dp->ctx;
	uint64_t end = c->now + limits->slice;
	bool busy = fetch(dp);

	do {
		round_run(dp);
		if (python_is_wanted(dp) && !python_can_wait(dp))
			return;
		if (!time_is_virtual(c))
			c->now = clock_now();
		if (is_used_up(c, end))
			return;
		if (busy)
			dp->last_event = c->now;
		busy = look(dp, limits);
	} while (busy);
}

/* wake_at() - When the datapath must run again though nothing happens */
static uint64_t wake_at(const struct datapath *dp)
{
	const struct ctx *c = &dp->ctx;
	uint64_t at = UINT64_MAX;

	if (round_is_wanted(dp))
		return c->now;
	if (c->ft.closing)
		at = c->ft.closing_since + FLOW_DEFER_AGE;
	if (c->stage.pending)
		at = MIN(at, c->stage.next_expiry);
	at = MIN(at, dp->reassembly.next_expiry);
	at = MIN(at, c->listeners.resume_at);
	at = MIN(at, limits_next(c));
	at = MIN(at, tap_due(&c->tap));
	if (dp->flood.dropped)
		at = MIN(at, dp->flood.end);
	return at;
}

/* capture_flush() - Have captured frames written, and tell what went wrong */
static void capture_flush(struct ctx *c)
{
	struct pcap *pcap = &c->tap.pcap;
	bool on = pcap->fd >= 0;
	uint64_t lost;

	pcap_flush(pcap);
	lost = pcap_lost(pcap);
	if (lost)
		flow_log(&c->log, c->now, PCAP_LOST, NULL, lost, 0, 0, 0);
	if (on && pcap->fd < 0)
		flow_log(&c->log, c->now, PCAP_FAILED, NULL, pcap->error, 0, 0,
			 0);
}

/* before_sleep() - Do what must not wait for the next event; but when Python
 * is wanted the next turn follows at once, and nobody sleeps */
static void before_sleep(struct datapath *dp)
{
	struct ctx *c = &dp->ctx;
	bool sleep = !python_is_wanted(dp);

	tap_settle(&c->tap);
	dp->flush_more = handlers_flush(c, sleep);
	if (sleep)
		ctx_close_dead(c, CTX_DEAD_MAX);
	tap_flush(&c->tap);
	gate_sync(dp);
	capture_flush(c);
	if (!time_is_virtual(c))
		timer_arm(&c->timers, wake_at(dp));
}

/* turn_counted() - What a turn took; @used: the processor time before it, or 0
 *
 * By the clock a turn is as long as it was and as others had the processor.
 */
static void turn_counted(struct datapath *dp, uint64_t begin, uint64_t used)
{
	struct ctx *c = &dp->ctx;
	uint64_t took = c->now - begin;

	count_max(&c->cnt, CNT_TURN_WORK_MAX, c->budget.turn);
	count_max(&c->cnt, CNT_TURN_NS_MAX, took);
	dp->long_turns = took >= TURN_LONG && !time_is_virtual(c);
	if (dp->long_turns && used)
		count_max(&c->cnt, CNT_TURN_CPU_NS_MAX, clock_used() - used);
}

int datapath_turn(struct datapath *dp, const struct turn_limits *limits)
{
	struct ctx *c = &dp->ctx;
	uint64_t begin, used;

	count(&c->cnt, CNT_TURNS);
	c->budget.turn = 0;
	spin_earn(dp, SPIN_WAKE);
	dp->punts.count = 0;
	dp->punts.fill = 0;
	c->now = limits->now ? limits->now : clock_now();
	begin = c->now;
	used = dp->long_turns ? clock_used() : 0;
	turn_loop(dp, limits);
	before_sleep(dp);
	turn_counted(dp, begin, used);
	return -dp->gone;
}
