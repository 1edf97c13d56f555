/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_cross.h - From a port that is closed in the client's family to the other one
 *
 * A flow that began at a listening socket, and of which nobody has answered
 * anything, may be refused: by the guest's ICMP error, or by the kernel of the
 * spliced target. If its verdict said so it is a miss once more then, with the
 * datagrams that began it, and Python may know another place. What is refused
 * there too ends soon, so that whoever begins to listen is found.
 */
#ifndef PASSTPY_PROTO_UDP_CROSS_H
#define PASSTPY_PROTO_UDP_CROSS_H

#include "proto/ctx.h"

/* udp_cross_open() - Make ready for a refusal: keep what was parked in @m
 * @flow:	Of a verdict that was carried out; began outside */
void udp_cross_open(struct ctx *c, struct flow *flow, struct miss *m,
		    bool crosses);

/* udp_refused() - Nobody has the port that a flow leads to; if that matters, its
 * timer acts on it soon. No harm done to flows that somebody has answered */
void udp_refused(struct ctx *c, struct flow *flow);

/**
 * udp_cross_timer() - Act on a refusal, if there was one
 * Return: true if so: nothing else is to be done about its timer
 */
bool udp_cross_timer(struct ctx *c, struct flow *flow);

/**
 * udp_cross_served() - Is the last client of a port served in the other family?
 * @listener:	Number of the listening socket, which may be another's by now
 * @key:	Somebody who asks it: only a client of the same family counts
 */
bool udp_cross_served(const struct ctx *c, uint32_t listener,
		      const struct flowside *key);

#endif /* PASSTPY_PROTO_UDP_CROSS_H */
