/* SPDX-License-Identifier: GPL-2.0-or-later */
/* frame.c - Building the headers of frames for the guest */

#include "link/frame.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/checksum.h"
#include "base/macros.h"
#include "link/ip_header.h"

#define DEFAULT_TTL 255

/* RFC 1812 4.3.2.3: 576 bytes with IP and ICMP header; RFC 4443 3.1: 1280 */
#define QUOTE_MAX4 (576 - sizeof(struct ip4_hdr) - sizeof(struct icmp_hdr))
#define QUOTE_MAX6 (1280 - sizeof(struct ip6_hdr_) - sizeof(struct icmp_hdr))

/* set_destination() - The guest, or the group's own address (RFC 1112 6.4,
 * RFC 2464 7), by which the guest's kernel knows what it is */
static void set_destination(uint8_t *mac, const struct tap *t,
			    const union inany *dst)
{
	const uint8_t *low = dst->a6.s6_addr + 12;

	if (inany_is_v4(dst) && low[0] >> 4 == 0xe) {
		memcpy(mac, "\x01\x00\x5e", 3);
		mac[3] = low[1] & 0x7f;
		memcpy(mac + 4, low + 2, 2);
	} else if (!inany_is_v4(dst) && dst->a6.s6_addr[0] == 0xff) {
		memcpy(mac, "\x33\x33", 2);
		memcpy(mac + 2, low, 4);
	} else {
		memcpy(mac, t->guest_mac, ETH_ALEN_);
	}
}

uint8_t *frame_ip(struct frame_out *f, const struct tap *t,
		  const union inany *src, const union inany *dst, uint8_t proto,
		  uint32_t l4_len, uint32_t payload, uint8_t ttl)
{
	struct eth_hdr *eth = (struct eth_hdr *)f->hdr;
	uint8_t *l4;

	memset(&f->vh, 0, sizeof(f->vh));
	set_destination(eth->dst, t, dst);
	memcpy(eth->src, t->our_mac, ETH_ALEN_);
	eth->type = htons(inany_is_v4(src) ? ETHERTYPE_IPV4_ : ETHERTYPE_IPV6_);
	if (!ttl)
		ttl = DEFAULT_TTL;
	l4 = f->hdr + ETH_HLEN_;
	l4 += ip_header(l4, src, dst, proto, l4_len + payload, ttl);
	f->hdr_len = (uint32_t)(l4 - f->hdr) + l4_len;
	assert(f->hdr_len <= TAP_HDR_MAX);
	return l4;
}

void frame_csum_offload(struct frame_out *f, const union inany *src,
			const union inany *dst, uint8_t proto, uint32_t l4_len,
			uint32_t payload, uint16_t check_off)
{
	uint32_t start = f->hdr_len - l4_len;
	uint16_t sum;

	sum = csum_fold(csum_pseudo(src, dst, proto, l4_len + payload));
	memcpy(f->hdr + start + check_off, &sum, sizeof(sum));
	f->vh.flags = VNET_F_NEEDS_CSUM;
	f->vh.hdr_len = (uint16_t)f->hdr_len;
	f->vh.csum_start = (uint16_t)start;
	f->vh.csum_offset = check_off;
}

void frame_gso(struct frame_out *f, uint8_t gso_type, uint16_t size)
{
	f->vh.gso_type = gso_type;
	f->vh.gso_size = size;
}

void frame_csum_icmp(struct frame_out *f, const union inany *src,
		     const union inany *dst, uint8_t proto, uint32_t l4_len,
		     const void *payload, uint32_t len)
{
	struct icmp_hdr *icmp =
		(struct icmp_hdr *)(f->hdr + f->hdr_len - l4_len);
	uint64_t sum = 0;

	/* Only ICMPv6 sums a pseudo header (RFC 4443 2.3) */
	if (!inany_is_v4(src))
		sum = csum_pseudo(src, dst, proto, l4_len + len);
	icmp->check = 0;
	sum = csum_add(icmp, l4_len, sum); /* even length: words stay put */
	icmp->check = (uint16_t)~csum_fold(csum_add(payload, len, sum));
}

int frame_icmp_error(struct tap *t, const union inany *src,
		     const union inany *dst, uint8_t type, uint8_t code,
		     uint32_t info, const void *quote, uint32_t len)
{
	bool v4 = inany_is_v4(dst);
	uint8_t proto = v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
	struct frame_out f;
	struct icmp_hdr *icmp;

	len = MIN(len, (uint32_t)(v4 ? QUOTE_MAX4 : QUOTE_MAX6));
	icmp = (struct icmp_hdr *)frame_ip(&f, t, src, dst, proto,
					   sizeof(*icmp), len, 0);
	*icmp = (struct icmp_hdr){
		.type = type,
		.code = code,
		.id = htons((uint16_t)(info >> 16)),
		.seq = htons((uint16_t)info),
	};
	frame_csum_icmp(&f, src, dst, proto, sizeof(*icmp), quote, len);
	return tap_send(t, &f, quote, len);
}
