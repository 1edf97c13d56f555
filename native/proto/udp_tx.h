/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_tx.h - Datagrams into a socket, in as few system calls as possible */
#ifndef PASSTPY_PROTO_UDP_TX_H
#define PASSTPY_PROTO_UDP_TX_H

#include "proto/udp_flow.h"
#include "proto/udp_port.h"
#include "proto/udp_rx.h"

/* Pieces, and so messages, at a time: a batch from the tap, or of the slots and
 * spills that datagrams are received into */
#define UDP_TX_MAX MAX(TAP_BATCH, UDP_RX_SMALL + UDP_RX_SPILLS)

/** union udp_tx_ctl - Control data of one message
 *
 * UDP_SEGMENT, and through a socket that others use too, source address and TTL.
 */
union udp_tx_ctl {
	struct cmsghdr align;
	uint8_t buf[CMSG_SPACE(sizeof(uint16_t)) +
		    CMSG_SPACE(sizeof(struct in6_pktinfo)) +
		    CMSG_SPACE(sizeof(int))];
};

/** struct udp_tx - Messages being put together for one sendmmsg()
 * @to:		Side that they go to
 * @fd:		Its socket, or its port's, or its listener's
 * @port:	The port, or NULL
 * @named:	@fd is not the flow's own: messages carry where they go to
 * @sourced:	@fd is a listener's: they carry where they come from as well
 * @n:		Messages
 * @iovs:	Entries used in @iov
 * @peer:	Destination if @named
 * @peer_len:	Bytes of @peer
 * @run:	Datagrams of each message
 * @mm:		Messages; filled when sent
 * @ctl:	Their control data
 * @iov:	Payload of all
 */
struct udp_tx {
	unsigned to;
	int fd;
	struct udp_port *port;
	bool named;
	bool sourced;
	unsigned n;
	unsigned iovs;
	union sockaddr_inany peer;
	socklen_t peer_len;
	struct udp_run run[UDP_TX_MAX];
	struct mmsghdr mm[UDP_TX_MAX];
	union udp_tx_ctl ctl[UDP_TX_MAX];
	struct iovec iov[UDP_TX_MAX];
};

/**
 * udp_tx_start() - Begin messages for the socket of a side
 * @tx:		Filled; nothing is in it yet
 * @to:		Side
 *
 * Return: 0; -ENOTCONN if the flow has no socket there, nor its listener any
 *	   longer; other -errno
 */
int udp_tx_start(struct ctx *c, struct flow *flow, struct udp_tx *tx,
		 unsigned to);

/* udp_tx_ttl() - What is added from now on has this TTL (traceroute needs it) */
void udp_tx_ttl(struct ctx *c, struct flow *flow, struct udp_tx *tx,
		uint8_t ttl);

/**
 * udp_tx_add() - Append datagrams to the last run, or begin one
 * @iov:	Their payload, in the row that they were sent in
 * @n:		Entries of @iov, at most 2
 * @len:	Bytes of all
 * @size:	Bytes of each, the last may have less; @len for one datagram
 *
 * Payload must stay where it is until udp_tx_flush(), which is called here
 * when there is no more room.
 */
void udp_tx_add(struct ctx *c, struct flow *flow, struct udp_tx *tx,
		const struct iovec *iov, unsigned n, uint32_t len,
		uint32_t size);

/* udp_tx_flush() - Send what was put together, in order */
void udp_tx_flush(struct ctx *c, struct flow *flow, struct udp_tx *tx);

#endif /* PASSTPY_PROTO_UDP_TX_H */
