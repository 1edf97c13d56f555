/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ip_header.c - Building an IPv4 or IPv6 header */

#include "link/ip_header.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/checksum.h"
#include "base/wire.h"

uint32_t ip_header(uint8_t *to, const union inany *src, const union inany *dst,
		   uint8_t proto, uint32_t len, uint8_t ttl)
{
	struct ip4_hdr *ip4 = (struct ip4_hdr *)to;
	struct ip6_hdr_ *ip6 = (struct ip6_hdr_ *)to;

	if (inany_is_v4(src)) {
		*ip4 = (struct ip4_hdr){
			.ver_ihl = 0x45,
			.tot_len = htons((uint16_t)(sizeof(*ip4) + len)),
			.frag_off = htons(IP4_DF),
			.ttl = ttl,
			.protocol = proto,
			.saddr = src->v4.a4.s_addr,
			.daddr = dst->v4.a4.s_addr,
		};
		ip4->check =
			(uint16_t)~csum_fold(csum_add(ip4, sizeof(*ip4), 0));
		return sizeof(*ip4);
	}
	ip6->vtc_flow = htonl(6U << 28);
	ip6->payload_len = htons((uint16_t)len);
	ip6->nexthdr = proto;
	ip6->hop_limit = ttl;
	memcpy(ip6->saddr, src, sizeof(ip6->saddr));
	memcpy(ip6->daddr, dst, sizeof(ip6->daddr));
	return sizeof(*ip6);
}
