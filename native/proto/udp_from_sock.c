/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_from_sock.c - Events of UDP sockets: a flow's own, and a port's
 *
 * One batch for each event: what is left is an event again, after the other
 * flows had their turn. A guest that is full lets datagrams wait in the socket:
 * epoll tells again.
 */

#include "proto/udp_from_sock.h"

#include <errno.h>
#include <sys/epoll.h>

#include "proto/udp_error.h"
#include "proto/udp_pass.h"
#include "proto/udp_relay.h"

/* next_batch() - How many to ask for next; fewer when these were too much work,
 * because they had been joined and went out one by one */
static uint16_t next_batch(const struct ctx *c, unsigned asked,
			   const struct udp_rx *rx, bool large)
{
	if (budget_is_spent(&c->budget))
		return (uint16_t)((rx->n + 1) / 2);
	return (uint16_t)udp_rx_next(asked, rx->n, large);
}

/* pass_relayed() - Those of a batch that came from the guest's peer by a proxy */
static void pass_relayed(struct ctx *c, struct flow *flow, unsigned sidei,
			 struct udp_rx *rx, struct tap_batch *b)
{
	bool *large = &udp_flow_of(flow)->large;
	unsigned first = 0, i;

	for (i = 0; i < rx->n; i++) {
		if (udp_relay_strip(c, flow, rx, i))
			continue;
		udp_pass(c, flow, sidei, rx, first, i, large, b);
		first = i + 1;
	}
	udp_pass(c, flow, sidei, rx, first, i, large, b);
}

void udp_from_sock(struct ctx *c, struct flow *flow, unsigned sidei,
		   uint32_t events)
{
	struct udp_flow *u = udp_flow_of(flow);
	bool for_tap = flow->f.pif[!sidei] == PIF_TAP;
	struct udp_rx rx;
	int rc;

	if (u->head && sidei == udp_tapside(flow)) {
		udp_relay_control(c, flow);
		return;
	}
	if (events & EPOLLERR)
		udp_errors(c, flow, sidei);
	if (!(events & EPOLLIN) || (for_tap && c->tap.blocked))
		return;
	if (u->refused && !u->again)
		return; /* another place is asked for: it waits for that */
	rc = udp_rx_batch(c, flow->f.fd[sidei], &rx, u->batch[sidei], false);
	if (rc) {
		if (rc != -EAGAIN)
			udp_errors(c, flow, sidei);
		return;
	}

	TAP_BATCH_SCOPE(batch, &c->tap);
	if (u->head)
		pass_relayed(c, flow, sidei, &rx, &batch);
	else
		udp_pass(c, flow, sidei, &rx, 0, rx.n, &u->large, &batch);
	u->batch[sidei] = next_batch(c, u->batch[sidei], &rx, u->large);
}

/* same_sender() - Did datagrams @i and @j come from one endpoint? */
static bool same_sender(const struct udp_rx *rx, unsigned i, unsigned j)
{
	socklen_t len = rx->mm[i].msg_hdr.msg_namelen;

	if (len != rx->mm[j].msg_hdr.msg_namelen)
		return false;
	if (len == sizeof(struct sockaddr_in)) /* a known size takes no call */
		return !memcmp(&rx->peer[i], &rx->peer[j],
			       sizeof(struct sockaddr_in));
	return !memcmp(&rx->peer[i], &rx->peer[j], len);
}

/* sort() - Datagrams of a port to their flows, those in a row together */
static void sort(struct ctx *c, struct udp_port *p, struct udp_rx *rx)
{
	TAP_BATCH_SCOPE(batch, &c->tap);
	unsigned end;

	for (unsigned i = 0; i < rx->n; i = end) {
		struct flow *flow = udp_port_admit(c, p, &rx->peer[i]);

		for (end = i + 1; end < rx->n && same_sender(rx, i, end); end++)
			if (!flow)
				count(&c->cnt, CNT_UDP_FILTERED);
		if (flow)
			udp_pass(c, flow, !udp_tapside(flow), rx, i, end,
				 &p->large, &batch);
	}
}

void udp_from_port(struct ctx *c, uint32_t i, int fd, uint32_t events)
{
	struct udp_port *p = udp_port_at(c, i);
	struct udp_rx rx;
	int rc;

	if (!p || p->fd != fd)
		return; /* closed by an event before this one */
	if (events & EPOLLERR)
		udp_port_errors(c, p);
	if (!(events & EPOLLIN) || c->tap.blocked)
		return;
	rc = udp_rx_batch(c, fd, &rx, p->batch, true);
	if (rc) {
		if (rc != -EAGAIN)
			udp_port_errors(c, p);
		return;
	}
	sort(c, p, &rx);
	p->batch = next_batch(c, p->batch, &rx, p->large);
}
