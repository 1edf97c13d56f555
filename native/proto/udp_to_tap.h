/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_to_tap.h - Datagrams for the guest, in as few frames as possible */
#ifndef PASSTPY_PROTO_UDP_TO_TAP_H
#define PASSTPY_PROTO_UDP_TO_TAP_H

#include "proto/udp_flow.h"
#include "proto/udp_rx.h"

/* udp_run_to_tap() - Send a run, as one frame if the tap can do it
 * @b:		Batch that the frames belong to, and the payload is lent to */
void udp_run_to_tap(struct ctx *c, struct flow *flow, const struct udp_run *run,
		    struct tap_batch *b);

/**
 * udp_rx_to_tap() - Send received datagrams of one flow, in order
 * @first:	The first of them in @rx
 * @end:	One after the last
 * @ret_large:	Set if one was longer than a small slot
 */
void udp_rx_to_tap(struct ctx *c, struct flow *flow, struct udp_rx *rx,
		   unsigned first, unsigned end, bool *ret_large,
		   struct tap_batch *b);

#endif /* PASSTPY_PROTO_UDP_TO_TAP_H */
