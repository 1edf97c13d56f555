/* SPDX-License-Identifier: GPL-2.0-or-later */
/* oracle.h - What every frame for a guest must keep, whoever sent it
 *
 * Lengths and checksums of all layers, and of an ICMP error that it quotes a
 * packet of the host it goes to. Nothing of base/checksum.c is used.
 */
#ifndef PASSTPY_TESTS_ORACLE_H
#define PASSTPY_TESTS_ORACLE_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "base/wire.h"
#include "test.h"

/* oracle_sum() - Add bytes, big endian, to a one's complement sum */
static inline uint16_t oracle_sum(uint32_t sum, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return (uint16_t)sum;
}

/** struct oracle_ip - An IP packet, taken apart
 * @proto:	Of what is above
 * @part:	It is a fragment
 * @addrs:	Source and destination, @alen bytes each
 * @alen:	Bytes of an address
 * @l4:		What is above IP
 * @len:	Bytes of it
 */
struct oracle_ip {
	uint8_t proto;
	bool part;
	const uint8_t *addrs;
	size_t alen;
	const uint8_t *l4;
	size_t len;
};

static inline uint16_t oracle_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

/* oracle_ip() - Take a packet apart; a quoted one may be cut off */
static inline struct oracle_ip oracle_ip(const uint8_t *p, size_t len,
					 bool quoted)
{
	struct oracle_ip ip = { 0 };
	size_t total, head;

	CHECK(len >= 20 && (p[0] >> 4 == 4 || p[0] >> 4 == 6));
	if (p[0] >> 4 == 4) {
		head = (size_t)(p[0] & 15) * 4;
		CHECK(head >= 20 && len >= head);
		CHECK_EQ(oracle_sum(0, p, head), 0xffff);
		total = oracle_be16(p + 2);
		ip = (struct oracle_ip){ .proto = p[9],
					 .part = oracle_be16(p + 6) & 0x3fff,
					 .addrs = p + 12,
					 .alen = 4 };
	} else {
		head = 40;
		CHECK(len >= head);
		total = head + oracle_be16(p + 4);
		ip = (struct oracle_ip){ .proto = p[6],
					 .part = p[6] == IPPROTO_FRAGMENT,
					 .addrs = p + 8,
					 .alen = 16 };
	}
	CHECK(total >= head);
	CHECK(quoted ? total >= len : total == len);
	ip.l4 = p + head;
	ip.len = len - head;
	return ip;
}

/* oracle_quote() - An ICMP error goes to the host that sent what it quotes */
static inline void oracle_quote(const struct oracle_ip *ip)
{
	bool v4 = ip->proto == IPPROTO_ICMP;
	uint8_t type = ip->l4[0];
	struct oracle_ip quote;

	if (v4 ? type != 3 && type != 11 && type != 12 : type >= 128)
		return;
	CHECK(ip->len >= 8 + (v4 ? 20U : 40U));
	quote = oracle_ip(ip->l4 + 8, ip->len - 8, true);
	CHECK_EQ(quote.alen, ip->alen);
	CHECK(!memcmp(quote.addrs, ip->addrs + ip->alen, ip->alen));
}

/* oracle_l4() - Checksum and lengths of what is above IP
 * @partial: The checksum is left to be completed; the pseudo header is in */
static inline void oracle_l4(const struct oracle_ip *ip, bool partial)
{
	uint8_t tail[6] = {
		0, 0, (uint8_t)(ip->len >> 8), (uint8_t)ip->len, 0, ip->proto
	};
	uint16_t pseudo = oracle_sum(0, ip->addrs, 2 * ip->alen);

	pseudo = oracle_sum(pseudo, tail, sizeof(tail));
	if (ip->proto == IPPROTO_UDP) {
		CHECK(ip->len >= 8);
		CHECK_EQ(oracle_be16(ip->l4 + 4), ip->len);
	} else if (ip->proto == IPPROTO_TCP) {
		CHECK(ip->len >= 20 && (ip->l4[12] >> 4) * 4U <= ip->len);
	} else {
		CHECK(ip->len >= 4);
	}
	if (partial)
		CHECK_EQ(oracle_be16(ip->l4 +
				     (ip->proto == IPPROTO_TCP ? 16 : 6)),
			 pseudo);
	else
		CHECK_EQ(oracle_sum(ip->proto == IPPROTO_ICMP ? 0 : pseudo,
				    ip->l4, ip->len),
			 0xffff);
}

/* oracle_frame() - Check a frame for the guest, padding of a short one included
 * @vh: Its virtio-net header; zero where there is none */
static inline void oracle_frame(const struct vnet_hdr *vh, const uint8_t *frame,
				size_t len)
{
	bool v4 = oracle_be16(frame + 12) == ETHERTYPE_IPV4_;
	struct oracle_ip ip;
	size_t whole;

	CHECK(len >= ETH_HLEN_ + 20);
	if (!v4 && oracle_be16(frame + 12) != ETHERTYPE_IPV6_)
		return;
	whole = v4 ? oracle_be16(frame + ETH_HLEN_ + 2) :
		     oracle_be16(frame + ETH_HLEN_ + 4) + 40U;
	whole += ETH_HLEN_;
	CHECK(len == whole || (len == 60 && whole < len));
	for (size_t i = whole; i < len; i++)
		CHECK_EQ(frame[i], 0);
	ip = oracle_ip(frame + ETH_HLEN_, whole - ETH_HLEN_, false);
	if (ip.part || (ip.proto != IPPROTO_TCP && ip.proto != IPPROTO_UDP &&
			ip.proto != IPPROTO_ICMP && ip.proto != IPPROTO_ICMPV6))
		return;
	oracle_l4(&ip, vh->flags & VNET_F_NEEDS_CSUM);
	if (ip.proto == IPPROTO_ICMP || ip.proto == IPPROTO_ICMPV6)
		oracle_quote(&ip);
}

#endif /* PASSTPY_TESTS_ORACLE_H */
