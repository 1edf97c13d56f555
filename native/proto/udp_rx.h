/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_rx.h - Receiving datagrams in batches into the scratch buffers
 *
 * Owns: how ctx.bufs is cut into slots. Large slots take anything a socket
 * may give, among it 64 KiB that UDP_GRO put together. Small slots are many,
 * for the common case of datagrams below the usual MTU: the first of them
 * spill what is longer into room at the end, for the others it would be cut
 * off. So they are used only for a socket that filled a batch of large slots
 * with short datagrams, and never again once it had a longer one.
 */
#ifndef PASSTPY_PROTO_UDP_RX_H
#define PASSTPY_PROTO_UDP_RX_H

#include <netinet/in.h>

#include "proto/ctx.h"
#include "table/meter.h"

#define UDP_RX_SMALL	  88   /* small slots: two runs of 1472 bytes each */
#define UDP_RX_SMALL_SIZE 2048 /* bytes of a small slot */
#define UDP_RX_LARGE	  15   /* large slots */
/* Distance of large slots: not a power of two, or short datagrams in them
 * would all compete for the same lines of the cache */
#define UDP_RX_STRIDE (CTX_BUF_SIZE + 4096 + 256)
#define UDP_RX_SPILLS                                                   \
	((CTX_BUFS * CTX_BUF_SIZE - UDP_RX_SMALL * UDP_RX_SMALL_SIZE) / \
	 CTX_BUF_SIZE)

_Static_assert(UDP_RX_LARGE *UDP_RX_STRIDE <= CTX_BUFS * CTX_BUF_SIZE,
	       "large slots do not fit the scratch buffers");

/** union udp_rx_ctl - Control data of a received datagram */
union udp_rx_ctl {
	struct cmsghdr align;
	uint8_t buf[CMSG_SPACE(sizeof(int)) +
		    CMSG_SPACE(sizeof(struct in_pktinfo)) +
		    CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

/** struct udp_rx - One batch
 * @n:		Datagrams received
 * @mm:		What the kernel said of each
 * @iov:	Its slot, and its room to spill if it has any
 * @ctl:	Its control data
 * @peer:	Its sender, if asked for
 */
struct udp_rx {
	unsigned n;
	struct mmsghdr mm[UDP_RX_SMALL];
	struct iovec iov[UDP_RX_SMALL][2];
	union udp_rx_ctl ctl[UDP_RX_SMALL];
	union sockaddr_inany peer[UDP_RX_SMALL];
};

/**
 * udp_rx_batch() - Receive up to @want datagrams
 * @want:	Datagrams; more than UDP_RX_LARGE: into small slots
 * @names:	Fill @peer
 *
 * Return: 0 (rx->n > 0), or -errno: -EAGAIN when there is none
 */
int udp_rx_batch(struct ctx *c, int fd, struct udp_rx *rx, unsigned want,
		 bool names);

/* udp_rx_next() - How many to ask for next, after a batch of one socket
 * @large: it had, or just got, a datagram longer than a small slot */
unsigned udp_rx_next(unsigned asked, unsigned got, bool large);

/* udp_rx_whole() - Did message @i fit its slot? Counted if not
 * @ret_large:	Set if it is longer than a small slot */
bool udp_rx_whole(struct ctx *c, const struct udp_rx *rx, unsigned i,
		  bool *ret_large);

/* udp_rx_gro() - Size of the datagrams that UDP_GRO joined, or 0 */
uint32_t udp_rx_gro(struct udp_rx *rx, unsigned i);

/* udp_rx_size() - Size of each datagram in message @i, but the last */
static inline uint32_t udp_rx_size(struct udp_rx *rx, unsigned i)
{
	uint32_t len = rx->mm[i].msg_len, size = udp_rx_gro(rx, i);

	return size ? MIN(size, len) : len;
}

/* udp_rx_allowed() - Do limits of the flow let message @i pass? Cut to the
 * datagrams that may; the others are counted */
static inline bool udp_rx_allowed(struct ctx *c, struct flow *flow,
				  unsigned from, struct udp_rx *rx, unsigned i)
{
	uint32_t len = rx->mm[i].msg_len;

	if (!meter_has(flow) || !len)
		return true;
	rx->mm[i].msg_len = meter_datagrams(&c->ft, flow, from, len,
					    udp_rx_size(rx, i), c->now);
	return rx->mm[i].msg_len;
}

/* udp_rx_pieces() - Where the payload of message @i lies
 * Return: entries of @iov, 1 or 2; one without bytes for an empty datagram */
unsigned udp_rx_pieces(const struct udp_rx *rx, unsigned i, struct iovec *iov);

/* udp_rx_local() - Address a datagram was sent to, by IP_PKTINFO; or false */
bool udp_rx_local(struct udp_rx *rx, unsigned i, union inany *addr);

#endif /* PASSTPY_PROTO_UDP_RX_H */
