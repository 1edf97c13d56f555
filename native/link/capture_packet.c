/* SPDX-License-Identifier: GPL-2.0-or-later */
/* capture_packet.c - Packets of a capture: whose one is, and how one is made up
 *
 * Blocks are those of draft-ietf-opsawg-pcapng, in the byte order of the writer.
 */

#include "link/capture_packet.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "base/checksum.h"
#include "base/macros.h"
#include "base/wire.h"
#include "link/ip_header.h"

#define HDR_TTL 64
#define EXT_MAX 8 /* IPv6 extension headers that are looked behind */
#define WINDOW	65535

/* Window scale and the end of options: a reader takes no window for full */
static const uint8_t syn_options[] = { 3, 3, 14, 0 };

#define BLOCK_PACKET 6
#define OPT_END	     0
#define OPT_COMMENT  1
#define OPT_FLAGS    2 /* of a packet: 1 inbound, 2 outbound */

/** struct block_hdr - Start of an enhanced packet block */
struct block_hdr {
	uint32_t type;
	uint32_t total;
	uint32_t interface;
	uint32_t time_high;
	uint32_t time_low;
	uint32_t captured;
	uint32_t length;
};

/* Header behind an IPv6 header and its extensions; 0: there is none */
static uint32_t behind_ip6(const uint8_t *frame, uint32_t len, uint8_t *proto,
			   bool *ret_whole)
{
	uint32_t at = ETH_HLEN_ + sizeof(struct ip6_hdr_);

	for (unsigned i = 0; i < EXT_MAX; i++) {
		const uint8_t *ext = frame + at;

		if (*proto != IPPROTO_HOPOPTS && *proto != IPPROTO_ROUTING &&
		    *proto != IPPROTO_DSTOPTS && *proto != IPPROTO_FRAGMENT)
			return at;
		if (at + 8 > len)
			return 0;
		if (*proto == IPPROTO_FRAGMENT) {
			*ret_whole = !(ext[2] || ext[3] & 0xf8);
			at += 8;
		} else {
			at += 8 * (ext[1] + 1U);
		}
		*proto = ext[0];
	}
	return 0;
}

/* read_ip() - Addresses and protocol of a frame
 * Return: where the next header is, or 0
 */
static uint32_t read_ip(const uint8_t *frame, uint32_t len, union inany addr[2],
			uint8_t *proto, bool *ret_whole)
{
	struct ip6_hdr_ ip6;
	struct ip4_hdr ip4;
	struct eth_hdr eth;

	if (len < ETH_HLEN_ + sizeof(ip4))
		return 0;
	memcpy(&eth, frame, sizeof(eth));
	memcpy(&ip4, frame + ETH_HLEN_, sizeof(ip4));
	if (eth.type == htons(ETHERTYPE_IPV4_)) {
		inany_from_v4(&addr[0], (struct in_addr){ ip4.saddr });
		inany_from_v4(&addr[1], (struct in_addr){ ip4.daddr });
		*proto = ip4.protocol;
		*ret_whole = !(ntohs(ip4.frag_off) & IP4_OFF);
		return ETH_HLEN_ + (ip4.ver_ihl & 0xfU) * 4;
	}
	if (eth.type != htons(ETHERTYPE_IPV6_) || len < ETH_HLEN_ + sizeof(ip6))
		return 0;
	memcpy(&ip6, frame + ETH_HLEN_, sizeof(ip6));
	memcpy(&addr[0], ip6.saddr, sizeof(addr[0]));
	memcpy(&addr[1], ip6.daddr, sizeof(addr[1]));
	*proto = ip6.nexthdr;
	*ret_whole = true;
	return behind_ip6(frame, len, proto, ret_whole);
}

/* is_echo() - Has it an identifier? Requests and replies of either ICMP */
static bool is_echo(uint8_t proto, uint8_t type)
{
	return proto == IPPROTO_ICMP ? type == 8 || type == 0 :
				       type == 128 || type == 129;
}

bool packet_key(const uint8_t *frame, uint32_t len, bool from_guest,
		struct flowside *key, uint8_t *ret_proto)
{
	union inany addr[2];
	uint16_t port[4] = { 0 };
	bool whole = true;
	uint32_t l4 = read_ip(frame, len, addr, ret_proto, &whole);
	unsigned guest = from_guest ? 0 : 1;

	if (!l4)
		return false;
	whole &= l4 + sizeof(port) <= len;
	if (whole)
		memcpy(port, frame + l4, sizeof(port));
	switch (*ret_proto) {
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		port[0] = port[1] =
			whole && is_echo(*ret_proto, frame[l4]) ? port[2] : 0;
		break;
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		break;
	default:
		port[0] = port[1] = 0;
	}
	*key = (struct flowside){
		.eaddr = addr[guest],
		.oaddr = addr[!guest],
		.eport = ntohs(port[guest]),
		.oport = ntohs(port[!guest]),
	};
	return true;
}

void packet_subject(struct border_flow *r, const struct flowside *key,
		    uint8_t proto, uint64_t now)
{
	uint8_t type = FLOW_NUM_TYPES;

	/* A protocol's first type is the one that is not spliced */
	for (uint8_t i = type; --i;) {
		if (flow_type_proto[i] == proto)
			type = i;
	}
	if (type == FLOW_NUM_TYPES)
		type = FLOW_TYPE_NONE;
	*r = (struct border_flow){
		.flow_id = FILTER_NO_FLOW,
		.created_ns = now,
		.last_use_ns = now,
		.listener = -1,
		.eaddr0 = key->eaddr,
		.oaddr0 = key->oaddr,
		.eport0 = key->eport,
		.oport0 = key->oport,
		.proto = proto,
		.type = type,
		.pif0 = PIF_TAP,
	};
}

/* finish_sum() - Checksum of headers (their sum: @sum) with the data behind them */
static uint16_t finish_sum(const struct packet_data *data, uint64_t sum)
{
	return (uint16_t)~csum_iov(data->iov, data->n, csum_fold(sum), false);
}

/* tcp_len() - Bytes of a TCP header: each SYN has options */
static uint32_t tcp_len(const struct packet_data *data)
{
	uint32_t options = data->flags & TCP_FLAG_SYN ? sizeof(syn_options) : 0;

	return (uint32_t)sizeof(struct tcp_hdr) + options;
}

static uint32_t put_tcp(uint8_t *hdr, uint16_t from, uint16_t to,
			const struct packet_data *data, uint64_t sum)
{
	uint32_t len = tcp_len(data);
	struct tcp_hdr th = {
		.source = htons(from),
		.dest = htons(to),
		.seq = htonl(data->seq),
		.ack_seq = htonl(data->ack),
		.off_res = (uint8_t)(len / 4 << 4),
		.flags = data->flags,
		.window = htons(WINDOW),
	};

	sum = csum_add(&th, sizeof(th), sum);
	sum = csum_add(syn_options, len - sizeof(th), sum);
	th.check = finish_sum(data, sum);
	memcpy(hdr, &th, sizeof(th));
	memcpy(hdr + sizeof(th), syn_options, len - sizeof(th));
	return len;
}

static uint32_t put_udp(uint8_t *hdr, uint16_t from, uint16_t to,
			const struct packet_data *data, uint64_t sum)
{
	struct udp_hdr uh = {
		.source = htons(from),
		.dest = htons(to),
		.len = htons((uint16_t)(sizeof(uh) + data->len)),
	};

	uh.check = finish_sum(data, csum_add(&uh, sizeof(uh), sum));
	if (!uh.check)
		uh.check = 0xffff; /* RFC 768: 0 means that there is none */
	memcpy(hdr, &uh, sizeof(uh));
	return sizeof(uh);
}

/* put_echo() - The ICMP header that the kernel gave, or was given, with the
 * identifier that the socket has */
static uint32_t put_echo(uint8_t *hdr, uint16_t id, struct packet_data *data,
			 struct iovec *rest, uint64_t sum)
{
	struct icmp_hdr echo;

	memcpy(&echo, data->iov[0].iov_base, sizeof(echo));
	echo.id = htons(id);
	echo.check = 0;
	rest->iov_base = (uint8_t *)data->iov[0].iov_base + sizeof(echo);
	rest->iov_len = data->len - sizeof(echo);
	data->iov = rest;
	data->len -= (uint32_t)sizeof(echo);
	echo.check = finish_sum(data, csum_add(&echo, sizeof(echo), sum));
	memcpy(hdr, &echo, sizeof(echo));
	return sizeof(echo);
}

/* our_addr() - Our address of a side; an unspecified one is of its peer's family */
static union inany our_addr(const struct flowside *s)
{
	union inany ours = s->oaddr;

	if (inany_is_any(&ours) && inany_is_v4(&s->eaddr))
		inany_from_v4(&ours, (struct in_addr){ 0 });
	return ours;
}

uint32_t packet_header(uint8_t *hdr, const struct flowside *s, uint8_t proto,
		       bool out, struct packet_data *data, struct iovec *rest)
{
	union inany ours = our_addr(s);
	const union inany *src = out ? &ours : &s->eaddr;
	const union inany *dst = out ? &s->eaddr : &ours;
	uint16_t from = out ? s->oport : s->eport;
	uint16_t to = out ? s->eport : s->oport;
	bool tcp = proto == IPPROTO_TCP;
	bool ping = proto != IPPROTO_UDP && !tcp;
	uint32_t l4 = tcp ? tcp_len(data) : sizeof(struct udp_hdr);
	uint32_t len = ping ? data->len : l4 + data->len;
	uint32_t at = ip_header(hdr, src, dst, proto, len, HDR_TTL);
	uint64_t sum = 0;

	if (proto != IPPROTO_ICMP)
		sum = csum_pseudo(src, dst, proto, len);
	if (ping)
		return at + put_echo(hdr + at, s->eport, data, rest, sum);
	return at + (tcp ? put_tcp(hdr + at, from, to, data, sum) :
			   put_udp(hdr + at, from, to, data, sum));
}

uint8_t *packet_block_begin(uint8_t *to, const struct packet_about *about)
{
	struct block_hdr hdr = {
		.type = BLOCK_PACKET,
		.interface = about->interface,
		.time_high = (uint32_t)(about->time_ns >> 32),
		.time_low = (uint32_t)about->time_ns,
		.captured = about->captured,
		.length = about->length,
	};

	memcpy(to, &hdr, sizeof(hdr));
	return to + sizeof(hdr);
}

/* put_option() - Append an option, padded; returns what is behind it */
static uint8_t *put_option(uint8_t *to, uint16_t code, const void *value,
			   uint16_t len)
{
	uint16_t head[2] = { code, len };

	memcpy(to, head, sizeof(head));
	to += sizeof(head);
	memset(to + ROUND_DOWN(len, 4), 0, len % 4 ? 4 : 0);
	memcpy(to, value, len);
	return to + ROUND_DOWN(len + 3, 4);
}

uint32_t packet_block_end(uint8_t *to, const struct packet_about *about)
{
	uint32_t len = about->captured, flags = about->out ? 2 : 1, total;
	uint8_t *at = to + sizeof(struct block_hdr) + len;
	char text[64] = "no flow";
	int size = (int)strlen(text);

	memset(at, 0, -len & 3);
	at += -len & 3;
	if (about->flow_id != FILTER_NO_FLOW)
		size = snprintf(text, sizeof(text), "flow %llu rule %u",
				(unsigned long long)about->flow_id,
				about->rule);
	at = put_option(at, OPT_FLAGS, &flags, sizeof(flags));
	at = put_option(at, OPT_COMMENT, text, (uint16_t)size);
	at = put_option(at, OPT_END, "", 0);
	total = (uint32_t)(at + sizeof(total) - to);
	memcpy(at, &total, sizeof(total));
	memcpy(to + offsetof(struct block_hdr, total), &total, sizeof(total));
	return total;
}
