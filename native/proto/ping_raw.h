/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ping_raw.h - Raw sockets for echo, where nobody may have a ping socket
 *
 * Who starts with privileges makes them before giving those up, a few of each
 * family, and flows borrow them one at a time. A raw socket would hear all
 * the ICMP of the host: to one that is borrowed a filter in the kernel lets in
 * nothing but echo replies of its flow's target with the identifier of its flow;
 * to one that is not, nothing at all.
 */
#ifndef PASSTPY_PROTO_PING_RAW_H
#define PASSTPY_PROTO_PING_RAW_H

#include "proto/ctx.h"

#define PING_RAW_MAX 64 /* sockets of a family */

/**
 * ping_raw_add() - Have one more socket to lend
 * @fd:		Raw socket of ICMP or ICMPv6; ours if this succeeds
 *
 * Return: 0; -EINVAL for another kind of socket, -ENOSPC when there are enough,
 *	   or -errno
 */
int ping_raw_add(struct ctx *c, int fd);

/**
 * ping_raw_borrow() - Lend a flow a socket of its family
 *
 * If none is left, the flow that was used least lately loses its own, and ends.
 *
 * Return: the socket, or -EACCES when there are none
 */
int ping_raw_borrow(struct ctx *c, struct flow *flow);

/**
 * ping_raw_aim() - Bind a borrowed socket, and choose an identifier
 * @fd:		The flow's socket
 * @local:	Our side: @eaddr is the target, @oaddr what to bind to and then
 *		what we are bound to, @oport the identifier that is wanted and
 *		then the one chosen: no other flow has it with that target
 *
 * Return: 0 or -errno
 */
int ping_raw_aim(struct ctx *c, struct flow *flow, int fd,
		 struct flowside *local);

/* ping_raw_give_back() - Take its socket from a flow, if it has borrowed one */
void ping_raw_give_back(struct ctx *c, struct flow *flow);

/**
 * ping_raw_send() - Send a request of the guest's as our own
 * @l4:		ICMP header and payload
 * @len:	Bytes of @l4
 *
 * Return: 0 or positive errno
 */
int ping_raw_send(const struct ctx *c, const struct flow *flow,
		  const uint8_t *l4, uint32_t len);

/* ping_raw_fini() - Close all sockets of a family */
void ping_raw_fini(struct ctx *c, enum flow_type type);

#endif /* PASSTPY_PROTO_PING_RAW_H */
