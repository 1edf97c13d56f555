/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_listen.c - UDP sockets that any peer may send to, and flows start from
 *
 * A listening socket sees the first datagrams of each peer, until the flow has
 * its own connected socket; and all datagrams of flows that could get none.
 */

#include "proto/udp_listen.h"

#include "proto/udp_cross.h"
#include "proto/udp_pass.h"

/* Datagrams taken from a queue while a flow is opened: far more than can come
 * in between */
#define UDP_DRAIN_MAX 64

/** struct opening - A flow that is being opened, and cannot be looked up yet
 * @flow:	Flow
 * @host:	Side that its peer is on
 */
struct opening {
	struct flow *flow;
	unsigned host;
};

static uint32_t number_of(const struct ctx *c, const struct listener *l)
{
	return (uint32_t)(l - c->listeners.slot);
}

/* park() - A datagram without a flow joins the miss of its peer, or makes one */
static void park(struct ctx *c, const struct listener *l,
		 const struct flowside *key, const void *data, uint32_t len)
{
	struct miss *m = stage_find(&c->stage, IPPROTO_UDP, l->pif, key);

	if (m) {
		if (stage_park(&c->stage, m, data, len, NULL))
			count(&c->cnt, CNT_DROP_STAGE_FULL);
		else
			count(&c->cnt, CNT_MISS_JOINED);
		return;
	}
	if (!admit_outside(&c->admit, &c->ft,
			   listener_get(&c->listeners, number_of(c, l)),
			   &key->eaddr, c->now))
		return;
	m = stage_add(&c->stage, IPPROTO_UDP, l->pif, key,
		      (int32_t)number_of(c, l), -1, c->now);
	if (!m)
		return;
	m->crossed = udp_cross_served(c, number_of(c, l), key);
	count(&c->cnt, CNT_MISS);
	if (stage_park(&c->stage, m, data, len, NULL)) {
		count(&c->cnt, CNT_DROP_STAGE_FULL);
		stage_release(&c->stage, m);
	}
}

static bool side_equal(const struct flowside *a, const struct flowside *b)
{
	return a->eport == b->eport && a->oport == b->oport &&
	       inany_equal(&a->eaddr, &b->eaddr) &&
	       inany_equal(&a->oaddr, &b->oaddr);
}

/**
 * take() - Datagram @i of a socket that any peer may send to
 * @l:		The listener, or that which the socket shares its port with
 * @addr:	Local address of the socket
 * @o:		Flow being opened, or NULL
 */
static void take(struct ctx *c, const struct listener *l,
		 const union inany *addr, const struct opening *o,
		 struct udp_rx *rx, unsigned i, struct tap_batch *b)
{
	struct flowside key = { .oaddr = *addr, .oport = l->port };
	uint8_t *data = rx->iov[i][0].iov_base;
	uint32_t len = rx->mm[i].msg_len;
	bool large = false;
	flow_sidx_t sidx;

	if (!udp_rx_whole(c, rx, i, &large))
		return;
	/* Without IP_PKTINFO a wildcard socket cannot know its own address */
	if ((!udp_rx_local(rx, i, &key.oaddr) && inany_is_any(&key.oaddr)) ||
	    inany_from_sa(&key.eaddr, &key.eport, &rx->peer[i]) || !key.eport ||
	    !inany_is_unicast(&key.eaddr)) {
		count(&c->cnt, CNT_DROP_ADDRESS);
		return;
	}
	if (o && side_equal(&key, &o->flow->f.side[o->host])) {
		udp_pass_one(c, o->flow, o->host, data, len, b);
		return;
	}
	sidx = flow_lookup(&c->ft, IPPROTO_UDP, l->pif, &key);
	if (flow_at(&c->ft, sidx))
		udp_pass_one(c, flow_at(&c->ft, sidx), sidx.side, data, len, b);
	else
		park(c, l, &key, data, len);
}

void udp_listen(struct ctx *c, struct listener *l, uint32_t number)
{
	struct udp_rx rx;

	if (c->tap.blocked || udp_rx_batch(c, l->fd, &rx, UDP_RX_LARGE, true))
		return;

	TAP_BATCH_SCOPE(batch, &c->tap);
	for (unsigned i = 0; i < rx.n; i++)
		take(c, l, &l->addr, NULL, &rx, i, &batch);
	/* A flood: let the kernel drop it */
	if (!admit_is_open(l, c->now))
		listener_pause(&c->listeners, &c->epoll, number, c->now);
}

/* drain() - Empty a queue while a flow is being opened */
static void drain(struct ctx *c, int fd, const struct listener *l,
		  const union inany *addr, const struct opening *o)
{
	struct udp_rx rx;

	for (unsigned n = 0; n < UDP_DRAIN_MAX; n += rx.n) {
		if (udp_rx_batch(c, fd, &rx, UDP_RX_LARGE, true))
			return;

		/* Sent when this round ends: the next one has its place */
		TAP_BATCH_SCOPE(batch, &c->tap);
		for (unsigned i = 0; i < rx.n; i++)
			take(c, l, addr, o, &rx, i, &batch);
	}
}

void udp_drain(struct ctx *c, struct flow *flow, unsigned host, int fd,
	       const struct listener *l)
{
	struct opening o = { .flow = flow, .host = host };

	drain(c, fd, l, &flow->f.side[host].oaddr, &o);
}

/* replay() - What waited for the verdict */
static void replay(struct ctx *c, struct flow *flow, struct miss *m)
{
	TAP_BATCH_SCOPE(batch, &c->tap);
	struct stage_item *item;
	uint32_t pos = 0;

	while ((item = stage_next(&c->stage, m, &pos)))
		udp_pass_one(c, flow, INISIDE, stage_item_data(item), item->len,
			     &batch);
}

void udp_catch_up(struct ctx *c, struct flow *flow, const struct listener *l,
		  struct miss *m, int fd)
{
	struct opening o = { .flow = flow, .host = INISIDE };

	replay(c, flow, m);
	if (fd < 0) /* the listener goes on serving it */
		return;
	drain(c, l->fd, l, &l->addr, &o);
	udp_drain(c, flow, INISIDE, fd, l);
}
