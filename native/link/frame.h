/* SPDX-License-Identifier: GPL-2.0-or-later */
/* frame.h - Building the headers of frames for the guest */
#ifndef PASSTPY_LINK_FRAME_H
#define PASSTPY_LINK_FRAME_H

#include "link/tap.h"

/**
 * frame_ip() - Ethernet and IP header; L4 header goes where it returns
 * @f:		Frame, need not be initialised
 * @t:		Tap, for the MAC addresses
 * @src:	Source address
 * @dst:	Destination address, same family
 * @proto:	IPPROTO_*
 * @l4_len:	Bytes of L4 header
 * @payload:	Bytes of payload
 * @ttl:	TTL or hop limit; 0: 255, the default of this program
 *
 * DF is set and the IPv4 id is 0 (RFC 6864: atomic datagram). For a
 * super-segment the length fields are those of the whole.
 *
 * Return: where the caller writes @l4_len bytes of L4 header
 */
uint8_t *frame_ip(struct frame_out *f, const struct tap *t,
		  const union inany *src, const union inany *dst, uint8_t proto,
		  uint32_t l4_len, uint32_t payload, uint8_t ttl);

/**
 * frame_csum_offload() - Leave the L4 checksum to the backend
 * @check_off:	Offset of the checksum field in the L4 header
 *
 * Stores the pseudo header's sum there. Call after the L4 header is written.
 */
void frame_csum_offload(struct frame_out *f, const union inany *src,
			const union inany *dst, uint8_t proto, uint32_t l4_len,
			uint32_t payload, uint16_t check_off);

/**
 * frame_gso() - Mark as a super-segment; call after frame_csum_offload()
 * @gso_type:	VNET_GSO_*
 * @size:	Payload bytes of each segment
 */
void frame_gso(struct frame_out *f, uint8_t gso_type, uint16_t size);

/* frame_csum_icmp() - Compute ICMP's checksum now, over header and payload */
void frame_csum_icmp(struct frame_out *f, const union inany *src,
		     const union inany *dst, uint8_t proto, uint32_t l4_len,
		     const void *payload, uint32_t len);

/**
 * frame_icmp_error() - ICMP or ICMPv6 error quoting a packet, and send it
 * @src:	Who reports it
 * @dst:	The guest
 * @type:	ICMP or ICMPv6 type, by the family of @dst
 * @code:	Code
 * @info:	Second word, host order: MTU for packet-too-big
 *		and fragmentation-needed, else 0
 * @quote:	The offending packet from its IP header on; copied
 * @len:	Bytes of @quote; cut to 548 (IPv4, RFC 1812 4.3.2.3: 576 in all)
 *		or 1232 (IPv6, RFC 4443 3.1: minimum MTU in all)
 *
 * Return: 0 or -errno of tap_send()
 */
int frame_icmp_error(struct tap *t, const union inany *src,
		     const union inany *dst, uint8_t type, uint8_t code,
		     uint32_t info, const void *quote, uint32_t len);

#endif /* PASSTPY_LINK_FRAME_H */
