/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_pass.c - Datagrams from one side of a flow to the other, tap or socket
 *
 * To a socket one batch crosses with two system calls: received as UDP_GRO
 * joined it, sent as UDP_SEGMENT lets it.
 */

#include "proto/udp_pass.h"

#include "proto/udp_to_tap.h"
#include "proto/udp_tx.h"

/* tx_start() - Start messages to a side, or count what is lost */
static bool tx_start(struct ctx *c, struct flow *flow, struct udp_tx *tx,
		     unsigned to, unsigned n)
{
	if (!udp_tx_start(c, flow, tx, to))
		return true;
	count_n(&c->cnt, CNT_UDP_DROP_SOCK_FULL, n);
	return false;
}

/* to_sock() - A batch of one side to the socket of the other */
static void to_sock(struct ctx *c, struct flow *flow, unsigned from,
		    struct udp_rx *rx, unsigned first, unsigned end,
		    bool *ret_large)
{
	uint64_t packets = flow->f.packets[from];
	uint64_t bytes = flow->f.bytes[from];
	struct iovec iov[2];
	struct udp_tx tx;

	if (!tx_start(c, flow, &tx, !from, end - first))
		return;
	for (unsigned i = first; i < end; i++) {
		if (!udp_rx_whole(c, rx, i, ret_large) ||
		    !udp_rx_allowed(c, flow, from, rx, i))
			continue;
		udp_tx_add(c, flow, &tx, iov, udp_rx_pieces(rx, i, iov),
			   rx->mm[i].msg_len, udp_rx_size(rx, i));
	}
	udp_tx_flush(c, flow, &tx);
	flow_log(&c->log, c->now, UDP_SPLICE, flow, from,
		 flow->f.packets[from] - packets, flow->f.bytes[from] - bytes,
		 0);
}

void udp_pass(struct ctx *c, struct flow *flow, unsigned from,
	      struct udp_rx *rx, unsigned first, unsigned end, bool *ret_large,
	      struct tap_batch *b)
{
	if (flow->f.pif[!from] == PIF_TAP)
		udp_rx_to_tap(c, flow, rx, first, end, ret_large, b);
	else
		to_sock(c, flow, from, rx, first, end, ret_large);
}

void udp_pass_one(struct ctx *c, struct flow *flow, unsigned from, void *data,
		  uint32_t len, struct tap_batch *b)
{
	struct iovec iov = { data, len };
	struct udp_run run = { .iov = &iov, .n = 1 };
	struct udp_tx tx;

	if (meter_has(flow) && len &&
	    !meter_datagrams(&c->ft, flow, from, len, len, c->now))
		return;
	if (flow->f.pif[!from] != PIF_TAP) {
		if (!tx_start(c, flow, &tx, !from, 1))
			return;
		udp_tx_add(c, flow, &tx, &iov, 1, len, len);
		udp_tx_flush(c, flow, &tx);
		return;
	}
	if (len > udp_datagram_max(flow, !from)) {
		count(&c->cnt, CNT_UDP_TRUNCATED);
		return;
	}
	udp_run_add(&run, len, len);
	udp_run_to_tap(c, flow, &run, b);
}
