/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_error.h - ICMP errors that UDP sockets keep, for the guests they concern */
#ifndef PASSTPY_PROTO_UDP_ERROR_H
#define PASSTPY_PROTO_UDP_ERROR_H

#include "proto/udp_port.h"

/**
 * udp_errors() - Pass on what is in the error queue of a flow's socket
 * @sidei:	Side of the socket, its own or its port's
 *
 * Bounded; afterwards no error is pending, unless more are queued. Only a
 * guest can be told; whoever sent from a socket of this machine cannot.
 */
void udp_errors(struct ctx *c, struct flow *flow, unsigned sidei);

/* udp_port_errors() - The same for a port: each error goes to its own flow */
void udp_port_errors(struct ctx *c, const struct udp_port *p);

#endif /* PASSTPY_PROTO_UDP_ERROR_H */
