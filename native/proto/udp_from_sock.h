/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_from_sock.h - Events of UDP sockets: a flow's own, and a port's */
#ifndef PASSTPY_PROTO_UDP_FROM_SOCK_H
#define PASSTPY_PROTO_UDP_FROM_SOCK_H

#include "proto/ctx.h"

/* udp_from_sock() - A flow's own socket, whatever is on the other side */
void udp_from_sock(struct ctx *c, struct flow *flow, unsigned sidei,
		   uint32_t events);

/* udp_from_port() - The socket of the port of an index; nothing happens if it
 * is not @fd any more */
void udp_from_port(struct ctx *c, uint32_t i, int fd, uint32_t events);

#endif /* PASSTPY_PROTO_UDP_FROM_SOCK_H */
