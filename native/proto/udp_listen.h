/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_listen.h - UDP sockets that any peer may send to, and flows start from */
#ifndef PASSTPY_PROTO_UDP_LISTEN_H
#define PASSTPY_PROTO_UDP_LISTEN_H

#include "proto/ctx.h"

void udp_listen(struct ctx *c, struct listener *l, uint32_t number);

/**
 * udp_catch_up() - Pass on, in order, what a peer sent before its flow was ready
 * @flow:	Flow that began at a listener, not active yet
 * @l:		The listener
 * @m:		Its miss
 * @fd:		Its own socket on the initiating side, or -1
 *
 * The peer's datagrams lie in three places: parked with the miss, in the queue
 * of the listener, and in that of the flow's socket. This is the order in which
 * they came.
 */
void udp_catch_up(struct ctx *c, struct flow *flow, const struct listener *l,
		  struct miss *m, int fd);

/**
 * udp_drain() - Empty a socket that was bound before it was connected
 * @flow:	Its flow, not active yet
 * @host:	The side of it that the socket is on
 * @l:		Listener whose address and port it shares
 *
 * Between bind() and connect() a socket takes datagrams from anybody, and
 * they stay in its queue. What the peer sent goes to the other side; the rest is
 * handled as if it had come to the listener. Call it before UDP_GRO is on.
 */
void udp_drain(struct ctx *c, struct flow *flow, unsigned host, int fd,
	       const struct listener *l);

#endif /* PASSTPY_PROTO_UDP_LISTEN_H */
