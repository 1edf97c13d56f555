/* SPDX-License-Identifier: GPL-2.0-or-later */
/* frames.h - Good frames of a guest, for tests that then spoil them */
#ifndef PASSTPY_TESTS_FRAMES_H
#define PASSTPY_TESTS_FRAMES_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

#include "base/checksum.h"
#include "base/macros.h"
#include "base/wire.h"
#include "test.h"

#define SAMPLE_MAX 4096

/** struct sample - A frame, and where its headers are
 * @data:	Bytes, from the Ethernet header on
 * @len:	Number of them
 * @l4:		Offset of the L4 header
 * @v4:		IPv4, else IPv6
 * @proto:	IPPROTO_* of the L4 header
 */
struct sample {
	uint8_t data[SAMPLE_MAX];
	uint32_t len;
	uint32_t l4;
	bool v4;
	uint8_t proto;
};

static inline struct ip4_hdr *sample_ip4(struct sample *s)
{
	return (struct ip4_hdr *)(s->data + ETH_HLEN_);
}

static inline struct ip6_hdr_ *sample_ip6(struct sample *s)
{
	return (struct ip6_hdr_ *)(s->data + ETH_HLEN_);
}

static inline void *sample_l4(struct sample *s)
{
	return s->data + s->l4;
}

/* sample_check_offset() - Where in the L4 header the checksum is */
static inline uint16_t sample_check_offset(const struct sample *s)
{
	if (s->proto == IPPROTO_TCP)
		return offsetof(struct tcp_hdr, check);
	if (s->proto == IPPROTO_UDP)
		return offsetof(struct udp_hdr, check);
	return offsetof(struct icmp_hdr, check);
}

static inline uint64_t sample_pseudo(struct sample *s)
{
	union inany src, dst;

	if (s->proto == IPPROTO_ICMP)
		return 0;
	if (s->v4) {
		inany_from_v4(&src, (struct in_addr){ sample_ip4(s)->saddr });
		inany_from_v4(&dst, (struct in_addr){ sample_ip4(s)->daddr });
	} else {
		memcpy(&src, sample_ip6(s)->saddr, sizeof(src));
		memcpy(&dst, sample_ip6(s)->daddr, sizeof(dst));
	}
	return csum_pseudo(&src, &dst, s->proto, s->len - s->l4);
}

/* sample_seal() - Make all checksums right, for the headers as they are */
static inline void sample_seal(struct sample *s)
{
	uint8_t *l4 = s->data + s->l4;
	uint16_t check = 0;

	if (s->v4) {
		struct ip4_hdr *ih = sample_ip4(s);

		ih->check = 0;
		ih->check = (uint16_t)~csum_fold(
			csum_add(ih, s->l4 - ETH_HLEN_, 0));
	}
	memcpy(l4 + sample_check_offset(s), &check, 2);
	check = (uint16_t)~csum_fold(
		csum_add(l4, s->len - s->l4, sample_pseudo(s)));
	memcpy(l4 + sample_check_offset(s), &check, 2);
}

/**
 * sample_ip() - Ethernet and IP header, L4 header and payload zero
 * @ext:	IPv4 options or IPv6 extension headers, or NULL
 * @ext_len:	Bytes of @ext
 * @next:	Type of the first header of @ext, for IPv6
 * @l4_len:	Bytes of L4 header and payload
 */
static inline void sample_ip(struct sample *s, bool v4, uint8_t proto,
			     const void *ext, uint32_t ext_len, uint8_t next,
			     uint32_t l4_len)
{
	uint32_t l3_len = v4 ? sizeof(struct ip4_hdr) : sizeof(struct ip6_hdr_);
	struct eth_hdr *eh = (struct eth_hdr *)s->data;

	*s = (struct sample){ .v4 = v4, .proto = proto };
	s->l4 = ETH_HLEN_ + l3_len + ext_len;
	s->len = s->l4 + l4_len;
	CHECK(s->len <= SAMPLE_MAX);
	memset(eh->dst, 0x9a, sizeof(eh->dst));
	memset(eh->src, 0x52, sizeof(eh->src));
	eh->type = htons(v4 ? ETHERTYPE_IPV4_ : ETHERTYPE_IPV6_);
	if (ext_len)
		memcpy(s->data + ETH_HLEN_ + l3_len, ext, ext_len);
	if (v4) {
		*sample_ip4(s) = (struct ip4_hdr){
			.ver_ihl = (uint8_t)(0x45 + ext_len / 4),
			.tos = 0x10,
			.tot_len = htons((uint16_t)(s->len - ETH_HLEN_)),
			.frag_off = htons(IP4_DF),
			.ttl = 64,
			.protocol = proto,
			.saddr = htonl(0xc0000202), /* 192.0.2.2 */
			.daddr = htonl(0xc6336401), /* 198.51.100.1 */
		};
		return;
	}
	*sample_ip6(s) = (struct ip6_hdr_){
		.vtc_flow = htonl(0x61012345),
		.payload_len = htons((uint16_t)(ext_len + l4_len)),
		.nexthdr = ext_len ? next : proto,
		.hop_limit = 64,
		.saddr = { 0x20, 0x01, 0x0d, 0xb8, [15] = 2 },
		.daddr = { 0x20, 0x01, 0x0d, 0xb8, [7] = 1, [15] = 1 },
	};
}

/* sample_fill() - L4 header and payload of a sample, and its checksums */
static inline void sample_fill(struct sample *s, uint16_t sport, uint16_t dport,
			       uint8_t type)
{
	uint32_t len = s->len - s->l4;

	for (uint32_t i = 0; i < len; i++)
		s->data[s->l4 + i] = (uint8_t)i;
	if (s->proto == IPPROTO_TCP) {
		*(struct tcp_hdr *)sample_l4(s) = (struct tcp_hdr){
			.source = htons(sport),
			.dest = htons(dport),
			.seq = htonl(1000),
			.ack_seq = htonl(2000),
			.off_res = 5 << 4,
			.flags = TCP_FLAG_ACK | TCP_FLAG_PSH,
			.window = htons(8000),
		};
	} else if (s->proto == IPPROTO_UDP) {
		*(struct udp_hdr *)sample_l4(s) = (struct udp_hdr){
			.source = htons(sport),
			.dest = htons(dport),
			.len = htons((uint16_t)len),
		};
	} else {
		*(struct icmp_hdr *)sample_l4(s) = (struct icmp_hdr){
			.type = type,
			.id = htons(sport),
			.seq = htons(1),
		};
	}
	sample_seal(s);
}

/* sample_simple() - A frame without options, 100 bytes of payload and header */
static inline void sample_simple(struct sample *s, bool v4, uint8_t proto)
{
	sample_ip(s, v4, proto, NULL, 0, 0, 100);
	sample_fill(s, 40000, 443, v4 ? 8 : 128);
}

/* sample_extended() - An IPv6 frame with extension headers */
static inline void sample_extended(struct sample *s, uint8_t proto,
				   const void *ext, uint32_t ext_len,
				   uint8_t next)
{
	sample_ip(s, false, proto, ext, ext_len, next, 100);
	sample_fill(s, 40000, 443, 128);
}

/* sample_quoted() - The quote of an ICMP error */
static inline uint8_t *sample_quoted(struct sample *s)
{
	return s->data + s->l4 + sizeof(struct icmp_hdr);
}

/* sample_refusal() - "Port unreachable", about a UDP datagram from 5353 to 53 */
static inline void sample_refusal(struct sample *s, bool v4)
{
	uint8_t proto = v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
	struct sample about;
	uint32_t len;

	sample_ip(&about, v4, IPPROTO_UDP, NULL, 0, 0, 30);
	sample_fill(&about, 5353, 53, 0);
	len = about.len - ETH_HLEN_;
	sample_ip(s, v4, proto, NULL, 0, 0, sizeof(struct icmp_hdr) + len);
	sample_fill(s, 0, 0, v4 ? 3 : 1);
	((struct icmp_hdr *)sample_l4(s))->code = v4 ? 3 : 4;
	memcpy(sample_quoted(s), about.data + ETH_HLEN_, len);
	sample_seal(s);
}

static inline void sample_arp(struct sample *s)
{
	static const uint8_t arp[46] = { 0, 1, 8, 0, 6, 4, 0, 1 };

	*s = (struct sample){ .len = ETH_HLEN_ + sizeof(arp) };
	memset(s->data, 0xff, ETH_ALEN_);
	s->data[12] = 0x08;
	s->data[13] = 0x06;
	memcpy(s->data + ETH_HLEN_, arp, sizeof(arp));
}

#endif /* PASSTPY_TESTS_FRAMES_H */
