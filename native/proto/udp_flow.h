/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_flow.h - What the files of the UDP handler share
 *
 * udp.c owns a flow's life, udp_from_tap.c and udp_to_tap.c its two
 * directions, udp_listen.c the sockets that flows start from; udp_splice.c is
 * the handler of flows without a tap, on the same parts. A run is a row
 * of datagrams of one size that crosses either border in one piece: as a
 * UDP_SEGMENT message to a socket, as a USO frame to the tap.
 */
#ifndef PASSTPY_PROTO_UDP_FLOW_H
#define PASSTPY_PROTO_UDP_FLOW_H

#include "proto/ctx.h"
#include "proto/handler.h"

#define UDP_HLEN 8

/* Datagrams of one run: UDP_MAX_SEGMENTS of Linux before 6.9; 128 since */
#define UDP_RUN_SEGS 64
/* Bytes of one run: a frame of 64 KiB less its headers. A single datagram of
 * IPv6 can be longer, for its header is not counted; it goes in fragments. */
#define UDP_RUN_MAX4	  (65535 - 20 - UDP_HLEN)
#define UDP_RUN_MAX6	  (65535 - 40 - UDP_HLEN)
#define UDP_DATAGRAM_MAX4 UDP_RUN_MAX4
#define UDP_DATAGRAM_MAX6 (65535 - UDP_HLEN)

#define UDP_LISTENER_NONE (-1)

struct udp_rx;

/** struct udp_flow - What UDP remembers of a flow
 * @listener:	Number of the listening socket to send through, because the
 *		flow could not have a socket of its own; or UDP_LISTENER_NONE
 * @gso_limit:	UDP_SEGMENT works for datagrams shorter than this
 * @batch:	Datagrams to ask for in the next recvmmsg(), by side
 * @large:	A datagram longer than a small slot was seen
 * @ttl:	TTL the socket has, 0: not set yet
 */
struct udp_flow {
	int32_t listener;
	uint32_t gso_limit;
	uint16_t batch[SIDES];
	bool large;
	uint8_t ttl;
};

_Static_assert(sizeof(struct udp_flow) <= FLOW_PRIV_SIZE, "udp_flow");

static inline struct udp_flow *udp_flow_of(struct flow *flow)
{
	return (struct udp_flow *)(void *)flow->priv;
}

/* udp_tapside() - Side of the guest; the other one is the host's */
static inline unsigned udp_tapside(const struct flow *flow)
{
	return flow->f.pif[INISIDE] == PIF_TAP ? INISIDE : TGTSIDE;
}

/* udp_is_v4() - Family of a side: what the guest begins may end in the other
 * family (a resolver), what comes from outside keeps its own */
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
 */
struct udp_run {
	struct iovec *iov;
	unsigned n;
	unsigned segs;
	uint32_t bytes;
	uint32_t size;
	bool full;
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

/* udp.c */

/**
 * udp_errors() - Pass on what is in the error queue of a flow's socket
 *
 * @sidei:	Side of the socket
 *
 * Bounded; afterwards no error is pending, unless more are queued. Only a
 * guest can be told; whoever sent from a socket of this machine cannot.
 */
void udp_errors(struct ctx *c, struct flow *flow, unsigned sidei);

/* udp_flow_init() - A flow that has seen nothing yet */
void udp_flow_init(struct flow *flow);

/* udp_setup() - Options of a flow's own socket; each may fail, none is vital */
void udp_setup(int fd);

/**
 * udp_watch() - Make a socket a flow's own
 * Return: 0, or -errno, and the socket is closed
 */
int udp_watch(struct ctx *c, struct flow *flow, unsigned sidei, int fd);

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

/* udp_timer() - Close the flow if it was idle for long, else look again */
void udp_timer(struct ctx *c, struct flow *flow);
/* udp_defer() - Close its sockets */
bool udp_defer(struct ctx *c, struct flow *flow);

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

/* udp_from_tap.c */
void udp_from_tap(struct ctx *c, struct flow *flow, struct burst *b);

/* udp_to_tap.c */
void udp_from_sock(struct ctx *c, struct flow *flow, unsigned sidei,
		   uint32_t events);

/* What becomes of a batch that was received on side @from */
typedef void udp_deliver_fn(struct ctx *c, struct flow *flow, unsigned from,
			    struct udp_rx *rx);

/* udp_receive() - Hand a flow's next batch to @deliver, or take the errors that
 * keep it from being received */
void udp_receive(struct ctx *c, struct flow *flow, unsigned sidei,
		 udp_deliver_fn *deliver);

/* udp_rx_whole() - Did message @i fit its slot? Counted if not, and remembered
 * if it was long */
bool udp_rx_whole(struct ctx *c, struct udp_flow *u, const struct udp_rx *rx,
		  unsigned i);

/* udp_iov_cut() - Take @len bytes off the front of @src
 * Return: how many pieces they are in @dst */
unsigned udp_iov_cut(struct iovec *dst, struct iovec **src, size_t len);

/* udp_to_tap() - Send a run to the guest, as one frame if the tap can do it
 * @b:		Batch that the frames belong to, and the payload is lent to */
void udp_to_tap(struct ctx *c, struct flow *flow, const struct udp_run *run,
		struct tap_batch *b);

/* udp_splice.c */

/* udp_splice_datagram() - One datagram of the initiating side to the target */
void udp_splice_datagram(struct ctx *c, struct flow *flow, void *data,
			 uint32_t len);

/* udp_listen.c */
void udp_listen(struct ctx *c, struct listener *l, uint32_t number);

/**
 * udp_datagram() - A datagram came to a socket that any peer may send to
 * @peer:	Its sender
 * @addr:	Local address it came to
 * @port:	Local port
 * @number:	The listener's number
 * @b:		Batch that it belongs to if it goes to the guest
 *
 * Goes to its flow, or joins or makes a miss.
 */
void udp_datagram(struct ctx *c, const union sockaddr_inany *peer,
		  const union inany *addr, uint16_t port, uint32_t number,
		  void *data, uint32_t len, struct tap_batch *b);

/**
 * udp_drain() - Empty a socket that was bound before it was connected
 * @flow:	Its flow, not active yet
 * @number:	Listener whose address and port it shares, or UDP_LISTENER_NONE
 *
 * Between bind() and connect() a socket takes datagrams from anybody, and
 * they stay in its queue. What the peer sent goes to the guest; the rest is
 * handled as if it had come to the listener. Without one all is forgotten:
 * nobody can have been asked anything yet. Call it before UDP_GRO is on.
 */
void udp_drain(struct ctx *c, struct flow *flow, int fd, int32_t number);

#endif /* PASSTPY_PROTO_UDP_FLOW_H */
