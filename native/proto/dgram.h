/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dgram.h - Datagram sockets, as UDP and ping flows use them */
#ifndef PASSTPY_PROTO_DGRAM_H
#define PASSTPY_PROTO_DGRAM_H

#include "proto/ctx.h"

/**
 * dgram_socket() - Make a non-blocking socket that keeps ICMP errors for us
 * @flow:	For the log, when there is no file descriptor left
 * @ipproto:	IPPROTO_UDP, IPPROTO_ICMP or IPPROTO_ICMPV6
 * @v4:		AF_INET, else AF_INET6
 *
 * Return: the socket or -errno
 */
int dgram_socket(struct ctx *c, const struct flow *flow, uint8_t ipproto,
		 bool v4);

/**
 * dgram_outbound() - Keep a socket on the interface meant for outbound flows
 * Return: 0 or -errno
 */
int dgram_outbound(const struct ctx *c, int fd, bool v4);

/**
 * dgram_bind() - Bind a socket
 * @v4:		Family of @fd
 * @addr:	Address; unspecified, in either form: any
 * @port:	Port or echo identifier; 0: any
 *
 * Return: 0 or -errno
 */
int dgram_bind(const struct ctx *c, int fd, bool v4, const union inany *addr,
	       uint16_t port);

/* dgram_connect() - Connect to an address; 0 or -errno */
int dgram_connect(const struct ctx *c, int fd, const union inany *addr,
		  uint16_t port);

/* dgram_disconnect() - Undo dgram_connect(), and the port and address that it
 * chose; what was bound stays */
void dgram_disconnect(int fd);

/* dgram_name() - Local address and port of a socket; 0 or -errno */
int dgram_name(int fd, union inany *addr, uint16_t *port);

/* dgram_set_ttl() - TTL or hop limit of what is sent from now on */
void dgram_set_ttl(int fd, bool v4, uint8_t ttl);

/* dgram_interest() - A datagram socket waits for input, as long as it lives */
uint32_t dgram_interest(const struct flow *flow, unsigned sidei);

/* dgram_take_error() - Clear a pending error; returns it, positive, or 0 */
int dgram_take_error(int fd);

#endif /* PASSTPY_PROTO_DGRAM_H */
