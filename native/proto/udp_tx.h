/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_tx.h - Datagrams into a socket, in as few system calls as possible */
#ifndef PASSTPY_PROTO_UDP_TX_H
#define PASSTPY_PROTO_UDP_TX_H

#include "proto/udp_flow.h"
#include "proto/udp_rx.h"

/* Pieces, and so messages, at a time: a batch from the tap, or of the slots and
 * spills that datagrams are received into */
#define UDP_TX_MAX MAX(TAP_BATCH, UDP_RX_SMALL + UDP_RX_SPILLS)

/** union udp_tx_ctl - Control data of one message
 *
 * UDP_SEGMENT, and through a listener also source address and TTL.
 */
union udp_tx_ctl {
	struct cmsghdr align;
	uint8_t buf[CMSG_SPACE(sizeof(uint16_t)) +
		    CMSG_SPACE(sizeof(struct in6_pktinfo)) +
		    CMSG_SPACE(sizeof(int))];
};

/** struct udp_tx - Messages being put together for one sendmmsg()
 * @to:		Side that they go to
 * @fd:		Its socket, or the listener's
 * @shared:	@fd is the listener's: every message carries its addresses
 * @n:		Messages
 * @iovs:	Entries used in @iov
 * @peer:	Destination if @shared
 * @peer_len:	Bytes of @peer
 * @run:	Datagrams of each message
 * @mm:		Messages; filled when sent
 * @ctl:	Their control data
 * @iov:	Payload of all
 */
struct udp_tx {
	unsigned to;
	int fd;
	bool shared;
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
