/* SPDX-License-Identifier: GPL-2.0-or-later */
/* say.h - What a guest out of its mind says: good frames, spoiled */
#ifndef PASSTPY_TESTS_SAY_H
#define PASSTPY_TESTS_SAY_H

#include "base/macros.h"
#include "hear.h"
#include "mutate.h"

/* add_options() - Let a segment have options, sane or not; its new length */
static inline size_t add_options(size_t len, uint32_t ack)
{
	uint8_t options[40] = { TCP_OPT_MSS, 4, 5, 180, TCP_OPT_SACK_PERM,
				2,	     1, 3, 3,	(uint8_t)below(20) };
	size_t ip_len = (frame[12] == 0x08 ? 20 : 40), n = 12;
	uint8_t *tcp = frame + ETH_HLEN_ + ip_len;

	if (!(tcp[13] & TCP_FLAG_SYN)) {
		uint32_t start = htonl(ack + 1000), end = htonl(ack + 2000);

		options[0] = options[1] = TCP_OPT_NOP_;
		options[2] = TCP_OPT_SACK;
		options[3] = 10;
		memcpy(options + 4, &start, 4);
		memcpy(options + 8, &end, 4);
	}
	if (one_in(4)) {
		n = 4 * (1 + below(10));
		for (size_t i = 0; i < n; i++) {
			if (one_in(3))
				options[i] = (uint8_t)below(256);
		}
	}
	memmove(tcp + 20 + n, tcp + 20, len - (size_t)(tcp + 20 - frame));
	memcpy(tcp + 20, options, n);
	tcp[12] = (uint8_t)((20 + n) / 4 << 4);
	if (ip_len == 40) {
		struct ip6_hdr_ *ip = (struct ip6_hdr_ *)(frame + ETH_HLEN_);

		ip->payload_len = htons((uint16_t)(ntohs(ip->payload_len) + n));
	} else {
		struct ip4_hdr *ip = (struct ip4_hdr *)(frame + ETH_HLEN_);

		ip->tot_len = htons((uint16_t)(ntohs(ip->tot_len) + n));
		ip->check = 0;
		ip->check = (uint16_t)~csum_fold(csum_add(ip, sizeof(*ip), 0));
	}
	return len + n;
}

/* make_tcp() - What an honest guest would say next on a connection, roughly */
static inline size_t make_tcp(struct conn *c)
{
	uint32_t len = one_in(2) ? 0 : 1 + below(PAYLOAD);
	uint32_t seq = c->seq, ack = c->ack;
	uint8_t flags = TCP_FLAG_ACK;
	size_t frame_len;

	if (one_in(40))
		conn_restart(c);
	if (!c->ack || one_in(200)) {
		flags = TCP_FLAG_SYN;
		seq = c->seq - 1;
		len = 0;
	} else if (one_in(12)) {
		flags |= TCP_FLAG_FIN;
	} else if (one_in(40)) {
		flags = TCP_FLAG_RST | (one_in(2) ? TCP_FLAG_ACK : 0);
	}
	if (one_in(10))
		seq += below(20000) - 10000;
	if (one_in(10))
		ack += below(20000) - 10000;
	frame_len = guest_tcp(frame, &c->ends, flags, seq, ack, payload, len);
	if (seq == c->seq)
		c->seq += len + !!(flags & TCP_FLAG_FIN);
	if ((flags & TCP_FLAG_SYN) || one_in(5))
		frame_len = add_options(frame_len, ack);
	if (one_in(8)) {
		struct tcp_hdr *tcp =
			(struct tcp_hdr *)(frame + ETH_HLEN_ +
					   (c->ends.v6 ? 40 : 20));

		tcp->window = htons((uint16_t)(one_in(2) ? 0 : below(65536)));
	}
	return frame_len;
}

/* make_group() - Let a datagram go to a group, or be what asks for one */
static inline void make_group(void)
{
	struct ip6_hdr_ *ip6 = (struct ip6_hdr_ *)(frame + ETH_HLEN_);
	struct ip4_hdr *ip4 = (struct ip4_hdr *)(frame + ETH_HLEN_);

	frame[0] |= 1;
	if (frame[12] == 0x86) {
		ip6->daddr[0] = 0xff;
		ip6->daddr[1] = (uint8_t)below(16);
		if (one_in(4))
			ip6->nexthdr = IPPROTO_ICMPV6;
	} else {
		ip4->daddr = htonl(one_in(4) ? 0xffffffff : 0xe00000fb);
		if (one_in(4))
			ip4->protocol = IPPROTO_IGMP;
		ip4->check = 0;
		ip4->check =
			(uint16_t)~csum_fold(csum_add(ip4, sizeof(*ip4), 0));
	}
}

static inline size_t make_udp(void)
{
	struct guest_ends ends = { .v6 = one_in(3),
				   .host = (uint8_t)(1 + below(3)),
				   .sport = (uint16_t)(5000 + below(20)),
				   .dport = (uint16_t)(one_in(50) ? 67 : 53) };
	size_t len;

	if (one_in(3)) /* an answer, if anybody asked */
		ends = world.seen[below(SEEN)];
	len = guest_udp(frame, &ends, payload, below(PAYLOAD));
	if (one_in(16))
		make_group();
	return len;
}

/* pseudo6() - The ICMPv6 pseudo header's sum, of the frame being made */
static inline uint64_t pseudo6(uint32_t len)
{
	const struct ip6_hdr_ *ip = (struct ip6_hdr_ *)(frame + ETH_HLEN_);
	uint32_t words[2] = { htonl((uint32_t)sizeof(struct icmp_hdr) + len),
			      htonl(IPPROTO_ICMPV6) };

	return csum_add(words, sizeof(words),
			csum_add(ip->saddr, 2 * sizeof(ip->saddr), 0));
}

static inline size_t make_icmp(void)
{
	struct guest_ends ends = { .v6 = one_in(2), .host = 1 };
	uint32_t len = below(200);
	struct icmp_hdr *icmp = (struct icmp_hdr *)guest_ip(
		frame, &ends, ends.v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP,
		(uint32_t)sizeof(*icmp) + len);

	*icmp = (struct icmp_hdr){ .type = ends.v6 ? 128 : 8,
				   .id = htons((uint16_t)below(5)),
				   .seq = htons((uint16_t)below(100)) };
	if (ends.v6 && one_in(10))
		icmp->type = (uint8_t)(133 + below(5));
	memcpy(icmp + 1, payload, len);
	icmp->check = (uint16_t)~csum_fold(csum_add(
		icmp, sizeof(*icmp) + len, ends.v6 ? pseudo6(len) : 0));
	return (size_t)((uint8_t *)(icmp + 1) - frame) + len;
}

static inline size_t make_arp(void)
{
	uint8_t *arp = guest_eth(frame, ETHERTYPE_ARP_);

	memset(arp, 0, 28);
	return ETH_HLEN_ + 28;
}

static inline size_t make_raw(void)
{
	size_t len = ETH_HLEN_ + below(114);

	any_bytes(frame, len);
	return len;
}

static inline size_t make_frame(void)
{
	uint32_t kind = below(21);

	if (kind < 14)
		return make_tcp(&world.conn[below(CONNS)]);
	if (kind < 17)
		return make_udp();
	if (kind < 19)
		return make_icmp();
	return kind < 20 ? make_arp() : make_raw();
}

static inline void send_frame(void)
{
	struct vnet_hdr vh = guest_no_csum();
	size_t len = make_frame();

	if (one_in(10) && len >= ETH_HLEN_ + sizeof(struct ip6_hdr_))
		len = guest_fragment(
			frame, len, below(3), one_in(2),
			(uint16_t)(8 * below(one_in(2) ? 3 : 8192)));
	if (one_in(3)) {
		len = mutate(&rnd, frame, len, sizeof(frame));
		if (!one_in(4))
			guest_mend_ip(frame, len);
	}
	if (one_in(6))
		mutate_header(&rnd, &vh);
	if (world.g.stream) /* another length ends the connection: leave_rudely() */
		len = MIN(MAX(len, (size_t)ETH_HLEN_), 65535U);
	if (is_machine() && !one_in(20))
		guest_mend(frame, len);
	(void)guest_send(&world.g, &vh, frame, len);
}

#endif /* PASSTPY_TESTS_SAY_H */
