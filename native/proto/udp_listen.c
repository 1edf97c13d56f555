/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_listen.c - Sockets that any peer may send to, and flows start from
 *
 * A listening socket sees the first datagrams of each peer, until the flow has
 * its own connected socket; and all datagrams of flows that could get none.
 */

#include <errno.h>

#include "proto/udp_flow.h"
#include "proto/udp_rx.h"

/* Datagrams that udp_drain() takes: far more than can come in between */
#define UDP_DRAIN_MAX 64

/* udp_deliver() - One datagram to the guest, or to a spliced target */
static void udp_deliver(struct ctx *c, struct flow *flow, void *data,
			uint32_t len, struct tap_batch *b)
{
	struct iovec iov = { data, len };
	struct udp_run run = { .iov = &iov, .n = 1 };

	if (flow->f.type == FLOW_UDP_SPLICE) {
		udp_splice_datagram(c, flow, data, len);
		return;
	}
	if (len > udp_datagram_max(flow, udp_tapside(flow))) {
		count(&c->cnt, CNT_UDP_TRUNCATED);
		return;
	}
	udp_run_add(&run, len, len);
	udp_to_tap(c, flow, &run, b);
}

void udp_datagram(struct ctx *c, const union sockaddr_inany *peer,
		  const union inany *addr, uint16_t port, uint32_t number,
		  void *data, uint32_t len, struct tap_batch *b)
{
	struct flowside key = { .oaddr = *addr, .oport = port };
	const struct listener *l = listener_get(&c->listeners, number);
	enum pif pif = l ? l->pif : PIF_HOST;
	struct flow *flow;
	struct miss *m;

	if (inany_from_sa(&key.eaddr, &key.eport, peer) || !key.eport ||
	    !inany_is_unicast(&key.eaddr)) {
		count(&c->cnt, CNT_DROP_ADDRESS);
		return;
	}

	flow = flow_at(&c->ft, flow_lookup(&c->ft, IPPROTO_UDP, pif, &key));
	if (flow) {
		udp_deliver(c, flow, data, len, b);
		return;
	}

	m = stage_find(&c->stage, IPPROTO_UDP, pif, &key);
	if (m) {
		if (stage_park(&c->stage, m, data, len, NULL))
			count(&c->cnt, CNT_DROP_STAGE_FULL);
		else
			count(&c->cnt, CNT_MISS_JOINED);
		return;
	}
	m = stage_add(&c->stage, IPPROTO_UDP, pif, &key, (int32_t)number, -1,
		      c->now);
	if (!m)
		return;
	count(&c->cnt, CNT_MISS);
	if (stage_park(&c->stage, m, data, len, NULL)) {
		count(&c->cnt, CNT_DROP_STAGE_FULL);
		stage_release(&c->stage, m);
	}
}

/* udp_is_whole() - Did datagram @i of a batch fit its slot? Counted if not */
static bool udp_is_whole(struct ctx *c, struct udp_rx *rx, unsigned i)
{
	if (!(rx->mm[i].msg_hdr.msg_flags & MSG_TRUNC))
		return true;
	count(&c->cnt, CNT_UDP_TRUNCATED);
	return false;
}

void udp_listen(struct ctx *c, struct listener *l, uint32_t number)
{
	struct udp_rx rx;
	TAP_BATCH_SCOPE(batch, &c->tap);

	if (c->tap.blocked || udp_rx_batch(c, l->fd, &rx, UDP_RX_LARGE, true))
		return;

	for (unsigned i = 0; i < rx.n; i++) {
		union inany addr = l->addr;

		if (!udp_is_whole(c, &rx, i))
			continue;
		/* Without IP_PKTINFO a wildcard socket cannot know it */
		if (!udp_rx_local(&rx, i, &addr) && inany_is_any(&addr)) {
			count(&c->cnt, CNT_DROP_ADDRESS);
			continue;
		}
		udp_datagram(c, &rx.peer[i], &addr, l->port, number,
			     rx.iov[i][0].iov_base, rx.mm[i].msg_len, &batch);
	}
}

/* udp_is_peer() - Does a socket address name the host side's endpoint? */
static bool udp_is_peer(const struct flow *flow,
			const union sockaddr_inany *peer)
{
	const struct flowside *host = &flow->f.side[!udp_tapside(flow)];
	union inany addr;
	uint16_t port;

	return !inany_from_sa(&addr, &port, peer) && port == host->eport &&
	       inany_equal(&addr, &host->eaddr);
}

void udp_drain(struct ctx *c, struct flow *flow, int fd, int32_t number)
{
	const struct flowside *host = &flow->f.side[!udp_tapside(flow)];
	struct udp_rx rx;

	for (unsigned n = 0; n < UDP_DRAIN_MAX; n++) {
		TAP_BATCH_SCOPE(batch, &c->tap); /* the next has its place */

		if (udp_rx_batch(c, fd, &rx, 1, true))
			return;
		if (!udp_is_whole(c, &rx, 0) || number < 0)
			continue;
		if (udp_is_peer(flow, &rx.peer[0]))
			udp_deliver(c, flow, rx.iov[0][0].iov_base,
				    rx.mm[0].msg_len, &batch);
		else
			udp_datagram(c, &rx.peer[0], &host->oaddr, host->oport,
				     (uint32_t)number, rx.iov[0][0].iov_base,
				     rx.mm[0].msg_len, &batch);
	}
}
