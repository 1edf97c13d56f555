/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_sock.h - Options and binding of UDP sockets */
#ifndef PASSTPY_PROTO_UDP_SOCK_H
#define PASSTPY_PROTO_UDP_SOCK_H

#include "proto/ctx.h"

/* udp_setup() - Options for moving datagrams; each may fail, none is vital */
void udp_setup(int fd);

/* udp_set_buffers() - Of these only how much a socket holds */
void udp_set_buffers(int fd);

/**
 * udp_watch() - Make a socket a flow's own
 * Return: 0, or -errno, and the socket is closed
 */
int udp_watch(struct ctx *c, struct flow *flow, unsigned sidei, int fd);

/**
 * udp_bind_shared() - Bind to an address and port that a listener has
 * @l:		Our own listening socket
 *
 * Both sockets have to allow it, and the listener only does while we bind, so
 * that nobody else can slip in.
 *
 * Return: 0 or -errno
 */
int udp_bind_shared(const struct ctx *c, int fd, const struct listener *l,
		    bool v4, const union inany *addr, uint16_t port);

/**
 * udp_listener_of() - The listener that a flow remembers for a side's port
 * @serial:	Which one, or 0
 * Return: NULL if it has none, or that was closed
 */
struct listener *udp_listener_of(struct ctx *c, const struct flow *flow,
				 unsigned sidei, uint32_t serial);

/* udp_listener_asked() - The listener whose datagram a flow begins with; NULL if
 * it was closed meanwhile */
struct listener *udp_listener_asked(struct ctx *c, const struct flow *flow,
				    const struct miss *m);

/**
 * udp_connect_ini() - A socket of its own for a flow that began outside
 * @l:		Listener that it takes the peer's datagrams from, being the
 *		better match
 * @fd:		Socket to use, or -1: make one; taken over
 *
 * Return: the socket, or -errno: stay with the listener
 */
int udp_connect_ini(struct ctx *c, struct flow *flow, const struct listener *l,
		    int fd);

/* udp_forget() - Empty the queue of a socket between bind() and connect(), when
 * it takes datagrams from anybody: nobody was asked anything yet */
void udp_forget(int fd);

/* udp_close() - Close the sockets that are a flow's own */
void udp_close(struct ctx *c, struct flow *flow);

#endif /* PASSTPY_PROTO_UDP_SOCK_H */
