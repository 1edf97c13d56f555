/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_state.c - The one place where the state of a connection changes
 *
 * The rest of TCP reports what happened; the table of tcp_steps.def says when
 * that may happen, and what follows from it.
 */

#include "proto/tcp_conn.h"

static void nothing(struct ctx *c, struct flow *flow)
{
	(void)c;
	(void)flow;
}

/* What went out counts as a byte; it is sent again until it is acknowledged */
static void await_ack(struct ctx *c, struct flow *flow)
{
	tcp_conn(flow)->snd_nxt++;
	tcp_timer_data_sent(c, flow);
}

static void take_ack(struct ctx *c, struct flow *flow)
{
	tcp_timer_acked(c, flow);
}

/* The guest's end is acknowledged; from now on it may forget the connection */
static void owe_ack(struct ctx *c, struct flow *flow)
{
	tcp_ack_at_flush(c, flow);
	tcp_timer_arm(c, flow);
}

#define TCP_EV_NOTHING 0

/** struct step - When an event may happen, and what follows
 * @after:	What must have happened before
 * @then:	What follows in every case
 */
static const struct step {
	uint16_t after;
	void (*then)(struct ctx *c, struct flow *flow);
} steps[] = {
#define TCP_STEP(event, after, then, what) \
	[TCP_STEP_##event] = { TCP_EV_##after, then },
#include "proto/tcp_steps.def"
#undef TCP_STEP
};

/* tcp_event() - Something happened to a connection: enter it, and do what
 * follows; an event that cannot happen now is a bug of ours */
void tcp_event(struct ctx *c, struct flow *flow, enum tcp_event event)
{
	const struct step *step = &steps[__builtin_ctz(event)];

	assert(tcp_has(flow, step->after));
	assert(!(flow->f.events & (event | TCP_EV_CLOSED)));
	flow_set_events(flow, flow->f.events | event);
	flow_log(&c->log, c->now, TCP_EVENT, flow, event, flow->f.events, 0, 0);
	step->then(c, flow);
}
