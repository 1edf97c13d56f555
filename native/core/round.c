/* SPDX-License-Identifier: GPL-2.0-or-later */
/* round.c - One round: everybody who has something to do gets a share
 *
 * Sources are served by kind: the tap, flows of the ready list, what epoll
 * told, deadlines, what is to be closed. Each kind has an allowance of work
 * (base/budget.h), so that none can keep the others waiting, and within a kind
 * everybody has a share: who wants more stands in line for the next round.
 */

#include "core/round.h"

#include <errno.h>
#include <sys/epoll.h>

#include "core/dispatch.h"
#include "core/gate.h"
#include "core/handlers.h"
#include "core/limits.h"

/* Deadlines served before others' turn, if each costs what it may */
#define TIMERS_SHARED (WORK_ROUNDS * WORK_ROUND / WORK_SHARE_MIN)

/* guest_gone() - The tap is at its end; another guest may come for some */
static void guest_gone(struct datapath *dp, int err)
{
	struct tap *t = &dp->ctx.tap;

	dp->gone = err;
	if (t->ops->detach)
		datapath_detach(dp);
	else
		tap_deafen(t);
}

/* tap_ready() - Another batch of the guest's frames; the one before it first */
static void tap_ready(struct datapath *dp)
{
	int n;

	if (dispatch_has_rest(dp)) {
		dispatch_rest(dp);
		return;
	}
	n = dispatch_tap(dp);
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
	/* A device that is deleted tells it once, before its reads fail */
	if (events & EPOLLERR && !dp->gone)
		guest_gone(dp, ENODEV);
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

static void shared_ready(struct ctx *c, union epoll_ref ref, uint32_t events)
{
	const struct handler *h = handlers[epoll_shared_type(ref)];

	h->from_port(c, epoll_shared_index(ref), (int)ref.fd, events);
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
	case EPOLL_SHARED:
		shared_ready(&dp->ctx, ref, ev->events);
		break;
	default:
		flow_ready(&dp->ctx, ref, ev->events);
		break;
	}
}

static void serve_tap(struct datapath *dp)
{
	struct ctx *c = &dp->ctx;

	if (!c->tap.more && !dispatch_has_rest(dp))
		return;
	budget_open(&c->budget, WORK_ROUND, 1);
	if (budget_next(&c->budget))
		tap_ready(dp);
}

/* serve_ready() - Flows that were not finished, once around */
static void serve_ready(struct ctx *c)
{
	uint32_t n = c->ft.ready.count;

	budget_open(&c->budget, WORK_ROUND, n);
	for (; n && budget_next(&c->budget); n--) {
		unsigned sides;
		struct flow *flow = ready_take(&c->ft, &sides);

		if (!flow) /* some were closed meanwhile */
			return;
		for (unsigned i = 0; i < SIDES; i++) {
			if (sides >> i & 1 && !flow->f.closed)
				handlers[flow->f.type]->from_sock(
					c, flow, i, EPOLLIN | EPOLLOUT);
		}
	}
}

static void serve_events(struct datapath *dp)
{
	struct events *e = &dp->events;
	struct budget *b = &dp->ctx.budget;

	budget_open(b, WORK_ROUND, e->n - e->next);
	while (e->next < e->n && budget_next(b)) {
		budget_spend(b, WORK_FRAME);
		event_handle(dp, &e->ev[e->next++]);
	}
}

/* serve_timers() - Let flows know that their deadline passed */
static void serve_timers(struct ctx *c)
{
	budget_open(&c->budget, WORK_ROUND, TIMERS_SHARED);
	while (budget_next(&c->budget)) {
		struct flow *flow = timer_expire(&c->timers, c->now);

		if (!flow)
			return;
		budget_spend(&c->budget, WORK_TIMER);
		handlers[flow->f.type]->timer(c, flow);
		if (flow->f.closed)
			budget_spend(&c->budget, WORK_CLOSE);
	}
}

/* forget_closed() - Events of flows that end: their entries are to be reused */
static void forget_closed(struct datapath *dp)
{
	struct events *e = &dp->events;
	unsigned kept = e->next;

	for (unsigned i = e->next; i < e->n; i++) {
		union epoll_ref ref = { .u64 = e->ev[i].data.u64 };

		if (ref.type != EPOLL_FLOW || flow_at(&dp->ctx.ft, ref.sidx))
			e->ev[kept++] = e->ev[i];
	}
	e->n = kept;
}

static void serve_closed(struct datapath *dp)
{
	struct ctx *c = &dp->ctx;

	if (!flow_defer_due(&c->ft, c->now))
		return;
	forget_closed(dp);
	flow_defer_scan(&c->ft, handlers_defer, c, c->now);
}

/* serve_behind() - Whoever waited for the end of a flow, and it has ended */
static void serve_behind(struct ctx *c)
{
	struct stage *s = &c->stage;

	for (uint32_t i = s->n_behind; i-- > 0;) {
		const struct miss *m = &s->miss[s->behind[i]];

		if (!flow_by_id(&c->ft, m->behind))
			stage_ask_again(s, i, c->now);
	}
}

bool round_is_wanted(const struct datapath *dp)
{
	const struct ctx *c = &dp->ctx;

	return dp->events.next < dp->events.n || c->tap.more ||
	       dispatch_has_rest(dp) || dp->flush_more || c->ft.ready.count ||
	       limits_is_wanted(c) || c->timers.due != TIMER_NONE;
}

void round_run(struct datapath *dp)
{
	struct ctx *c = &dp->ctx;

	listeners_resume(&c->listeners, &c->epoll, c->now);
	flood_look(dp);
	limits_obey(c);
	serve_tap(dp);
	serve_ready(c);
	serve_events(dp);
	serve_timers(c);
	dp->flush_more = handlers_flush(c, false);
	tap_flush(&c->tap);
	gate_sync(dp);
	serve_behind(c);
	stage_expire(&c->stage, c->now);
	reassembly_expire(&dp->reassembly, &c->tap, c->now);
	serve_closed(dp);
}
