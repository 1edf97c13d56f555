/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_relay.h - Datagrams of the guest that leave through a SOCKS5 proxy
 *
 * Python has agreed with the proxy upon a relay, to which the flow's socket is
 * connected (RFC 1928 section 7). Before each datagram goes a head that says
 * whom it is for; before each one that comes is one that says who sent it. The
 * relay is there as long as the connection that asked for it, which is the
 * flow's socket at the side of the guest: where it ends, the flow ends, and the
 * other way round.
 */
#ifndef PASSTPY_PROTO_UDP_RELAY_H
#define PASSTPY_PROTO_UDP_RELAY_H

#include "proto/udp_flow.h"
#include "proto/udp_rx.h"
#include "table/stage.h"

/* Flows that have a relay, each with two descriptors of ours and some of the
 * proxy's: more than that no proxy likes */
#define UDP_RELAYS_MAX 1024

#define UDP_RELAY_ADDR_MAX 22 /* bytes of a head with an address of IPv6 */

/** struct udp_relayed - What is kept of such a flow
 * @udp:	As of any flow of UDP; its @head is the length of @head
 * @head:	Before each datagram
 * @from:	Address that answers have, once known: where the proxy was told a
 *		name it is that of the first answer
 * @from_len:	Its length, 0: not known
 */
struct udp_relayed {
	struct udp_flow udp;
	uint8_t head[RELAY_HEAD_MAX];
	uint8_t from[UDP_RELAY_ADDR_MAX];
	uint16_t from_len;
};

static inline struct udp_relayed *udp_relayed(struct flow *flow)
{
	return (struct udp_relayed *)(void *)flow->priv;
}

/**
 * udp_relay_open() - Give a flow the sockets that came with its verdict
 * @m:		Miss with @given_fd and @relay
 *
 * Return: 0; -ENFILE: there are UDP_RELAYS_MAX (counted); else -errno, and the
 * sockets stay the caller's
 */
int udp_relay_open(struct ctx *c, struct flow *flow, const struct miss *m);

/* udp_relay_close() - The flow ends; its sockets are closed by udp_close() */
void udp_relay_close(struct ctx *c, struct flow *flow);

/* udp_relay_control() - Something happened to the connection of the proxy */
void udp_relay_control(struct ctx *c, struct flow *flow);

/**
 * udp_relay_strip() - Take the head off a datagram that came, where it lies
 * @i:		Which of the batch
 *
 * Return: is it one for the guest? If not, it was counted
 */
bool udp_relay_strip(struct ctx *c, struct flow *flow, struct udp_rx *rx,
		     unsigned i);

#endif /* PASSTPY_PROTO_UDP_RELAY_H */
