/* SPDX-License-Identifier: GPL-2.0-or-later */
/* turn.c - One bounded run of the datapath
 *
 * Each round of a turn fetches what epoll has, handles all of it once, lets
 * handlers send what they put off, and reads the clock once. No source can
 * starve another: the tap gives one batch a round, a socket one event.
 */

#include "core/turn.h"

#include <sys/epoll.h>

#include "base/macros.h"
#include "core/dispatch.h"
#include "core/gate.h"
#include "core/handlers.h"
#include "link/tap_faults.h"

#define EVENTS_MAX 128	/* events of one round */
#define DEAD_BATCH 4	/* sockets closed before looking for events */
#define TIMERS_MAX 1024 /* deadlines handled in one round */

/* Credit of spinning: found an event, gave up, woke from sleep. A round of
 * sleeps that no spin would have shortened brings one spin in four at most. */
#define SPIN_HIT	4
#define SPIN_MISS	4
#define SPIN_WAKE	1
#define SPIN_CREDIT_MAX 32

#define BULK_PERIOD (500 * NSEC_PER_USEC) /* over which the rate is taken */
#define BULK_RATE   (50ULL << 20)	  /* bytes a second */

/* python_is_wanted() - Is there something that Python must see? */
static bool python_is_wanted(const struct datapath *dp)
{
	const struct stage *s = &dp->ctx.stage;

	return dp->gone || dp->punts.count || s->untold_head != s->untold_tail;
}

/* guest_gone() - The tap is at its end; another guest may come for some */
static void guest_gone(struct datapath *dp, int err)
{
	struct ctx *c = &dp->ctx;

	dp->gone = err;
	if (c->tap.ops->detach)
		datapath_detach(dp);
	else
		epoll_del_fixed(&c->epoll, EPOLL_TAP, c->tap.fd);
}

static void tap_ready(struct datapath *dp)
{
	int n = dispatch_tap(dp);

	if (n < 0)
		guest_gone(dp, -n);
}

/* tap_event() - Frames of the guest, or room for frames for it, or its end */
static void tap_event(struct datapath *dp, union epoll_ref ref, uint32_t events)
{
	struct tap *t = &dp->ctx.tap;

	if (t->fd != (int)ref.fd)
		return; /* of a guest that left in this round */
	if (events & EPOLLOUT)
		tap_room(t);
	if (events & ~(uint32_t)EPOLLOUT)
		tap_ready(dp);
}

static void listener_ready(struct ctx *c, union epoll_ref ref)
{
	struct listener *l = listener_get(&c->listeners, ref.data);

	if (l && l->fd == (int)ref.fd)
		handlers[handlers_type(l->ipproto, false)]->listen(c, l,
								   ref.data);
}

static void flow_ready(struct ctx *c, union epoll_ref ref, uint32_t events)
{
	struct flow *flow = flow_at(&c->ft, ref.sidx);
	unsigned sidei = ref.sidx.side;

	/* An event before this one may have closed the flow */
	if (flow && flow->f.fd[sidei] == (int)ref.fd)
		handlers[flow->f.type]->from_sock(c, flow, sidei, events);
}

static void event_handle(struct datapath *dp, const struct epoll_event *ev)
{
	union epoll_ref ref = { .u64 = ev->data.u64 };

	switch (ref.type) {
	case EPOLL_TAP:
		tap_event(dp, ref, ev->events);
		break;
	case EPOLL_ROOM:
		tap_room(&dp->ctx.tap);
		break;
	case EPOLL_TIMER:
		timer_ack(&dp->ctx.timers); /* timers run anyway */
		break;
	case EPOLL_LISTEN:
		listener_ready(&dp->ctx, ref);
		break;
	default:
		flow_ready(&dp->ctx, ref, ev->events);
		break;
	}
}

/* run_timers() - Let flows know that their deadline passed */
static void run_timers(struct ctx *c)
{
	for (unsigned i = 0; i < TIMERS_MAX; i++) {
		struct flow *flow = timer_expire(&c->timers, c->now);

		if (!flow)
			return;
		handlers[flow->f.type]->timer(c, flow);
	}
}

static void run_deferred(struct ctx *c)
{
	if (flow_defer_due(&c->ft, c->now))
		flow_defer_scan(&c->ft, handlers_defer, c, c->now);
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
		more = epoll_wait(es->fd[EPOLL_GATED], ev + n, EVENTS_MAX - n,
				  0);
		return more > 0 ? n + more : n;
	}
	return n;
}

/* fetch() - Ask epoll, without waiting; edges are gone once they are told */
static int fetch(struct datapath *dp, struct epoll_event *ev)
{
	const struct epoll_set *es = &dp->ctx.epoll;
	int n = epoll_wait(es->fd[EPOLL_MAIN], ev, EVENTS_MAX, 0);

	if (es->fd[EPOLL_GATED] < 0)
		return n;
	return fetch_gated(es, ev, n);
}

/* idle() - Nothing happens: close what waits for it, unless something does
 * Return: number of events */
static int idle(struct datapath *dp, struct epoll_event *ev)
{
	int n = 0;

	while (n <= 0 && dp->ctx.n_dead) {
		ctx_close_dead(&dp->ctx, DEAD_BATCH);
		n = fetch(dp, ev);
	}
	return n;
}

/* round_run() - Handle events once, and everything that follows from them */
static void round_run(struct datapath *dp, const struct epoll_event *ev, int n)
{
	struct ctx *c = &dp->ctx;

	if (c->tap.more)
		tap_ready(dp);
	for (int i = 0; i < n; i++)
		event_handle(dp, &ev[i]);
	run_timers(c);
	handlers_flush(c, false);
	tap_flush(&c->tap);
	gate_sync(dp);
	stage_expire(&c->stage, c->now);
	reassembly_expire(&dp->reassembly, &c->tap, c->now);
	run_deferred(c);
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
 * Return: number of events; 0: frames, if tap.more, or it was in vain or not
 * worth trying */
static int spin(struct datapath *dp, const struct turn_limits *limits,
		struct epoll_event *ev)
{
	struct ctx *c = &dp->ctx;

	if (!spin_may(dp, limits))
		return 0;
	while (c->now - dp->last_event < limits->spin) {
		int n = fetch(dp, ev);

		c->now = clock_now();
		if (n > 0 || tap_poll(&c->tap)) {
			count(&c->cnt, CNT_SPINS_HIT);
			spin_earn(dp, SPIN_HIT);
			return n;
		}
	}
	count(&c->cnt, CNT_SPINS_MISS);
	dp->spin_credit -= SPIN_MISS;
	return 0;
}

/* settle_faults() - Injected faults: frames held back go on before we sleep
 * Return: true when there is one to be read from the tap */
static bool settle_faults(struct tap *t)
{
#ifdef PASSTPY_FAULTS
	return tap_faults_settle(t);
#else
	(void)t;
	return false;
#endif
}

/* turn_loop() - Rounds until idle, until Python is wanted, or out of slice */
static void turn_loop(struct datapath *dp, const struct turn_limits *limits)
{
	struct epoll_event ev[EVENTS_MAX];
	struct ctx *c = &dp->ctx;
	uint64_t end = c->now + limits->slice;
	int n = fetch(dp, ev);

	for (;;) {
		bool busy = n > 0 || c->tap.more;

		round_run(dp, ev, n);
		if (python_is_wanted(dp))
			return;
		if (!time_is_virtual(c))
			c->now = clock_now();
		if (c->now > end)
			return;
		if (busy)
			dp->last_event = c->now;
		n = fetch(dp, ev);
		if (n <= 0 && !tap_poll(&c->tap))
			n = idle(dp, ev);
		if (n > 0 || c->tap.more)
			continue;
		if (settle_faults(&c->tap)) {
			tap_ready(dp);
			continue;
		}
		n = spin(dp, limits, ev);
		if (n > 0 || c->tap.more)
			continue;
		tap_settle(&c->tap);
		if (!c->tap.more)
			return;
	}
}

/* wake_at() - When the datapath must run again though nothing happens */
static uint64_t wake_at(const struct datapath *dp)
{
	const struct ctx *c = &dp->ctx;
	uint64_t at = UINT64_MAX;

	if (c->tap.more)
		return c->now;
	if (c->ft.closing)
		at = c->ft.closing_since + FLOW_DEFER_AGE;
	if (c->stage.pending)
		at = MIN(at, c->stage.next_expiry);
	at = MIN(at, dp->reassembly.next_expiry);
	return at;
}

/* before_sleep() - Do what must not wait for the next event; but when Python
 * is wanted the next turn follows at once, and nobody sleeps */
static void before_sleep(struct datapath *dp)
{
	struct ctx *c = &dp->ctx;
	bool sleep = !python_is_wanted(dp);

	tap_settle(&c->tap);
	handlers_flush(c, sleep);
	if (sleep)
		ctx_close_dead(c, CTX_DEAD_MAX);
	tap_flush(&c->tap);
	gate_sync(dp);
	pcap_flush(&c->tap.pcap);
	if (!time_is_virtual(c))
		timer_arm(&c->timers, wake_at(dp));
}

int datapath_turn(struct datapath *dp, const struct turn_limits *limits)
{
	struct ctx *c = &dp->ctx;

	count(&c->cnt, CNT_TURNS);
	spin_earn(dp, SPIN_WAKE);
	dp->punts.count = 0;
	dp->punts.fill = 0;
	c->now = limits->now ? limits->now : clock_now();
	turn_loop(dp, limits);
	before_sleep(dp);
	return -dp->gone;
}
