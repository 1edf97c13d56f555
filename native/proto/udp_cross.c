/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_cross.c - From a port that is closed in the client's family to the other one
 *
 * Everything is done by the flow's timer, when no buffer is in use: a refusal may
 * be heard of while the flow is opened, or while a batch is on its way.
 */

#include "proto/udp_cross.h"

#include <errno.h>

#include "proto/udp_flow.h"
#include "proto/udp_rx.h"
#include "proto/udp_sock.h"

/* Datagrams taken from a flow's own socket when it ends: more than come between
 * the first one and its refusal */
#define CROSS_DRAIN_MAX 64

void udp_cross_open(struct ctx *c, struct flow *flow, struct miss *m,
		    bool crosses)
{
	struct udp_flow *u = udp_flow_of(flow);
	uint64_t id = flow_id(&c->ft, flow);
	const struct stage_item *item;
	uint32_t pos = 0;

	if (!crosses)
		return;
	u->crosses = true;
	u->again = m->again;
	u->crossed = m->crossed != m->again;
	if (u->crossed &&
	    !udp_cross_served(c, (uint32_t)m->listener, &flow->f.side[INISIDE]))
		crossings_serve(&c->crossings, (uint32_t)m->listener, id);
	if (u->again)
		return;
	u->kept = crossings_begin(&c->crossings, id, c->now);
	while ((item = stage_next(&c->stage, m, &pos)))
		crossings_keep(&c->crossings, u->kept, item + 1, item->len);
}

/* is_unanswered() - May a refusal still be the first word of the other side? */
static bool is_unanswered(const struct flow *flow)
{
	return !flow->f.packets[TGTSIDE];
}

void udp_refused(struct ctx *c, struct flow *flow)
{
	struct udp_flow *u = udp_flow_of(flow);

	if (!u->crosses || u->refused || !is_unanswered(flow))
		return;
	u->refused = true;
	timer_set(&c->timers, flow,
		  u->again ? c->now + UDP_TIMEOUT_REFUSED : c->now);
}

/* park_rest() - What the client has sent meanwhile joins the miss */
static void park_rest(struct ctx *c, const struct flow *flow, struct miss *m)
{
	struct udp_rx rx;

	if (flow->f.fd[INISIDE] < 0)
		return; /* it has come to the listener, or will */
	for (unsigned n = 0; n < CROSS_DRAIN_MAX; n += rx.n) {
		if (udp_rx_batch(c, flow->f.fd[INISIDE], &rx, UDP_RX_LARGE,
				 false))
			return;
		for (unsigned i = 0; i < rx.n; i++) {
			const uint8_t *data = rx.iov[i][0].iov_base;
			uint32_t len = rx.mm[i].msg_len;
			uint32_t size = udp_rx_size(&rx, i), off = 0;

			do {
				if (stage_park(&c->stage, m, data + off,
					       MIN(size, len - off), NULL))
					count(&c->cnt, CNT_DROP_STAGE_FULL);
				off += size;
			} while (off < len);
		}
	}
}

/* ask_again() - The flow is a miss once more; false if there is no room */
static bool ask_again(struct ctx *c, const struct flow *flow)
{
	const struct udp_flow *u = udp_flow_of_const(flow);
	uint64_t id = flow_id(&c->ft, flow);
	const uint8_t *data;
	uint32_t pos = 0, len;
	struct miss *m;

	m = stage_refused(&c->stage, flow, -1, c->now);
	if (!m)
		return false;
	m->crossed = u->crossed;
	while ((data = crossings_next(&c->crossings, u->kept, id, c->now, &pos,
				      &len)))
		if (stage_park(&c->stage, m, data, len, NULL))
			count(&c->cnt, CNT_DROP_STAGE_FULL);
	park_rest(c, flow, m);
	count(&c->cnt, CNT_UDP_CROSSED);
	return true;
}

bool udp_cross_timer(struct ctx *c, struct flow *flow)
{
	struct udp_flow *u = udp_flow_of(flow);

	if (!u->refused)
		return false;
	u->refused = false;
	if (!is_unanswered(flow))
		return false;
	if (!u->again && !ask_again(c, flow)) {
		u->again = true;
		udp_refused(c, flow);
		return true;
	}
	flow_mark_closed(&c->ft, flow, WHY_REFUSED, ECONNREFUSED, c->now);
	/* At once: its own socket would take what its client sends next */
	udp_close(c, flow);
	return true;
}

static bool is_udp(const struct flow *flow)
{
	return flow->f.type == FLOW_UDP || flow->f.type == FLOW_UDP_SPLICE;
}

bool udp_cross_served(const struct ctx *c, uint32_t listener,
		      const struct flowside *key)
{
	const struct flow *flow =
		flow_by_id(&c->ft, crossings_served(&c->crossings, listener));

	return flow && is_udp(flow) &&
	       flow->f.side[INISIDE].oport == key->oport &&
	       udp_flow_of_const(flow)->crossed && !is_unanswered(flow) &&
	       udp_is_v4(flow, INISIDE) == inany_is_v4(&key->eaddr);
}
