/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_flow.h - What a UDP flow remembers, and runs of datagrams
 *
 * A run is a row of datagrams of one size that crosses either border in one
 * piece: as a UDP_SEGMENT message to a socket, as a USO frame to the tap.
 *
 * The files of UDP, each of which calls only those above it:
 *
 *   udp_sock	options and binding of sockets
 *   udp_port	the host's port of a guest's socket
 *   udp_rx	batches out of a socket
 *   udp_cross	what is refused in one family, tried in the other
 *   udp_error	ICMP errors from a socket to the guest
 *   udp_tx	batches into a socket
 *   udp_relay	flows that leave through a proxy
 *   udp_pass	a batch of one side to the other: the tap, or a socket
 *   udp_from_tap, udp_from_sock, udp_listen	where datagrams come from
 *   udp, udp_splice	the handlers: life of flows over the tap, and past it
 */
#ifndef PASSTPY_PROTO_UDP_FLOW_H
#define PASSTPY_PROTO_UDP_FLOW_H

#include "proto/ctx.h"

#define UDP_HLEN 8

/* Datagrams of one run: UDP_MAX_SEGMENTS of Linux before 6.9; 128 since */
#define UDP_RUN_SEGS 64
/* Bytes of one run: a frame of 64 KiB less its headers. A single datagram of
 * IPv6 can be longer, for its header is not counted; it goes in fragments. */
#define UDP_RUN_MAX4	  (65535 - 20 - UDP_HLEN)
#define UDP_RUN_MAX6	  (65535 - 40 - UDP_HLEN)
#define UDP_DATAGRAM_MAX4 UDP_RUN_MAX4
#define UDP_DATAGRAM_MAX6 (65535 - UDP_HLEN)

/* What Linux' conntrack has as defaults, so that a guest behind us sees what it
 * would see behind a router (nf_conntrack_udp_timeout, _timeout_stream) */
#define UDP_TIMEOUT	   (30 * NSEC_PER_SEC)
#define UDP_TIMEOUT_STREAM (120 * NSEC_PER_SEC)
/* From outside, not answered yet: anybody can send from any address */
#define UDP_TIMEOUT_UNANSWERED (10 * NSEC_PER_SEC)

/* From outside, and nobody has the port, in either family: by then somebody may */
#define UDP_TIMEOUT_REFUSED NSEC_PER_SEC

#define UDP_INDEX_NONE UINT32_MAX

/** struct udp_flow - What UDP remembers of a flow
 * @listener:	The listening socket to send through, because the flow could
 *		not have a socket of its own: its serial, or 0
 * @shares:	The listener whose port its own socket shares: its serial, or 0
 * @port:	Index of the port it shares with other flows of the guest's
 *		socket (udp_port.h), or UDP_INDEX_NONE
 * @remote:	If it has one: index of the remote's address there
 * @unasked:	If it has one: the remote began, from a port of its own choice
 * @gso_limit:	UDP_SEGMENT works for datagrams shorter than this
 * @batch:	Datagrams to ask for in the next recvmmsg(), by side
 * @large:	A datagram longer than a small slot was seen
 * @ttl:	TTL the socket has, 0: not set yet
 * @kept:	Slot of ctx.crossings that has what began it
 * @crosses:	If nobody has the port, Python is asked for another place
 * @again:	It was asked
 * @crossed:	For another place than the client's family would do: the server
 *		has only the other one
 * @refused:	Nobody has the port; its timer acts on it
 * @head:	Bytes before each datagram for a proxy (udp_relay.h), or 0
 */
struct udp_flow {
	uint32_t listener;
	uint32_t shares;
	uint32_t port;
	uint32_t remote;
	uint32_t gso_limit;
	uint16_t batch[SIDES];
	bool unasked;
	bool large;
	uint8_t ttl;
	uint16_t kept;
	bool crosses : 1;
	bool again   : 1;
	bool crossed : 1;
	bool refused : 1;
	uint16_t head;
};

_Static_assert(sizeof(struct udp_flow) <= FLOW_PRIV_SIZE, "udp_flow");

static inline struct udp_flow *udp_flow_of(struct flow *flow)
{
	return (struct udp_flow *)(void *)flow->priv;
}

static inline const struct udp_flow *udp_flow_of_const(const struct flow *flow)
{
	return (const struct udp_flow *)(const void *)flow->priv;
}

/* udp_flow_init() - A flow that has seen nothing yet */
static inline void udp_flow_init(struct flow *flow)
{
	*udp_flow_of(flow) = (struct udp_flow){
		.port = UDP_INDEX_NONE,
		.gso_limit = UINT16_MAX,
		.batch = { 2, 2 },
	};
}

/* udp_tapside() - Side of the guest; the other one is the host's */
static inline unsigned udp_tapside(const struct flow *flow)
{
	return flow->f.pif[INISIDE] == PIF_TAP ? INISIDE : TGTSIDE;
}

/* udp_is_v4() - Family of a side: a flow may end in the other one, as that of a
 * resolver, or of a server that has no other */
static inline bool udp_is_v4(const struct flow *flow, unsigned sidei)
{
	return inany_is_v4(&flow->f.side[sidei].eaddr);
}

static inline uint32_t udp_run_max(const struct flow *flow, unsigned sidei)
{
	return udp_is_v4(flow, sidei) ? UDP_RUN_MAX4 : UDP_RUN_MAX6;
}

static inline uint32_t udp_datagram_max(const struct flow *flow, unsigned sidei)
{
	return udp_is_v4(flow, sidei) ? UDP_DATAGRAM_MAX4 : UDP_DATAGRAM_MAX6;
}

/** struct udp_run - Datagrams that may travel as one super-segment
 * @iov:	Their payload
 * @n:		Entries of @iov
 * @segs:	Datagrams
 * @bytes:	Payload of all
 * @size:	Payload of each, but the last may have less
 * @full:	Nothing can follow: the last one has less, or has nothing
 * @inner:	Not the first of its frame: no header of the guest's lies before it
 * @head:	Bytes before the payload, in the first entry of @iov; else 0
 */
struct udp_run {
	struct iovec *iov;
	unsigned n;
	unsigned segs;
	uint32_t bytes;
	uint32_t size;
	bool full;
	bool inner;
	uint16_t head;
};

/**
 * udp_run_fits() - Can more be appended to a run?
 * @r:		Run; an empty one takes anything
 * @len:	Payload in bytes, of one or several datagrams
 * @size:	Payload of each, the last may have less; @len for one datagram
 * @max:	Bytes of a run at most
 */
static inline bool udp_run_fits(const struct udp_run *r, uint32_t len,
				uint32_t size, uint32_t max)
{
	if (!r->segs)
		return true;
	if (r->full || !len || r->bytes + len > max)
		return false;
	if (size != r->size && (size > r->size || size != len))
		return false;
	return r->segs + (len + size - 1) / size <= UDP_RUN_SEGS;
}

/* udp_run_add() - Count what the caller appended to @iov, and to @n */
static inline void udp_run_add(struct udp_run *r, uint32_t len, uint32_t size)
{
	if (!r->segs)
		r->size = size;
	r->segs += len ? (len + size - 1) / size : 1;
	r->bytes += len;
	r->full = !len || len % r->size;
}

/* udp_iov_cut() - Take @len bytes off the front of @src
 * Return: how many pieces they are in @dst, at most 2 of what was received */
static inline unsigned udp_iov_cut(struct iovec *dst, struct iovec **src,
				   size_t len)
{
	unsigned n = 0;

	while (len) {
		struct iovec *s = *src;
		size_t piece = MIN(len, s->iov_len);

		if (piece)
			dst[n++] = (struct iovec){ s->iov_base, piece };
		s->iov_base = (uint8_t *)s->iov_base + piece;
		s->iov_len -= piece;
		len -= piece;
		if (!s->iov_len)
			(*src)++;
	}
	return n;
}

#endif /* PASSTPY_PROTO_UDP_FLOW_H */
