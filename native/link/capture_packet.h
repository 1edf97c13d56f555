/* SPDX-License-Identifier: GPL-2.0-or-later */
/* capture_packet.h - Packets of a capture: whose one is, and how one is made up */
#ifndef PASSTPY_LINK_CAPTURE_PACKET_H
#define PASSTPY_LINK_CAPTURE_PACKET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "table/filter.h"

#define PACKET_LOOK	160 /* bytes at the start of a frame that say whose it is */
#define PACKET_HDR_MAX	64 /* of what packet_header() makes */
#define PACKET_DATA_MAX 65000
#define PACKET_BLOCK	160 /* bytes of a block besides its packet, at most */

/**
 * packet_key() - Read who sends a frame to whom, as the guest's side of a flow
 * @frame:	Its first bytes, PACKET_LOOK or all; from anybody
 * @ret_proto:	Filled with its IP protocol
 *
 * Ports are 0 where it has none, or where they are not in this fragment.
 *
 * Return: false if it is no IP packet, or too odd to be any flow's
 */
bool packet_key(const uint8_t *frame, uint32_t len, bool from_guest,
		struct flowside *key, uint8_t *ret_proto);

/* packet_subject() - What is known of a packet that no flow has */
void packet_subject(struct border_flow *r, const struct flowside *key,
		    uint8_t proto, uint64_t now);

/** struct packet_data - Payload that a header is made up for
 * @seq:	TCP: place in the stream
 * @ack:	TCP: place in the stream of the other direction
 * @flags:	TCP: TCP_FLAG_*
 */
struct packet_data {
	const struct iovec *iov;
	unsigned n;
	uint32_t len;
	uint32_t seq;
	uint32_t ack;
	uint8_t flags;
};

/**
 * packet_header() - Make up IP header and the next one
 * @hdr:	Room for PACKET_HDR_MAX bytes
 * @side:	Side of the flow that has the socket
 * @out:	The socket takes the payload; else it gives it
 * @data:	Payload. Of ping it starts with the ICMP header, in one piece;
 *		that becomes part of what is made up, and @data what follows
 * @rest:	What @data refers to then
 *
 * Return: bytes filled
 */
uint32_t packet_header(uint8_t *hdr, const struct flowside *side, uint8_t proto,
		       bool out, struct packet_data *data, struct iovec *rest);

/** struct packet_about - What a block says of its packet
 * @flow_id:	Or FILTER_NO_FLOW
 * @out:	Towards the guest at the tap, out of a socket
 */
struct packet_about {
	uint64_t time_ns;
	uint64_t flow_id;
	uint32_t rule;
	uint32_t captured;
	uint32_t length;
	uint8_t interface;
	bool out;
};

/* packet_block_begin() - Write what stands before the packet's bytes
 * Return: where these go */
uint8_t *packet_block_begin(uint8_t *to, const struct packet_about *about);

/* packet_block_end() - Write what follows the bytes, now that they are there
 * Return: bytes of the block */
uint32_t packet_block_end(uint8_t *to, const struct packet_about *about);

#endif /* PASSTPY_LINK_CAPTURE_PACKET_H */
