/* SPDX-License-Identifier: GPL-2.0-or-later */
/* extract.h - From the bytes of a frame to the key of its flow
 *
 * The only gate for hostile bytes from the tap in C: every header is
 * bounds-checked before it is read, IPv6 extension headers are walked, and
 * anything odd is dropped and counted by reason. Whoever holds a struct frame
 * may rely on its offsets.
 */
#ifndef PASSTPY_LINK_EXTRACT_H
#define PASSTPY_LINK_EXTRACT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/counters.h"
#include "base/wire.h"
#include "table/border.h"
#include "table/flow.h"

/** struct frame - One checked frame from the guest
 * @eth:	First byte of the Ethernet header
 * @len:	Bytes up to the end of the IP packet, Ethernet padding cut off
 * @l3:		Offset of the IP header from @eth
 * @l4:		Offset of the TCP, UDP or ICMP header
 * @payload:	Offset of the payload
 * @payload_len: Bytes of payload
 * @gso_size:	Bytes of each segment if @gso_type is set, else 0
 * @gso_type:	VNET_GSO_* without the ECN bit
 * @ipproto:	IPPROTO_TCP, _UDP, _ICMP or _ICMPV6
 * @ttl:	TTL or hop limit
 * @tos:	TOS or traffic class
 * @tcp_flags:	TCP_FLAG_*, for TCP
 * @punt:	Whom it is for in Python; PUNT_NONE: a flow's
 * @frag_more:	Of a fragment: it is not the last one
 * @frag_off:	Of a fragment: where it belongs in the datagram, bytes
 * @frag_next:	Of an IPv6 fragment: offset of the byte that announces its
 *		Fragment header, which reassembly takes out
 * @frag_id:	Of a fragment: identification
 * @key:	eaddr/eport: source; oaddr/oport: destination (echo: the id twice)
 * @next:	Next frame of the same burst, in order of arrival
 */
struct frame {
	uint8_t *eth;
	uint32_t len;
	uint16_t l3;
	uint16_t l4;
	uint16_t payload;
	uint32_t payload_len;
	uint16_t gso_size;
	uint8_t gso_type;
	uint8_t ipproto;
	uint8_t ttl;
	uint8_t tos;
	uint8_t tcp_flags;
	enum punt_kind punt;
	bool frag_more;
	uint16_t frag_off;
	uint16_t frag_next;
	uint32_t frag_id;
	struct flowside key;
	struct frame *next;
};

/** struct burst - Frames of one flow from one read of the tap
 * @head:	First frame
 * @tail:	Last frame
 * @count:	Frames
 * @rest:	Set by a handler whose share of work is used up, or whose flow
 *		has ended: the first frame that it has not taken, and that may
 *		belong to another flow then; NULL: it took all
 */
struct burst {
	struct frame *head;
	struct frame *tail;
	unsigned count;
	struct frame *rest;
};

enum extract {
	EXTRACT_DROP, /* counted */
	EXTRACT_FLOW, /* @frame is complete */
	EXTRACT_PUNT, /* for a service: ARP, ND, DHCP; @eth, @len, @punt are set */
	EXTRACT_FRAGMENT, /* for reassembly: see below */
	EXTRACT_REFUSAL, /* ICMP: nobody has a UDP port; @key is the flow's that
			  * led there, as if the guest had answered from it */
	EXTRACT_GROUP, /* IGMP, MLD: for a service, if anybody relays groups */
	EXTRACT_NUM
};

/**
 * flow_extract() - Check a frame and find its key
 * @frame:	Filled
 * @eth:	Frame
 * @len:	Bytes read
 * @vh:		virtio-net header that came with it, or NULL; if it says that
 *		the checksum is not complete, the checksum is not verified
 * @cnt:	Where the reason of a drop is counted
 *
 * Punted are ARP, ICMPv6 types 133 to 137, UDP to port 67 over IPv4 and to
 * port 547 over IPv6, with their checksum completed in place if it was left to
 * us: services know nothing of virtio-net headers. Link-local IPv6 is a valid
 * flow. Source and destination that cannot be a flow (unspecified, loopback,
 * port 0; v4-mapped IPv6 addresses in an IPv6 header) are dropped; multicast
 * and broadcast destinations are left to the policy, except for TCP.
 *
 * Of a fragment @l4 and @payload both say where its part of the datagram
 * starts, @ipproto is the protocol of that part, ports are not set. A first
 * fragment without a complete chain of headers (RFC 7112), or without the
 * flags of TCP (RFC 1858), is dropped, and so is one that would overwrite them.
 */
enum extract flow_extract(struct frame *frame, uint8_t *eth, uint32_t len,
			  const struct vnet_hdr *vh, struct counters *cnt);

#endif /* PASSTPY_LINK_EXTRACT_H */
