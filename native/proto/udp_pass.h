/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_pass.h - Datagrams from one side of a flow to the other, tap or socket */
#ifndef PASSTPY_PROTO_UDP_PASS_H
#define PASSTPY_PROTO_UDP_PASS_H

#include "proto/udp_flow.h"
#include "proto/udp_rx.h"

/**
 * udp_pass() - Pass on received datagrams of one flow, in order
 * @from:	Side that they came from
 * @first:	The first of them in @rx
 * @end:	One after the last
 * @ret_large:	Set if one was longer than a small slot
 * @b:		Batch that they belong to if they go to the guest
 */
void udp_pass(struct ctx *c, struct flow *flow, unsigned from,
	      struct udp_rx *rx, unsigned first, unsigned end, bool *ret_large,
	      struct tap_batch *b);

/* udp_pass_one() - The same for one datagram, wherever it lies */
void udp_pass_one(struct ctx *c, struct flow *flow, unsigned from, void *data,
		  uint32_t len, struct tap_batch *b);

#endif /* PASSTPY_PROTO_UDP_PASS_H */
