/* SPDX-License-Identifier: GPL-2.0-or-later */
/* capture.h - Captures that come and go while traffic flows
 *
 * Each capture copies the packets of the flows that it wants into a ring of its
 * own, and its owner takes them from there as blocks of a pcapng file. Nobody
 * waits: a packet that finds no room is dropped and counted. A packet is seen
 * as it crosses the tap, and as what sockets took or gave, with headers that
 * are made up for it of the addresses of that side of its flow.
 *
 * The first packets of a flow come before anybody has decided about it; so a
 * packet that belongs to no flow yet is asked again when it is taken.
 */
#ifndef PASSTPY_LINK_CAPTURE_H
#define PASSTPY_LINK_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "table/filter.h"

#define CAPTURES_MAX	8
#define CAPTURE_RING	(16U << 20) /* a power of two; touched as needed */
#define CAPTURE_SNAPLEN (66U << 10) /* the longest frame, and a bit */
#define CAPTURE_IOV	32	    /* pieces of a packet */

/* enum capture_side - Where a packet was seen; interfaces of the file */
enum capture_side { CAPTURE_TAP, CAPTURE_SOCK, CAPTURE_SIDES };

/** struct capture - One capture
 * @steps:	Which flows it wants
 * @n_steps:	0: all, and what is no flow's
 * @sides:	Bits of enum capture_side that it wants
 * @snaplen:	Bytes that are kept of a packet
 * @ring:	CAPTURE_RING bytes
 * @head:	Bytes ever put in
 * @tail:	Bytes ever taken out
 * @seen:	Packets that were wanted, taken or dropped, by side
 * @dropped:	Of these, those that found no room
 */
struct capture {
	struct filter_step *steps;
	unsigned n_steps;
	unsigned sides;
	uint32_t snaplen;
	uint8_t *ring;
	uint64_t head;
	uint64_t tail;
	uint64_t seen[CAPTURE_SIDES];
	uint64_t dropped[CAPTURE_SIDES];
};

/** struct capture_place - What made up headers of a flow need
 * @generation:	Of the flow that this is about
 * @seq:	Sequence number of the next byte, by the side that it comes from
 * @unacked:	Bytes since this direction was last acknowledged, the same way
 * @ended:	Bits of CAPTURE_ENDED(): FINs that were seen
 * @side:	Its sides, with the addresses that the kernel chose for sockets
 */
struct capture_place {
	uint32_t generation;
	uint32_t seq[SIDES];
	uint32_t unacked[SIDES];
	uint8_t ended;
	struct flowside side[SIDES];
};

/* CAPTURE_ENDED() - The FIN of a direction at the socket of a side: a spliced
 * connection's goes by both, at different times */
#define CAPTURE_ENDED(sidei, from) (1U << (2 * (sidei) + (from)))

/** struct captures - All that are on; there is none while all are off
 * @ft:		Flow table
 * @now:	The time of the datapath
 * @place:	One for each entry of the flow table, touched as needed
 * @list:	Captures by number, or NULL
 */
struct captures {
	const struct flow_table *ft;
	const uint64_t *now;
	struct capture_place *place;
	struct capture *list[CAPTURES_MAX];
};

/** struct capture_wish - What a capture shall be like
 * @steps:	Sound program; copied
 */
struct capture_wish {
	const struct filter_step *steps;
	unsigned n_steps;
	unsigned sides;
	uint32_t snaplen;
};

/**
 * capture_start() - Begin a capture
 * @set:	Where captures are kept; made by the first one
 * @ret_n:	Filled with its number
 *
 * Return: 0, -EUSERS there are CAPTURES_MAX, -ENOMEM
 */
int capture_start(struct captures **set, const struct flow_table *ft,
		  const uint64_t *now, const struct capture_wish *wish,
		  unsigned *ret_n);

/* capture_finish() - Take no more packets in; what is there may be taken out */
void capture_finish(struct captures *set, unsigned n);

/* capture_stop() - End a capture, and forget what is in its ring */
void capture_stop(struct captures **set, unsigned n);
void capture_stop_all(struct captures **set);

/* capture_frame() - A frame crossed the tap */
void capture_frame(struct captures *set, bool from_guest,
		   const struct iovec *iov, unsigned n);

/**
 * capture_moved() - Payload of a flow was given to one side by the other
 * @to:		Side that was given it; sides that are the tap are not meant
 * @len:	Bytes of it, from the start of @iov
 * @size:	Bytes of each datagram, the last may have less; 0: a stream
 */
void capture_moved(struct captures *set, const struct flow *flow, unsigned to,
		   const struct iovec *iov, uint32_t len, uint32_t size);

/** enum capture_said - What sockets of TCP say without a byte of payload
 * @CAPTURE_CONNECTING:	Ours asks for a connection: SYN
 * @CAPTURE_CONNECTED:	It was accepted
 * @CAPTURE_REFUSED:	It was not
 * @CAPTURE_ACCEPTED:	Ours accepted one: the three segments of it
 * @CAPTURE_FIN_CAME:	The peer's bytes have ended
 * @CAPTURE_FIN_WENT:	Ours have ended
 * @CAPTURE_RST_CAME:	The peer resets
 * @CAPTURE_RST_WENT:	We do
 */
enum capture_said {
	CAPTURE_CONNECTING,
	CAPTURE_CONNECTED,
	CAPTURE_REFUSED,
	CAPTURE_ACCEPTED,
	CAPTURE_FIN_CAME,
	CAPTURE_FIN_WENT,
	CAPTURE_RST_CAME,
	CAPTURE_RST_WENT,
};

/* capture_said() - The connection at the socket of a side begins or ends: make
 * up the segments by which a TCP says so (capture_tcp.c) */
void capture_said(struct captures *set, const struct flow *flow, unsigned sidei,
		  enum capture_said what);

/* capture_place_of() - What is known of a flow, since it was first seen */
struct capture_place *capture_place_of(struct captures *set,
				       const struct flow *flow);

/** struct capture_segment - A segment at the socket of a side, made up
 * @out:	The socket sends it
 * @flags:	TCP_FLAG_*
 * @seq:	Its number, and what it acknowledges
 */
struct capture_segment {
	bool out;
	uint8_t flags;
	uint32_t seq;
	uint32_t ack;
};

/* capture_segment() - Show one without payload */
void capture_segment(struct captures *set, const struct flow *flow,
		     unsigned sidei, const struct capture_segment *s);

/** struct capture_take - What capture_take() may give, and has given
 * @out:	Where blocks go
 * @room:	Bytes of it
 * @packets_max: Packets at most
 * @last:	Nothing is to be waited for any more
 * @len:	Bytes that were filled
 * @packets:	Packets that these are
 * @full:	There was no room for the next one
 */
struct capture_take {
	uint8_t *out;
	uint32_t room;
	uint64_t packets_max;
	bool last;
	uint32_t len;
	uint64_t packets;
	bool full;
};

/* capture_take() - Take packets out of the ring, as enhanced packet blocks */
void capture_take(struct captures *set, unsigned n, struct capture_take *take);

#endif /* PASSTPY_LINK_CAPTURE_H */
